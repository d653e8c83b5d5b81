"""Many runs of a config, each with settings of its own: needs the extra ``[sweep]``."""

from lightning_attractors.sweeps.filters import SharedFilters
from lightning_attractors.sweeps.plan import DirectionName, Plan, SamplerName, usual_direction
from lightning_attractors.sweeps.report import Report, in_words, write_report
from lightning_attractors.sweeps.runs import TrialRun
from lightning_attractors.sweeps.space import Choice, Range, Space, Value, flags, read_space
from lightning_attractors.sweeps.storage import open_storage, storage_errors
from lightning_attractors.sweeps.study import Attempt, Outcome, Settled, SharedStudy, read_settled

__all__ = [
    "Attempt",
    "Choice",
    "DirectionName",
    "Outcome",
    "Plan",
    "Range",
    "Report",
    "SamplerName",
    "Settled",
    "SharedFilters",
    "SharedStudy",
    "Space",
    "TrialRun",
    "Value",
    "flags",
    "in_words",
    "open_storage",
    "read_settled",
    "read_space",
    "storage_errors",
    "usual_direction",
    "write_report",
]

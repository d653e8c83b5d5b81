"""What may change when a run goes on, and what may not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from lightning_attractors.errors import SettingError, require

_SECTIONS = ("seed_everything", "model", "data", "checkpoint")
_OF_TRAINER = (
    *("filter_epochs", "filter_batch_size", "filter_precision", "patch_fraction"),
    *("gradient_clip_val", "gradient_clip_algorithm", "accumulate_grad_batches"),
)
# Of data: where images are, and how they get here, but not what they are.
_FREE_OF_DATA = {
    "root",
    "download",
    "verify_checksums",
    "num_workers",
    "in_memory",
    "pin_memory",
    "eval_batch_size",
}
_DIFFERS = "differs from the checkpoint's"
# What schedulers add to the groups of an optimiser.
_OF_SCHEDULERS = {"initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr"}


def require_same_settings(before: Mapping[str, Any], now: Mapping[str, Any], run: str) -> None:
    """Refuse to go on with other settings of model, optimiser, data, seed, checkpoint or filter phase.

    Gradients are clipped and accumulated as before, too. Everything else may change: limits of the
    training, devices, precision, callbacks, loggers.

    Args:
        before: the config of the run, as it was saved.
        now: the config that was given, in the same form.
        run: what to call the run in a message.

    Raises:
        SettingError: naming all that differ.
    """
    found = _changed(_SECTIONS, before, now)
    trainers = [config.get("trainer") or {} for config in (before, now)]
    for name in _OF_TRAINER:
        old, new = (trainer.get(name) for trainer in trainers)
        found += [(f"trainer.{name}", old, new)] if old != new and all(name in t for t in trainers) else []
    if found:
        name, old, new = found[0]
        more = "".join(f"; {other} too: {given!r}, not {kept!r}" for other, kept, given in found[1:])
        problem = f"must be {old!r}, as in {run}, which goes on{more}; a run with other settings is a new one"
        raise SettingError(name, new, problem)


def other_than_trained(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In which settings of model and data an evaluation differs from the run, in words; empty if in none."""
    found = _changed(("model", "data"), before, now)
    return ", ".join(f"{name}={new!r} (trained with {old!r})" for name, old, new in found)


def _changed(
    sections: Iterable[str], before: Mapping[str, Any], now: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    found = [
        (_shown(name), old, new)
        for section in sections
        for name, old, new in _differences(section, _named(before.get(section)), _named(now.get(section)))
    ]
    return [one for one in found if one[0].removeprefix("data.") not in _FREE_OF_DATA]


def _named(value: Any) -> Any:
    """A part of a config with the classes of this package by their names: their paths are several."""
    if isinstance(value, list):
        return [_named(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    named = {key: _named(item) for key, item in value.items()}
    path = named.get("class_path")
    if isinstance(path, str) and path.startswith("lightning_attractors."):
        named["class_path"] = path.rpartition(".")[2]
    return named


def _differences(name: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name and both values of every setting that differs."""
    both = isinstance(old, Mapping) and isinstance(new, Mapping)
    if not both or old.get("class_path") != new.get("class_path"):
        if old != new:
            yield name, _brief(old), _brief(new)
        return
    # One that a class, or this package, has in one version only is no difference
    versioned = name.endswith(".init_args") or name in _SECTIONS
    for key in [*old, *(key for key in new if key not in old)]:
        if (key in old and key in new) or not versioned:
            yield from _differences(f"{name}.{key}", old.get(key), new.get(key))


def _brief(value: Any) -> Any:
    """A class by its path alone."""
    return value["class_path"] if isinstance(value, Mapping) and "class_path" in value else value


def _shown(name: str) -> str:
    """A setting's name as the user writes it."""
    return name.replace(".init_args", "")


class SameOptimizer(Callback):
    """Refuses to give an optimiser the state of another kind of optimiser, which would fail as it steps."""

    def __init__(self) -> None:
        self._saved: list[Any] | None = None

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._saved = checkpoint.get("optimizer_states", [])

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        saved, self._saved = self._saved, None
        if saved is None:
            return
        valid = f"must be as many as the checkpoint has states of: {len(saved)}"
        require(len(saved) == len(trainer.optimizers), "optimizers", len(trainer.optimizers), valid)
        for optimizer, state in zip(trainer.optimizers, saved, strict=True):
            name = type(optimizer).__name__
            for groups, kept in _pairs(optimizer.state_dict(), state):
                sizes = [[len(group.get("params", ())) for group in side] for side in (groups, kept)]
                valid = f"{_DIFFERS}: its groups have {sizes[1]} parameters, not {sizes[0]}"
                require(sizes[0] == sizes[1], "optimizer", name, valid)
                for group, other in zip(groups, kept, strict=True):
                    lacks, has = (one.keys() - two.keys() for one, two in ((group, other), (other, group)))
                    same = not (lacks - _OF_SCHEDULERS and has - _OF_SCHEDULERS)
                    valid = f"{_DIFFERS}, whose state has {', '.join(sorted(has))}"
                    require(same, "optimizer", name, valid)


def _pairs(state: Mapping[str, Any], saved: Mapping[str, Any]) -> Iterator[tuple[list[Any], list[Any]]]:
    """The parameter groups of both, member by member."""
    if "members" in state:
        members = saved.get("members", [])
        require(len(members) == len(state["members"]), "optimizers", len(state["members"]), _DIFFERS)
        for one, other in zip(state["members"], members, strict=True):
            yield one["param_groups"], other.get("param_groups", [])
    else:
        require("members" not in saved, "optimizers", 1, _DIFFERS)
        yield state["param_groups"], saved.get("param_groups", [])

"""How a classifier, any classifier, withstands changed images; plain torch."""

from lightning_attractors.robustness.attacks import (
    FGSM,
    PGD,
    AdversarialRadii,
    Choice,
    GradientAttack,
    Logits,
    Square,
    Strength,
    fgsm_radii,
    make_attacks,
    pgd_radii,
    register_attack,
)
from lightning_attractors.robustness.corruptions import (
    CORRUPTIONS,
    Corruption,
    add_uniform,
    brightness,
    gaussian_blur,
    gaussian_noise,
    replace_pixels,
    resize,
)
from lightning_attractors.robustness.curves import CorruptionCurve, corruption_curve
from lightning_attractors.robustness.drawings import draw
from lightning_attractors.robustness.files import write_report, write_result
from lightning_attractors.robustness.findings import BrokenCertificateError, Report, Result
from lightning_attractors.robustness.kept_votes import KeptVotes
from lightning_attractors.robustness.lines import (
    attack_of,
    certified_figures,
    images_of,
    result_line,
    scalars,
    verdict,
    without_fit,
)
from lightning_attractors.robustness.logistic import (
    LogisticFit,
    difference_interval,
    fit_logistic,
    relative_accuracy,
)
from lightning_attractors.robustness.masking import MaskingCheck, check_masking, clearly_more
from lightning_attractors.robustness.measure import measure, refuse_names_of_certificates
from lightning_attractors.robustness.randomness import unchanged_random_numbers
from lightning_attractors.robustness.rehearsal import rehearse
from lightning_attractors.robustness.report import AttackReport, CertificateReport
from lightning_attractors.robustness.settings import Certificate, MeasureSettings, Share
from lightning_attractors.robustness.smoothed import SMOOTHED, SmoothedReport
from lightning_attractors.robustness.smoothing import (
    SmoothedRadii,
    Smoothing,
    Vote,
    VoteMemory,
    lower_bound,
    smoothed_radii,
)
from lightning_attractors.robustness.spectral import SpectralProbe, robust_fraction
from lightning_attractors.robustness.summaries import versions
from lightning_attractors.robustness.usual import usual_among, usual_strengths

__all__ = [
    "CORRUPTIONS",
    "FGSM",
    "PGD",
    "SMOOTHED",
    "AdversarialRadii",
    "AttackReport",
    "BrokenCertificateError",
    "Certificate",
    "CertificateReport",
    "Choice",
    "Corruption",
    "CorruptionCurve",
    "GradientAttack",
    "KeptVotes",
    "LogisticFit",
    "Logits",
    "MaskingCheck",
    "MeasureSettings",
    "Report",
    "Result",
    "Share",
    "SmoothedRadii",
    "SmoothedReport",
    "Smoothing",
    "SpectralProbe",
    "Square",
    "Strength",
    "Vote",
    "VoteMemory",
    "add_uniform",
    "attack_of",
    "brightness",
    "certified_figures",
    "check_masking",
    "clearly_more",
    "corruption_curve",
    "difference_interval",
    "draw",
    "fgsm_radii",
    "fit_logistic",
    "gaussian_blur",
    "gaussian_noise",
    "images_of",
    "lower_bound",
    "make_attacks",
    "measure",
    "pgd_radii",
    "refuse_names_of_certificates",
    "register_attack",
    "rehearse",
    "relative_accuracy",
    "replace_pixels",
    "resize",
    "result_line",
    "robust_fraction",
    "scalars",
    "smoothed_radii",
    "unchanged_random_numbers",
    "usual_among",
    "usual_strengths",
    "verdict",
    "versions",
    "without_fit",
    "write_report",
    "write_result",
]

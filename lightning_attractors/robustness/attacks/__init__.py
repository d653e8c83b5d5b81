"""Attacks: along a gradient, of other libraries, or one's own; and the search for adversarial radii.

An attack is a callable ``(logits_fn, images, labels, strength) -> images``, and nothing more is asked of it.
"""

from lightning_attractors.robustness.attacks.base import GradientAttack, Logits, Strength
from lightning_attractors.robustness.attacks.calls import CallableAttack, CorruptionAttack
from lightning_attractors.robustness.attacks.classifier import Classifier
from lightning_attractors.robustness.attacks.fgsm import FGSM, fgsm_radii
from lightning_attractors.robustness.attacks.pgd import PGD, pgd_radii
from lightning_attractors.robustness.attacks.radii import AdversarialRadii
from lightning_attractors.robustness.attacks.registry import Choice, make_attacks, register_attack
from lightning_attractors.robustness.attacks.square import Square
from lightning_attractors.robustness.attacks.torchattacks_bridge import LibraryAttack
from lightning_attractors.robustness.attacks.trials import Outcome, RadiusSearch, StrengthSweep, Trial

__all__ = [
    "FGSM",
    "PGD",
    "AdversarialRadii",
    "CallableAttack",
    "Choice",
    "Classifier",
    "CorruptionAttack",
    "GradientAttack",
    "LibraryAttack",
    "Logits",
    "Outcome",
    "RadiusSearch",
    "Square",
    "Strength",
    "StrengthSweep",
    "Trial",
    "fgsm_radii",
    "make_attacks",
    "pgd_radii",
    "register_attack",
]

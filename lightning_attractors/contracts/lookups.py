"""Who keeps which contract: where attributes are looked up by their names, as in no other room."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from torch import Tensor, nn

from lightning_attractors.contracts.protocols import (
    FilterPhase,
    FoundTraps,
    HasFrozenPart,
    HasTubes,
    LearnsFilters,
    PhasedTrainer,
    Pictured,
    ServesFeatures,
)
from lightning_attractors.errors import SettingError, require
from lightning_attractors.norms import NORMS, NormName


def _has(thing: Any, *names: str) -> bool:
    return all(hasattr(thing, name) for name in names)


def _method(thing: Any, name: str, *arguments: str) -> Callable[..., Any] | None:
    """A method that can be called with so many arguments, or None where there is none of that name.

    Raises:
        SettingError: if it cannot be called with them.
    """
    method = getattr(thing, name, None)
    if method is None:
        return None
    valid = f"{type(thing).__name__}'s must be a method that takes ({', '.join(arguments)})"
    require(callable(method), name, type(method).__name__, valid)
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):  # of a builtin: only a call could tell
        return cast(Callable[..., Any], method)
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise SettingError(name, str(signature), valid) from error
    return cast(Callable[..., Any], method)


Box = tuple[float, float]


@dataclass(frozen=True)
class Certificate:
    """What a module that is :class:`~lightning_attractors.contracts.Certified` proves of images.

    Attributes:
        norm: the norm of its radii.
        certify: its ``certified_radii``.
        box: the ends between which all entries of an input lie of which the radii speak; None if the module
            does not say, and they are of images in [0, 1].
    """

    norm: NormName
    certify: Callable[[Tensor, Tensor], Tensor]
    box: Box | None = None

    def radii(self, images: Tensor, labels: Tensor) -> Tensor:
        """Radii (B,), float64, on the CPU, of images (B, C, H, W) and labels (B,).

        Raises:
            SettingError: as :func:`checked_radii`, or as the module does where it has no certificate.
        """
        return checked_radii(self.certify(images, labels), labels)


def checked_radii(radii: Any, labels: Tensor) -> Tensor:
    """What a module's ``certified_radii`` gave for labels (B,): shape (B,), float64, on the CPU.

    Apart from the call, so that who asks can tell a module without a certificate, which says why, from one
    that breaks the contract.

    Raises:
        SettingError: if it is something else than one number for every image.
    """
    shape = tuple(radii.shape) if isinstance(radii, Tensor) else type(radii).__name__
    valid = f"must give radii of shape {tuple(labels.shape)}, none of them nan"
    fits = isinstance(radii, Tensor) and radii.shape == labels.shape and not bool(radii.isnan().any())
    require(fits, "certified_radii", shape, valid)
    return radii.detach().double().cpu()


def certified_norm(module: Any) -> NormName:
    """The norm of a module's certified radii; L∞ if it does not say.

    Raises:
        SettingError: if it is unknown.
    """
    norm = getattr(module, "certified_norm", "linf")
    require(isinstance(norm, str) and norm in NORMS, "certified_norm", norm, "must be linf or l2")
    return cast(NormName, norm)


def certified_box(module: Any) -> Box | None:
    """The box of which a module's certified radii speak, or None if it does not say.

    Raises:
        SettingError: if it is something else than two numbers, the smaller one first.
    """
    box = getattr(module, "certified_box", None)
    if box is None:
        return None
    numbers = isinstance(box, tuple | list) and len(box) == 2 and all(isinstance(e, int | float) for e in box)
    valid = "must be (low, high), the ends that pixels lie between"
    require(numbers and box[0] < box[1], "certified_box", box, valid)
    return float(box[0]), float(box[1])


def certificate_of(module: Any) -> Certificate | None:
    """A module's certificate, or None where it has no ``certified_radii``.

    Raises:
        SettingError: if ``certified_radii`` does not take images and labels, the norm is unknown, or the box
            is none.
    """
    norm, certify = certified_norm(module), _method(module, "certified_radii", "images", "labels")
    return None if certify is None else Certificate(norm, certify, certified_box(module))


def equilibria_of(module: Any) -> Callable[[], Tensor] | None:
    """Gives a module's equilibria (K, N).

    Raises:
        SettingError: if its ``equilibria`` takes arguments.
    """
    return _method(module, "equilibria")


def vector_field_of(module: Any) -> Callable[[Tensor], Tensor] | None:
    """A module's vector field.

    Raises:
        SettingError: if it does not take states.
    """
    return _method(module, "vector_field", "x")


def step_map_of(module: Any) -> Callable[[Tensor], Tensor] | None:
    """A module's step map.

    Raises:
        SettingError: if it does not take states.
    """
    return _method(module, "step_map", "x")


def gain_bounds_of(module: Any) -> Callable[[], Mapping[str, float]] | None:
    """Gives a module's gain bounds by name.

    Raises:
        SettingError: if its ``gain_bounds`` takes arguments.
    """
    return _method(module, "gain_bounds")


def traps_of(module: Any) -> Callable[[], FoundTraps] | None:
    """Gives a module's traps.

    Raises:
        SettingError: if its ``traps`` takes arguments.
    """
    return _method(module, "traps")


def tubes_of(module: Any) -> HasTubes | None:
    """A module that follows tubes, or None for another.

    Raises:
        SettingError: if its ``tubes`` does not take images and radii.
    """
    kept = _method(module, "tubes", "images", "radii") is not None
    return cast(HasTubes, module) if kept else None


def divergence_hint(module: Any) -> str:
    """What to change when a module's loss is not finite: its weights, if they were loaded and are not."""
    hint = str(getattr(module, "divergence_hint", "lower the learning rate"))
    parameters = module.named_parameters() if isinstance(module, nn.Module) else ()
    bad = next((name for name, weight in parameters if not bool(weight.detach().isfinite().all())), None)
    return hint if bad is None else f"{bad} is not finite: load other weights if it was loaded, else {hint}"


def monitored(module: Any) -> tuple[str | None, Literal["max", "min"]]:
    """The metric that chooses a module's best checkpoint, if it names one, and whether it is to rise."""
    mode: Literal["max", "min"] = "min" if getattr(module, "monitor_mode", "max") == "min" else "max"
    return getattr(module, "monitor", None), mode


def pictured(module: Any, setting: str) -> Pictured:
    """A module whose dynamics can be drawn.

    Raises:
        SettingError: under the name ``setting``, if it lacks ``equilibria``, ``states`` or ``dt``.
    """
    for name in ("equilibria", "states", "dt"):
        valid = f"has no {name}; take it off the callbacks"
        require(_has(module, name), setting, type(module).__name__, valid)
    return cast(Pictured, module)


def observable_of(module: Any) -> tuple[Callable[[Tensor], Tensor], str]:
    """What is shown of a module's states, and its name: the states themselves if it does not say."""
    label: str = getattr(module, "observable_label", "$x_i(t)$")
    return getattr(module, "observable", lambda states: states), label


def mse_over_time(module: Any) -> Tensor | None:
    """A module's MSE(t) over the test images, if it keeps one."""
    curve: Tensor | None = getattr(module, "mse_over_time", lambda: None)()
    return curve


def coupling_of(module: Any) -> tuple[Any, float | None]:
    """A module's coupling with ``eigenvalues()``, and the bound that they are kept below; None for none."""
    return getattr(module, "coupling", None), getattr(module, "eigenvalue_bound", None)


def is_noisy(module: Any) -> bool:
    """Whether a module's states take a ``realisation`` of noise."""
    return bool(getattr(module, "is_noisy", False))


def evaluates_alone(module: Any) -> bool:
    """Whether a module says that steps of its evaluation neither wait for others nor log with sync_dist."""
    return bool(getattr(module, "evaluates_alone", False))


def norm_exponent(module: Any) -> float | None:
    """The exponent p of the norm of a module's filters, if it says."""
    p = getattr(module, "p", None)
    return None if p is None else float(p)


def currents_of(module: Any) -> Callable[[Tensor], Tensor] | None:
    """Gives the currents of a module's filters.

    Raises:
        SettingError: if its ``currents`` does not take images.
    """
    return _method(module, "currents", "images")


def filter_learner(module: Any) -> LearnsFilters | None:
    """A module that learns filters by itself, or None for another.

    Raises:
        SettingError: if it has a ``filter_phase`` without ``save_filters(path)``.
    """
    if not _has(module, "filter_phase"):
        return None
    saved = _method(module, "save_filters", "path") is not None
    valid = "must come with save_filters(path), for the end of the filter phase"
    require(saved, "filter_phase", type(module).__name__, valid)
    return cast(LearnsFilters, module)


def phase_of(module: Any) -> FilterPhase | None:
    """The phase in which a module's filters are learning, or None if they are not."""
    phase: FilterPhase | None = getattr(module, "filter_phase", None)
    return phase


def frozen_part(module: Any) -> HasFrozenPart | None:
    """A module of which a part is frozen, or None for another.

    Raises:
        SettingError: if its ``frozen_features`` does not take images.
    """
    kept = _method(module, "frozen_features", "images") is not None
    return cast(HasFrozenPart, module) if kept else None


def feature_server(loader: Any) -> ServesFeatures | None:
    """The training set behind a loader, if it can serve features, or None."""
    dataset = getattr(loader, "dataset", None)
    return cast(ServesFeatures, dataset) if _has(dataset, "is_random", "__getitems__") else None


def phases_of(trainer: Any) -> PhasedTrainer | None:
    """A trainer with a phase in which filters learn, or None for another."""
    names = ("filter_epochs", "learns_filters", "train_batch_size", "classifier_epochs")
    return cast(PhasedTrainer, trainer) if _has(trainer, *names) else None


def best_weights(trainer: Any) -> str:
    """The file that a trainer's checkpoint callback takes for the best, or an empty string.

    Only a file in the callback's own folder: it may have the path from a checkpoint that somebody else wrote.
    """
    path = str(getattr(trainer.checkpoint_callback, "best_model_path", ""))
    folder = getattr(trainer.checkpoint_callback, "dirpath", None)
    own = folder is None or Path(path).resolve().is_relative_to(Path(folder).resolve())
    return path if path and own else ""


def gradient_scaler(trainer: Any) -> Any:
    """What scales gradients in float16, or None: not every precision of Lightning's has the attribute."""
    return getattr(trainer.precision_plugin, "scaler", None)


def awaits_length(scheduler: Any) -> bool:
    """Whether a schedule spans the training and is to be told its length, as ``total_steps``."""
    return getattr(scheduler, "total_steps", 0) is None


def watched_metric(scheduler: Any) -> str | None:
    """The metric that a scheduler such as Lightning's ``ReduceLROnPlateau`` watches, or None."""
    metric: str | None = getattr(scheduler, "monitor", None)
    return metric


def name_of(function: Any) -> str:
    """What to call a callable in a message."""
    return str(getattr(function, "__name__", type(function).__name__))


def takes_figures(logger: Any) -> Callable[[str, Any, int], Any] | None:
    """How to send a logger a figure of matplotlib: by name, itself and the step; None for no way.

    TensorBoard's loggers add figures to their ``experiment``, Weights & Biases' take ``log_image``, MLflow's
    ``experiment`` keeps them as files of the run, Comet's under their names.
    """
    experiment: Any = getattr(logger, "experiment", None)
    if _has(experiment, "add_figure"):
        return lambda name, figure, step: experiment.add_figure(name, figure, global_step=step)
    if _has(logger, "log_image"):
        return lambda name, figure, step: logger.log_image(key=name, images=[figure], step=step)
    if not _has(experiment, "log_figure"):
        return None
    if _has(logger, "run_id"):
        return lambda name, figure, step: experiment.log_figure(logger.run_id, figure, f"{name}.png")
    return lambda name, figure, step: experiment.log_figure(figure_name=name, figure=figure, step=step)

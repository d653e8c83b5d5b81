"""A certificate of a model's stability, while it trains and when it is done."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from lightning_attractors.callbacks.equilibria import (
    draw_spectra,
    finite_or_none,
    spectral_scalars,
    summarize,
    verdict,
)
from lightning_attractors.callbacks.exact_twin import exact, exact_arithmetic, exact_twin
from lightning_attractors.callbacks.output import (
    class_names,
    keep_figure,
    log_figure,
    log_scalars,
    run_folder,
    write_atomically,
)
from lightning_attractors.callbacks.traps import TrapReport, look_for_traps
from lightning_attractors.certificates import EquilibriumCertificate, certify_equilibria, check_maps
from lightning_attractors.contracts import (
    equilibria_of,
    gain_bounds_of,
    step_map_of,
    traps_of,
    vector_field_of,
)
from lightning_attractors.errors import SettingError, require

Violation = Literal["warn", "stop", "raise"]
# How to find what a module has of its own.
_OWN: dict[str, Callable[[nn.Module], Callable[..., Tensor] | None]] = {
    "equilibria": equilibria_of,
    "vector_field": vector_field_of,
    "step_map": step_map_of,
}


class UnstableError(RuntimeError):
    """An equilibrium is not certified stable or a gain bound not finite; ``on_violation`` is ``raise``."""


class StabilityCertificate(Callback):
    """Certifies a model's stability in float64, by its equilibria or its gain, and writes ``stability.json``.

    **Equilibria.** The module needs ``equilibria() -> (K, N)`` and ``vector_field(x)`` for states of shape
    (B, N); a ``step_map(x)`` is certified too where it exists. A module without them is served by the
    callables here. Reported for every equilibrium: residual, spectral abscissa of the flow's Jacobian,
    spectral radius of the step map's, return time, both eigenvalue error bounds, and whether it is certified
    stable; of more than 1024 nodes the first three may be upper bounds. Eigenvalues are proved for the
    Jacobian in float64; that it is the Jacobian, and that there is an equilibrium, rests on evaluations of
    the maps at random points about it (:mod:`~lightning_attractors.certificates.equilibria`). The spectra go
    to the loggers and, at the end, to ``figures/spectra.{png,pdf}``.

    **Gain.** The module needs ``gain_bounds()``, which gives numbers by name that bound how much it can
    amplify a change of its input. They stand in ``stability.json`` under ``gain_bounds``; one that is not
    finite bounds nothing, and counts like an equilibrium that is not certified.

    **Traps.** With ``traps`` a module that has ``traps()``, as the attractor models have, is asked for them
    at the end of fit and of test: for every attractor the radius of a ball whose states come back, nearer
    than before, for ever (:mod:`~lightning_attractors.certificates.traps`). They stand beside the other
    figures of the attractor; where none can be looked for, ``traps`` says why.

    All numbers go to the loggers as scalars ``stability/<name>``, and to ``stability.json`` in the run's
    folder: the trainer's ``log_dir`` or, without a logger, its ``default_root_dir``. A test by the same
    trainer writes over what its fit has left. Both end with the verdict in a line of the log.

    But for the traps, which are of the float32 numbers that run, they are computed from a float64 copy of the
    module on the CPU, outside autocast, on rank 0: they speak of the maps in exact arithmetic, about whose
    fixed points lower precision adds its rounding.

    Args:
        every_n_epochs: how often to certify while training, at least 1; the end of fit and test is always
            certified.
        on_violation: what to do when an equilibrium is not certified or a gain bound not finite: ``warn``,
            ``stop`` training or ``raise``.
        tolerance: largest ‖x − x*‖ / (1 + ‖x*‖) at which x* counts as the equilibrium x, above 0.
        equilibria: takes the module, gives its equilibria (K, N).
        vector_field: takes the module and states (B, N), gives F of the same shape.
        step_map: takes the module and states (B, N), gives the states after one step.
        traps: whether to look for traps: for 5 attractors of 49 nodes that takes about a minute on one core.

    Attributes:
        certificates: the newest certificates, one per equilibrium; None before the first.
        gain_bounds: the newest gain bounds by name; None before the first.
        trap_report: the newest traps; None before the first.

    Raises:
        SettingError: before training or testing, if a setting is out of range, the module has neither
            equilibria nor gain bounds, or a trial of them in float64 shows that they cannot be certified.
        UnstableError: if an equilibrium is not certified or a gain bound not finite, and ``on_violation`` is
            ``raise``.
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        on_violation: Violation = "warn",
        tolerance: float = 1e-6,
        equilibria: Callable[[L.LightningModule], Tensor] | None = None,
        vector_field: Callable[[L.LightningModule, Tensor], Tensor] | None = None,
        step_map: Callable[[L.LightningModule, Tensor], Tensor] | None = None,
        traps: bool = False,
    ) -> None:
        require(every_n_epochs >= 1, "every_n_epochs", every_n_epochs, "must be at least 1")
        require(
            on_violation in ("warn", "stop", "raise"),
            "on_violation",
            on_violation,
            "must be warn, stop or raise",
        )
        require(tolerance > 0, "tolerance", tolerance, "must be above 0")
        self.every_n_epochs, self.on_violation, self.tolerance = every_n_epochs, on_violation, tolerance
        self._callables: dict[str, Callable[..., Tensor] | None] = {
            "equilibria": equilibria,
            "vector_field": vector_field,
            "step_map": step_map,
        }
        self.traps = traps
        self._certified_step = -1
        self.certificates: list[EquilibriumCertificate] | None = None
        self.gain_bounds: dict[str, float] | None = None
        self.trap_report: TrapReport | None = None

    @property
    def verdict(self) -> str:
        """How many equilibria are certified stable, and the worst figures; empty without certificates."""
        return verdict(self.certificates) if self.certificates else ""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        maps, gain = self._maps(pl_module), gain_bounds_of(pl_module)
        missing = [name for name in ("equilibria", "vector_field") if maps[name] is None]
        if missing and not (len(missing) == 2 and gain is not None):
            raise SettingError(
                f"StabilityCertificate.{missing[0]}",
                None,
                f"{type(pl_module).__name__} has no {missing[0]}(), so give the callback a callable for it, "
                "or the module gain_bounds()",
            )
        own = traps_of(pl_module) and equilibria_of(pl_module) and self._callables["equilibria"] is None
        valid = f"must be false: {type(pl_module).__name__} has no traps() of equilibria() of its own"
        require(bool(own) or not self.traps, "StabilityCertificate.traps", self.traps, valid)

    def _maps(self, module: nn.Module) -> dict[str, Callable[..., Tensor] | None]:
        """What the callback was given, or else the module has, of equilibria and maps.

        Raises:
            SettingError: if one of the module's own cannot be called as it has to be.
        """
        return {name: self._given(name, module) or find(module) for name, find in _OWN.items()}

    def _given(self, name: str, module: nn.Module) -> Callable[..., Tensor] | None:
        given = self._callables[name]
        return None if given is None else lambda *states: given(module, *states)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._certified_step = -1
        self.certificates = self.gain_bounds = self.trap_report = None
        self._rehearse(pl_module)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._rehearse(pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._certify(trainer, pl_module, "fit")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.traps or self._certified_step != trainer.global_step:
            self._certify(trainer, pl_module, "fit", self.traps)
        self._conclude(trainer, "fit")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._certify(trainer, pl_module, "test", self.traps)
        self._conclude(trainer, "test")

    def _conclude(self, trainer: L.Trainer, stage: str) -> None:
        """Leave the picture, and the verdict in a line."""
        folder = run_folder(trainer)
        if self.certificates is not None:  # on rank 0
            keep_figure(trainer, folder, "spectra", draw_spectra(self.certificates, class_names(trainer)))
        found = [f"certified stable {self.verdict}"] if self.certificates else []
        if self.gain_bounds:
            found.append("gain bounds " + ", ".join(f"{k} {v:.4g}" for k, v in self.gain_bounds.items()))
        found += [f"traps {self.trap_report}"] if self.trap_report else []
        where = "" if trainer.fast_dev_run else f"  {folder / 'stability.json'}"  # type: ignore[attr-defined]
        rank_zero_info(f"stability  {stage}  {'; '.join(found)}{where}")

    def _certify(
        self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str, with_traps: bool = False
    ) -> None:
        self._certified_step = trainer.global_step
        folder = run_folder(trainer)
        failures: list[str] = []
        if trainer.is_global_zero:
            report = {"stage": stage, "epoch": trainer.current_epoch, "global_step": trainer.global_step}
            if self._maps(pl_module)["equilibria"] is not None:
                report |= self._report_equilibria(trainer, pl_module, failures)
            if gain_bounds_of(pl_module) is not None:
                report |= self._report_gain(trainer, pl_module, failures)
            if with_traps:
                self._report_traps(trainer, pl_module, report)
            if not trainer.fast_dev_run:  # type: ignore[attr-defined]
                write_atomically(folder / "stability.json", json.dumps(report, indent=2) + "\n")
        failures = trainer.strategy.broadcast(failures)
        if failures:
            self._react(trainer, failures)

    def _report_equilibria(
        self, trainer: L.Trainer, module: L.LightningModule, failures: list[str]
    ) -> dict[str, Any]:
        self.certificates = self.certify(module)
        failed = [k for k, certificate in enumerate(self.certificates) if not certificate.stable]
        if failed:
            failures.append(f"equilibria {failed} are not certified stable")
        log_scalars(trainer, spectral_scalars(self.certificates))
        log_figure(trainer, "spectra", draw_spectra(self.certificates, class_names(trainer)))
        return summarize(self.certificates)

    def _report_gain(
        self, trainer: L.Trainer, module: L.LightningModule, failures: list[str]
    ) -> dict[str, Any]:
        self.gain_bounds = self.bound_gain(module)
        failed = [name for name, bound in self.gain_bounds.items() if not math.isfinite(bound)]
        if failed:
            failures.append(f"gain bounds {failed} are not finite")
        log_scalars(trainer, {f"stability/{name}": bound for name, bound in self.gain_bounds.items()})
        return {"gain_bounds": {name: finite_or_none(bound) for name, bound in self.gain_bounds.items()}}

    def _report_traps(self, trainer: L.Trainer, module: L.LightningModule, report: dict[str, Any]) -> None:
        # of the very numbers that run: the float64 copy would have a coupling of its own
        with exact_arithmetic(module.device.type):
            self.trap_report = look_for_traps(module)
        log_scalars(trainer, self.trap_report.scalars())
        self.trap_report.enter(report)

    def certify(self, module: L.LightningModule) -> list[EquilibriumCertificate]:
        """Certificates of a module's equilibria, one per equilibrium; the module is not changed.

        Raises:
            SettingError: if the equilibria have another shape than (K, N), or a map cannot be certified.
        """
        with exact_arithmetic():
            points, field, step = self._exact_maps(module)
            return certify_equilibria(points, field, step, self.tolerance)

    def bound_gain(self, module: L.LightningModule) -> dict[str, float]:
        """A module's gain bounds by name; the module is not changed."""
        with exact_arithmetic():
            bounds = gain_bounds_of(exact_twin(module).eval())
            assert bounds is not None
            return {name: float(bound) for name, bound in _attempt("gain_bounds", bounds).items()}

    def _rehearse(self, module: L.LightningModule) -> None:
        """Try everything once, so that what cannot work is said before training."""
        if self._maps(module)["equilibria"] is not None:
            with exact_arithmetic():
                check_maps(*self._exact_maps(module))
        if gain_bounds_of(module) is not None:
            self.bound_gain(module)

    def _exact_maps(
        self, module: L.LightningModule
    ) -> tuple[Tensor, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor] | None]:
        """Equilibria, vector field and step map of the float64 copy."""
        maps = self._maps(exact_twin(module).eval())
        equilibria, field, step = maps["equilibria"], maps["vector_field"], maps["step_map"]
        assert equilibria is not None
        assert field is not None
        points = _attempt("equilibria", equilibria)
        shape = tuple(points.shape) if isinstance(points, Tensor) else type(points).__name__
        fits = isinstance(points, Tensor) and points.ndim == 2 and points.numel() > 0
        valid = "must give shape (K, N), K and N at least 1"
        require(fits, "StabilityCertificate.equilibria", shape, valid)
        return exact(points).double(), _named("vector_field", field), step and _named("step_map", step)

    def _react(self, trainer: L.Trainer, failures: list[str]) -> None:
        message = f"{'; '.join(failures)} (see stability.json)"
        if self.on_violation == "raise":
            raise UnstableError(message)
        if self.on_violation == "stop":
            trainer.should_stop = True
            message += "; training stops"
        rank_zero_warn(message)


def _named(name: str, function: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
    """A map whose own errors are told as those of a setting."""

    @functools.wraps(function, updated=())
    def named(states: Tensor) -> Tensor:
        return _attempt(name, function, states)

    return named


def _attempt(name: str, function: Callable[..., Any], *states: Tensor) -> Any:
    """Call what a module or the user gave, on the float64 copy.

    Raises:
        SettingError: if it fails.
    """
    try:
        return function(*states)
    except SettingError:
        raise
    except Exception as error:
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        valid = (
            "must work on a copy of the module in float64 on the CPU, with states (B, N) in float64, under "
            "torch.func: weights that are plain attributes must be parameters or buffers"
        )
        raise SettingError(f"StabilityCertificate.{name}", told, valid) from error

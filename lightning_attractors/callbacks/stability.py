"""A certificate of stability for every equilibrium of a model, while it trains and when it is done."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor, nn

from lightning_attractors.callbacks.output import log_figure, log_scalars, run_folder, write_atomically
from lightning_attractors.certificates import EquilibriumCertificate, certify_equilibria
from lightning_attractors.errors import SettingError, require

Violation = Literal["warn", "stop", "raise"]


class UnstableError(RuntimeError):
    """An equilibrium could not be certified stable, and ``on_violation`` is ``raise``."""


class StabilityCertificate(Callback):
    """Certifies the linear stability of a model's equilibria in float64 and writes ``stability.json``.

    For every equilibrium: residual, spectral abscissa of the flow's Jacobian, spectral radius of the step
    map's, return time, both eigenvalue error bounds, and whether it is proved stable. The numbers go to the
    loggers as scalars, the spectra to TensorBoard as a figure, and everything to ``stability.json`` in the
    run's folder. It is computed from a float64 copy of the module on the CPU, outside autocast, on rank 0:
    it speaks of the maps in exact arithmetic, about whose fixed points lower precision adds its rounding.

    The module needs ``equilibria() -> (K, N)`` and ``vector_field(x)`` for states of shape (B, N); a
    ``step_map(x)`` is certified too where it exists. A module without them is served by the callables here.

    Args:
        every_n_epochs: how often to certify while training, at least 1; the end of fit and test is always
            certified.
        on_violation: what to do when an equilibrium is not certified: ``warn``, ``stop`` training or
            ``raise``.
        tolerance: largest ‖J⁻¹F(x*)‖ / (1 + ‖x*‖), the relative distance by Newton's method to where F
            vanishes, at which x* counts as an equilibrium, above 0.
        equilibria: takes the module, gives its equilibria (K, N).
        vector_field: takes the module and states (B, N), gives F of the same shape.
        step_map: takes the module and states (B, N), gives the states after one step.

    Attributes:
        certificates: the newest certificates, one per equilibrium; None before the first.

    Raises:
        SettingError: before training, if a setting is out of range or the module has no equilibria.
        UnstableError: if an equilibrium is not certified and ``on_violation`` is ``raise``.
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        on_violation: Violation = "warn",
        tolerance: float = 1e-6,
        equilibria: Callable[[L.LightningModule], Tensor] | None = None,
        vector_field: Callable[[L.LightningModule, Tensor], Tensor] | None = None,
        step_map: Callable[[L.LightningModule, Tensor], Tensor] | None = None,
    ) -> None:
        require(every_n_epochs >= 1, "every_n_epochs", every_n_epochs, "must be at least 1")
        require(
            on_violation in ("warn", "stop", "raise"),
            "on_violation",
            on_violation,
            "must be warn, stop or raise",
        )
        require(tolerance > 0, "tolerance", tolerance, "must be above 0")
        self.every_n_epochs = every_n_epochs
        self.on_violation = on_violation
        self.tolerance = tolerance
        self._callables: dict[str, Callable[..., Tensor] | None] = {
            "equilibria": equilibria,
            "vector_field": vector_field,
            "step_map": step_map,
        }
        self._certified_step = -1
        self.certificates: list[EquilibriumCertificate] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for name in ("equilibria", "vector_field"):
            if self._callables[name] is None and not hasattr(pl_module, name):
                raise SettingError(
                    f"StabilityCertificate.{name}",
                    None,
                    f"{type(pl_module).__name__} has no {name}(), so give the callback a callable for it",
                )

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._certified_step = -1
        self.certificates = None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._certify(trainer, pl_module, "fit")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._certified_step != trainer.global_step:
            self._certify(trainer, pl_module, "fit")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._certify(trainer, pl_module, "test")

    def _certify(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._certified_step = trainer.global_step
        folder = run_folder(trainer)
        failed: list[int] = []
        if trainer.is_global_zero:
            self.certificates = self.certify(pl_module)
            failed = [k for k, certificate in enumerate(self.certificates) if not certificate.stable]
            log_scalars(trainer, _scalars(self.certificates))
            log_figure(trainer, "stability/spectra", draw_spectra(self.certificates))
            origin = {"stage": stage, "epoch": trainer.current_epoch, "global_step": trainer.global_step}
            report = json.dumps({**origin, **summarize(self.certificates)}, indent=2)
            if not trainer.fast_dev_run:  # type: ignore[attr-defined]
                write_atomically(folder / "stability.json", report + "\n")
        failed = trainer.strategy.broadcast(failed)
        if failed:
            self._react(trainer, failed)

    def certify(self, module: L.LightningModule) -> list[EquilibriumCertificate]:
        """Certificates of a module's equilibria, one per equilibrium; the module is not changed."""
        # Test loops run in inference mode, whose tensors know no derivatives.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
            exact = _exact_twin(module).eval()
            functions = {name: self._bind(name, exact) for name in self._callables}
            equilibria, vector_field = functions["equilibria"], functions["vector_field"]
            assert equilibria is not None
            assert vector_field is not None
            points = _exact(equilibria())
            return certify_equilibria(points, vector_field, functions["step_map"], self.tolerance)

    def _bind(self, name: str, module: nn.Module) -> Callable[..., Tensor] | None:
        given = self._callables[name]
        if given is not None:
            return lambda *states: given(module, *states)
        own: Callable[..., Tensor] | None = getattr(module, name, None)
        return own

    def _react(self, trainer: L.Trainer, failed: list[int]) -> None:
        message = f"equilibria {failed} are not certified stable (see stability.json)"
        if self.on_violation == "raise":
            raise UnstableError(message)
        if self.on_violation == "stop":
            trainer.should_stop = True
            message += "; training stops"
        rank_zero_warn(message)


def _exact_twin(module: nn.Module) -> nn.Module:
    """A module that computes the same in float64 on the CPU, from parameters and buffers of its own.

    Unlike a deep copy it leaves the other attributes shared: a module may hold a trainer, data iterators or
    a parser's callables, which cannot be copied. Unlike ``to`` it touches nothing else: metrics move their
    own state, which is shared.
    """
    twin = copy.copy(module)
    twin._parameters = {
        name: None if value is None else nn.Parameter(_exact(value), requires_grad=False)
        for name, value in module._parameters.items()
    }
    twin._buffers = {
        name: None if value is None else _exact(value) for name, value in module._buffers.items()
    }
    children = module._modules.items()
    twin._modules = {name: None if child is None else _exact_twin(child) for name, child in children}
    if isinstance(twin, L.LightningModule):
        twin._device = torch.device("cpu")
    return twin


def _exact(value: Tensor) -> Tensor:
    dtype = torch.float64 if value.is_floating_point() else value.dtype
    return value.detach().to("cpu", dtype, copy=True)


def _scalars(certificates: list[EquilibriumCertificate]) -> dict[str, float]:
    flows = [certificate.flow for certificate in certificates]
    scalars = {
        "stability/certified": sum(certificate.stable for certificate in certificates) / len(certificates),
        "stability/abscissa": max(flow.spectrum.abscissa for flow in flows),
        "stability/residual": max(flow.residual for flow in flows),
        "stability/condition": max(flow.spectrum.condition for flow in flows),
    }
    radii = [certificate.step.spectrum.radius for certificate in certificates if certificate.step is not None]
    return {**scalars, "stability/spectral_radius": max(radii)} if radii else scalars


def summarize(certificates: list[EquilibriumCertificate]) -> dict[str, Any]:
    """The content of ``stability.json``: the verdict, the worst figures and one entry per equilibrium.

    Figures that are not finite (an error bound that could not be established) are written as null.
    """
    spectra = [certificate.flow.spectrum for certificate in certificates]
    return {
        "stable": all(certificate.stable for certificate in certificates),
        "certified": sum(certificate.stable for certificate in certificates),
        "equilibria": len(certificates),
        "worst_abscissa": _finite(max(spectrum.abscissa for spectrum in spectra)),
        "condition_of_eigenvectors": _finite(max(spectrum.condition for spectrum in spectra)),
        "attractors": [_entry(k, certificate) for k, certificate in enumerate(certificates)],
    }


def _entry(index: int, certificate: EquilibriumCertificate) -> dict[str, Any]:
    flow, step = certificate.flow, certificate.step
    entry = {
        "index": index,
        "stable": certificate.stable,
        "is_equilibrium": flow.is_fixed,
        "residual": _finite(flow.residual),
        "distance": _finite(flow.distance),
        "flow_stable": certificate.flow_is_stable,
        "spectral_abscissa": _finite(flow.spectrum.abscissa),
        "spectral_abscissa_error_bound": _finite(flow.spectrum.error_bound),
        "return_time": _finite(certificate.return_time),
    }
    if step is None:
        return entry
    return entry | {
        "step_map_stable": certificate.step_is_stable,
        "step_map_residual": _finite(step.residual),
        "spectral_radius": _finite(step.spectrum.radius),
        "spectral_radius_error_bound": _finite(step.spectrum.error_bound),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def draw_spectra(certificates: list[EquilibriumCertificate]) -> Figure:
    """Eigenvalues in the complex plane: the flow beside the axis, the step map in the unit circle."""
    has_step = any(certificate.step is not None for certificate in certificates)
    figure = Figure(figsize=(10 if has_step else 5, 4.5), layout="constrained")
    axes = figure.subplots(1, 2 if has_step else 1, squeeze=False)[0]
    for k, certificate in enumerate(certificates):
        values = certificate.flow.spectrum.eigenvalues
        axes[0].scatter(values.real, values.imag, s=9, alpha=0.6, color=f"C{k % 10}", label=str(k))
        if certificate.step is not None:
            values = certificate.step.spectrum.eigenvalues
            axes[1].scatter(values.real, values.imag, s=9, alpha=0.6, color=f"C{k % 10}")
    axes[0].axvline(0, color="black", linewidth=1)
    axes[0].set(title="Flow: stable left of the axis", xlabel="real part", ylabel="imaginary part")
    if len(certificates) <= 10:
        axes[0].legend(title="attractor", fontsize="x-small", ncols=2)
    if has_step:
        axes[1].add_patch(Circle((0, 0), 1, fill=False, color="black"))
        axes[1].set_aspect("equal", adjustable="datalim")
        axes[1].set(title="Step map: stable inside the circle", xlabel="real part")
    return figure

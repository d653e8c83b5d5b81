"""Muon: momentum whose matrices are orthogonalised before they become steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, distributed
from torch.optim import Optimizer

from lightning_attractors.errors import require
from lightning_attractors.linalg import measure_products, orthogonalize

AdjustmentName = Literal["original", "match_rms_adamw", "spectral_unclamped"]
MuonPrecision = Literal["auto", "float32", "bfloat16"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# r of matrices (O, I), as in torch.optim.Muon
_ADJUSTMENTS: dict[str, Callable[[int, int], float]] = {
    "original": lambda rows, columns: math.sqrt(max(1, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
    "spectral_unclamped": lambda rows, columns: math.sqrt(rows / columns),
}


class Muon(Optimizer):
    r"""Momentum in which all singular values of a weight matrix count alike (Jordan et al., 2024).

    With the gradient G of a matrix W of shape (O, I),

        B ← μB + (1 − μ)G,    M = (1 − μ)G + μB  (Nesterov)  or  B,
        W ← (1 − ηw)W − η r NS(M),

    NS being five steps of :func:`~lightning_attractors.linalg.orthogonalize` and r = √max(1, O/I). It is the
    rule of ``torch.optim.Muon`` with the same defaults and states that can be exchanged; but matrices are
    orthogonalised in the precision that is faster here, where that one uses bfloat16 on every machine, and
    all matrices of one shape at once.

    For matrices in hidden layers. Kernels of convolutions (O, C, h, w) count as matrices (O, C·h·w); biases
    are refused. Embeddings and first or last layers are better left to another optimiser.

    Args:
        params: parameters, or groups of them.
        lr: learning rate η, at least 0.
        weight_decay: w, at least 0.
        momentum: μ, in [0, 1).
        nesterov: whether the step looks ahead.
        ns_coefficients: a, b and c of the odd polynomial that is iterated.
        eps: Frobenius norms below count as this one.
        ns_steps: how often it is iterated, at least 1.
        adjust_lr_fn: ``original`` for r = √max(1, O/I), ``match_rms_adamw`` for r = √max(O, I) / 5,
            ``spectral_unclamped`` for r = √(O/I).
        precision: what matrices are orthogonalised in: ``float32``, ``bfloat16``, or ``auto`` for the faster
            one, measured at the first step. The state holds what was chosen, so that a run resumes with it,
            wherever it does, unless another one is named there. In this package's models ``auto`` follows the
            trainer's precision.

    Raises:
        SettingError: if a setting lies outside its range, or a parameter is no matrix.

    Example:
        >>> layer = torch.nn.Linear(3, 2, bias=False)
        >>> optimizer = Muon(layer.parameters(), lr=0.1, weight_decay=0.0)
        >>> layer(torch.ones(1, 3)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: AdjustmentName = "original",
        precision: MuonPrecision = "auto",
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": tuple(ns_coefficients),
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
            "precision": precision,
        }
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # of a checkpoint of torch.optim.Muon
            group.setdefault("precision", "auto")
            group["adjust_lr_fn"] = group["adjust_lr_fn"] or "original"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        asked = [group["precision"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, precision in zip(self.param_groups, asked, strict=True):
            if precision != "auto":
                group["precision"] = precision

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        _check(self.param_groups[-1])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; parameters without a gradient stay as they are.

        Args:
            closure: computes the loss again, if given.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["precision"] == "auto":
                group["precision"] = _faster_precision(group["params"])
            self._step(group)
        return loss

    def _step(self, group: dict[str, Any]) -> None:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        by_shape: dict[Any, list[Tensor]] = {}
        for parameter in parameters:
            by_shape.setdefault((parameter.shape, parameter.device, parameter.dtype), []).append(parameter)
        for alike in by_shape.values():
            directions = self._orthogonal(torch.stack([self._averaged(p, group) for p in alike]), group)
            rows, columns = directions.shape[1], directions[0, 0].numel()
            adjusted = group["lr"] * _ADJUSTMENTS[group["adjust_lr_fn"]](rows, columns)
            for parameter, direction in zip(alike, directions, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction, alpha=-adjusted)

    def _averaged(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """M of one parameter, and its gradient added to the average."""
        gradient: Any = parameter.grad
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        average: Tensor = state["momentum_buffer"]
        average.lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(average, group["momentum"]) if group["nesterov"] else average

    def _orthogonal(self, directions: Tensor, group: dict[str, Any]) -> Tensor:
        """NS(M) of all parameters of one shape (n, O, …)."""
        matrices = directions.flatten(2)
        with torch.autocast(matrices.device.type, enabled=False):
            near = orthogonalize(
                matrices.to(_DTYPES[group["precision"]]),
                group["ns_coefficients"],
                group["ns_steps"],
                group["eps"],
            )
        return near.to(directions.dtype).view(directions.shape)


def _faster_precision(parameters: list[Tensor]) -> MuonPrecision:
    """What the largest Gram matrix is computed faster in; the same on all processes."""
    largest = max(parameters, key=Tensor.numel)
    rows, columns = sorted((len(largest), largest[0].numel()))
    faster = measure_products((rows, columns, rows), largest.device).faster
    choice: list[MuonPrecision] = ["bfloat16" if faster == torch.bfloat16 else "float32"]
    if distributed.is_available() and distributed.is_initialized():
        distributed.broadcast_object_list(choice, src=0)
    return choice[0]


def _check(group: dict[str, Any]) -> None:
    """Check the settings and parameters of a group.

    Raises:
        SettingError: naming what cannot work.
    """
    require(0 <= group["lr"] < math.inf, "lr", group["lr"], "must be finite and at least 0")
    decay, momentum = group["weight_decay"], group["momentum"]
    require(0 <= decay < math.inf, "weight_decay", decay, "must be finite and at least 0")
    require(0 <= momentum < 1, "momentum", momentum, "must be at least 0 and below 1")
    coefficients, steps = group["ns_coefficients"], group["ns_steps"]
    require(len(coefficients) == 3, "ns_coefficients", coefficients, "must be three numbers")
    require(steps >= 1, "ns_steps", steps, "must be at least 1")
    require(group["eps"] > 0, "eps", group["eps"], "must be above 0")
    name = group["adjust_lr_fn"]
    require(name in _ADJUSTMENTS, "adjust_lr_fn", name, f"must be one of {list(_ADJUSTMENTS)}")
    precision = group["precision"]
    valid = ["auto", *_DTYPES]
    require(precision in valid, "precision", precision, f"must be one of {valid}")
    names = group.get("param_names", [f"parameter {place}" for place in range(len(group["params"]))])
    for name, parameter in zip(names, group["params"], strict=True):
        shape = f"{name} of shape {tuple(parameter.shape)}"
        is_matrix = parameter.ndim >= 2 and parameter.is_floating_point()
        require(is_matrix, "Muon", shape, "must be a matrix or a kernel; give others to another optimizer")

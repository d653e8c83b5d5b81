"""Training steps of SA-nODE and CVFR against their bare matrix products and a published algorithm."""

from __future__ import annotations

import statistics

import torch
from benchmarks.timing import Run, ratio, report, rounds
from rich.table import Table
from torch import Tensor

from lightning_attractors.models import CVFR, SANODE, AttractorClassifier

NODES, BATCH, EULER_STEPS = 784, 250, 55


def training_step(model: AttractorClassifier, dtype: torch.dtype, images: Tensor, labels: Tensor) -> Run:
    """Our training step: forward, loss, backward and Adam."""
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            states = model.final_state(images)
        loss = (states - model.attractors[labels]).square().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def bare_products(
    coupling: str, dtype: torch.dtype, euler_steps: int = EULER_STEPS, device: torch.device | None = None
) -> Run:
    """The matrix products of a training step and nothing else; for the spectral coupling its solve too."""
    states, adjoints = torch.rand(2, BATCH, NODES, dtype=dtype, device=device)
    matrix = torch.rand(NODES, NODES, dtype=dtype, device=device)
    modes = torch.linalg.qr(torch.randn(NODES, NODES, device=device)).Q.requires_grad_()
    values = torch.randn(NODES, device=device)

    def run() -> None:
        if coupling == "spectral":
            torch.linalg.solve(modes, modes * values, left=False).sum().backward()
        for _ in range(euler_steps):
            states @ matrix.T  # forward
            adjoints @ matrix  # backward, to the states
            adjoints.T @ states  # backward, to the coupling

    return run


def published_step(images: Tensor, labels: Tensor) -> Run:
    """The published algorithm: A re-formed with a matrix inverse at every Euler step, in float64."""
    model = SANODE(coupling="spectral", steps=EULER_STEPS).double()
    optimizer = torch.optim.Adam(model.parameters())
    start = images.flatten(1).double()
    planted, planted_values = model.coupling.planted_basis(), torch.zeros(10, dtype=torch.float64)

    def step() -> None:
        x = start
        for _ in range(EULER_STEPS):
            modes = torch.cat([planted, model.coupling.eigenvectors], dim=1)
            values = torch.cat([planted_values, model.coupling.trained_eigenvalues])
            matrix = modes @ torch.diag(values) @ torch.linalg.inv(modes)
            reaction = 4 * model.gamma.abs() * x * (0.25 - x * x)
            x = (x + 0.1 * (reaction + model.beta * x @ matrix.T)).clamp(-5, 5)
        loss = (x - model.attractors[labels]).square().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def batch() -> tuple[Tensor, Tensor]:
    """Random images and labels, the same ones every time."""
    torch.manual_seed(0)
    return torch.rand(BATCH, 1, 28, 28), torch.arange(BATCH) % 10


def precision_name(dtype: torch.dtype) -> str:
    """What the trainer calls it."""
    return "bf16-mixed" if dtype == torch.bfloat16 else "float32"


def sa_node(count: int) -> None:
    """Training step of SA-nODE against the published algorithm and against its bare matrix products."""
    images, labels = batch()
    kinds = [(c, d) for c in ("projected", "spectral") for d in (torch.float32, torch.bfloat16)]
    variants: dict[str, Run] = {"published": published_step(images, labels)}
    for coupling, dtype in kinds:
        model = SANODE(coupling=coupling, steps=EULER_STEPS)
        variants[f"step {coupling} {dtype}"] = training_step(model, dtype, images, labels)
        variants[f"bare {coupling} {dtype}"] = bare_products(coupling, dtype)
        again = SANODE(coupling=coupling, steps=EULER_STEPS, recompute=True)
        variants[f"again {coupling} {dtype}"] = training_step(again, dtype, images, labels)
    seconds = rounds(variants, count)
    title = f"SA-nODE training step, N={NODES}, B={BATCH}, {EULER_STEPS} Euler steps, median of {count}"
    columns = ("coupling", "precision", "step", "step / bare", "recompute / step", "published / step")
    table = Table(*columns, title=title)
    for coupling, dtype in kinds:
        step = seconds[f"step {coupling} {dtype}"]
        table.add_row(
            coupling,
            precision_name(dtype),
            f"{1e3 * statistics.median(step):.0f} ms",
            f"{ratio(step, seconds[f'bare {coupling} {dtype}']):.2f}",
            f"{ratio(seconds[f'again {coupling} {dtype}'], step):.2f}",
            f"{ratio(seconds['published'], step):.0f}",
        )
    report(table, f"published: {statistics.median(seconds['published']):.2f} s")


def cvfr(count: int) -> None:
    """Training step of CVFR with noise against the one without, and against its bare matrix products."""
    images, labels = batch()
    variants: dict[str, Run] = {}
    for dtype in (torch.float32, torch.bfloat16):
        for sigma in (0.0, 0.1):
            model = CVFR(coupling="projected", sigma=sigma)
            variants[f"{sigma} {dtype}"] = training_step(model, dtype, images, labels)
        variants[f"bare {dtype}"] = bare_products("projected", dtype, model.steps)
    seconds = rounds(variants, count)
    title = f"CVFR training step, N={NODES}, B={BATCH}, {model.steps} Euler steps, median of {count}"
    table = Table(
        "precision", "σ = 0", "σ = 0.1", "noisy / deterministic", "deterministic / bare", title=title
    )
    for dtype in (torch.float32, torch.bfloat16):
        quiet, noisy = seconds[f"0.0 {dtype}"], seconds[f"0.1 {dtype}"]
        table.add_row(
            precision_name(dtype),
            f"{1e3 * statistics.median(quiet):.0f} ms",
            f"{1e3 * statistics.median(noisy):.0f} ms",
            f"{ratio(noisy, quiet):.2f}",
            f"{ratio(quiet, seconds[f'bare {dtype}']):.2f}",
        )
    report(table)

"""Which spectral coefficients matter? ``python examples/studies/sa_node_spectrum.py RUN``.

RUN is the folder of a run of SANODE, such as ``runs/sa_node_letters/version_0``. An image is x = Φ c in the
eigenvectors of the coupling A of a trained SA-nODE (Marino et al., 2024, figures 5 and 6). Noise from
N(0, σ²) is put on a random fraction f of the coefficients, and on one coefficient at a time; drawn is the MSE
that it leaves in the steady state, in units of the attractors' ‖φ‖² = N a². Reported is the largest f up to
which the MSE has degraded by at most 5 % of that.

Writes ``spectrum.png`` and ``.pdf``, ``spectrum.json`` and the two tables ``spectrum_fractions.csv`` and
``spectrum_modes.csv`` into the folder of the run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from finished_runs import test_images, trained
from matplotlib.figure import Figure
from torch import Tensor

from lightning_attractors.figures import OTHER, PAGE, in_style, write_figure
from lightning_attractors.models import SANODE
from lightning_attractors.robustness import SpectralProbe, robust_fraction
from lightning_attractors.writing import csv_table, write_atomically

FRACTIONS = torch.arange(51, dtype=torch.float64) / 50
Curves = dict[float, Tensor]


def probe_of(run: Path, count: int) -> tuple[SANODE, SpectralProbe]:
    """The best model of a run and the probe of it, with the first test images of the run's data."""
    model = trained(run, SANODE)
    images, labels = test_images(run, count)

    def final_states(states: Tensor) -> Tensor:
        return model.final_state(states.view(-1, *model.image_shape))

    return model, SpectralProbe(
        final_states, model.coupling.modes(), images.flatten(1), model.attractors[labels]
    )


@in_style
def draw(fractions: Curves, modes: Curves, robust: dict[float, float], path: Path) -> None:
    """Both curves for every σ; the coefficients in ascending order of their error, as published."""
    figure = Figure(figsize=(PAGE, 3.0))
    left, right = figure.subplots(1, 2, sharey=True)
    for k, sigma in enumerate(fractions):
        label = f"σ = {sigma:g}: f = {robust[sigma]:.2f}"
        left.plot(FRACTIONS, fractions[sigma], color=f"C{k}", label=label)
        right.plot(modes[sigma].sort().values, color=f"C{k}", label=f"σ = {sigma:g}")
    left.set(xlabel="fraction $f$ of noisy coefficients", ylabel="MSE / $N a^2$")
    right.set(xlabel="the one noisy coefficient, by its MSE")
    for axis in (left, right):
        # States that converge leave no error but rounding
        axis.set_yscale("log")
        axis.set_ylim(bottom=1e-3)
        axis.axhline(float(next(iter(fractions.values()))[0]) + 0.05, color=OTHER, linestyle=":")
        axis.legend()
    write_figure(path, figure)


def main() -> None:
    """Probe, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a run of SANODE")
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="default: 0.5 1 2")
    parser.add_argument("--images", type=int, default=200, help="test images (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    arguments = parser.parse_args()
    run: Path = arguments.run
    model, probe = probe_of(run, arguments.images)
    scale = float(model.attractors.square().sum(dim=1).mean())
    fractions: Curves = {}
    modes: Curves = {}
    robust: dict[float, float] = {}
    for sigma in arguments.sigmas:
        generator = torch.Generator().manual_seed(arguments.seed)
        fractions[sigma] = probe.fraction_errors(sigma, FRACTIONS, generator) / scale
        modes[sigma] = probe.mode_errors(sigma, generator) / scale
        robust[sigma] = robust_fraction(FRACTIONS, fractions[sigma], scale=1.0)
        harmless = float((modes[sigma] <= fractions[sigma][0] + 0.05).double().mean())
        print(
            f"σ = {sigma:g}: f = {robust[sigma]:.2f} of the coefficients can be noisy together, "
            f"{harmless:.2f} of them one at a time"
        )
    tables = {"fractions": ("f", FRACTIONS.tolist(), fractions), "modes": ("mode", None, modes)}
    for name, (key, places, curves) in tables.items():
        rows = [
            (sigma, place, value)
            for sigma, errors in curves.items()
            for place, value in zip(places or range(len(errors)), errors.tolist(), strict=True)
        ]
        write_atomically(run / f"spectrum_{name}.csv", csv_table(("sigma", key, "mse"), rows))
    summary = {
        "robust_fraction": {f"{sigma:g}": fraction for sigma, fraction in robust.items()},
        "tolerance": 0.05,
        "unit": "N a^2",
        "images": len(probe.states),
        "seed": arguments.seed,
    }
    write_atomically(run / "spectrum.json", json.dumps(summary, indent=2))
    draw(fractions, modes, robust, run / "spectrum")


if __name__ == "__main__":
    main()

"""Accuracy against robustness over many runs: ``python examples/studies/compare_runs.py runs/*/version_*``.

Reads the JSON files that ``RobustnessCurve`` left in the runs' folders, prints a table and draws one point
per run, by model. Beside R, with its standard deviation over images, stands how far it lies below that of the
most robust run that counts: an interval of 95 %, as far as it is a matter of images. Open points do not
count: they have 500 images or fewer behind them, or R² below 0.95, or were interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from lightning_attractors.figures import PAGE, in_style, write_figure
from lightning_attractors.robustness import difference_interval


def read(folders: list[Path], attack: str) -> list[dict[str, Any]]:
    """The summaries of an attack in the folders of runs, each with its ``run``; others are passed over."""
    found = []
    for folder in folders:
        path = folder / "robustness" / f"{attack}.json"
        if path.exists():
            run = json.loads(path.read_text())
            found.append({**run, "counts": run["counts"] and run["complete"], "run": str(folder)})
    return found


def tabulate(runs: list[dict[str, Any]], attack: str) -> Table:
    """One row per run, the most robust first; those without R last, with the reason."""
    table = Table("run", "model", "accuracy", "R", "below the best", "R²", "images", "counts", title=attack)
    ordered = sorted(runs, key=lambda run: -(run["R"] or 0.0))
    best = next((run for run in ordered if run["counts"]), None)
    for run in ordered:
        fitted = run["fitted"]
        table.add_row(
            run["run"],
            run["model"],
            f"{run['accuracy']:.4f}",
            f"{run['R']:.4f} ± {run['uncertainty']:.4f}" if fitted else run["reason"],
            behind(run, best),
            f"{run['R2']:.4f}" if fitted else "",
            str(run["images"]["counted"]),
            ("yes" if run["counts"] else "no") if run["complete"] else "no, interrupted",
        )
    return table


def behind(run: dict[str, Any], best: dict[str, Any] | None) -> str:
    """How much less robust a run is than the best, as an interval of 95 %; empty where that is not known."""
    # Files from before there was a bootstrap give the fit's uncertainty alone
    if (
        best is None
        or best is run
        or not all(one["fitted"] and "fit_uncertainty" in one for one in (run, best))
    ):
        return ""
    low, high = difference_interval(best["R"], best["uncertainty"], run["R"], run["uncertainty"])
    return f"{low:.4f} to {high:.4f}"


@in_style
def draw(runs: list[dict[str, Any]], attack: str) -> Figure:
    """R, with its uncertainty, against accuracy."""
    figure = Figure(figsize=(0.7 * PAGE, 3.4))
    axis = figure.subplots()
    fitted = [run for run in runs if run["fitted"]]
    for k, model in enumerate(sorted({run["model"] for run in fitted})):
        color = f"C{k % 10}"
        axis.plot([], [], "o", color=color, label=model)
        for run in (run for run in fitted if run["model"] == model):
            axis.errorbar(
                run["accuracy"],
                run["R"],
                yerr=run["uncertainty"],
                fmt="o",
                color=color,
                markerfacecolor=color if run["counts"] else "none",
            )
    axis.set(xlabel="accuracy", ylabel=f"robustness R ({attack})")
    axis.legend()
    return figure


def main() -> None:
    """Read, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs")
    parser.add_argument("--attack", default="pgd_radius", help="which (default: pgd_radius)")
    parser.add_argument(
        "--output", type=Path, default=Path("scatter.png"), help="default: scatter.png, and a PDF"
    )
    arguments = parser.parse_args()
    runs = read(arguments.runs, arguments.attack)
    if not runs:
        sys.exit(f"error: none of the {len(arguments.runs)} folders has robustness/{arguments.attack}.json")
    Console().print(tabulate(runs, arguments.attack))
    write_figure(arguments.output.with_suffix(""), draw(runs, arguments.attack))


if __name__ == "__main__":
    main()

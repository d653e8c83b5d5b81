"""The arguments of the subcommand ``sweep``."""

from __future__ import annotations

from typing import Literal

from lightning_attractors.cli.usage import OneLineParser, program

SWEEP = "Try many settings of a config, by several processes if need be, and compare what they give."


def sweep_parser() -> OneLineParser:
    """The parser of the subcommand's arguments; how to run it needs no Optuna."""
    parser = OneLineParser(prog=f"{program()} sweep", description=SWEEP)
    text = "A config file, or a name of `attractors configs`."
    parser.add_argument("-c", "--config", type=str, required=True, help=text)
    text = (
        "What is varied: a YAML file of `model.gamma: {low: 0.1, high: 10, log: true}`, or `{values: […]}`."
    )
    parser.add_argument("--space", type=str | None, default=None, help=text)
    text = "Trials of the study in all, by whomever; 0 reports what there is. By default all of the grid."
    parser.add_argument("--trials", type=int | None, default=None, help=text)
    text = "URL of a database, or a file on a shared disk; by default study.db in the study's folder."
    parser.add_argument("--storage", type=str | None, default=None, help=text)
    text = "Name of the study and of its folder; by default the config's and _sweep."
    parser.add_argument("--study", type=str | None, default=None, help=text)
    kinds = Literal["tpe", "random", "grid"]
    parser.add_argument("--sampler", type=kinds, default="tpe", help="What chooses the points.")
    text = "What trials are compared by: any that runs log, or robustness/<attack>/R."
    parser.add_argument("--metric", type=str, default="val/accuracy", help=text)
    text = "Which of it is best; by default the largest, of a loss the smallest."
    parser.add_argument("--direction", type=Literal["maximize", "minimize"] | None, default=None, help=text)
    text = "End trials whose metric of this name, as val/accuracy, is worse than the median at some epoch."
    parser.add_argument("--prune", type=str | None, default=None, help=text)
    parser.add_argument("--seed", type=int, default=0, help="Seed of the sampler.")
    return parser

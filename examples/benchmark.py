"""Speed against what it must be compared with: ``python examples/benchmark.py BENCHMARK``.

Every round times each variant once, one after the other, so that a busy machine slows all of them alike;
figures are medians over the rounds, ratios are medians of the ratios within a round. The last line says what
the processor can do.
"""

from __future__ import annotations

import argparse
import importlib

from lightning_attractors.process import keep_freed_memory, share_processors

# The files that the benchmarks are in.
BENCHMARKS = {
    "sa_node": "attractors",
    "scaling": "scaling",
    "cvfr": "attractors",
    "growth": "growth",
    "kh": "kh",
    "large": "large",
    "loader": "loader",
    "nmode": "nmode",
    "nonexpansive": "nonexpansive",
    "precision": "precision",
    "robustness": "robustness",
}


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("benchmark", choices=sorted(BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=10, help="rounds to take the median of (default: 10)")
    parser.add_argument("--only", default="", help="for precision: configs whose name has this in it")
    arguments = parser.parse_args()
    extra = {"only": arguments.only} if arguments.benchmark == "precision" else {}
    share_processors()  # as the command line does, before torch is loaded
    keep_freed_memory()
    benchmarks = importlib.import_module(f"benchmarks.{BENCHMARKS[arguments.benchmark]}")
    getattr(benchmarks, arguments.benchmark)(arguments.rounds, **extra)


if __name__ == "__main__":
    main()

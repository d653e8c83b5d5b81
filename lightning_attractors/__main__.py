"""Entry point of ``attractors``, which ``python -m lightning_attractors`` is too."""

from __future__ import annotations

import sys

from lightning_attractors.process import keep_freed_memory, share_processors
from lightning_attractors.shipped import describe_configs


def main() -> None:
    """Run the command line, as a process that is fast alone and leaves others their share."""
    if sys.argv[1:2] == ["configs"]:  # at once: nothing needs to be loaded for it
        if sys.argv[2:]:
            sys.exit(f"error: configs: takes no arguments, as {sys.argv[2]!r}; it lists the shipped configs")
        print(describe_configs())
        return
    share_processors()
    keep_freed_memory()
    # Only now: it loads torch, whose threads ask once how to wait.
    from lightning_attractors.cli import run

    run()


if __name__ == "__main__":
    main()

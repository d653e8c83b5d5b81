"""Entry point of ``python -m lightning_attractors``."""

from __future__ import annotations

from lightning_attractors.process import keep_freed_memory, share_processors


def main() -> None:
    """Run the command line, as a process that is fast alone and leaves others their share."""
    share_processors()
    keep_freed_memory()
    # Only now: it loads torch, whose threads ask once how to wait.
    from lightning_attractors.cli import run

    run()


if __name__ == "__main__":
    main()

"""Less memory for more time: of an integration only some states are kept for its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def segments(steps: int, recompute: bool) -> list[int]:
    """Into how many steps each an integration falls whose gradient keeps the start of every part alone.

    About √steps parts of as many steps, the first one shorter: memory goes with √steps. The last part is
    there when its gradient is asked for, all others are computed again. Without ``recompute`` one part.

    Example:
        >>> segments(30, True)
        [6, 6, 6, 6, 6]
    """
    length = math.isqrt(steps - 1) + 1 if recompute else steps
    first = steps % length
    return [first] * (first > 0) + [length] * (steps // length)


def recomputed(
    fly: Callable[[Tensor, int], Tensor], x: Tensor, steps: int, generator: torch.Generator | None = None
) -> Tensor:
    """``fly(x, steps)``, of which autograd keeps the starts of :func:`segments` alone.

    Args:
        fly: gives the state after so many steps from another one; of two parts in turn what it gives of the
            whole.
        x: the first state.
        steps: at least 1.
        generator: what ``fly`` draws from, if anything; it draws the same when it flies again.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        if generator is None:
            return nullcontext(), nullcontext()
        return nullcontext(), DrawingAgain(generator, generator.get_state())

    *earlier, last = segments(steps, True)
    for count in earlier:
        x = checkpoint(fly, x, count, use_reentrant=False, context_fn=contexts)
    return fly(x, last)


class DrawingAgain(AbstractContextManager[None]):
    """While it lasts a generator gives again what it gave from a state on; then it goes on where it was.

    It may be entered again: a graph that is kept is gone through more than once.
    """

    def __init__(self, generator: torch.Generator, state: Tensor) -> None:
        self.generator, self.state = generator, state

    def __enter__(self) -> None:
        self._now = self.generator.get_state()
        self.generator.set_state(self.state)

    def __exit__(self, *_: object) -> None:
        self.generator.set_state(self._now)

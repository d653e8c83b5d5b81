"""Less memory for more time: of an integration only some states are kept for its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

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
        return nullcontext(), drawing_again(generator, generator.get_state())

    *earlier, last = segments(steps, True)
    for count in earlier:
        x = checkpoint(fly, x, count, use_reentrant=False, context_fn=contexts)
    return fly(x, last)


@contextmanager
def drawing_again(generator: torch.Generator, state: Tensor) -> Iterator[None]:
    """A generator gives again what it gave from a state on, and then goes on where it was."""
    now = generator.get_state()
    generator.set_state(state)
    try:
        yield
    finally:
        generator.set_state(now)

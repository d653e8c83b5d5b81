"""Whether products of matrices are faster in float32 or in bfloat16 here: measured, not looked up.

Processors without instructions for bfloat16 compute its products 25 times and more slower than those of
float32, others three times faster; no name of a chip says which, and an environment variable can change it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

Shape = tuple[int, int, int]
SecondsOfProduct = Callable[[torch.dtype, Shape, torch.device], float]

# Multiplications of a product that takes no longer than it takes to wake a thread: too small to matter.
SMALL_PRODUCT = 2**22
# bfloat16 costs accuracy, so it must be faster by more than what measurements differ by.
_LEAD = 1.2
# A precision in which something began is kept unless it is slower than the other by more than this.
_FAR = 2.0
# Products of so many multiplications take less than 1 ms in float32, and about 20 where bfloat16 is slow.
_LARGEST_PRODUCT = 2**25
_REPEATS = 3
# Rows of a batch, and the layer of a module that has none.
_ROWS, _LAYER = 256, (1024, 1024)


@dataclass(frozen=True)
class ProductSpeed:
    """How long the matrix products of a linear layer's training step take in either precision.

    Attributes:
        shape: (m, k, n): m rows of k features, and n of them behind the layer.
        device: where they were computed.
        float32: seconds in float32; infinite where the device cannot.
        bfloat16: the same in bfloat16.
    """

    shape: Shape
    device: torch.device
    float32: float
    bfloat16: float

    @property
    def faster(self) -> torch.dtype | None:
        """``torch.bfloat16`` if faster by a fifth or more, else ``torch.float32``; None if neither runs."""
        if math.isinf(self.float32) and math.isinf(self.bfloat16):
            return None
        return torch.bfloat16 if self.bfloat16 * _LEAD <= self.float32 else torch.float32

    def is_far_slower(self, dtype: torch.dtype) -> bool:
        """Whether ``dtype``, float32 or bfloat16, takes more than twice as long as the other one."""
        times = (self.bfloat16, self.float32)
        slow, fast = times if dtype == torch.bfloat16 else times[::-1]
        return slow > _FAR * fast

    def __str__(self) -> str:
        m, k, n = self.shape
        times = f"{_spoken(self.bfloat16)} in bfloat16 and {_spoken(self.float32)} in float32"
        return f"products of {m} × {k} and {k} × {n} matrices take {times} on {self.device.type}"


def product_seconds(dtype: torch.dtype, shape: Shape, device: torch.device) -> float:
    """Seconds that the three products of a linear layer take: forward, to its input and to its weight.

    All three, since the layouts differ in speed by far more than the precisions do where bfloat16 is slow.
    The least of three times, after one of warming up.

    Args:
        dtype: of all matrices.
        shape: (m, k, n): m rows of k features, and n of them behind the layer.
        device: where to compute them.

    Raises:
        RuntimeError: or another error of the device's, where it does not have such products.
    """
    m, k, n = shape
    sizes = ((m, k), (n, k), (m, n))
    features, weight, gradient = (torch.ones(size, dtype=dtype, device=device) for size in sizes)
    times = []
    for _ in range(_REPEATS + 1):
        _wait_for(device)
        start = time.perf_counter()
        features @ weight.T
        gradient @ weight
        gradient.T @ features
        _wait_for(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def measure_products(
    shape: Shape, device: torch.device, seconds: SecondsOfProduct = product_seconds
) -> ProductSpeed:
    """Time products of that shape in float32 and in bfloat16; takes a small fraction of a second.

    Args:
        shape: (m, k, n); on a CPU fewer rows m are timed of large ones.
        device: where to compute them.
        seconds: times the products, as :func:`product_seconds` does.

    Example:
        >>> fast = lambda dtype, shape, device: {torch.float32: 3e-3, torch.bfloat16: 1e-3}[dtype]
        >>> speed = measure_products((250, 784, 784), torch.device("cpu"), fast)
        >>> speed.faster
        torch.bfloat16
        >>> print(speed)
        products of 54 × 784 and 784 × 784 matrices take 1.00 ms in bfloat16 and 3.00 ms in float32 on cpu
    """
    m, k, n = shape
    if device.type == "cpu":  # elsewhere the whole product takes less time than it takes to start it
        shape = (max(1, min(m, _LARGEST_PRODUCT // (k * n))), k, n)
    taken = {}
    for dtype in (torch.float32, torch.bfloat16):
        try:
            taken[dtype] = seconds(dtype, shape, device)
        except (RuntimeError, TypeError, NotImplementedError):  # how devices refuse a dtype
            taken[dtype] = math.inf
    return ProductSpeed(shape, device, taken[torch.float32], taken[torch.bfloat16])


def largest_product(module: nn.Module | None) -> Shape:
    """(m, k, n) of the product of a batch with the module's largest weight; of an ordinary layer without one.

    Kernels count as the matrices that patches are multiplied with.
    """
    parameters = [] if module is None else list(module.parameters())
    weights = [
        (weight[0].numel(), len(weight)) for weight in parameters if weight.ndim >= 2 and weight.numel()
    ]
    k, n = max(weights, key=math.prod, default=_LAYER)
    return _ROWS, k, n


def has_small_products(module: nn.Module | None) -> bool:
    """Whether no product of the module takes longer than it takes to wake a thread.

    Never with kernels, which meet many patches of every image.
    """
    kernels = module is not None and any(parameter.ndim > 2 for parameter in module.parameters())
    return not kernels and math.prod(largest_product(module)) < SMALL_PRODUCT


def _wait_for(device: torch.device) -> None:
    """Wait until an accelerator has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _spoken(seconds: float) -> str:
    return "cannot be computed" if math.isinf(seconds) else f"{1e3 * seconds:.2f} ms"

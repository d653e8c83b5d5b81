"""Which precision is faster: by measurements that the tests bring along, and once by real ones."""

import math

import pytest
import torch
from torch import nn

from lightning_attractors.linalg import largest_product, measure_products, product_seconds

CPU = torch.device("cpu")


def taking(float32, bfloat16):
    """A stopwatch with these readings; an error in place of a reading is raised."""

    def seconds(dtype, shape, device):
        reading = float32 if dtype == torch.float32 else bfloat16
        if isinstance(reading, Exception):
            raise reading
        return reading

    return seconds


@pytest.mark.parametrize(
    ("float32", "bfloat16", "faster"),
    [
        (3e-3, 1e-3, torch.bfloat16),
        (1e-3, 25e-3, torch.float32),
        (1.1e-3, 1e-3, torch.float32),  # a tie is not worth the accuracy
        (1e-3, RuntimeError("not implemented for 'BFloat16'"), torch.float32),
        (RuntimeError("no"), 1e-3, torch.bfloat16),
        (RuntimeError("no"), TypeError("no"), None),
    ],
)
def test_the_faster_precision_is_chosen(float32, bfloat16, faster):
    speed = measure_products((250, 784, 784), CPU, taking(float32, bfloat16))
    assert speed.faster == faster
    assert "bfloat16" in str(speed)
    if isinstance(bfloat16, Exception):
        assert math.isinf(speed.bfloat16)


def test_what_is_timed_is_small():
    shapes = []

    def seconds(dtype, shape, device):
        shapes.append(shape)
        return 1.0

    measure_products((250, 784, 784), CPU, seconds)
    measure_products((2, 10, 10), CPU, seconds)
    measure_products((250, 10**5, 10**5), CPU, seconds)
    large, small, huge = shapes[0], shapes[2], shapes[4]
    assert large[1:] == (784, 784)
    assert math.prod(large) <= 2**25
    assert small == (2, 10, 10)
    assert huge[0] == 1


def test_real_products_take_time():
    speed = measure_products((8, 16, 4), CPU)
    assert 0 < speed.float32 < 1
    assert speed.faster in (torch.float32, torch.bfloat16)
    assert product_seconds(torch.float64, (8, 16, 4), CPU) > 0


def test_the_largest_product_of_a_module_is_that_of_its_largest_weight():
    module = nn.Sequential(nn.Conv2d(3, 100, 4), nn.Flatten(), nn.Linear(30, 10))
    assert largest_product(module) == (256, 48, 100)
    assert largest_product(nn.ReLU()) == largest_product(None)
    assert largest_product(nn.LayerNorm(5))[1:] == largest_product(None)[1:]

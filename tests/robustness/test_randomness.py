import random

import numpy as np
import pytest
import torch

from lightning_attractors.robustness.randomness import seed_all, seed_of, unchanged_random_numbers


def drawn():
    return torch.rand(()).item(), np.random.random(), random.random()


def test_global_numbers_are_a_function_of_the_key():
    numbers = []
    for key in ((1, 2), (2, 1), (1, 2)):
        seed_all(key)
        numbers.append(drawn())
    assert numbers[0] == numbers[2]
    assert all(one != other for one, other in zip(numbers[0], numbers[1], strict=True))
    assert len({seed_of(key) for key in ((0, 1), (1, 0), (1, 1), (2,))}) == 4


def test_global_numbers_go_on_as_before_even_after_a_failure():
    with unchanged_random_numbers():
        expected = drawn()

    def fail():
        seed_all([7])
        raise ArithmeticError

    with pytest.raises(ArithmeticError), unchanged_random_numbers():
        fail()
    assert drawn() == expected

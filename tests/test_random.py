import torch

from lightning_attractors.random import keyed_generator

CPU = torch.device("cpu")


def drawn(*key):
    return torch.rand(3, generator=keyed_generator(CPU, *key)).tolist()


def test_numbers_are_a_function_of_the_key_and_leave_the_global_ones_alone():
    before = torch.get_rng_state()
    assert drawn(3, 1, 4) == drawn(3, 1, 4)
    assert torch.equal(torch.get_rng_state(), before)


def test_no_two_keys_share_their_numbers():
    keys = [(0,), (0, 0), (0, 0, 0), (1, 2), (2, 1), (3,), (3, 0), (0, 3), (1, 1), (2**40, 1), (1, 2**40)]
    assert len({tuple(drawn(*key)) for key in keys}) == len(keys)

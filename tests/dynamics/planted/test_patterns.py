import pytest
import torch

from lightning_attractors.dynamics.planted import block_patterns, random_patterns
from lightning_attractors.errors import SettingError


def test_blocks_are_disjoint_and_consecutive():
    patterns = block_patterns(3, 10, low=-0.5, high=0.5)
    raised = patterns == 0.5
    assert raised.sum(dim=1).tolist() == [3, 3, 3]
    assert raised.sum(dim=0).max() == 1
    assert raised[1].nonzero().flatten().tolist() == [3, 4, 5]


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        ({"num_classes": 0, "num_nodes": 4}, "num_classes=0"),
        ({"num_classes": 5, "num_nodes": 4}, "num_classes=5"),
        ({"num_classes": 3, "num_nodes": 10, "block": 4}, "block=4"),
        ({"num_classes": 3, "num_nodes": 10, "block": 0}, "block=0"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(arguments, setting):
    with pytest.raises(SettingError, match=setting):
        block_patterns(low=0.0, high=1.0, **arguments)


@pytest.mark.parametrize(("classes", "nodes"), [(3, 49), (10, 784), (26, 49)])
def test_random_patterns_are_half_full_distinct_and_always_the_same(classes, nodes):
    patterns = random_patterns(classes, nodes, low=0.0, high=2.0)
    assert patterns.eq(2).sum(dim=1).tolist() == [nodes // 2] * classes
    assert patterns.eq(0).sum(dim=1).tolist() == [nodes - nodes // 2] * classes
    assert torch.linalg.matrix_rank(patterns) == classes
    assert torch.nn.functional.pdist(patterns.sign(), p=0).min() > 0.25 * nodes
    assert torch.equal(patterns, random_patterns(classes, nodes, low=0.0, high=2.0))
    with pytest.raises(SettingError, match=f"num_classes={nodes + 1}"):
        random_patterns(nodes + 1, nodes, low=0.0, high=1.0)


@pytest.mark.parametrize(("classes", "nodes"), [(2, 4), (2, 784), (2, 9), (3, 9), (10, 784), (4, 4)])
def test_patterns_are_independent_and_opposite_signs_count(classes, nodes):
    patterns = block_patterns(classes, nodes, low=-0.5, high=0.5)
    assert torch.linalg.matrix_rank(patterns) == classes

import pytest
import torch

from lightning_attractors.metrics import AttractorAccuracy, Overlap, TrajectoryError

TARGET = torch.full((1, 40), 0.5)


def flipped(count):
    state = TARGET.clone()
    state[0, :count] *= -3
    return state


@pytest.mark.parametrize(("wrong", "hit", "perfect"), [(0, 1, 1), (1, 1, 0), (2, 0, 0)])
def test_attractor_accuracy_counts_similarity_of_signs(wrong, hit, perfect):
    # One wrong sign of 40 is a similarity of 0.95 exactly, the threshold.
    assert AttractorAccuracy()(flipped(wrong), TARGET) == hit
    assert AttractorAccuracy(threshold=1.0)(flipped(wrong), TARGET) == perfect


def test_a_state_of_zeros_agrees_with_nothing():
    assert AttractorAccuracy(threshold=0.01)(torch.zeros_like(TARGET), TARGET) == 0


def test_overlap_is_one_at_the_attractor_and_linear_in_the_state():
    metric = Overlap()
    metric.update(TARGET, TARGET)
    metric.update(-0.5 * TARGET, TARGET)
    assert metric.compute() == pytest.approx((1 - 0.5) / 2)


def test_metrics_sum_over_batches_of_unequal_size():
    states, targets = torch.randn(7, 40), TARGET.expand(7, 40)
    for make in (AttractorAccuracy, Overlap):
        whole, parts = make(), make()
        whole.update(states, targets)
        parts.update(states[:5], targets[:5])
        parts.update(states[5:], targets[5:])
        assert parts.compute() == pytest.approx(whole.compute())


def test_trajectory_error_is_the_mean_over_all_states_at_each_time():
    metric = TrajectoryError(num_times=2)
    metric.update(torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 3.0]]))
    metric.update(torch.tensor([[6.0], [1.0]]))
    torch.testing.assert_close(metric.compute(), torch.tensor([3.0, 1.0]))

import pytest
import torch

from lightning_attractors.metrics import (
    AccuracySpread,
    AttractorAccuracy,
    DistanceAccuracy,
    Overlap,
    TrajectoryError,
)

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


@pytest.mark.parametrize(("threshold", "share"), [(0.05, 0.25), (0.5, 0.5), (2.0, 0.75), (9.0, 1.0)])
def test_distance_accuracy_counts_states_within_the_distance(threshold, share):
    states = TARGET.repeat(4, 1)
    states[:, 7] += torch.tensor([0.0, 0.5, -2.0, 8.0])
    assert DistanceAccuracy(threshold)(states, TARGET.expand(4, 40)) == share


def test_accuracy_spread_is_the_deviation_across_realisations_and_not_across_batches():
    metric = AccuracySpread(3)
    for batch in (torch.tensor([True, True, False]), torch.tensor([True])):
        for realisation in range(3):
            metric.update(batch, realisation)
    assert metric.compute() == 0
    metric.update(torch.zeros(4, dtype=torch.bool), 0)
    for realisation in (1, 2):
        metric.update(torch.ones(4, dtype=torch.bool), realisation)
    # Of 8 images each: 3 right, 7 right, 7 right.
    expected = torch.tensor([3 / 8, 7 / 8, 7 / 8]).std()
    assert metric.compute() == pytest.approx(expected.item())


def test_a_state_of_zeros_agrees_with_nothing():
    assert AttractorAccuracy(threshold=0.01)(torch.zeros_like(TARGET), TARGET) == 0


def test_overlap_is_one_at_the_attractor_and_linear_in_the_state():
    metric = Overlap()
    metric.update(TARGET, TARGET)
    metric.update(-0.5 * TARGET, TARGET)
    assert metric.compute() == pytest.approx((1 - 0.5) / 2)


def test_metrics_sum_over_batches_of_unequal_size():
    states, targets = torch.randn(7, 40), TARGET.expand(7, 40)
    for make in (AttractorAccuracy, Overlap, lambda: DistanceAccuracy(6.5)):
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


def test_metrics_that_were_reset_in_inference_mode_go_on_outside_of_it():
    states, labels = torch.rand(3, 4), torch.tensor([True, False, True])
    calls = {
        AttractorAccuracy(): (states, states),
        DistanceAccuracy(0.1): (states, states),
        Overlap(): (states, states),
        TrajectoryError(2): (torch.rand(2, 3),),
        AccuracySpread(2): (labels, 1),
    }
    for metric, arguments in calls.items():
        with torch.inference_mode():
            metric.update(*arguments)
            metric.reset()
        metric.update(*arguments)

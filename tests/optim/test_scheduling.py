import pytest
import torch
from refusals import refusal
from torch.optim import lr_scheduler

from lightning_attractors.optim import build_schedule, try_schedule


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.5, momentum=0.9)


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        (
            lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=0),
            "lr_scheduler='CosineAnnealingLR': cannot step",
        ),
        (lambda o: lr_scheduler.StepLR(o, step_size=0), "lr_scheduler='StepLR': cannot step"),
        (lambda o: lr_scheduler.ExponentialLR(o, gamma=float("nan")), "must give finite learning rates"),
        (lambda o: lr_scheduler.LambdaLR(o, lambda epoch: [1][epoch]), "cannot step"),
    ],
    ids=["cosine", "step", "exponential", "lambda"],
)
def test_a_schedule_that_would_fail_amid_a_training_is_refused_before(factory, expected):
    assert expected in refusal(try_schedule, factory(optimizer()), False)


def test_settings_that_a_schedule_refuses_are_refused_by_its_name():
    from_config = torch.optim.lr_scheduler.OneCycleLR
    message = refusal(build_schedule, lambda o: from_config(o, max_lr=0.1), optimizer())
    assert "does not accept its settings: You must define either total_steps" in message


@pytest.mark.parametrize(
    "factory",
    [
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.ConstantLR(o, 0.5), lr_scheduler.ExponentialLR(o, 0.5)], milestones=[1]
        ),
        lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=5),
        lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    ],
    ids=["sequence", "one cycle", "plateau"],
)
def test_the_trial_leaves_schedule_and_optimizer_as_they_were(factory):
    tried, untouched = optimizer(), optimizer()
    scheduler, other = factory(tried), factory(untouched)
    watches = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
    try_schedule(scheduler, watches)
    for _ in range(3):
        assert [group["lr"] for group in tried.param_groups] == [g["lr"] for g in untouched.param_groups]
        for one in (scheduler, other):
            one.optimizer.step()
            one.step(*([1.0] if watches else []))


def test_a_learning_rate_that_is_a_tensor_stays_as_it_was():
    adam = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))], lr=torch.tensor(0.1))
    try_schedule(lr_scheduler.ExponentialLR(adam, gamma=0.5), watches=False)
    assert float(adam.param_groups[0]["lr"]) == pytest.approx(0.1)


def test_a_schedule_that_cannot_be_copied_is_believed():
    scheduler = lr_scheduler.LambdaLR(optimizer(), lambda epoch: 1.0)
    scheduler.file = open(__file__)  # noqa: SIM115
    try_schedule(scheduler, watches=False)
    scheduler.file.close()

"""Runs that are killed and resumed, of every family, end with the weights of runs that were not."""

import pytest
import torch
from command_line import RUN, killed_and_resumed, small

from lightning_attractors.models import NMODE, NonexpansiveNet

BY_STEP = ["--trainer.max_epochs", 4, "--model.lr_scheduler", "OneCycle", "--model.lr_interval", "step"]
CONV = (
    "{class_path: ConvBackbone, init_args: {in_channels: 1, channels: [2], kernel_sizes: [3], strides: [2]}}"
)


def rebuild(kind):
    """The model of the run's best checkpoint, which classifies."""
    model = kind.load_from_checkpoint(RUN / "checkpoints" / "best.ckpt", map_location="cpu")
    assert model(torch.rand(2, 1, 7, 7)).shape == (2, 5)
    return model


@pytest.mark.parametrize(
    ("config", "scheduler"),
    [
        ("sa_node_letters", "OneCycle"),
        ("sa_node_letters", "torch.optim.lr_scheduler.ExponentialLR"),
        ("cvfr_letters", "OneCycle"),
    ],
    ids=["by step", "by epoch", "with noise"],
)
def test_a_killed_run_resumes_to_the_same_weights(config, scheduler):
    by_epoch = "Exponential" in scheduler
    settings = [
        *small(config),
        *("--model.coupling", "projected", "--trainer.max_epochs", 4),
        *("--model.lr_scheduler", scheduler, "--model.lr_interval", "epoch" if by_epoch else "step"),
        *(["--model.lr_scheduler.gamma", 0.5] if by_epoch else []),
        *("--model.optimizers", "{coupling: {class_path: torch.optim.Muon, init_args: {lr: 0.1}}}"),
    ]
    killed_and_resumed(settings, 2)


@pytest.mark.parametrize(
    "settings",
    [
        ["--model.trades", "{steps: 2}"],
        ["--model.intervals", "{epsilon: 0.02, warmup: 1, ramp: 2}", "--model.backbone", CONV],
    ],
    ids=["TRADES", "intervals"],
)
def test_a_killed_nmode_run_resumes_to_the_same_weights(settings):
    resumed = killed_and_resumed([*small("nmode_letters"), *BY_STEP, *settings], 2)
    assert resumed["layer.linear.weight"].abs().max() <= 0.2001
    rebuilt = rebuild(NMODE)
    assert (rebuilt.trades is None) == ("--model.trades" not in settings)


@pytest.mark.parametrize("activation", ["LeakyReLU", "torch.nn.ReLU6"], ids=["by name", "module"])
def test_a_killed_nonexpansive_run_resumes_to_the_same_weights(activation):
    named = "." not in activation
    chosen = ["--model.activation" if named else "--model.activation.class_path", activation]
    killed_and_resumed([*small("nonexpansive_letters"), *BY_STEP, *chosen, "--model.lipschitz", 1], 2)
    assert type(rebuild(NonexpansiveNet).activation.function).__name__ == activation.rpartition(".")[2]

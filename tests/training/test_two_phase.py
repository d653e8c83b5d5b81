"""What each phase of a fit changes, counts, serves and leaves."""

import csv
import logging
from itertools import pairwise
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, StochasticWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from strangers import Data, Net

from lightning_attractors.callbacks import BestCheckpoint, LastCheckpoint
from lightning_attractors.data import LettersDataModule
from lightning_attractors.errors import SettingError
from lightning_attractors.models import SANODE, BackpropCNN, KrotovHopfield, OneCycle
from lightning_attractors.training import TwoPhaseTrainer


def letters(**settings):
    """40 training images: 4 batches of 10."""
    sizes = {"n_train": 40, "n_val": 10, "n_test": 10, "batch_size": 10}
    return LettersDataModule(**{**sizes, **settings})


def model(family=KrotovHopfield, **settings):
    torch.manual_seed(0)
    shape = {"num_classes": 5, "image_shape": (1, 7, 7), "grid": 3, "pool_size": 2, "power": 2}
    return family(**{**shape, **settings})


def two_phase_trainer(path, *callbacks, **settings):
    return TwoPhaseTrainer(
        default_root_dir=path,
        accelerator="cpu",
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **{
            "max_epochs": 2,
            "filter_epochs": 3,
            "logger": False,
            "enable_checkpointing": False,
            "log_every_n_steps": 1,
            **settings,
        },
    )


class Watch(Callback):
    """Notes what every training batch and epoch saw."""

    def __init__(self):
        self.sizes, self.weights, self.validated, self.rates = [], [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.sizes.append(len(batch[1]))

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.validated.append(trainer.current_epoch)

    def on_train_epoch_end(self, trainer, pl_module):
        self.weights.append((pl_module.filters.clone(), pl_module.linear.weight.clone()))
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def moved(weights):
    return [not torch.equal(before, after) for before, after in pairwise(weights)]


def test_each_phase_trains_its_own_part(tmp_path):
    watch = Watch()
    trainer = two_phase_trainer(tmp_path, watch, filter_batch_size=20)
    network = model()
    start = network.filters.clone(), network.linear.weight.clone()
    trainer.fit(network, letters())
    assert watch.sizes == 3 * [20, 20] + 2 * [10, 10, 10, 10]
    assert watch.validated == [3, 4]
    assert trainer.global_step == 3 * 2 + 2 * 4
    assert (trainer.max_epochs, trainer.classifier_epochs, trainer.current_epoch) == (5, 2, 5)
    filters, linear = zip(start, *watch.weights, strict=True)
    assert moved(filters) == 3 * [True] + 2 * [False]
    assert moved(linear) == 3 * [False] + 2 * [True]
    assert network.filter_phase is None


def test_learning_rate_of_the_filters_follows_its_schedule(tmp_path):
    logger = CSVLogger(tmp_path)
    trainer = two_phase_trainer(tmp_path, logger=logger, filter_epochs=4, max_epochs=0)
    trainer.fit(model(schedule="linear", filter_lr=0.01), letters(batch_size=40))
    rows = csv.DictReader((Path(logger.log_dir) / "metrics.csv").read_text().splitlines())
    rates = [float(row["filters/learning_rate"]) for row in rows]
    assert rates == pytest.approx([0.01, 0.0075, 0.005, 0.0025])


def test_the_first_update_moves_filters_by_the_learning_rate(tmp_path):
    network = model(filter_lr=0.01)
    start = network.filters.clone()
    one_position = {"filter_epochs": 1, "max_epochs": 0, "patch_fraction": 0.01}
    two_phase_trainer(tmp_path, **one_position).fit(network, letters(batch_size=40))
    assert float((network.filters - start).abs().max()) == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize(
    ("scheduler", "interval", "expected"),
    [
        (lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5), "epoch", [1, 1, 1, 0.5, 0.25]),
        (lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5), "step", [1, 1, 1, 0.5**4, 0.5**8]),
        (OneCycle, "step", [0.04, 0.04, 0.04, None, 1e-3]),
        (OneCycle, "epoch", [0.04, 0.04, 0.04, None, 1e-3]),
        (lambda o: L.pytorch.cli.ReduceLROnPlateau(o, "val/loss"), "epoch", [1, 1, 1, 1, 1]),
    ],
    ids=["by epoch", "by step", "cycle by step", "cycle by epoch", "plateau"],
)
def test_schedulers_count_the_classifier_phase(tmp_path, scheduler, interval, expected):
    watch = Watch()
    trainer = two_phase_trainer(tmp_path, watch, filter_batch_size=5)
    trainer.fit(model(lr_scheduler=scheduler, lr_interval=interval), letters())
    pairs = [(rate / 1e-3, want) for rate, want in zip(watch.rates, expected, strict=True) if want]
    rates, wanted = zip(*pairs, strict=True)
    assert rates == pytest.approx(wanted)


def test_steps_of_the_classifier_phase_are_counted_with_all_limits(tmp_path):
    trainer = two_phase_trainer(
        tmp_path, filter_batch_size=20, limit_train_batches=3, accumulate_grad_batches=2
    )
    watch = Watch()
    trainer.callbacks.append(watch)
    trainer.fit(model(), letters())
    assert watch.sizes == 3 * [20, 20] + 2 * [10, 10, 10]
    assert trainer.estimated_stepping_batches == 2 * 2
    assert trainer.global_step == 3 * 1 + 2 * 2


def test_max_steps_counts_the_classifier_phase(tmp_path):
    watch = Watch()
    trainer = two_phase_trainer(tmp_path, watch, max_epochs=-1, max_steps=6)
    trainer.fit(model(), letters())
    assert watch.sizes == (3 * 4 + 6) * [10]
    assert trainer.estimated_stepping_batches == 6


def test_the_best_checkpoint_is_of_the_classifier_phase(tmp_path):
    class Scores(Callback):
        """Validation is best in the first classifier epoch."""

        def on_train_epoch_end(self, trainer, pl_module):
            if "val/accuracy" in trainer.callback_metrics:
                trainer.callback_metrics["val/accuracy"].fill_(1 / trainer.current_epoch)

    folder = tmp_path / "checkpoints"
    best, last = BestCheckpoint(dirpath=folder), LastCheckpoint()
    last.dirpath = str(folder)
    trainer = two_phase_trainer(tmp_path, Scores(), best, last, enable_checkpointing=True)
    trainer.fit(model(), letters())
    found = {path.name: torch.load(path, weights_only=False)["epoch"] for path in folder.iterdir()}
    assert found == {"best.ckpt": 3, "last.ckpt": 4}
    saved = torch.load(tmp_path / "filters.pt", weights_only=True)["filters"]
    assert torch.equal(saved, trainer.lightning_module.filters)


def test_early_stopping_watches_the_classifier_phase(tmp_path):
    stopping = EarlyStopping("val/accuracy", mode="max", patience=1, check_on_train_epoch_end=False)
    trainer = two_phase_trainer(tmp_path, stopping, max_epochs=50)
    trainer.fit(model(optimizer=lambda p: torch.optim.SGD(p, 1e-9)), letters())
    assert trainer.current_epoch == 3 + 2


def test_weights_are_averaged_over_epochs_of_the_classifier_phase(tmp_path):
    averaging = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=3, annealing_epochs=1)
    trainer = two_phase_trainer(tmp_path, averaging, max_epochs=4)
    trainer.fit(model(), letters())
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01)
    assert trainer.current_epoch == 3 + 4


def test_without_a_filter_phase_it_is_a_plain_trainer(tmp_path):
    weights = []
    for make in (TwoPhaseTrainer, L.Trainer):
        network = model(lr_scheduler=OneCycle, lr_interval="step")
        trainer = make(
            default_root_dir=tmp_path,
            accelerator="cpu",
            max_epochs=2,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(network, letters())
        weights.append(network.linear.weight)
        assert len(trainer.callbacks) == 0
    assert torch.equal(*weights)


def test_a_development_run_has_one_epoch_of_each_phase(tmp_path):
    watch = Watch()
    two_phase_trainer(tmp_path, watch, fast_dev_run=2, enable_checkpointing=True).fit(model(), letters())
    assert watch.sizes == 4 * [10]
    assert len(watch.weights) == 2
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("fraction", [1.0, 0.3])
def test_the_order_of_patches_is_a_function_of_the_seed(tmp_path, fraction):
    def learned(seed):
        network = model(seed=seed)
        two_phase_trainer(tmp_path, max_epochs=0, patch_fraction=fraction).fit(network, letters())
        return network.filters

    assert torch.equal(learned(0), learned(0))
    assert not torch.equal(learned(0), learned(1))


@pytest.mark.parametrize(
    ("precision", "own", "expected"),
    [
        ("32-true", "bf16-mixed", [torch.bfloat16, None]),
        ("bf16-mixed", "32-true", [None, torch.bfloat16]),
        ("bf16-mixed", None, [torch.bfloat16, torch.bfloat16]),
    ],
)
def test_each_phase_has_its_own_precision(tmp_path, monkeypatch, precision, own, expected):
    network, seen = model(), []

    def note(owner, name):
        method = getattr(owner, name)

        def noted(*arguments, **settings):
            enabled = torch.is_autocast_enabled("cpu")
            dtype = torch.get_autocast_dtype("cpu") if enabled else None
            if seen[-1:] != [(name, dtype)]:
                seen.append((name, dtype))
            return method(*arguments, **settings)

        monkeypatch.setattr(owner, name, noted)

    note(network.conv, "_update")
    note(network, "training_logits")
    settings = {"filter_epochs": 1, "max_epochs": 1, "precision": precision, "filter_precision": own}
    two_phase_trainer(tmp_path, **settings).fit(network, letters(batch_size=40))
    assert seen == list(zip(("_update", "training_logits"), expected, strict=True))
    assert network.filters.dtype == torch.float32


def test_cached_features_train_the_same_classifier(tmp_path, caplog):
    weights = []
    caplog.set_level(logging.INFO)
    for budget in (0.0, 0.1):
        network, data = model(), letters(noise_train=0.0)
        two_phase_trainer(tmp_path, feature_cache_gb=budget).fit(network, data)
        weights.append(network.linear.weight)
        assert data.datasets["train"].features is None
        assert not network.trains_on_features
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)
    assert "hold the features of 40 training images" in caplog.text


def test_cached_features_are_what_training_batches_hold(tmp_path):
    class Shapes(Callback):
        shapes = ()

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.shapes += (tuple(batch[0].shape[1:]),)

    shapes = Shapes()
    settings = {"filter_epochs": 1, "max_epochs": 1, "feature_cache_gb": 0.1, "precision": "bf16-mixed"}
    two_phase_trainer(tmp_path, shapes, **settings).fit(model(), letters(noise_train=0.0, batch_size=40))
    assert shapes.shapes == ((1, 7, 7), (9, 2, 2))


@pytest.mark.parametrize(
    ("family", "noise", "budget", "reason"),
    [
        (KrotovHopfield, 0.1, 0.1, "training images change from epoch to epoch"),
        (KrotovHopfield, 0.0, 1e-9, "exceed feature_cache_gb=1e-09"),
        (BackpropCNN, 0.0, 0.1, "BackpropCNN has no frozen part"),
    ],
)
def test_the_log_says_why_features_are_not_cached(tmp_path, caplog, family, noise, budget, reason):
    caplog.set_level(logging.INFO)
    trainer = two_phase_trainer(tmp_path, filter_epochs=0, feature_cache_gb=budget)
    trainer.fit(model(family), letters(noise_train=noise))
    assert [record.message for record in caplog.records if reason in record.message]


def test_models_and_data_that_take_no_part_are_refused(tmp_path):
    with pytest.raises(SettingError, match="filter_epochs=3: must be 0: SANODE learns none"):
        two_phase_trainer(tmp_path).fit(SANODE(num_classes=5, image_shape=(1, 7, 7), steps=2), letters())
    with pytest.raises(SettingError, match="must be 0: Net learns none"):
        two_phase_trainer(tmp_path).fit(Net(), Data())
    with pytest.raises(SettingError, match="filter_epochs=3: needs a data module that has a batch_size"):
        two_phase_trainer(tmp_path).fit(model(), [(torch.rand(2, 1, 7, 7), torch.tensor([0, 1]))])

    class Deaf(LettersDataModule):
        def _train_batch_size(self):
            return self.batch_size

    trainer = two_phase_trainer(tmp_path, filter_batch_size=20)
    with pytest.raises(SettingError, match="filter_batch_size=20: the data module serves 10"):
        trainer.fit(model(), Deaf(n_train=40, batch_size=10))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("filter_epochs", -1), ("filter_batch_size", 0), ("filter_precision", "8-true")),
        *(("patch_fraction", 0.0), ("patch_fraction", 1.1), ("feature_cache_gb", -1.0)),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, setting, value):
    with pytest.raises(SettingError, match=f"^{setting}="):
        two_phase_trainer(tmp_path, **{setting: value})

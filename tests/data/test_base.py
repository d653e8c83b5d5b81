"""Loaders as the trainer uses them: fixed and fresh noise, resuming, several processes, random state."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from data_files import write_mnist
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import RunningStage
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, SequentialSampler

from lightning_attractors.data import InMemoryDataModule, Labelled, LettersDataModule, MNISTDataModule
from lightning_attractors.data.loader import ResumableLoader
from lightning_attractors.data.sampler import EpochRandomSampler
from lightning_attractors.errors import SettingError

SIZES = {"n_train": 23, "n_val": 12, "n_test": 15}
BATCHES = 6  # of four images, the last of three


def letters(**settings: Any) -> LettersDataModule:
    data = LettersDataModule(**{**SIZES, "letters": "ABC", "batch_size": 4, "eval_batch_size": 5, **settings})
    data.setup()
    return data


class Recorder(L.LightningModule):
    """Remembers every training batch it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[Tensor] = []
        self.validated = 0

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        assert len(images) == len(labels)
        self.seen.append(images)
        return self.weight * images.sum()

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.validated += len(batch[1])

    def predict_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return batch[0]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def make_trainer(folder: Path, **settings: Any) -> L.Trainer:
    options: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
    }
    return L.Trainer(**{**options, **settings})


def fit(folder: Path, ckpt_path: Path | None = None, data: Any = None, **settings: Any) -> list[Tensor]:
    """The training batches of a run, in order."""
    model = Recorder()
    trainer = make_trainer(folder, **settings)
    trainer.fit(model, datamodule=data or letters(), ckpt_path=ckpt_path, weights_only=False)
    return model.seen


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def batches_of(loader: Any) -> list[Tensor]:
    return [images for images, _ in loader]


def test_training_batches_are_fresh_in_every_epoch_and_cover_the_data(tmp_path: Path) -> None:
    seen = fit(tmp_path, max_epochs=2, data=letters(noise_train=0.0))
    assert [len(images) for images in seen] == [4, 4, 4, 4, 4, 3] * 2
    assert not same(seen[:BATCHES], seen[BATCHES:])
    for epoch in (seen[:BATCHES], seen[BATCHES:]):
        totals = torch.cat(epoch).sum(dim=(1, 2, 3)).sort().values
        clean = letters(noise_train=0.0).datasets["train"]
        assert torch.equal(totals, clean.__getitems__(range(23))[0].sum(dim=(1, 2, 3)).sort().values)


def test_training_noise_is_fresh_where_the_order_is_not(tmp_path: Path) -> None:
    # one image: its order cannot change, its noise must
    first, second = fit(tmp_path, max_epochs=2, data=letters(n_train=1))
    assert not torch.equal(first, second)


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
@pytest.mark.parametrize(
    ("saving", "limit"),
    [
        pytest.param({"save_on_train_epoch_end": True}, {"max_epochs": 3}, id="end of epoch"),
        pytest.param({"save_on_train_epoch_end": False}, {"max_epochs": 3}, id="after validation"),
        pytest.param({"save_on_train_epoch_end": True}, {"max_steps": 16}, id="end of epoch, by steps"),
        pytest.param({"every_n_train_steps": 4}, {"max_epochs": 3}, id="middle of epoch"),
        pytest.param({"every_n_train_steps": 4}, {"max_steps": 16}, id="middle of epoch, by steps"),
    ],
)
def test_a_resumed_run_repeats_an_uninterrupted_one(
    tmp_path: Path, saving: dict[str, Any], limit: dict[str, Any]
) -> None:
    saver = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, **saving)
    whole = fit(tmp_path, enable_checkpointing=True, callbacks=[saver], **limit)
    checkpoints = sorted(tmp_path.glob("step=*.ckpt"))
    assert len(checkpoints) > 1
    for checkpoint in checkpoints:
        steps = int(checkpoint.stem.removeprefix("step="))
        assert same(fit(tmp_path, ckpt_path=checkpoint, **limit), whole[steps:]), checkpoint.stem


def test_a_run_that_failed_in_a_step_goes_on_with_that_batch(tmp_path: Path) -> None:
    class Failing(Recorder):
        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            if len(self.seen) == BATCHES + 2:
                raise ArithmeticError
            return super().training_step(batch)

    checkpoint = tmp_path / "failed.ckpt"
    trainer = make_trainer(tmp_path, max_epochs=2)
    with pytest.raises(ArithmeticError):
        trainer.fit(Failing(), datamodule=letters())
    trainer.save_checkpoint(checkpoint)
    whole = fit(tmp_path, max_epochs=2)
    assert same(fit(tmp_path, ckpt_path=checkpoint, max_epochs=2), whole[BATCHES + 2 :])


def test_reading_the_loader_on_the_side_does_not_disturb_a_resumed_run() -> None:
    loader = letters().train_dataloader()
    loader.batches_done = lambda: 4
    assert len(batches_of(loader)) == BATCHES
    loader.load_state_dict(loader.state_dict())
    assert [len(batches_of(loader)) for _ in range(2)] == [2, BATCHES]


def test_evaluation_noise_is_fixed_and_does_not_depend_on_the_batch_size() -> None:
    data, rebatched = letters(), letters(eval_batch_size=7)
    for name in ("val_dataloader", "test_dataloader"):
        first = batches_of(getattr(data, name)())
        assert same(first, batches_of(getattr(data, name)()))
        assert torch.equal(torch.cat(first), torch.cat(batches_of(getattr(rebatched, name)())))
    assert not same(batches_of(data.test_dataloader()), batches_of(letters(seed=1).test_dataloader()))


def test_validation_and_test_noise_differ() -> None:
    data = letters(n_val=15, noise_train=1.0, noise_test=1.0)
    assert not same(batches_of(data.val_dataloader()), batches_of(data.test_dataloader()))


def test_prediction_is_made_on_the_test_images(tmp_path: Path) -> None:
    data = letters()
    predicted = make_trainer(tmp_path).predict(Recorder(), datamodule=data)
    assert same(predicted, batches_of(data.test_dataloader()))


def test_normal_noise_is_fresh_in_training_and_nowhere_else(tmp_path: Path) -> None:
    write_mnist(tmp_path, 60, 20)
    settings = {"root": str(tmp_path), "download": False, "verify_checksums": False, "val_size": 10}
    noisy, clean = (MNISTDataModule(gaussian_noise=noise, **settings) for noise in (0.25, 0.0))
    first, second = fit(tmp_path, max_epochs=2, data=noisy)
    assert first.min() < 0
    assert first.max() > 1
    assert not torch.equal(first.sort(dim=0).values, second.sort(dim=0).values)
    clean.setup()
    for name in ("val_dataloader", "test_dataloader"):
        assert same(batches_of(getattr(noisy, name)()), batches_of(getattr(clean, name)()))


@pytest.mark.filterwarnings("ignore:Total length of `DataLoader` across ranks is zero")
def test_training_without_validation_images(tmp_path: Path) -> None:
    write_mnist(tmp_path, 60, 20)
    data = MNISTDataModule(
        root=str(tmp_path), download=False, verify_checksums=False, val_size=0, batch_size=250
    )
    model = Recorder()
    make_trainer(tmp_path, max_epochs=1).fit(model, datamodule=data)
    assert [len(images) for images in model.seen] == [60]
    assert model.validated == 0


def test_global_random_state_is_neither_used_nor_changed() -> None:
    served = []
    for seed in (0, 1):
        L.seed_everything(seed)
        states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        data = letters()
        loaders = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]
        served.append([images for loader in loaders for images in batches_of(loader)])
        assert torch.equal(torch.get_rng_state(), states[0])
        assert np.random.get_state()[1].tolist() == states[1]
        assert random.getstate() == states[2]
    assert same(*served)


@pytest.fixture
def pair(tmp_path: Path) -> L.Trainer:
    """A trainer that would run two processes; none is started."""
    return make_trainer(tmp_path, devices=2, strategy="ddp")


def distributed(trainer: L.Trainer, loader: DataLoader[Any], rank: int, train: bool) -> DataLoader[Any]:
    trainer.strategy.set_world_ranks()
    sampler_arguments = {**trainer.distributed_sampler_kwargs, "rank": rank}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(trainer), "distributed_sampler_kwargs", sampler_arguments)
        stage = RunningStage.TRAINING if train else RunningStage.TESTING
        return trainer._data_connector._prepare_dataloader(loader, shuffle=train, mode=stage)


def test_two_processes_share_the_training_images(pair: L.Trainer) -> None:
    data = letters(n_train=24)
    loaders = [distributed(pair, data.train_dataloader(), rank, train=True) for rank in range(2)]
    for loader in loaders:
        assert isinstance(loader, ResumableLoader)
        assert isinstance(loader.sampler, DistributedSampler)
        assert loader.sampler.shuffle
        assert loader.batch_size == 4
        assert loader.batches_done == data._batches_done
    indices = [list(loader.sampler) for loader in loaders]
    assert sorted(indices[0] + indices[1]) == list(range(24))
    assert indices[0] != sorted(indices[0])
    first, second = (batches_of(loader) for loader in loaders)
    assert [len(images) for images in first] == [4, 4, 4]
    assert not same(first, second)


def test_two_processes_share_the_test_images_in_order_and_repeat_none(pair: L.Trainer) -> None:
    data = letters(n_test=15)
    whole = torch.cat(batches_of(data.test_dataloader()))
    loaders = [distributed(pair, data.test_dataloader(), rank, train=False) for rank in range(2)]
    assert not any(loader.sampler.shuffle for loader in loaders)
    parts = [torch.cat(batches_of(loader)) for loader in loaders]
    assert torch.equal(parts[0], whole[::2])
    assert torch.equal(parts[1], whole[1::2])


def test_samplers_of_one_process() -> None:
    data = letters()
    assert isinstance(data.train_dataloader().sampler, EpochRandomSampler)
    assert isinstance(data.test_dataloader().sampler, SequentialSampler)


def test_of_fewer_images_than_processes_each_has_all(pair: L.Trainer) -> None:
    loader = letters(n_test=1).test_dataloader()
    assert [len(distributed(pair, loader, rank, train=False)) for rank in range(2)] == [1, 1]


class Given(InMemoryDataModule):
    """Three images for training, of which the last is as it is given."""

    image_shape, num_classes, class_names = (1, 2, 2), 2, ["0", "1"]

    def __init__(self, pixel: float = 0.0, label: int = 1, size: int = 2) -> None:
        super().__init__()
        images = torch.zeros(3, 1, size, size)
        images[2, 0, 0, 0] = pixel
        self.good = Labelled(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 1]))
        self.given = Labelled(images, torch.tensor([0, 1, label]))

    def load_splits(self) -> tuple[Labelled, Labelled, Labelled]:
        return self.good, self.good, self.given


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label": -1}, r"test labels=\[-1, 1\]: must be classes from 0 to 1"),
        ({"label": 99}, r"test labels=\[0, 99\]: must be classes from 0 to 1"),
        ({"pixel": float("nan")}, r"test images=\[nan, nan\]: must be bytes, or from 0 to 1"),
        ({"pixel": 1.5}, r"test images=\[0.0, 1.5\]: must be bytes, or from 0 to 1"),
        ({"size": 3}, r"test images=\(3, 1, 3, 3\): must be one label for each, of shape"),
    ],
)
def test_splits_that_cannot_be_right_are_refused_at_setup(settings: dict[str, Any], message: str) -> None:
    Given().setup()
    with pytest.raises(SettingError, match=message):
        Given(**settings).setup()

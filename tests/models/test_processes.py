"""On one, two and three processes every family measures the same, and learns the same."""

import lightning as L
import pytest
import torch
from processes import on_processes
from small_models import SMALL, small_model
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

from lightning_attractors.callbacks import EveryImageOnce
from lightning_attractors.data import InMemoryDataModule, Labelled

FAMILIES = [*SMALL]
# Images and batch size, such that some process has a batch fewer on two or on three; none for all three.
SHARES = {"test": (7, 2), "validate": (7, 3), "fewer images": (2, 4)}


class Random(InMemoryDataModule):
    """Images that have nothing to do with their labels."""

    image_shape, num_classes, class_names = (1, 6, 6), 3, ["a", "b", "c"]

    def load_splits(self):
        return tuple(split(count) for count in (20, 7, 7))


def split(count):
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(256, (count, 1, 6, 6), dtype=torch.uint8, generator=generator)
    return Labelled(images, torch.randint(3, (count,), generator=generator))


def trainer_of(count, folder, **settings):
    strategy = "ddp" if count > 1 else "auto"
    return quiet_trainer(folder, [EveryImageOnce()], devices=count, strategy=strategy, **settings)


def measured(count, folder):
    """The metrics of every family, of images in loaders that know nothing of processes."""
    found = {}
    for name in FAMILIES:
        model, _ = small_model(name)
        for stage, (images, batch_size) in SHARES.items():
            data = split(images)
            loader = DataLoader(TensorDataset(data.images / 255, data.labels), batch_size=batch_size)
            trainer = trainer_of(count, folder)
            evaluate = trainer.validate if stage == "validate" else trainer.test
            found[name, stage] = evaluate(model, loader, verbose=False)[0]
    return found


@pytest.mark.parametrize("count", [2, 3])
def test_every_family_measures_every_image_once(count, tmp_path):
    expected = measured(1, tmp_path)
    assert len(expected) == len(FAMILIES) * len(SHARES)
    assert all("test/accuracy" in expected[name, "test"] for name in FAMILIES)
    for found in on_processes(count, lambda: measured(count, tmp_path), tmp_path):
        for key, metrics in expected.items():
            assert found[key] == pytest.approx(metrics, rel=1e-6, abs=1e-7), key


def trained(count, folder):
    """The weights of every family after two epochs of two batches, and what was validated."""
    found = {}
    for name in FAMILIES:
        model, _ = small_model(name)
        limits = {"max_epochs": 2, "num_sanity_val_steps": 0}
        trainer = trainer_of(count, folder, precision="64-true", **limits)
        trainer.fit(model.double(), Random(batch_size=12 // count, eval_batch_size=3))
        found[name] = model.state_dict(), {k: v.item() for k, v in trainer.callback_metrics.items()}
    return found


def test_every_family_learns_the_same_from_the_same_global_batches(tmp_path):
    (expected,) = on_processes(1, lambda: trained(1, tmp_path), tmp_path)
    results = on_processes(2, lambda: trained(2, tmp_path), tmp_path)
    for found in results:
        for name, (weights, metrics) in expected.items():
            torch.testing.assert_close(found[name][0], weights, rtol=1e-9, atol=1e-9)
            assert found[name][1] == pytest.approx(metrics, rel=1e-9, abs=1e-9), name


class Stranger(L.LightningModule):
    """Its steps are reduced over the processes one by one."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def test_step(self, batch, batch_idx):
        self.log(
            "seen", batch[0].mean(), on_step=True, on_epoch=True, sync_dist=True, batch_size=len(batch[0])
        )


def seen(folder):
    """The mean of 0 to 6 as a stranger logs it on two processes, and what is said of it."""
    loader = DataLoader(TensorDataset(torch.arange(7.0)), batch_size=3)
    with pytest.warns() as told:
        (found,) = trainer_of(2, folder).test(Stranger(), loader, verbose=False)
    return found["seen_epoch"], [str(one.message) for one in told]


def test_a_module_whose_steps_may_wait_for_others_never_waits_in_vain(tmp_path):
    found = on_processes(2, lambda: seen(tmp_path), tmp_path)
    assert [mean for mean, _ in found] == pytest.approx([21 / 8] * 2)
    assert any(text.startswith("1 of 7 images count twice") for text in found[0][1])

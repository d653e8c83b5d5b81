import pickle
import random
import types

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from robustness_runs import Bright, loader, measured, report
from torch import nn
from trainers import quiet_trainer

from lightning_attractors.callbacks import RobustnessCurve
from lightning_attractors.callbacks.robustness_trainer import together, undisturbed
from lightning_attractors.errors import SettingError


class Forgetting(Bright):
    """Is at its best after the first epoch."""

    def on_train_epoch_end(self):
        self.log("quality", -float(self.current_epoch))
        if self.current_epoch == 1:
            self.scale.data.neg_()

    def test_dataloader(self):
        return loader()


def test_after_fit_the_best_checkpoint_counts(tmp_path):
    best = ModelCheckpoint(monitor="quality", mode="max", filename="best")
    callback, module = RobustnessCurve(["pgd_radius"], masking=False), Forgetting()
    settings = {"max_epochs": 2, "enable_checkpointing": True}
    quiet_trainer(tmp_path, [callback, best], **settings).fit(module, loader())
    found = report(tmp_path, "pgd_radius")
    assert (found["accuracy"], found["checkpoint"]) == (1.0, "best.ckpt")
    assert module.scale.item() == -40
    assert callback.results["pgd_radius"] == found


def test_a_resumed_fit_is_not_named_after_the_checkpoint_it_began_with(tmp_path):
    first = quiet_trainer(tmp_path, [], max_epochs=1)
    first.fit(Forgetting(), loader())
    first.save_checkpoint(tmp_path / "old.ckpt")
    resumed = quiet_trainer(tmp_path, [RobustnessCurve(["pgd_radius"], masking=False)], max_epochs=2)
    resumed.fit(Forgetting(), loader(), ckpt_path=tmp_path / "old.ckpt")
    assert report(tmp_path, "pgd_radius")["checkpoint"] is None


class Partly(Bright):
    """Has a part that stays in evaluation mode and a parameter that does not learn."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(1, 1).requires_grad_(False)
        self.part.eval()

    def on_train_epoch_start(self):
        self.part.eval()
        self.frozen.eval()

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + torch.rand(()) * 0

    def val_dataloader(self):
        return loader()

    def validation_step(self, batch, batch_idx):
        """Nothing."""


def test_the_module_and_random_numbers_are_left_as_they_were(tmp_path):
    def fitted(callbacks):
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)
        module = Partly()
        quiet_trainer(tmp_path, callbacks, max_epochs=1).fit(module, loader())
        modes = [part.training for part in module.modules()]
        flags = [parameter.requires_grad for parameter in module.parameters()]
        return modes, flags, torch.rand(1).item(), np.random.rand(), random.random(), module

    *alone, _ = fitted([])
    curve = RobustnessCurve(["torchattacks.PGD", "replace_pixels"], [0.1, 0.2, 0.3, 0.4, 0.5], split="val")
    *watched, module = fitted([curve])
    assert watched == alone
    assert module.scale.grad is None or not module.scale.grad.is_inference()
    assert report(tmp_path, "PGD")["stage"] == "fit"


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_precision_is_the_trainers(precision, tmp_path):
    class Watched(Bright):
        seen = None

        def forward(self, images):
            logits = super().forward(images)
            Watched.seen = (images.dtype, (torch.eye(2) @ torch.eye(2)).dtype)
            return logits

    _, found = measured(tmp_path, Watched(), trainer_settings={"precision": precision})
    expected = (torch.float32, torch.bfloat16) if precision == "bf16-mixed" else (torch.float64,) * 2
    assert Watched.seen == expected
    assert found["precision"] == precision


@pytest.mark.parametrize("split", ["test", "val"])
def test_hooks_see_the_stage_of_the_split_after_fit(split, tmp_path):
    class Augmenting(Partly):
        def test_dataloader(self):
            return loader()

        def on_before_batch_transfer(self, batch, dataloader_idx):
            images, labels = batch
            return (1 - images if self.trainer.training else images), labels

        def on_after_batch_transfer(self, batch, dataloader_idx):
            own = self.trainer.testing if split == "test" else self.trainer.validating
            images, labels = batch
            return (images if own else images / 2), labels

    curve = RobustnessCurve(["fgsm_radius"], masking=False, split=split)
    trainer = quiet_trainer(tmp_path, [curve], max_epochs=1, limit_val_batches=0)
    stages = []
    curve.on_fit_end = lambda trainer, module: stages.append(trainer.training)
    trainer.fit(Augmenting(), loader(), loader())
    assert report(tmp_path, "fgsm_radius")["accuracy"] == 1
    assert stages == [True]


class Slim(Forgetting):
    """Keeps a frozen weight out of its checkpoints."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Parameter(torch.ones(()), requires_grad=False)

    def on_save_checkpoint(self, checkpoint):
        del checkpoint["state_dict"]["frozen"]

    def on_load_checkpoint(self, checkpoint):
        checkpoint["state_dict"]["frozen"] = torch.ones(())


def test_a_checkpoint_passes_the_modules_hook_and_a_failing_one_leaves_no_trace(tmp_path):
    best = ModelCheckpoint(monitor="quality", mode="max", filename="best")
    curve, module = RobustnessCurve(["fgsm_radius"], masking=False), Slim()
    quiet_trainer(tmp_path, [curve, best], max_epochs=2, enable_checkpointing=True).fit(module, loader())
    assert report(tmp_path, "fgsm_radius")["accuracy"] == 1
    module.on_load_checkpoint = lambda checkpoint: None
    module.train()
    with pytest.raises(RuntimeError, match="frozen"), undisturbed(module, best.best_model_path):
        pytest.fail("has loaded")
    assert module.scale.item() == -40
    assert module.training


class UnpicklableError(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (SettingError("a", lambda: 1, "b"), SettingError, "a=<function .*>: b"),
        (UnpicklableError("one", "two"), RuntimeError, "UnpicklableError: one two"),
    ],
)
def test_errors_reach_the_other_processes(error, kind, message, monkeypatch):
    def sent(everywhere, found):
        everywhere[:] = [(1, None), pickle.loads(pickle.dumps(found))]

    def work():
        raise error

    monkeypatch.setattr(torch.distributed, "all_gather_object", sent)
    with pytest.raises(kind, match=message) as caught:
        together(types.SimpleNamespace(world_size=2), work)
    assert type(caught.value) is kind

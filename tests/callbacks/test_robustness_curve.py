import csv
import importlib.util
import json
import math
import pickle
import random
import sys
import types
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
import torchattacks
from command_line import RUN, empty_folder, run, small, spawn  # noqa: F401
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, TensorDataset
from trainers import quiet_trainer

from lightning_attractors.callbacks import BrokenCertificateError, RobustnessCurve
from lightning_attractors.callbacks.robustness_files import draw_curve
from lightning_attractors.callbacks.robustness_measuring import together, undisturbed
from lightning_attractors.callbacks.robustness_run import _line
from lightning_attractors.errors import SettingError
from lightning_attractors.models import NMODE
from lightning_attractors.robustness import check_masking, fgsm_radii, gaussian_noise, pgd_radii
from lightning_attractors.robustness.library import LibraryAttack
from lightning_attractors.robustness.logistic import fit_logistic
from lightning_attractors.robustness.records import Curve

HERE = Path(__file__).parents[1]
COUNT = 40
MEAN, STD = 0.3, 0.25


def example(name):
    spec = importlib.util.spec_from_file_location(name, HERE.parent / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Bright(L.LightningModule):
    """Tells by their mean whether images are bright, and how surely by ``scale``."""

    def __init__(self, scale=40.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.part = nn.Dropout(0.5)

    def forward(self, images):
        mean = self.part(images).flatten(1).mean(dim=1)
        return self.scale * torch.stack([0.5 - mean, mean - 0.5], dim=1)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def test_step(self, batch, batch_idx):
        self.log("test/loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def pictures():
    """Images about as bright as 0.3 to 0.7, none of them near 0 or 1, and whether they are bright."""
    generator = torch.Generator().manual_seed(0)
    images = 0.2 * torch.rand(COUNT, 1, 4, 4, generator=generator)
    images += torch.linspace(0.2, 0.6, COUNT).view(-1, 1, 1, 1)
    return images, (images.mean(dim=(1, 2, 3)) > 0.5).long()


def loader(batch_size=7):
    return DataLoader(TensorDataset(*pictures()), batch_size=batch_size)


def measured(path, module=None, data=None, trainer_settings=None, **settings):
    """The callback after a test, and what it has written of its first attack."""
    callback = RobustnessCurve(**{"masking": False, "batch_size": 16, **settings})
    trainer = quiet_trainer(path, [callback], **(trainer_settings or {}))
    trainer.test(module or Bright(), data or loader(), verbose=False)
    return callback, report(path, callback.attacks[0].name)


def report(path, name):
    return json.loads((path / "robustness" / f"{name}.json").read_text())


def rows(path, name):
    with open(path / "robustness" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_radii_are_those_of_the_search_under_inference_mode(tmp_path):
    _, found = measured(tmp_path, attacks=["pgd_radius", "fgsm_radius"], confidence=0.6)
    images, labels = pictures()
    logits = Bright().eval()
    confidence = logits(images).softmax(dim=1).amax(dim=1)
    for name, search in (("fgsm_radius", fgsm_radii), ("pgd_radius", pgd_radii)):
        expected = search(logits, images, labels)
        table = rows(tmp_path, f"{name}_radii")
        assert [int(row["index"]) for row in table] == list(range(COUNT))
        assert [float(row["radius"]) for row in table] == pytest.approx(expected.radii.tolist(), abs=2e-6)
        assert [int(row["steps"] or -1) for row in table] == expected.steps.tolist()
        assert [float(row["confidence"]) for row in table] == pytest.approx(confidence.tolist(), abs=1e-5)
        assert {row["certified_radius"] for row in table} == {""}
        counted = confidence >= 0.6
        radii = expected.radii[counted]
        for row in rows(tmp_path, name)[::20]:
            above = (radii > float(row["strength"])).double().mean().item()
            assert float(row["relative_accuracy"]) == pytest.approx(above, abs=1.1 / len(radii))
        assert report(tmp_path, name)["images"]["counted"] == counted.sum()
    assert found["fitted"]
    assert found["counts"] is False  # 40 images are too few
    assert found["rules"]["more_than_500_images"] is False
    assert found["steps"]["R_times_step_size"] == pytest.approx(found["R"], rel=0.05)
    assert found["steps"]["agrees_within_5_percent"] is True
    assert found["settings"]["arguments"] == {"largest": 0.3, "step_size": 1 / 255, "steps": 40}
    for ending in (".png", "_gallery.png"):
        assert (tmp_path / "robustness" / f"pgd_radius{ending}").read_bytes().startswith(b"\x89PNG")


def test_sweeps_are_the_attack_at_each_strength(tmp_path):
    strengths = [0.1, 0.02, 0.05]
    attacks = [
        {"class_path": "torchattacks.FGSM", "strengths": strengths},
        {"class_path": "gaussian_noise", "name": "noise"},
        {"class_path": "torchattacks.PGD", "init_args": {"steps": 3, "random_start": False, "alpha": 0.02}},
    ]
    measured(tmp_path, attacks=attacks, strengths=[0.5], batch_size=COUNT, confidence=0)
    images, labels = pictures()
    model = Bright().eval()
    right = [
        (model(torchattacks.FGSM(model, eps=strength)(images, labels)).argmax(dim=1) == labels)
        for strength in strengths
    ]
    found = [float(row["accuracy"]) for row in rows(tmp_path, "FGSM")]
    assert found == pytest.approx([part.float().mean().item() for part in right])
    assert len(set(found)) == 3
    radii = [float(row["radius"]) for row in rows(tmp_path, "FGSM_radii")]
    first = torch.stack([torch.where(part, math.inf, s) for part, s in zip(right, strengths, strict=True)])
    assert radii == pytest.approx(first.amin(dim=0).tolist())
    noisy = gaussian_noise(images, 0.5, np.random.default_rng([0, 0, 0]))
    expected = (model(noisy).argmax(dim=1) == labels).float().mean().item()
    assert float(rows(tmp_path, "noise")[0]["accuracy"]) == pytest.approx(expected)
    moved = torchattacks.PGD(model, eps=0.5, steps=3, random_start=False, alpha=0.02)(images, labels)
    expected = (model(moved).argmax(dim=1) == labels).float().mean().item()
    assert float(rows(tmp_path, "PGD")[0]["accuracy"]) == pytest.approx(expected)
    assert report(tmp_path, "noise")["reason"].startswith("1 different radii")


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


def test_strangers_of_the_example_are_measured_through_arguments(tmp_path):
    project = example("existing_project")
    torch.manual_seed(0)
    data = project.Bands(50, seed=1)
    module = project.PlainCNN()
    arguments = {"unpack_batch": project.of_dict, "mean": project.MEAN, "std": project.STD}
    measured(tmp_path, module, DataLoader(data, batch_size=20), attacks=["fgsm_radius"], **arguments)
    module.eval()
    images = data.pixels * STD + MEAN

    def logits(pixels):
        return module((pixels - MEAN) / STD)

    expected = fgsm_radii(logits, images, data.targets).radii
    found = [float(row["radius"]) for row in rows(tmp_path, "fgsm_radius_radii")]
    assert found == pytest.approx(expected.tolist(), abs=1e-5)
    assert (expected.isfinite() & (expected > 0)).any()
    pairs = DataLoader(project.Pairs(50, seed=1), batch_size=20)
    _, found = measured(tmp_path / "tuple", project.TupleCNN(), pairs, logits_fn=project.first_output)
    assert found["images"]["all"] == 50


def refused_before_training(path, module, data, **settings):
    class Untrained(L.Callback):
        def on_train_batch_start(self, *arguments):
            pytest.fail("training has begun")

    callback = RobustnessCurve(**{"split": "val", **settings})
    module.validation_step = lambda batch, batch_idx: None
    trainer = quiet_trainer(path, [callback, Untrained()], max_epochs=1, num_sanity_val_steps=0)
    with pytest.raises(SettingError) as caught:
        trainer.fit(module, data, data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_does_not_fit_is_said_before_training(tmp_path):
    project = example("existing_project")
    dicts = DataLoader(project.Bands(8, seed=1), batch_size=4)
    pairs = DataLoader(project.Pairs(8, seed=1), batch_size=4)
    message = refused_before_training(tmp_path, project.PlainCNN(), dicts)
    assert message.startswith("unpack_batch=None")
    assert "pixels" in message
    arguments = {"unpack_batch": project.of_dict}
    message = refused_before_training(tmp_path, project.PlainCNN(), dicts, **arguments)
    assert "must lie from 0 to 1; give mean and std" in message
    message = refused_before_training(tmp_path, project.TupleCNN(), pairs)
    assert message.startswith("logits_fn=None: must give the logits: forward gives tuple")
    message = refused_before_training(tmp_path, Bright(math.nan), loader())
    assert "without nan" in message
    message = refused_before_training(tmp_path, Bright(), loader(), split="test")
    assert message.startswith("split='test'")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attacks": []}, "at least one"),
        ({"attacks": ["pgd"]}, "attacks='pgd': must be an import path.*pgd_radius"),
        ({"attacks": ["torchattacks.Nothing"], "strengths": [0.1]}, "torchattacks.Nothing"),
        ({"attacks": ["no.such"], "strengths": [0.1]}, "no.such"),
        ({"attacks": ["torchattacks.FGSM"]}, "strengths=None"),
        ({"attacks": ["torchattacks.FGSM"], "strengths": [0.1, math.inf]}, "strengths=.*must be finite"),
        ({"attacks": ["gaussian_noise"], "strengths": [math.nan]}, "strengths=.*must be finite"),
        ({"attacks": ["torchattacks.CW"], "strengths": [1]}, "strength='eps'.*c, kappa"),
        (
            {"attacks": [{"class_path": "torchattacks.PGD", "init_args": {"stps": 3}, "strengths": [1]}]},
            "init_args='stps'.*alpha",
        ),
        ({"attacks": [{"class_path": "pgd_radius", "init_args": {"eps": 3}}]}, "init_args='eps'.*step_size"),
        ({"attacks": [{"class_path": "pgd_radius", "init_args": {"steps": 0}}]}, "steps=0"),
        ({"attacks": [{"class_path": "pgd_radius", "speed": 3}]}, "speed"),
        ({"attacks": [{"name": "x"}]}, "class_path"),
        ({"attacks": [{"class_path": "pgd_radius", "name": "a/b"}]}, "a/b"),
        ({"attacks": ["pgd_radius", "pgd_radius"]}, "names of their own"),
        ({"confidence": 1.5}, "confidence"),
        ({"max_images": 0}, "max_images"),
        ({"batch_size": 0}, "batch_size"),
        ({"split": "train"}, "split"),
        ({"seed": -1}, "seed"),
        ({"std": [0.0]}, "std"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(SettingError, match=message) as caught:
        RobustnessCurve(**settings)
    assert "\n" not in str(caught.value)


def test_an_attack_that_does_not_fit_the_model_is_named(tmp_path):
    attack = {"class_path": "torchattacks.Square", "init_args": {"norm": "L7"}, "strengths": [0.1]}
    with pytest.raises(SettingError, match=r"init_args=.*L7.*torchattacks.Square cannot attack"):
        measured(tmp_path, attacks=[attack])


def test_without_a_confident_image_there_is_no_R(tmp_path):
    with pytest.warns(UserWarning, match="no R, as no image is classified correctly with a"):
        _, found = measured(tmp_path, Bright(0.1), attacks=["pgd_radius"])
    assert (found["R"], found["fitted"], found["images"]["counted"]) == (None, False, 0)


class Certified(Bright):
    """Offers the exact radius times a factor."""

    factor = 1.0

    def certified_radii(self, images, labels):
        return self.factor * (images.double().mean(dim=(1, 2, 3)) - 0.5).abs() * (1 - 1e-6)


def test_the_certified_curve_lies_below_the_attacked_one(tmp_path):
    measured(tmp_path, Certified(), attacks=["pgd_radius"])
    table = rows(tmp_path, "pgd_radius")
    assert all(float(row["certified"]) <= float(row["relative_accuracy"]) for row in table)
    assert float(table[0]["certified"]) == 1
    for row in rows(tmp_path, "pgd_radius_radii"):
        assert float(row["certified_radius"]) <= float(row["radius"])
    _, found = measured(tmp_path / "mixed", Certified(), trainer_settings={"precision": "bf16-mixed"})
    assert "bf16-mixed" in found["certificate"]["reason"]


def test_a_negative_strength_is_as_far_as_its_opposite(tmp_path):
    amounts = [i / 50 for i in range(1, 13)]
    attack = {"class_path": "brightness", "strengths": [*amounts, *(-amount for amount in amounts)]}
    _, found = measured(tmp_path, Certified(), attacks=[attack], confidence=0)
    table = rows(tmp_path, "brightness")
    for name in ("certified", "fit"):
        column = [row[name] for row in table]
        assert column[:12] == column[12:]
        assert len(set(column)) > 5
    assert found["fitted"]


def test_strengths_of_both_signs_are_drawn_in_order_with_R_on_either_side():
    strengths = torch.tensor([0.1, 0.3, -0.1, -0.3], dtype=torch.float64)
    accuracy = torch.tensor([0.9, 0.3, 0.8, 0.2], dtype=torch.float64)
    fitted = fit_logistic(torch.linspace(0.05, 0.3, 40))
    for keep, marks in (([0, 1, 2, 3], [fitted.R, -fitted.R]), ([0, 1], [fitted.R]), ([2, 3], [-fitted.R])):
        found = Curve(strengths[keep], accuracy[keep], accuracy[keep], None)
        lines = draw_curve("brightness", found, fitted, 0.8, 40, "linf").axes[0].lines
        assert [line.get_xdata()[0] for line in lines if len(set(line.get_xdata())) == 1] == marks
        assert sorted(strengths[keep].tolist()) == lines[0].get_xdata().tolist()
        drawn = dict(zip(lines[0].get_xdata().tolist(), lines[0].get_ydata().tolist(), strict=True))
        assert drawn == dict(zip(strengths[keep].tolist(), accuracy[keep].tolist(), strict=True))


@pytest.mark.parametrize("attack", ["pgd_radius", "torchattacks.FGSM"])
def test_a_broken_certificate_fails_loudly_once_all_is_written(attack, tmp_path):
    module = Certified()
    module.factor = 1.5
    name = attack.rpartition(".")[2]
    with pytest.raises(BrokenCertificateError, match=rf"{name}: images \[") as caught:
        measured(tmp_path, module, attacks=[attack], strengths=[i / 50 for i in range(1, 15)])
    broken = report(tmp_path, name)["certificate"]["misclassified_within"]
    assert broken
    assert str(broken[:10]) in str(caught.value)
    table = rows(tmp_path, f"{name}_radii")
    for index in broken:
        assert float(table[index]["radius"]) <= float(table[index]["certified_radius"]) + 1e-6


def test_the_certificate_of_nmode_withstands(tmp_path):
    torch.manual_seed(0)
    module = NMODE(num_classes=2, image_shape=(1, 4, 4), width=12)
    images, labels = pictures()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(images), labels).backward()
        optimizer.step()
    measured(tmp_path, module, attacks=["fgsm_radius"], confidence=0)
    table = rows(tmp_path, "fgsm_radius_radii")
    certified = [float(row["certified_radius"]) for row in table]
    assert max(certified) > 0.01
    assert all(
        c <= float(row["radius"]) for c, row in zip(certified, table, strict=True) if row["correct"] == "1"
    )


def test_an_interruption_leaves_what_is_done(tmp_path):
    class Impatient(Bright):
        forwards = 0

        def certified_radii(self, images, labels):  # called once for every batch, before the attacks
            self.started = True
            return torch.zeros(len(images)).double()

        def forward(self, images):
            self.forwards += torch.is_grad_enabled() and getattr(self, "started", False)
            if self.forwards > 1:  # the second batch of the first attack
                raise KeyboardInterrupt
            return super().forward(images)

    with pytest.raises(SystemExit):
        measured(tmp_path, Impatient(), attacks=["fgsm_radius", "pgd_radius"])
    found = report(tmp_path, "fgsm_radius")
    assert (found["complete"], found["images"]["all"]) == (False, 16)
    assert not (tmp_path / "robustness" / "pgd_radius.json").exists()


def test_tensorboard_has_scalars_figures_and_hyperparameters(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version=0, default_hp_metric=False)
    callback = RobustnessCurve(["pgd_radius"], batch_size=16, confidence=0.5)
    trainer = L.Trainer(callbacks=[callback], logger=logger, accelerator="cpu", enable_progress_bar=False)
    trainer.test(Bright(), loader(), verbose=False)
    logger.experiment.flush()
    events = EventAccumulator(str(tmp_path / "version_0")).Reload()
    R = events.Scalars("robustness/pgd_radius/R")[0].value
    assert pytest.approx(report(tmp_path / "version_0", "pgd_radius")["R"], rel=1e-6) == R
    assert {"robustness/pgd_radius", "robustness/pgd_radius_gallery"} <= set(events.Tags()["images"])
    assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")


def test_a_dry_run_writes_nothing(tmp_path):
    callback = RobustnessCurve(["pgd_radius"], masking=False)
    quiet_trainer(tmp_path, [callback], fast_dev_run=True).test(Bright(), loader(), verbose=False)
    assert callback.results["pgd_radius"]["images"]["all"] == 8
    assert not (tmp_path / "robustness").exists()


def test_runs_are_compared_by_their_files(tmp_path, monkeypatch, capsys):
    for scale in (20.0, 40.0):
        measured(tmp_path / f"{scale:g}", Bright(scale), attacks=["pgd_radius"], confidence=0)
    measured(tmp_path / "unsure", Bright(0.1), attacks=["pgd_radius"])
    broken_off = tmp_path / "20" / "robustness" / "pgd_radius.json"
    broken_off.write_text(
        json.dumps(report(tmp_path / "20", "pgd_radius") | {"complete": False, "counts": True})
    )
    assert not example("compare_runs").read([tmp_path / "20"], "pgd_radius")[0]["counts"]
    names = [str(tmp_path / name) for name in ("20", "40", "unsure", "nothing")]
    output = tmp_path / "scatter.png"
    monkeypatch.setattr(sys, "argv", ["compare_runs.py", *names, "--output", str(output)])
    monkeypatch.setenv("COLUMNS", "300")
    example("compare_runs").main()
    printed = capsys.readouterr().out
    assert f"{report(tmp_path / '20', 'pgd_radius')['R']:.4f}" in printed
    assert "no image is classified correctly" in printed
    assert "nothing" not in printed
    assert printed.count("no, interrupted") == 1
    assert output.read_bytes().startswith(b"\x89PNG")


def backwards(images):
    """Classes of Bright, and its gradient with the sign turned."""
    logits = Bright().eval()(images)
    return 2 * logits.detach() - logits


def test_a_gradient_that_misleads_is_found_out():
    images, labels = pictures()
    honest = check_masking(Bright().eval(), images, labels, batch_size=16, queries=50)
    assert not honest.masked
    assert honest.white_box >= honest.images / 2
    assert honest.sentence.startswith("No sign of masked gradients")
    masked = check_masking(backwards, images, labels, batch_size=16, queries=50)
    assert masked.masked
    assert masked.white_box == 0
    assert masked.only_black_box > 10
    assert masked.only_transferred > 0
    assert masked.sentence.startswith("Gradients ARE masked")


def test_ties_in_float32_are_all_broken_at_their_radius():
    # One step takes each of them, and float32 has it 1/255 a little less or more
    images = torch.linspace(0.4981, 0.4999, 21).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    found = check_masking(Bright().eval(), images, torch.zeros(21, dtype=torch.int64), 16, queries=1)
    assert found.white_box == found.images == 21


def test_vanishing_gradients_are_said(tmp_path):
    class Blind(Bright):
        def forward(self, images):
            return super().forward(images.round() + 0 * images)

    images, labels = pictures()
    data = DataLoader(TensorDataset(images.round(), labels), batch_size=10)
    with pytest.warns(UserWarning, match="Gradients ARE masked"):
        _, found = measured(tmp_path, Blind(), data, attacks=["fgsm_radius"], masking=True)
    assert found["masking"]["masked"]
    assert found["images"]["gradient_vanished"] > 0


@pytest.mark.usefixtures("empty_folder")
def test_two_processes_measure_what_one_does_and_a_run_is_measured_once():
    settings = small("nmode_letters")
    settings += ["--trainer.callbacks+", "RobustnessCurve", "--trainer.callbacks.batch_size", 8]
    settings += ["--trainer.callbacks.attacks", '["pgd_radius", "torchattacks.PGD", "replace_pixels"]']
    settings += ["--trainer.callbacks.strengths", "[0.05, 0.2, 0.5]"]
    process = spawn("fit", *settings, "--trainer.devices", 2, "--trainer.strategy", "ddp")
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("robustness  pgd_radius") == 1
    run("test", *settings, "--ckpt_path", "best")
    alone = RUN.parent / "version_1"
    for name in ("pgd_radius", "PGD", "replace_pixels"):
        for ending in (".csv", "_radii.csv"):
            tables = [(folder / "robustness" / f"{name}{ending}").read_text() for folder in (RUN, alone)]
            assert tables[0] == tables[1]
            assert len(tables[0].splitlines()) > 3
    assert report(RUN, "PGD")["checkpoint"] == "best.ckpt"
    assert report(RUN, "PGD")["stage"] == "test"


class Seeded:
    """Takes the time where it is given no seed, as torchattacks.AutoAttack does."""

    def __init__(self, model, eps=0.1, seed=None):
        self.seed = seed

    def __call__(self, images, labels):
        return torch.full_like(images, math.nan if self.seed is None else self.seed % 1000)


def test_attacks_with_a_seed_of_their_own_are_given_one():
    images, labels = pictures()
    attack = LibraryAttack(f"{__name__}.Seeded", {})
    first, again, other = (attack(Bright(), images, labels, 0.1, key) for key in ([0, 1], [0, 1], [0, 2]))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    chosen = LibraryAttack(f"{__name__}.Seeded", {"seed": 7})
    assert chosen(Bright(), images, labels, 0.1, [0, 1]).eq(7).all()


@pytest.mark.parametrize("agrees", [True, False, None])
def test_the_line_says_where_the_steps_do_not_agree(agrees):
    summary = {"attack": "pgd_radius", "fitted": True, "R": 0.1, "uncertainty": 0.01, "accuracy": 1.0}
    summary |= {"images": {"all": 9, "counted": 8}}
    summary |= {"steps": {"R_times_step_size": 0.25, "agrees_within_5_percent": agrees}}
    assert ("step size × R in steps is 0.25" in _line(summary, 1.0)) == (agrees is False)


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


class Noisy(Bright):
    def forward(self, images):
        return super().forward(images + 0.05 * torch.randn(len(images), 1, 1, 1))

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        """Nothing."""


def test_the_global_seed_decides_neither_images_nor_radii(tmp_path):
    def table(around, **settings):
        torch.manual_seed(around)
        data = [DataLoader(TensorDataset(*pictures()), batch_size=7, shuffle=True) for _ in range(2)]
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        measured(folder, Noisy(), data, attacks=["fgsm_radius"], max_images=60, **settings)
        return rows(folder, "fgsm_radius_radii")

    assert table(1) == table(2)
    assert table(1) != table(1, seed=1)


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


def test_a_loader_of_this_rank_alone_is_refused(tmp_path):
    data = TensorDataset(*pictures())
    share = DistributedSampler(data, num_replicas=2, rank=0)
    shares = [DataLoader(data, sampler=share), DataLoader(data, batch_sampler=BatchSampler(share, 7, False))]
    for part in shares:
        message = refused_before_training(tmp_path, Bright(), part)
        assert message.startswith("sampler='DistributedSampler': must not share out the images of the val")
    alone = DistributedSampler(data, num_replicas=1, rank=0)
    _, found = measured(tmp_path, data=DataLoader(data, sampler=alone), attacks=["fgsm_radius"])
    assert found["images"]["all"] == COUNT


@pytest.mark.parametrize("name", ["mean", "std"])
def test_mean_and_std_are_one_or_one_for_every_channel(name, tmp_path):
    with pytest.raises(SettingError, match=rf"{name}=.*must be one number, or 1:"):
        measured(tmp_path, **{name: [0.5, 0.5, 0.5]})


@pytest.mark.parametrize("wrong", [lambda radii: radii[:, None], lambda radii: radii * math.nan])
def test_certificates_are_a_number_for_every_image(wrong, tmp_path):
    module = Certified()
    module.certified_radii = lambda images, labels: wrong(Certified().certified_radii(images, labels))
    with pytest.raises(SettingError, match=r"certified_radii=.*must give radii of shape \(16,\)"):
        measured(tmp_path, module, attacks=["fgsm_radius"])


def test_attacks_that_cannot_work_are_refused_before_training(tmp_path):
    square = {"class_path": "torchattacks.Square", "init_args": {"norm": "L7"}, "strengths": [0.1]}
    message = refused_before_training(tmp_path, Bright(), loader(), attacks=["fgsm_radius", square])
    assert "torchattacks.Square cannot attack" in message
    noise = {"class_path": "replace_pixels", "strengths": [0.1, -1.0, 0.2]}
    message = refused_before_training(tmp_path, Bright(-40.0), loader(), attacks=[noise])
    assert message.startswith("fraction=-1.0")

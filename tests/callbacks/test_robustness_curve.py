import logging
import math

import lightning as L
import numpy as np
import pytest
import torch
import torchattacks
from command_line import RUN, on_two_processes, run, small
from lightning.pytorch.loggers import TensorBoardLogger
from robustness_runs import COUNT, Bright, Certified, loader, measured, pictures, report, rows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from trainers import quiet_trainer

from lightning_attractors.callbacks import BrokenCertificateError, RobustnessCurve
from lightning_attractors.models import NMODE
from lightning_attractors.robustness import PGD, fgsm_radii, gaussian_noise, pgd_radii, scalars


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
    assert report(tmp_path, "noise")["reason"].endswith("at only one strength, and a fit needs 4")


def test_without_a_confident_image_the_line_says_what_was_found_and_what_would_give_an_R(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    callback, found = measured(tmp_path, Bright(0.1), attacks=["pgd_radius"], masking=False)
    assert (found["R"], found["fitted"], found["images"]["counted"]) == (None, False, 0)
    radii = [float(row["radius"]) for row in rows(tmp_path, "pgd_radius_radii")]
    right = sum(radius > 0.1 for radius in radii) / COUNT
    assert 0 < right < 1
    assert found["accuracy_at"] == {"0.1": right}  # PGD does not go as far as 0.3
    assert found["median_radius_all"] == sorted(radii)[COUNT // 2 - 1]
    line = next(record.message for record in caplog.records if "robustness  pgd_radius" in record.message)
    told = (
        "no R: no image is classified correctly with a confidence of 0.8 or more; confidence: 0.5 would count"
    )
    assert told in line
    assert f"{right:.4g} at 0.1; median radius {found['median_radius_all']:.4g}" in line
    logged = scalars("pgd_radius", callback.results["pgd_radius"])
    assert logged["robustness/pgd_radius/accuracy_at_0.1"] == right


class Streams(IterableDataset):
    def __iter__(self):
        return iter(TensorDataset(*pictures()))


def test_a_fit_measures_validation_images_where_it_has_no_others_or_leaves_it_to_the_test(tmp_path, caplog):
    class Validated(Bright):
        def validation_step(self, batch, batch_idx):
            """Nothing."""

    class Empty(L.LightningDataModule):
        def train_dataloader(self):
            return loader()

        def val_dataloader(self):
            return DataLoader(Streams(), batch_size=7)

        def test_dataloader(self):
            return []

    caplog.set_level(logging.INFO)
    for folder, module, data in (
        ("loaders", Validated(), [loader(), loader()]),
        ("module", Validated(), [Empty()]),
    ):
        callback = RobustnessCurve(["fgsm_radius"], masking=False)
        quiet_trainer(tmp_path / folder, [callback], max_epochs=1).fit(module, *data)
        found = report(tmp_path / folder, "fgsm_radius")
        assert (found["split"], found["settings"]["split"], found["images"]["all"]) == ("val", "val", COUNT)
        assert f"{COUNT} validation images" in caplog.records[-1].message
    callback = RobustnessCurve(["fgsm_radius"], masking=False)
    trainer = quiet_trainer(tmp_path, [callback], max_epochs=1)
    trainer.fit(Bright(), loader())
    waits = "this fit has no test or validation images, so it waits for test"
    assert [record for record in caplog.records if waits in record.message]
    assert not callback.results
    trainer.test(Bright(), loader(), verbose=False)
    assert callback.results["fgsm_radius"]["split"] == "test"


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
    process = on_two_processes("fit", *settings)
    assert process.stderr.count("robustness  pgd_radius") == 1
    run("test", *settings, "--ckpt_path", "best")
    alone = RUN / "test"
    for name in ("pgd_radius", "PGD", "replace_pixels"):
        for ending in (".csv", "_radii.csv"):
            tables = [(folder / "robustness" / f"{name}{ending}").read_text() for folder in (RUN, alone)]
            assert tables[0] == tables[1]
            assert len(tables[0].splitlines()) > 3
    assert report(RUN, "PGD")["checkpoint"] == "best.ckpt"
    assert report(RUN, "PGD")["stage"] == "test"


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


def test_attacks_of_ones_own_are_measured_beside_the_others(tmp_path):
    def darken(logits_fn, images, labels, strength):
        return (images - strength).clamp(0, 1)

    attacks = [darken, PGD("l2", steps=3), "lightning_attractors.robustness.FGSM", "brightness"]
    measured(tmp_path, attacks=attacks, strengths=[0.05, 0.1, 0.2], confidence=0)
    images, labels = pictures()
    right = [Bright().eval()(images - strength).argmax(dim=1) == labels for strength in (0.05, 0.1, 0.2)]
    right = [part.double().mean().item() for part in right]
    assert [float(row["accuracy"]) for row in rows(tmp_path, "darken")] == pytest.approx(right)
    assert report(tmp_path, "PGD")["settings"]["arguments"]["norm"] == "l2"
    assert report(tmp_path, "FGSM")["mode"] == "strengths"

"""Smoothing as a setting of the callback: files, loggers, interruptions, processes, the command line."""

import json

import lightning as L
import pytest
import torch
from command_line import RUN, on_two_processes, refused, run, small
from lightning.pytorch.loggers import TensorBoardLogger
from robustness_runs import COUNT, Bright, loader, measured, pictures, report, rows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

from lightning_attractors.callbacks import RobustnessCurve
from lightning_attractors.errors import SettingError
from lightning_attractors.robustness import Smoothing, smoothed_radii

QUICK = Smoothing(0.25, samples=100, selection=20)
SETTINGS = {"attacks": ["fgsm_radius"], "smoothing": QUICK}
COMMAND = ["--trainer.callbacks+", "RobustnessCurve", "--trainer.callbacks.attacks", "[fgsm_radius]"]


def test_what_is_written_is_what_the_function_gives(tmp_path):
    callback, _ = measured(tmp_path, **SETTINGS)
    images, labels = pictures()
    expected = smoothed_radii(Bright().eval(), images, QUICK)
    table = rows(tmp_path, "smoothed")
    assert list(table[0]) == ["index", "label", "predicted", "count", "p_lower", "radius", "correct"]
    assert [int(row["index"]) for row in table] == list(range(COUNT))
    assert [int(row["predicted"]) for row in table] == expected.classes.tolist()
    assert [int(row["count"]) for row in table] == expected.counts.tolist()
    assert [float(row["p_lower"]) for row in table] == expected.lower.tolist()
    assert [float(row["radius"]) for row in table] == expected.radii.tolist()
    right = expected.classes == labels
    assert [row["correct"] == "1" for row in table] == right.tolist()
    found = report(tmp_path, "smoothed")
    assert callback.smoothed == found
    assert found["images"] == {
        "all": COUNT,
        "correct": int(right.sum()),
        "abstained": int((expected.classes == -1).sum()),
        "recalled": 0,
    }
    assert found["images"]["abstained"] > 0
    assert found["certified_accuracy"]["0"] == found["accuracy"] == right.double().mean().item()
    far = (right & (expected.radii >= 0.25)).double().mean().item()
    assert found["certified_accuracy"]["0.25"] == far > 0
    assert found["smoothing"] == {**vars(QUICK), "seed": 0}
    assert "holds with probability 1 - alpha = 0.999 for its image" in found["statement"]
    assert (tmp_path / "robustness" / "smoothed.png").read_bytes().startswith(b"\x89PNG")


def test_scalars_and_the_figure_are_in_tensorboard(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version=0, default_hp_metric=False)
    callback = RobustnessCurve(masking=False, **SETTINGS)
    trainer = L.Trainer(callbacks=[callback], logger=logger, accelerator="cpu", enable_progress_bar=False)
    trainer.test(Bright(), loader(), verbose=False)
    logger.experiment.flush()
    events = EventAccumulator(str(tmp_path / "version_0")).Reload()
    found = report(tmp_path / "version_0", "smoothed")
    for name in ("accuracy", "median_radius", "average_radius"):
        value = events.Scalars(f"robustness/smoothed/{name}")[0].value
        assert value == pytest.approx(found[name], rel=1e-6)
    assert events.Scalars("robustness/smoothed/certified_accuracy_0.25")
    assert "robustness/smoothed" in events.Tags()["images"]


class Impatient(Bright):
    """Is interrupted when it has seen so many noisy images."""

    left = 10**9

    def forward(self, images):
        noisy = bool(images.min() < 0 or images.max() > 1)
        self.left -= noisy * len(images)
        if self.left < 0:
            raise KeyboardInterrupt
        return super().forward(images)


def test_a_test_goes_on_where_one_was_interrupted(tmp_path):
    module = Impatient()
    module.left = 20 * 120
    with pytest.raises(SystemExit):
        measured(tmp_path, module, **SETTINGS)
    assert not (tmp_path / "robustness" / "smoothed.csv").exists()
    measured(tmp_path, Impatient(), **SETTINGS)
    assert report(tmp_path, "smoothed")["images"]["recalled"] == 20
    measured(tmp_path / "whole", Impatient(), **SETTINGS)
    assert rows(tmp_path, "smoothed") == rows(tmp_path / "whole", "smoothed")


@pytest.mark.usefixtures("empty_folder")
def test_the_same_command_goes_on_from_a_test_that_was_ended():
    command = [
        *small("nmode_letters"),
        *COMMAND,
        "--trainer.callbacks.smoothing",
        "{sigma: 0.25, samples: 50}",
    ]
    run("fit", *small("nmode_letters"))
    run("test", *command, "--ckpt_path", "best")
    first, second = (RUN / name for name in ("test", "test_2"))
    kept = first / "robustness" / "smoothed_votes_0.json"
    content = json.loads(kept.read_text())
    count = len(content["votes"])
    del content["votes"]["0"]
    kept.write_text(json.dumps(content))
    run("test", *command, "--ckpt_path", "best")
    assert report(second, "smoothed")["images"]["recalled"] == count - 1
    assert rows(second, "smoothed") == rows(first, "smoothed")


def test_what_was_found_of_other_weights_or_images_is_not_used(tmp_path):
    measured(tmp_path, **SETTINGS)
    measured(tmp_path, **SETTINGS)
    assert report(tmp_path, "smoothed")["images"]["recalled"] == COUNT
    measured(tmp_path, Bright(41.0), **SETTINGS)
    assert report(tmp_path, "smoothed")["images"]["recalled"] == 0
    images, labels = pictures()
    images[3] += 0.01
    data = DataLoader(TensorDataset(images, labels), batch_size=7)
    measured(tmp_path, Bright(41.0), data, **SETTINGS)
    assert report(tmp_path, "smoothed")["images"]["recalled"] == COUNT - 1
    measured(tmp_path, Bright(41.0), data, trainer_settings={"precision": "64-true"}, **SETTINGS)
    assert report(tmp_path, "smoothed")["images"]["recalled"] == 0


def test_a_dry_run_writes_nothing(tmp_path):
    callback = RobustnessCurve(masking=False, **SETTINGS)
    quiet_trainer(tmp_path, [callback], fast_dev_run=True).test(Bright(), loader(), verbose=False)
    assert callback.smoothed["images"]["all"] == 8
    assert not list(tmp_path.iterdir())


def test_a_module_that_refuses_noisy_images_is_refused_before_training(tmp_path):
    class Strict(Bright):
        def forward(self, images):
            outside = ((images < 0) | (images > 1)).flatten(1).any(dim=1)
            return super().forward(images) + torch.where(outside, torch.nan, 0.0)[:, None]

        def training_step(self, batch, batch_idx):
            pytest.fail("training has begun")

        def validation_step(self, batch, batch_idx):
            """Nothing."""

    callback = RobustnessCurve(**SETTINGS, split="val")
    trainer = quiet_trainer(tmp_path, [callback], max_epochs=1, num_sanity_val_steps=0)
    with pytest.raises(SettingError, match="logits_fn='forward': must give logits without nan"):
        trainer.fit(Strict(), loader(), loader())


def test_two_curves_and_an_attack_cannot_have_its_files(tmp_path):
    curves = [RobustnessCurve(masking=False, **SETTINGS) for _ in range(2)]
    curves[1].attacks = []
    with pytest.raises(ValueError, match=r"RobustnessCurve.attacks=\['smoothed'\]: must be in one"):
        curves[0].setup(L.Trainer(callbacks=curves, logger=False, accelerator="cpu"), Bright(), "fit")
    with pytest.raises(ValueError, match="attacks='smoothed': must have another name"):
        RobustnessCurve([{"class_path": "fgsm_radius", "name": "smoothed"}])


@pytest.mark.usefixtures("empty_folder")
def test_two_processes_find_what_one_does():
    settings = [*small("nmode_letters"), *COMMAND, "--trainer.callbacks.batch_size", 8]
    settings += ["--trainer.callbacks.smoothing", "{sigma: 0.25, samples: 50, alpha: 0.01, selection: 10}"]
    process = on_two_processes("fit", *settings)
    assert process.stderr.count("robustness  smoothed") == 1
    run("test", *settings, "--ckpt_path", "best")
    alone = RUN / "test"
    tables = [(folder / "robustness" / "smoothed.csv").read_text() for folder in (RUN, alone)]
    assert tables[0] == tables[1]
    assert len(tables[0].splitlines()) > 10


@pytest.mark.usefixtures("empty_folder")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{sigma: 0}", "smoothing.sigma=0.0: must be finite and above 0"),
        ("{sigma: 0.25, samples: 0}", "smoothing.samples=0: must be at least 1"),
        ("{sigma: 0.25, samples: 9}", "smoothing.samples=9: must be at least 10 with an alpha of 0.001"),
        ("{sigma: 0.25, alpha: 0}", "smoothing.alpha=0.0: must be above 0 and below 1"),
        ("{sigma: 0.25, alpha: 1}", "smoothing.alpha=1.0: must be above 0 and below 1"),
        ("{samples: 100}", "sigma"),
        ("{sigma: 0.25, sampels: 100}", "sampels"),
        ("0.25", "smoothing"),
    ],
)
def test_settings_that_cannot_work_are_one_line_of_the_command_line(given, message):
    found = refused("fit", *small("nmode_letters"), *COMMAND, "--trainer.callbacks.smoothing", given)
    assert message in found

"""Where the files of a script that uses callbacks alone are: those of a fit and of a test are together."""

import json

import lightning as L
import pytest
from robustness_runs import Bright, loader

from lightning_attractors.callbacks import RobustnessCurve, StabilityCertificate


class Bounded(Bright):
    def gain_bounds(self):
        return {"gain": 1.0}


@pytest.mark.parametrize(("logger", "folder"), [(True, "lightning_logs/version_0"), (False, ".")])
def test_fit_and_test_of_a_trainer_have_one_folder(logger, folder, tmp_path, quick_figures):
    callbacks = [RobustnessCurve(["fgsm_radius"], masking=False), StabilityCertificate()]
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(
        max_epochs=1,
        callbacks=callbacks,
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=logger,
        **quiet,
    )
    module = Bounded()
    module.validation_step = lambda batch, batch_idx: None
    for run, split, stage in ((trainer.fit, "val", "fit"), (trainer.test, "test", "test")):
        run(module, loader(), *([loader()] if stage == "fit" else []))
        (curve,) = tmp_path.rglob("fgsm_radius.json")
        (certificate,) = tmp_path.rglob("stability.json")
        assert curve == tmp_path / folder / "robustness" / "fgsm_radius.json"
        assert certificate == tmp_path / folder / "stability.json"
        assert json.loads(curve.read_text())["split"] == split
        assert json.loads(certificate.read_text())["stage"] == stage

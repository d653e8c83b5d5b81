"""The subcommand that makes a file of a checkpoint."""

import json
from pathlib import Path

import pytest
import torch
from command_line import RUN, refused, run, small
from small_models import small_model
from trainers import quiet_trainer

from lightning_attractors.cli.export import model_of
from lightning_attractors.models import CVFR


def saved(model, path="model.ckpt"):
    """A checkpoint that was made in Python, without the command line."""
    trainer = quiet_trainer(".", [])
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path)
    return path


def test_the_best_checkpoint_of_a_run_becomes_a_file_beside_it(capsys):
    run("fit", *small("nmode_letters"), "--trainer.max_steps", 1)
    best = RUN / "checkpoints/best.ckpt"
    capsys.readouterr()
    run("export", "--ckpt_path", best, "--format", "pt2")
    line = capsys.readouterr().out
    file = best.with_suffix(".pt2")
    assert line.startswith(
        f"{file}: images (batch, 1, 7, 7) → logits (batch, 5), certified_radius (batch,) in linf, "
        "class_names; off"
    )
    assert "off by at most" in line
    assert line.count("\n") == 1
    images, model = torch.rand(3, 1, 7, 7), model_of(best).eval()
    names = {"class_names": ""}
    logits, radii = torch.export.load(file, extra_files=names).module()(images)
    assert json.loads(names["class_names"]) == model.class_names == ["A", "B", "C", "D", "E"]
    torch.testing.assert_close(logits, model(images))
    assert bool((radii <= model.certified_radii(images, logits.argmax(dim=1))).all())


def test_a_checkpoint_made_in_python_is_known_by_its_class(capsys):
    model, images = small_model("KrotovHopfield")
    path = saved(model)
    torch.testing.assert_close(model_of(Path(path)).eval()(images), model(images))
    run("export", "--ckpt_path", path, "--output", "there/it is.onnx")
    assert Path("there/it is.onnx").is_file()
    assert capsys.readouterr().out.startswith(
        "there/it is.onnx: images (batch, 1, 6, 6) → logits (batch, 3); off"
    )


def test_what_cannot_be_exported_is_said_in_one_line():
    assert refused("export") == "error: ckpt_path: must be given"
    assert "must be a checkpoint file that exists" in refused("export", "--ckpt_path", "nowhere.ckpt")
    assert "must be a file on this machine" in refused("export", "--ckpt_path", "https://example.com/a.ckpt")
    wrong = refused("export", "--ckpt_path", "nowhere.ckpt", "--format", "tflite")
    assert wrong.startswith("error: format='tflite': must be one of 'onnx', 'pt2'")
    wrong = refused("export", "--ckpt_path", "nowhere.ckpt", "--model.dt", 3)
    assert "model.dt" in wrong
    noisy = saved(CVFR(3, (1, 6, 6), steps=2, sigma=0.1))
    wrong = refused("export", "--ckpt_path", noisy, "--format", "pt2")
    assert wrong.startswith("error: export='CVFR': must have no noise in evaluation")
    wrong = refused("export", "--ckpt_path", noisy, "--output", "model.txt")
    assert wrong == "error: output='model.txt': must end with .onnx"
    Path("folder.onnx").mkdir()
    wrong = refused("export", "--ckpt_path", noisy, "--output", "folder.onnx")
    assert wrong == "error: output='folder.onnx': must be a file: there is a folder of that name"
    content = torch.load(noisy, weights_only=True)
    torch.save({**content, "model_class": "CVFRR"}, "other.ckpt")
    wrong = refused("export", "--ckpt_path", "other.ckpt")
    assert wrong.startswith(
        "error: ckpt_path='other.ckpt': must hold the settings of its lightning_attractors.models.CVFRR"
    )
    del content["hyper_parameters"], content["model_class"]
    torch.save(content, "bare.ckpt")
    wrong = refused("export", "--ckpt_path", "bare.ckpt")
    assert wrong.startswith("error: ckpt_path='bare.ckpt': must name the class of its model")
    Path("file").touch()
    wrong = refused(
        "export", "--ckpt_path", saved(small_model("BackpropCNN")[0]), "--output", "file/model.onnx"
    )
    assert "file" in wrong
    left = sorted(path.name for path in Path().rglob("*"))
    assert left == ["bare.ckpt", "file", "folder.onnx", "model.ckpt", "other.ckpt"]


@pytest.mark.parametrize("arguments", [("--help",), ("export", "--help")])
def test_help_knows_of_it(arguments, capsys):
    with pytest.raises(SystemExit):
        run(*arguments)
    text = " ".join(capsys.readouterr().out.split())
    assert "Write a checkpoint's model as ONNX or torch.export, checked against the model" in text
    assert ("are in the file under class_names" in text) == (arguments[0] == "export")

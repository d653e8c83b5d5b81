"""Every family in both formats, run by what runs such files elsewhere: onnxruntime, and torch.export.load."""

import json

import onnx
import onnxruntime
import pytest
import torch
from small_models import SMALL, small_model

from lightning_attractors.deployment import FORMATS, export_model, traced
from lightning_attractors.errors import SettingError
from lightning_attractors.models import CVFR

# Certificates of basins are no tables.
CERTIFIED = {"NMODE": "linf", "NonexpansiveNet": "l2"}
SHAPE = (1, 6, 6)


@pytest.mark.parametrize("name", SMALL)
def test_every_family_gives_elsewhere_what_it_gives_here(name, tmp_path):
    model, images = small_model(name)
    outputs = ("logits", "certified_radius") if name in CERTIFIED else ("logits",)
    with traced(model, images[:2]) as (graph, program):
        assert (graph.radius.norm if graph.radius else None) == CERTIFIED.get(name)
        for file_format in FORMATS:
            content = FORMATS[file_format].write(program, outputs)
            (tmp_path / f"model.{file_format}").write_bytes(content)
    for batch in (images, images[:1]):
        for run in (of_onnx, of_pt2):
            logits, *radii = run(tmp_path, batch, outputs)
            torch.testing.assert_close(logits, model(batch).detach(), rtol=1e-4, atol=1e-5)
            if radii:
                known = model.certified_radii(batch, logits.argmax(dim=1))
                assert bool((radii[0] <= known).all())
                assert bool((radii[0] > 0).any())


def of_onnx(folder, images, outputs):
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(float)", ["batch", *SHAPE])
    assert [one.name for one in session.get_outputs()] == list(outputs)
    graph = onnx.load(folder / "model.onnx").graph
    types = {one.name: one.data_type for one in graph.initializer}
    indices = [types.get(node.input[1]) for node in graph.node if node.op_type.startswith("Gather")]
    assert set(indices) <= {None, onnx.TensorProto.INT64}
    return [torch.from_numpy(value) for value in session.run(None, {"images": images.numpy()})]


def of_pt2(folder, images, outputs):
    program = torch.export.load(folder / "model.pt2")
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert not [target for target in targets if "linalg" in target or "autocast" in target]
    found = program.module()(images)
    return [found] if len(outputs) == 1 else list(found)


def test_a_file_has_the_names_of_the_classes(tmp_path):
    model, _ = small_model("BackpropCNN")
    for names in (["Straßenbahn", "7 $", "cat"], [], ["one", "too few"]):
        model.class_names = names
        kept = names if len(names) == 3 else []
        for file_format, read in (("onnx", names_in_onnx), ("pt2", names_in_pt2)):
            path = tmp_path / f"model.{file_format}"
            exported = export_model(model, path, SHAPE, file_format)
            assert exported.class_names == tuple(kept)
            assert ("logits (batch, 3), class_names;" in str(exported)) == bool(kept)
            assert json.loads(read(path) or "[]") == kept


def names_in_onnx(path):
    session = onnxruntime.InferenceSession(path)
    return session.get_modelmeta().custom_metadata_map.get("class_names")


def names_in_pt2(path):
    found = {"class_names": ""}
    torch.export.load(path, extra_files=found)
    return found["class_names"]


@pytest.mark.parametrize("name", ["SANODE", "NMODE", "NonexpansiveNet"])
def test_a_graph_has_the_very_bits_of_the_model(name):
    model, images = small_model(name)
    with traced(model, images) as (_, program), torch.no_grad():
        found = program.module()(images)
        assert torch.equal(found if isinstance(found, torch.Tensor) else found[0], model(images))


def test_a_model_is_left_as_it_was():
    model, images = small_model("SANODE")
    model.train()
    with traced(model, images):
        assert not model.training
        formed = model.field()
        assert model.field() is formed
    assert model.training
    assert model.field() is not model.field()
    model, images = small_model("NonexpansiveNet")
    with traced(model, images):
        pass
    before = model(images)
    with torch.no_grad():
        model.head.operator.weight.mul_(3)  # above 1, so that it is scaled down again
    torch.testing.assert_close(model(images), before, rtol=1e-3, atol=1e-3)


def test_a_loop_has_the_steps():
    model, images = small_model("CVFR")
    model.eval_steps = 300
    with traced(model, images) as (_, program):
        kinds = [str(node.target) for node in program.graph.nodes]
        found = program.module()(images)
    assert len(kinds) < 50
    assert kinds.count("while_loop") == 1
    torch.testing.assert_close(found, model(images))


def test_noise_in_evaluation_is_refused(tmp_path):
    model = CVFR(3, SHAPE, steps=2, sigma=0.1)
    with pytest.raises(SettingError, match="export='CVFR': must have no noise in evaluation"):
        export_model(model, tmp_path / "model.pt2", SHAPE, "pt2")
    assert not list(tmp_path.iterdir())
    model.eval_noise = False
    export_model(model, tmp_path / "model.pt2", SHAPE, "pt2")


def test_a_graph_that_gives_other_logits_is_not_written(tmp_path, monkeypatch):
    model, _ = small_model("BackpropCNN")
    monkeypatch.setattr(
        type(FORMATS["pt2"]), "read", lambda self, content: lambda images: (2 * model(images) + 1,)
    )
    with pytest.raises(SettingError, match=r"export='off by .*': must give the model's logits"):
        export_model(model, tmp_path / "model.pt2", SHAPE, "pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda logits, radii: (1.001 * logits, radii), "margins off by .* more': must differ"),
        (lambda logits, radii: (logits, 1.01 * radii), "certified_radius': must be as it is computed here"),
        (lambda logits, radii: (logits * torch.nan, radii), "logits': must be finite"),
    ],
)
def test_a_graph_whose_radii_do_not_fit_its_logits_is_not_written(change, reason, tmp_path, monkeypatch):
    model, _ = small_model("NonexpansiveNet")
    read = type(FORMATS["pt2"]).read
    monkeypatch.setattr(
        type(FORMATS["pt2"]), "read", lambda *given: lambda images: change(*read(*given)(images))
    )
    with pytest.raises(SettingError, match=reason):
        export_model(model, tmp_path / "model.pt2", (1, 6, 6), "pt2")
    assert not list(tmp_path.iterdir())


def test_what_is_not_installed_is_named(tmp_path, monkeypatch):
    model, _ = small_model("BackpropCNN")
    monkeypatch.setattr(type(FORMATS["onnx"]), "packages", ("onnx", "no_such_package"))
    needed = r'format=\'onnx\': it needs no_such_package: pip install "lightning-attractors\[export\]"'
    with pytest.raises(SettingError, match=needed):
        export_model(model, tmp_path / "model.onnx", SHAPE)
    with pytest.raises(SettingError, match="format='tflite': must be one of onnx, pt2"):
        export_model(model, tmp_path / "model.tflite", SHAPE, "tflite")


def test_packages_that_are_too_old_for_torch_are_one_line(tmp_path, monkeypatch):
    def older(*arguments, **settings):
        raise ModuleNotFoundError("No module named 'onnxscript.new'")

    monkeypatch.setattr("torch.onnx.export", older)
    model, _ = small_model("BackpropCNN")
    with pytest.raises(SettingError, match=r"format='onnx': No module named .* --upgrade onnxscript"):
        export_model(model, tmp_path / "model.onnx", SHAPE, "onnx")
    assert not list(tmp_path.iterdir())

import json
import logging
from unittest.mock import patch

import lightning as L
import pytest
import torch
from trainers import quiet_trainer

from lightning_attractors.callbacks import StabilityCertificate, UnstableError
from lightning_attractors.cli import print_summary
from lightning_attractors.errors import SettingError
from lightning_attractors.models import SANODE


class Stranger(L.LightningModule):
    """A module that knows nothing of attractors: a linear recurrent network with a rate of its own."""

    def __init__(self, rate=-1.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.diag(torch.tensor([rate, -2.0])))
        self.uncopyable = (number for number in range(3))

    def training_step(self, batch, batch_idx):
        return (batch @ self.weight).square().mean()

    def test_step(self, batch, batch_idx):
        self.log("test/loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def origin(module):
    return torch.zeros(1, 2)


def linear(module, x):
    return x @ module.weight.T


def trainer_in(path, callback, epochs=1):
    return quiet_trainer(path, [callback], max_epochs=epochs)


def certificate(**settings):
    return StabilityCertificate(equilibria=origin, vector_field=linear, **settings)


def report(path):
    return json.loads((path / "stability.json").read_text())


def test_a_strangers_module_is_certified_through_two_callables(tmp_path):
    callback, module = certificate(), Stranger()
    trainer = trainer_in(tmp_path, callback)
    trainer.fit(module, torch.ones(2, 2))
    found = report(tmp_path)
    assert (found["stable"], found["certified"], found["equilibria"]) == (True, 1, 1)
    (entry,) = found["attractors"]
    assert entry["spectral_abscissa"] == pytest.approx(-1.0)
    assert entry["return_time"] == pytest.approx(1.0)
    assert "spectral_radius" not in entry
    trainer.test(module, torch.ones(2, 2), verbose=False)  # inference mode knows no derivatives
    assert report(tmp_path)["stage"] == "test"


@pytest.mark.parametrize(("rate", "found"), [(-1.0, "1/1, worst eigenvalue -1 ±"), (0.5, "0/1, worst")])
def test_fit_and_test_end_with_the_verdict_in_a_line(rate, found, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    trainer = trainer_in(tmp_path, certificate(), epochs=3)
    trainer.fit(Stranger(rate), torch.ones(2, 2))
    trainer.test(Stranger(rate), torch.ones(2, 2), verbose=False)
    lines = [record.message for record in caplog.records if record.message.startswith("stability  ")]
    assert [line.split("  ")[1] for line in lines] == ["fit", "test"]
    assert all(f"certified stable {found}" in line for line in lines)
    assert all(line.endswith(str(tmp_path / "stability.json")) for line in lines)


def test_the_module_is_left_as_it_was():
    module = SANODE(2, (1, 3, 3))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    StabilityCertificate().certify(module)
    assert module.training
    module.test_errors.reset()
    assert module.test_errors.sum.dtype == torch.float32
    assert module.gamma.dtype == torch.float32
    assert module.gamma.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("coupling", ["spectral", "projected"])
def test_sa_node_is_certified_on_its_float64_spectrum(coupling):
    model = SANODE(2, (1, 3, 3), coupling=coupling)
    for found in StabilityCertificate().certify(model):
        largest = float(model.coupling.eigenvalues().real.max())
        expected = -8 * 0.25 * 0.4 + largest / 3
        assert found.flow.spectrum.abscissa == pytest.approx(expected, abs=1e-6)
        assert found.flow.residual < 1e-12
        assert found.step is not None
        expected = float((1 + 0.1 * found.flow.spectrum.eigenvalues).abs().max())
        assert found.step.spectrum.radius == pytest.approx(expected, abs=1e-9)


def test_warns_of_an_unstable_equilibrium(tmp_path):
    with pytest.warns(UserWarning, match=r"equilibria \[0\] are not certified"):
        trainer_in(tmp_path, certificate()).fit(Stranger(rate=0.5), torch.ones(2, 2))
    assert report(tmp_path)["stable"] is False


def test_stops_training_on_request(tmp_path):
    trainer = trainer_in(tmp_path, certificate(on_violation="stop"), epochs=5)
    with pytest.warns(UserWarning, match="training stops"):
        trainer.fit(Stranger(rate=0.5), torch.ones(2, 2))
    assert trainer.current_epoch == 1


def test_raises_on_request_after_writing_the_report(tmp_path):
    with pytest.raises(UnstableError, match="not certified"):
        trainer_in(tmp_path, certificate(on_violation="raise")).fit(Stranger(rate=0.5), torch.ones(2, 2))
    assert report(tmp_path)["stable"] is False


def test_certifies_every_n_epochs_and_at_the_end(tmp_path):
    callback, calls = certificate(every_n_epochs=2), []
    original = callback.certify
    callback.certify = lambda module: calls.append(trainer.current_epoch) or original(module)
    trainer = trainer_in(tmp_path, callback, epochs=5)
    trainer.fit(Stranger(), torch.ones(2, 2))
    assert calls == [1, 3, 5]


def test_one_callback_serves_one_fit_after_another(tmp_path):
    callback = certificate(every_n_epochs=5)
    trainer_in(tmp_path, callback, epochs=2).fit(Stranger(), torch.ones(2, 2))
    with pytest.warns(UserWarning, match="not certified"):
        trainer_in(tmp_path, callback, epochs=2).fit(Stranger(rate=0.5), torch.ones(2, 2))


def test_a_module_without_equilibria_or_gain_is_refused_before_training(tmp_path):
    text = (
        r"StabilityCertificate\.equilibria=None: Stranger has no equilibria\(\).* or the module gain_bounds"
    )
    with pytest.raises(SettingError, match=text):
        trainer_in(tmp_path, StabilityCertificate()).fit(Stranger(), torch.ones(2, 2))


class Amplifier(Stranger):
    """It has a gain and no equilibria."""

    def gain_bounds(self):
        assert not self.training
        assert self.weight.dtype == torch.float64
        return {"exact": self.weight.abs().max(), "published": 1 / (self.weight[0, 0].abs() - 1)}


def test_gain_bounds_are_reported_where_there_are_no_equilibria(tmp_path, capsys):
    callback = StabilityCertificate(every_n_epochs=2)
    trainer, module = trainer_in(tmp_path, callback, epochs=3), Amplifier(rate=-5.0)
    scalars = []
    with patch(
        "lightning_attractors.callbacks.stability.log_scalars", lambda _, found: scalars.append(found)
    ):
        trainer.fit(module, torch.ones(2, 2))
    assert scalars == [{"stability/exact": 5.0, "stability/published": 0.25}] * 2  # epochs 2 and 3
    assert report(tmp_path) == {
        "stage": "fit",
        "epoch": 3,
        "global_step": 6,
        "gain_bounds": {"exact": 5.0, "published": 0.25},
    }
    assert module.weight.dtype == torch.float32
    print_summary(trainer, tmp_path, 1.0)
    assert "exact 5, published 0.25" in capsys.readouterr().out


def test_a_gain_bound_that_is_not_finite_is_a_violation(tmp_path):
    trainer = trainer_in(tmp_path, StabilityCertificate(on_violation="raise"))
    with pytest.raises(UnstableError, match=r"gain bounds \['published'\] are not finite"):
        trainer.fit(Amplifier(rate=-1.0), torch.ones(2, 2))
    assert report(tmp_path)["gain_bounds"] == {"exact": 2.0, "published": None}


def test_equilibria_and_gain_bounds_are_reported_together(tmp_path):
    with pytest.warns(UserWarning, match=r"equilibria \[0\] are not certified stable; gain bounds \['publ"):
        trainer_in(tmp_path, certificate()).fit(Amplifier(rate=1.0), torch.ones(2, 2))
    found = report(tmp_path)
    assert found["stable"] is False
    assert found["gain_bounds"]["exact"] == 2.0


@pytest.mark.parametrize("settings", [{"every_n_epochs": 0}, {"on_violation": "shout"}, {"tolerance": 0.0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingError, match=next(iter(settings))):
        StabilityCertificate(**settings)


class TrainedError(Exception):
    """Raised by the first training step: what is refused must be refused before it."""


class Plain(L.LightningModule):
    """A stranger whose parts are what a test makes them; ``weight`` is a plain attribute."""

    def __init__(self, **parts):
        super().__init__()
        self.parameter = torch.nn.Parameter(torch.ones(1))
        self.weight = torch.eye(3)
        self.net = torch.nn.Linear(3, 3, bias=False)
        for name, part in parts.items():
            setattr(self, name, part)

    def training_step(self, batch, batch_idx):
        raise TrainedError

    def test_step(self, batch, batch_idx):
        raise TrainedError

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def zeros(*shape):
    return lambda module: torch.zeros(shape)


def _fails(module, x):
    raise KeyError("memories\nand more")


REFUSED = {
    "weights as plain attributes": (zeros(2, 3), lambda module, x: -x @ module.weight, "vector_field="),
    "one dimension": (zeros(3), lambda module, x: -x, r"equilibria=\(3,\)"),
    "no equilibria": (zeros(0, 3), lambda module, x: -x, r"equilibria=\(0, 3\)"),
    "equilibria that are no tensor": (lambda module: [0.0], lambda module, x: -x, "equilibria='list'"),
    "a scalar field": (zeros(2, 3), lambda module, x: x.sum(), r"vector_field=\(\(\)"),
    "a field of another shape": (zeros(2, 3), lambda module, x: x[:, :1], r"vector_field=\(\(\d+, 1\)"),
    "a field in float32": (
        zeros(2, 3),
        lambda module, x: -x.float(),
        r"vector_field=\(\(\d+, 3\), torch.float32",
    ),
    "float32 within": (
        zeros(2, 3),
        lambda module, x: -(x.float() @ module.weight).double(),
        "vector_field='.*must compute in float64 throughout",
    ),
    "another number of nodes": (zeros(2, 4), lambda module, x: -module.net(x), "vector_field='RuntimeError"),
    "an error of its own": (zeros(2, 3), _fails, "vector_field=.*KeyError"),
}


@pytest.mark.parametrize("stage", ["fit", "test"])
@pytest.mark.parametrize(("equilibria", "field", "text"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_certified_is_refused_in_one_line_before_anything_runs(
    equilibria, field, text, stage, tmp_path
):
    trainer = trainer_in(tmp_path, StabilityCertificate(equilibria=equilibria, vector_field=field))
    with pytest.raises(SettingError, match=rf"^(StabilityCertificate\.)?{text}") as refused:
        getattr(trainer, stage)(Plain(), torch.ones(2, 2))
    assert "\n" not in str(refused.value)


def test_a_gain_that_fails_is_refused_before_training(tmp_path):
    module = Plain(gain_bounds=lambda: {"exact": torch.ones(2) @ torch.ones(3)})
    with pytest.raises(SettingError, match=r"^StabilityCertificate\.gain_bounds='RuntimeError"):
        trainer_in(tmp_path, StabilityCertificate()).fit(module, torch.ones(2, 2))


def test_a_compiled_submodule_is_certified_as_what_was_compiled():
    net = torch.nn.Linear(3, 3, bias=False)
    torch.nn.init.eye_(net.weight).data.mul_(-1)
    module = Plain(net=torch.compile(net, backend="eager"))
    callback = StabilityCertificate(equilibria=zeros(1, 3), vector_field=lambda module, x: module.net(x))
    (found,) = callback.certify(module)
    assert found.stable
    assert net.weight.dtype == torch.float32


def test_the_report_says_what_its_verdicts_rest_on(tmp_path):
    trainer_in(tmp_path, certificate()).fit(Stranger(), torch.ones(2, 2))
    assert "no proof" in report(tmp_path)["evidence"]

"""What StabilityCertificate reports of a module's traps, and where it says why there are none."""

import json
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from trainers import quiet_trainer

from lightning_attractors.callbacks import StabilityCertificate
from lightning_attractors.cli import print_summary
from lightning_attractors.errors import SettingError
from lightning_attractors.models import SANODE


class Decaying(L.LightningModule):
    """A flow to the origin of so many nodes, with a trap and a place where none was found."""

    def __init__(self, nodes=2):
        super().__init__()
        self.weight = torch.nn.Parameter(-torch.eye(nodes))
        self.asked = 0

    def equilibria(self):
        return torch.zeros(2, len(self.weight))

    def vector_field(self, x):
        return x @ self.weight.T

    def traps(self):
        assert self.weight.dtype == torch.float32  # not of the copy in float64, whose numbers do not run
        assert not torch.is_grad_enabled()
        self.asked += 1
        return SimpleNamespace(
            radius=torch.tensor([0.25, 0.0]),
            steps=torch.tensor([7, 0]),
            rate=torch.tensor([0.5, torch.inf]),
            precision=torch.tensor([0.125, torch.nan]),
        )

    def training_step(self, batch, batch_idx):
        return self.vector_field(batch).square().mean()

    def test_step(self, batch, batch_idx):
        self.log("test/loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Refusing(Decaying):
    def traps(self):
        raise SettingError("eval_noise", True, "must be false")


class Scalars(L.pytorch.loggers.CSVLogger):
    def log_metrics(self, metrics, step=None):
        self.seen = {**vars(self).get("seen", {}), **metrics}


def report(path):
    return json.loads((path / "stability.json").read_text())


def told(trainer, path, capsys):
    print_summary(trainer, path, 1.0)
    return next(line for line in capsys.readouterr().out.splitlines() if "traps" in line)


def test_the_traps_stand_beside_the_other_figures_of_their_attractors(tmp_path, capsys):
    callback, module = StabilityCertificate(traps=True), Decaying()
    trainer = quiet_trainer(tmp_path, [callback], max_epochs=3)
    trainer.fit(module, torch.ones(2, 2))
    assert module.asked == 1  # at the end alone
    first, second = report(tmp_path)["attractors"]
    assert first["spectral_abscissa"] == pytest.approx(-1.0)
    figures = ("trap_radius", "trap_steps", "trap_rate", "trap_precision")
    assert [first[name] for name in figures] == [0.25, 7, 0.5, 0.125]
    assert [second[name] for name in figures] == [0.0, 0, None, None]
    assert "radius 0.25 to 0.25 in 1 of 2" in told(trainer, tmp_path, capsys)


def test_the_smallest_radius_goes_to_the_loggers_and_a_model_has_its_own(tmp_path):
    model = SANODE(2, (1, 2, 2), dt=0.4, steps=2)
    trainer = quiet_trainer(tmp_path, [StabilityCertificate(traps=True)])
    trainer.loggers = [Scalars(tmp_path)]
    images = torch.rand(2, 1, 2, 2)
    loader = torch.utils.data.DataLoader([(image, k) for k, image in enumerate(images)], batch_size=2)
    trainer.test(model, loader, verbose=False)
    radii = [
        entry["trap_radius"]
        for entry in json.loads(next(tmp_path.rglob("stability.json")).read_text())["attractors"]
    ]
    assert radii == pytest.approx(model.traps().radius.tolist())
    assert min(radii) > 0.1
    assert trainer.loggers[0].seen["stability/trap_radius"] == min(radii)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Refusing(), "eval_noise=True: must be false"),
        (Decaying(129), "not looked for in 129 nodes: at most 128"),
    ],
)
def test_where_there_are_none_the_run_goes_on_and_the_report_says_why(tmp_path, capsys, module, reason):
    trainer = quiet_trainer(tmp_path, [StabilityCertificate(traps=True)])
    trainer.test(module, torch.ones(2, len(module.weight)), verbose=False)
    found = report(tmp_path)
    assert found["traps"] == reason
    assert found["certified"] == 2
    assert module.asked == 0
    assert not any("trap" in name for name in found["attractors"][0])
    assert reason in told(trainer, tmp_path, capsys)


def test_nobody_asks_for_them_unless_told_to(tmp_path):
    module = Decaying()
    trainer = quiet_trainer(tmp_path, [StabilityCertificate()])
    trainer.test(module, torch.ones(2, 2), verbose=False)
    assert module.asked == 0
    assert "trap_radius" not in report(tmp_path)["attractors"][0]


class Without(Decaying):
    traps = None


def test_a_module_without_traps_or_with_equilibria_from_elsewhere_is_refused(tmp_path):
    elsewhere = StabilityCertificate(traps=True, equilibria=lambda module: module.equilibria())
    for callback, module in ((StabilityCertificate(traps=True), Without()), (elsewhere, Decaying())):
        with pytest.raises(
            SettingError, match=r"^StabilityCertificate.traps=True: must be false: \w+ has no"
        ):
            quiet_trainer(tmp_path, [callback]).test(module, torch.ones(2, 2), verbose=False)

"""What is optional is found where it is, and refused in one line where it is there by half."""

import re
from pathlib import Path

import lightning as L
import pytest
import torch
from trainers import quiet_trainer

import lightning_attractors
from lightning_attractors import contracts
from lightning_attractors.callbacks import BestCheckpoint, FScore, StabilityCertificate
from lightning_attractors.contracts import (
    Certified,
    HasEquilibria,
    HasGainBounds,
    HasStepMap,
    HasTraps,
    HasTubes,
    certificate_of,
    certified_norm,
    equilibria_of,
    feature_server,
    filter_learner,
    frozen_part,
    gain_bounds_of,
    monitored,
    name_of,
    phase_of,
    phases_of,
    step_map_of,
    traps_of,
    tubes_of,
    vector_field_of,
)
from lightning_attractors.data import LettersDataModule
from lightning_attractors.errors import SettingError
from lightning_attractors.models import CVFR, NMODE, SANODE, KrotovHopfield, NonexpansiveNet
from lightning_attractors.training import TwoPhaseTrainer

IMAGES, LABELS = torch.rand(4, 1, 7, 7), torch.arange(4)


class Plain(L.LightningModule):
    """A module that knows nothing of contracts, and trains."""

    def __init__(self, **attributes):
        super().__init__()
        self.weight = torch.nn.Parameter(-torch.eye(2))
        for name, value in attributes.items():
            setattr(self, name, value)

    def training_step(self, batch, batch_idx):
        raise AssertionError("nothing is to be trained")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def refused(call, start):
    with pytest.raises(SettingError, match=f"^{start}") as caught:
        call()
    assert "\n" not in str(caught.value)


def constant(value):
    return lambda images, labels: value


def test_no_attribute_is_looked_up_by_a_string_elsewhere():
    root = Path(lightning_attractors.__file__).parent
    named = re.compile(r"""\b(getattr|hasattr|setattr)\([^"']*["']""")
    found = [
        f"{path.relative_to(root)}: {line.strip()}"
        for path in root.rglob("*.py")
        if path.parent.name != "contracts"
        for line in path.read_text().splitlines()
        if named.search(line)
    ]
    assert found == []


def test_a_module_that_keeps_no_contract_is_found_to_keep_none():
    module = Plain()
    for find in (
        certificate_of,
        equilibria_of,
        vector_field_of,
        step_map_of,
        gain_bounds_of,
        traps_of,
        tubes_of,
    ):
        assert find(module) is None
    for find in (filter_learner, phase_of, frozen_part, contracts.currents_of, contracts.norm_exponent):
        assert find(module) is None
    assert monitored(module) == (None, "max")
    assert certified_norm(module) == "linf"
    assert contracts.divergence_hint(module) == "lower the learning rate"
    assert contracts.coupling_of(module) == (None, None)
    assert contracts.mse_over_time(module) is None
    assert not contracts.is_noisy(module)
    assert phases_of(L.Trainer(logger=False, accelerator="cpu")) is None
    assert phases_of(None) is None
    assert feature_server(None) is None


def test_the_models_here_keep_theirs():
    for model in (SANODE(2, (1, 3, 3)), CVFR(2, (1, 3, 3))):
        assert isinstance(model, HasEquilibria)
        assert isinstance(model, HasStepMap)
        assert isinstance(model, HasTraps)
        assert isinstance(model, HasTubes)
        assert tubes_of(model) is model
        assert equilibria_of(model)().shape == (2, 9)
        assert monitored(model)[0].startswith("val/")
    for model in (NMODE(3, (1, 7, 7), width=4), NonexpansiveNet(3, (1, 12, 12))):
        assert isinstance(model, Certified)
        assert isinstance(model, HasGainBounds)
        assert gain_bounds_of(model)()
        assert certificate_of(model).norm == certified_norm(model)
    learner = KrotovHopfield(3, (1, 7, 7), grid=2, pool_size=2)
    assert filter_learner(learner) is frozen_part(learner) is learner
    assert contracts.norm_exponent(learner) == learner.p


def test_a_certificate_gives_one_radius_for_every_image():
    found = certificate_of(Plain(certified_radii=constant(torch.ones(4)), certified_norm="l2"))
    radii = found.radii(IMAGES, LABELS)
    assert (found.norm, radii.dtype, radii.shape) == ("l2", torch.float64, (4,))
    nan = torch.full((4,), torch.nan)
    for value, shown in ((torch.ones(4, 1), r"\(4, 1\)"), (nan, r"\(4,\)"), (None, "'NoneType'")):
        half = certificate_of(Plain(certified_radii=constant(value)))
        refused(lambda half=half: half.radii(IMAGES, LABELS), f"certified_radii={shown}: must give radii")


def test_a_certificate_by_half_is_refused():
    text = r"certified_radii='\(images\)': Plain's must be a method that takes \(images, labels\)"
    refused(lambda: certificate_of(Plain(certified_radii=lambda images: images)), text)
    refused(lambda: certificate_of(Plain(certified_radii=0.1)), "certified_radii='float': Plain's must be a")
    for norm in ("l1", 2, None):
        refused(lambda norm=norm: certified_norm(Plain(certified_norm=norm)), "certified_norm=")


@pytest.mark.parametrize(
    ("attributes", "start"),
    [
        ({"equilibria": lambda: torch.zeros(1, 2)}, r"StabilityCertificate.vector_field=None: Plain has no"),
        ({"vector_field": lambda x: -x}, r"StabilityCertificate.equilibria=None: Plain has no"),
        ({"equilibria": lambda x: x, "vector_field": lambda x: -x}, r"equilibria='\(x\)': Plain's must be"),
        ({"equilibria": lambda: 0, "vector_field": lambda: 0}, r"vector_field='\(\)': Plain's must be"),
        ({"gain_bounds": {"exact": 1.0}}, r"gain_bounds='dict': Plain's must be a method that takes \(\)"),
    ],
)
def test_equilibria_by_half_are_refused_before_training(attributes, start, tmp_path):
    trainer = quiet_trainer(tmp_path, [StabilityCertificate()], max_epochs=1)
    refused(lambda: trainer.fit(Plain(**attributes), torch.ones(2, 2)), start)


def test_equilibria_of_another_shape_are_refused():
    module = Plain(equilibria=lambda: torch.zeros(2), vector_field=lambda x: -x)
    refused(lambda: StabilityCertificate().certify(module), r"StabilityCertificate.equilibria=\(2,\): must")


def test_filters_that_cannot_be_saved_are_refused_before_training(tmp_path):
    letters = LettersDataModule(n_train=20, n_val=10, n_test=10, batch_size=10)
    for attributes in ({}, {"save_filters": lambda: None}):
        trainer = TwoPhaseTrainer(
            filter_epochs=1,
            max_epochs=1,
            default_root_dir=tmp_path,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
        )
        start = "save_filters=" if attributes else "filter_phase='Plain': must come with save_filters"
        module = Plain(filter_phase=None, **attributes)
        refused(lambda trainer=trainer, module=module: trainer.fit(module, letters), start)


def test_a_frozen_part_that_takes_no_images_is_refused_before_training(tmp_path):
    trainer = TwoPhaseTrainer(
        feature_cache_gb=1.0, max_epochs=1, default_root_dir=tmp_path, accelerator="cpu", logger=False
    )
    module = Plain(frozen_features=lambda: None)
    refused(
        lambda: trainer.fit(module, torch.ones(2, 2)), r"frozen_features='\(\)': Plain's must be a method"
    )


def test_currents_that_take_no_images_are_refused_before_training(tmp_path):
    module = Plain(filters=torch.ones(2, 4), p=2.0, currents=torch.ones(2))
    trainer = quiet_trainer(tmp_path, [FScore()], max_epochs=1)
    refused(lambda: trainer.fit(module, torch.ones(2, 2)), "currents='Tensor': Plain's must be a method")


def test_phases_are_those_of_a_trainer_that_has_all_of_them():
    trainer = TwoPhaseTrainer(filter_epochs=2, max_epochs=3, filter_batch_size=7, accelerator="cpu")
    phases = phases_of(trainer)
    assert phases is trainer
    assert (phases.filter_epochs, phases.learns_filters, phases.train_batch_size) == (2, True, 7)
    assert phases.classifier_epochs == 3


def test_a_callable_has_a_name_in_messages():
    assert name_of(constant) == "constant"
    assert name_of(Plain()) == "Plain"


def test_the_best_checkpoint_is_where_the_callback_says():
    trainer = L.Trainer(callbacks=[BestCheckpoint()], logger=False, accelerator="cpu")
    assert contracts.best_weights(trainer) == ""
    trainer.checkpoint_callback.best_model_path = "best.ckpt"
    assert contracts.best_weights(trainer) == "best.ckpt"

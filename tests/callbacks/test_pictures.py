import lightning as L
import pytest
import torch
from trainers import quiet_trainer

from lightning_attractors.callbacks import AttractorPictures
from lightning_attractors.callbacks.drawings import draw_realisations
from lightning_attractors.data import LettersDataModule
from lightning_attractors.errors import SettingError
from lightning_attractors.models import CVFR, SANODE


def trainer_in(path):
    return quiet_trainer(path, [AttractorPictures(num_images=2)])


def test_a_test_leaves_every_picture_in_the_runs_folder(tmp_path):
    trainer_in(tmp_path).test(
        SANODE(3, (1, 7, 7), steps=4), LettersDataModule(letters="ABC", n_test=12), verbose=False
    )
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    expected = ["attractors", "eigenvalues", "mse_over_time", "strip", "trajectories"]
    assert names == [f"{name}.{kind}" for name in expected for kind in ("pdf", "png")]
    begin = {".png": b"\x89PNG", ".pdf": b"%PDF"}
    assert all(path.read_bytes().startswith(begin[path.suffix]) for path in (tmp_path / "figures").iterdir())


def test_a_noisy_model_has_its_realisations_drawn(tmp_path):
    model = CVFR(3, (1, 7, 7), coupling="projected", sigma=0.1)
    with torch.no_grad():
        for parameter in model.coupling.parameters():
            parameter.zero_()  # A = λP: the attractors draw back what is near
    data = LettersDataModule(letters="ABC", n_test=12)
    trainer_in(tmp_path).test(model, data, verbose=False)
    assert (tmp_path / "figures" / "realisations.png").read_bytes().startswith(b"\x89PNG")
    start = 1.1 * model.attractors[:1].view(1, 1, 7, 7)
    paths = [torch.stack(list(model.states(start, realisation=r))) for r in range(12)]
    left, right = draw_realisations(torch.cat(paths, dim=1).detach(), model.dt).axes
    assert len(left.lines) == 12
    spread = right.lines[0].get_ydata()
    assert spread[0] == 0
    assert spread[-1] < 0.02 * spread.max()


class OfDicts(SANODE):
    def validation_step(self, batch, batch_idx):
        return super().validation_step((batch["image"], batch["label"]), batch_idx)


def test_batches_that_are_no_pairs_need_a_callable():
    loader = torch.utils.data.DataLoader(
        [{"image": torch.rand(1, 7, 7), "label": k} for k in range(3)], batch_size=3
    )
    for unpack in (None, lambda batch: (batch["image"], batch["label"])):
        pictures = AttractorPictures(unpack_batch=unpack)
        trainer = quiet_trainer(None, [pictures])
        if unpack is None:
            with pytest.raises(SettingError, match=r"unpack_batch=None: .* batches of \['image', 'label'\]"):
                trainer.validate(OfDicts(3, (1, 7, 7), steps=2), loader, verbose=False)
        else:
            model = OfDicts(3, (1, 7, 7), steps=2)
            trainer.validate(model, loader, verbose=False)
            assert "strip" in pictures.figures(model)


class Plain(L.LightningModule):
    def test_step(self, batch, batch_idx):
        """Nothing to see here."""


def test_modules_without_attractors_and_settings_out_of_range_are_refused(tmp_path):
    with pytest.raises(SettingError, match="AttractorPictures='Plain'"):
        trainer_in(tmp_path).test(Plain(), torch.ones(2, 2))
    for settings in ({"every_n_epochs": 0}, {"num_images": 0}):
        with pytest.raises(SettingError, match=next(iter(settings))):
            AttractorPictures(**settings)

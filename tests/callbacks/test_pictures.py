import lightning as L
import pytest
import torch
from trainers import quiet_trainer

from lightning_attractors.callbacks import AttractorPictures
from lightning_attractors.callbacks.drawings import draw_realisations, draw_trajectories, draw_triples
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
    expected = ["attractors", "eigenvalues", "final_states", "mse_over_time", "trajectories"]
    assert names == [f"{name}.png" for name in expected]
    assert all((tmp_path / "figures" / name).read_bytes().startswith(b"\x89PNG") for name in names)


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


def test_the_drawn_pixel_is_the_one_that_varies_most():
    states = torch.zeros(3, 4, 5)
    states[1, :, 2] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    left, right = draw_realisations(states, 0.5).axes
    assert left.get_title() == "pixel 2, 4 realisations"
    assert right.lines[0].get_ydata().tolist() == pytest.approx([0, states[1, :, 2].std().item(), 0])
    assert right.lines[0].get_xdata().tolist() == [0, 0.5, 1]


def test_lines_are_coloured_by_their_final_value():
    states = torch.tensor([[[0.0, 0.0]], [[-0.5, 0.5]]])
    (lines,) = draw_trajectories(states, ["A"], 0.1).axes[0].collections
    (low, high) = lines.get_colors()
    assert low[2] > low[0]  # blue where it ends low
    assert high[0] > high[2]  # red where it ends high


def test_triples_show_image_attractor_and_final_state():
    image, attractor, final = torch.rand(1, 1, 2, 3), torch.rand(1, 6), torch.rand(1, 6)
    axes = draw_triples(image, attractor, final).axes
    shown = [torch.as_tensor(axis.images[0].get_array().data).flatten() for axis in axes]
    for picture, expected in zip(shown, (image, attractor, final), strict=True):
        torch.testing.assert_close(picture.float(), expected.flatten())


class Plain(L.LightningModule):
    def test_step(self, batch, batch_idx):
        """Nothing to see here."""


def test_modules_without_attractors_and_settings_out_of_range_are_refused(tmp_path):
    with pytest.raises(SettingError, match="AttractorPictures='Plain'"):
        trainer_in(tmp_path).test(Plain(), torch.ones(2, 2))
    for settings in ({"every_n_epochs": 0}, {"num_images": 0}):
        with pytest.raises(SettingError, match=next(iter(settings))):
            AttractorPictures(**settings)

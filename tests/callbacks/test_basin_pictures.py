"""The picture of tubes, traps and radii: what it shows, and of which modules there is none."""

import dataclasses
import math

import lightning as L
import pytest
import torch
from figure_boxes import LONG_NAMES, require_legible
from trainers import quiet_trainer

from lightning_attractors.callbacks import BasinPictures
from lightning_attractors.callbacks.basin_drawing import Basin, draw_basins
from lightning_attractors.errors import SettingError
from lightning_attractors.models import NMODE, SANODE


def small_model():
    torch.manual_seed(0)
    return SANODE(2, (1, 2, 2), dt=0.2, steps=6).eval()


def loader_of(model, count=8):
    """Images with the labels that the model gives them, but for the first, whose label is wrong."""
    images = torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
    labels[0] = 1 - labels[0]
    return torch.utils.data.DataLoader(list(zip(images, labels, strict=True)), batch_size=count)


def flight_axes(figure):
    return figure.axes[1::3]


def test_a_test_leaves_the_picture_with_the_radii_that_hold(tmp_path, monkeypatch):
    model, drawn = small_model(), []
    loader = loader_of(model)
    images, labels = next(iter(loader))

    def draw(basins, norm):
        drawn.extend([basins, norm])
        return draw_basins(basins, norm)

    shown = []
    room = "lightning_attractors.callbacks.basin_pictures"
    monkeypatch.setattr(f"{room}.draw_basins", draw)
    monkeypatch.setattr(f"{room}.log_figure", lambda trainer, name, figure: shown.append(name))
    quiet_trainer(tmp_path, [BasinPictures(num_images=2)]).test(model, loader, verbose=False)
    assert (tmp_path / "figures" / "basins.png").read_bytes().startswith(b"\x89PNG")
    assert shown == ["basins"]
    basins, norm = drawn
    assert norm == "l2"
    assert len(basins) == len(labels[1:].unique())
    for basin in basins:
        row = next(i for i in range(1, 8) if labels[i] == basin.label)  # not the one that is wrong
        assert torch.equal(basin.image, images[row])
        assert 0 < basin.certified < basin.attacked
        assert basin.length[0] == pytest.approx(basin.certified)
        away = torch.rand(50, 1, 2, 2) - 0.5
        near = images[row] + basin.certified * away / away.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        for k, state in enumerate(model.states(near)):
            distance = (state - model.attractors[basin.label]).norm(dim=1)
            off = (distance - basin.distances[k, basin.label]).abs().max()
            assert off <= basin.length[k]
        assert basin.times[-1] == pytest.approx(1.2)


def test_nothing_is_claimed_of_states_that_may_be_clipped():
    model = small_model()
    images = torch.rand(2, 1, 2, 2)
    assert all(bool(length.isfinite().all()) for _, length in model.tubes(images, torch.full((2,), 0.01)))
    model.bound = 0.9 * float(max(state.detach().abs().max() for state in list(model.states(images))[1:]))
    assert bool(list(model.tubes(images, torch.full((2,), 0.01)))[-1][1].isinf().any())


def basin(**changes):
    times = torch.arange(5) * 0.5
    distances = torch.stack([torch.tensor([4.0, 2.0, 0.5, 0.1, 0.05]), torch.full((5,), 5.0)], dim=1)
    length = torch.tensor([0.4, 0.3, 0.2, 0.08, 0.01])
    known = {"certified": 0.4, "attacked": 0.9, "tried": 3.0, "trap": 0.2}
    return Basin(torch.rand(1, 3, 3), "A", 0, times, distances, length, **{**known, **changes})


def texts(axis):
    return [text.get_text() for text in axis.texts]


def test_it_says_when_the_tube_is_in_the_trap_and_where_the_attack_succeeds():
    figure = draw_basins([basin(), basin(attacked=math.inf, trap=None)], "l2")
    first, second = flight_axes(figure)
    assert texts(first) == ["all caught at $t = 1.5$"]
    assert first.get_xlim() == pytest.approx((0, 2.0))
    assert texts(second) == []
    assert texts(figure.axes[2]) == ["0.4", "0.9"]
    assert texts(figure.axes[5]) == ["0.4", "none to 3"]
    assert figure.axes[5].get_xlabel() == "$L_2$ distance from the image"
    assert "trap: from here all ends at the attractor, proved" in [
        text.get_text() for text in figure.legends[0].texts
    ]


def test_what_was_not_looked_for_is_not_in_the_legend_and_a_tube_may_be_without_end():
    wild = basin(trap=None, attacked=0.9, certified=0.0)
    wild.length[3:] = math.inf
    figure = draw_basins([wild], "linf")
    assert len(figure.legends[0].texts) == 3
    low, high = figure.axes[1].get_ylim()
    assert 0 < low < high < 10
    figure.canvas.draw()


class Plain(L.LightningModule):
    def test_step(self, batch, batch_idx):
        """Nothing to see here."""


def test_modules_without_tubes_and_settings_out_of_range_are_refused_in_one_line(tmp_path):
    for module, reason in (
        (Plain(), "has no equilibria"),
        (NMODE(3, (1, 7, 7), width=4), "has no equilibria"),
    ):
        with pytest.raises(SettingError, match=f"^BasinPictures='{type(module).__name__}': {reason}"):
            quiet_trainer(tmp_path, [BasinPictures()]).test(module, torch.ones(2, 2), verbose=False)

    class Uncertified(SANODE):
        certified_radii = None

    with pytest.raises(SettingError, match=r"^BasinPictures='Uncertified': has no certified_radii"):
        quiet_trainer(tmp_path, [BasinPictures()]).test(Uncertified(2, (1, 2, 2)), verbose=False)
    for settings in ({"num_images": 0}, {"attack_radius": 0.0}):
        with pytest.raises(SettingError, match=next(iter(settings))):
            BasinPictures(**settings)


def test_where_nothing_is_proved_the_test_goes_on_and_a_line_says_why(tmp_path):
    model = small_model()
    loader = loader_of(small_model(), count=1)
    with pytest.warns(UserWarning, match="no image of the first batch is classified correctly"):
        quiet_trainer(tmp_path, [BasinPictures()]).test(model, loader, verbose=False)
    model.register_forward_hook(lambda *_: None)
    with pytest.warns(UserWarning, match="no picture of basins: "):
        quiet_trainer(tmp_path, [BasinPictures()]).test(model, loader_of(small_model()), verbose=False)
    assert not (tmp_path / "figures").exists()


def test_long_names_of_basins_do_not_touch():
    basins = [dataclasses.replace(basin(), name=name) for name in LONG_NAMES[2:5]]
    require_legible(draw_basins(basins, "l2"))

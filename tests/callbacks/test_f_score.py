import warnings

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from trainers import quiet_trainer

from lightning_attractors.callbacks import CollapsedError, FScore
from lightning_attractors.callbacks import f_score as module_under_test
from lightning_attractors.callbacks.drawings import draw_filters
from lightning_attractors.dynamics.plasticity import normalized_update, plasticity_update
from lightning_attractors.errors import SettingError


class Learner(L.LightningModule):
    """A module that moves its filters as it is told: by one function of (filters, epoch)."""

    automatic_optimization = False
    p = 2.0

    def __init__(self, change, count=9):
        super().__init__()
        self.change = change
        self.weight = torch.nn.Parameter(torch.randn(count, 3, 2, 2), requires_grad=False)

    @property
    def filters(self):
        return self.weight

    def training_step(self, batch, batch_idx):
        self.weight.copy_(self.change(self.weight, self.current_epoch))

    def configure_optimizers(self):
        return None


class WithCurrents(Learner):
    def currents(self, images):
        return torch.nn.functional.conv2d(images, self.weight)


IMAGES = torch.rand(8, 3, 5, 5)


def images():
    return torch.utils.data.DataLoader([(image, 0) for image in IMAGES], batch_size=4)


@pytest.fixture
def logged(monkeypatch):
    found = []
    monkeypatch.setattr(module_under_test, "log_scalars", lambda trainer, values: found.append(values))
    return found


def fit(path, callback, module, epochs=2, **settings):
    trainer = quiet_trainer(path, [callback], max_epochs=epochs, **settings)
    trainer.fit(module, images())
    return trainer


def unit(filters):
    return filters / filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def converge(filters, epoch):
    return unit(filters.abs() + 0.1)


def collapse(filters, epoch):
    fallen = -unit(filters.abs() + 0.1)
    fallen[0] *= -1
    return fallen


def stay(filters, epoch):
    return filters


def test_scores_are_logged_and_the_filters_drawn(tmp_path, logged):
    module = WithCurrents(converge)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=".*(workers|configure_optimizers|logging interval).*")
        fit(tmp_path, FScore(), module)
    assert [values["filters/f_score"] for values in logged] == [1, 1]
    assert [values["filters/negative"] for values in logged] == [0, 0]
    assert logged[0]["filters/largest_change"] > 0.5
    assert logged[1]["filters/activity_converged"] > 0
    assert "filters/activity_unconverged" not in logged[1]
    assert (tmp_path / "figures" / "filters.png").read_bytes().startswith(b"\x89PNG")


def test_the_largest_change_is_relative_and_since_the_last_look(tmp_path, logged):
    def grow(filters, epoch):
        change = torch.ones(len(filters))
        change[2] = 1.1
        return change.view(-1, 1, 1, 1) * filters

    fit(tmp_path, FScore(every_n_epochs=2), Learner(grow), epochs=4)  # of two steps each
    assert [values["filters/largest_change"] for values in logged] == pytest.approx(
        [1.1**4 - 1] * 2, rel=1e-4
    )


def test_activities_are_those_of_converged_and_of_other_filters(tmp_path, logged):
    def grey(filters, epoch):
        filters = torch.full_like(filters, 12**-0.5)
        filters[3:] *= -4
        return filters

    fit(tmp_path, FScore(), WithCurrents(grey), epochs=1)
    # Currents are as large as filters, activities are not.
    mean = torch.nn.functional.avg_pool2d(IMAGES, 2, stride=1)[:4].mean().item() * 12**0.5
    assert logged[0]["filters/activity_converged"] == pytest.approx(mean, rel=1e-4)
    assert logged[0]["filters/activity_unconverged"] == pytest.approx(-mean, rel=1e-4)


def test_filters_at_their_start_have_not_collapsed(tmp_path):
    fit(tmp_path, FScore(on_collapse="raise"), Learner(stay))


@pytest.mark.parametrize("on_collapse", ["warn", "stop", "raise"])
def test_a_collapse_is_told_of_and_acted_on(tmp_path, on_collapse):
    callback, module = FScore(on_collapse=on_collapse), Learner(collapse)
    if on_collapse == "raise":
        with pytest.raises(CollapsedError, match="lower delta"):
            fit(tmp_path, callback, module, epochs=3)
        return
    with pytest.warns(UserWarning, match="have collapsed at epoch 0.*lower delta") as told:
        trainer = fit(tmp_path, callback, module, epochs=3)
    assert sum("collapsed" in str(warning.message) for warning in told) == 1
    assert trainer.current_epoch == (1 if on_collapse == "stop" else 3)
    assert (tmp_path / "figures" / "filters.png").exists()


def test_a_lower_threshold_lets_the_converged_filter_pass(tmp_path):
    fit(tmp_path, FScore(threshold=0.1, on_collapse="raise"), Learner(collapse))


@pytest.mark.parametrize("delta", [0.8, 0.05])
def test_a_real_collapse_is_seen_and_a_healthy_run_left_alone(tmp_path, logged, delta):
    patches = torch.rand(100, 12)

    def learn(filters, epoch):
        for _ in range(25):  # twice per epoch
            update = plasticity_update(patches, filters.flatten(1), 2.0, 2, delta)
            filters = filters + 0.03 * normalized_update(update).view_as(filters)
        return filters

    callback = FScore(on_collapse="raise")
    if delta == 0.8:
        with pytest.raises(CollapsedError):
            fit(tmp_path, callback, Learner(learn), epochs=8)
        assert len(logged) > 1  # not at the start
    else:
        fit(tmp_path, callback, Learner(learn), epochs=8)
        assert logged[-1]["filters/negative"] < 0.25


def test_filters_are_found_by_name_or_by_a_callable(tmp_path, logged):
    class Stranger(Learner):
        filters = p = None

        def __init__(self, change):
            super().__init__(change)
            self.layer = torch.nn.Conv2d(3, 4, 2)

    for filters in ("layer.weight", lambda module: module.layer.weight):
        fit(tmp_path, FScore(filters=filters, p=3.0), Stranger(stay), epochs=1)
    assert [values["filters/largest_change"] for values in logged] == [0, 0]


def test_figures_go_to_tensorboard(tmp_path):
    trainer = L.Trainer(
        accelerator="cpu",
        callbacks=[FScore()],
        logger=TensorBoardLogger(tmp_path, name="", version=""),
        max_epochs=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(Learner(converge), images())
    events = b"".join(path.read_bytes() for path in tmp_path.glob("events*"))
    assert b"filters/f_score" in events
    assert (tmp_path / "figures" / "filters.png").exists()


@pytest.mark.parametrize(("entries", "drawn"), [(9, True), (8, False)])
def test_filters_of_a_dense_layer_are_watched_and_drawn_where_they_are_square(
    tmp_path, logged, entries, drawn
):
    class Dense(Learner):
        def __init__(self):
            super().__init__(stay)
            self.weight = torch.nn.Parameter(torch.full((4, entries), entries**-0.5), requires_grad=False)

    fit(tmp_path, FScore(), Dense(), epochs=1)
    assert logged[0]["filters/f_score"] == 1
    assert (tmp_path / "figures" / "filters.png").exists() == drawn


@pytest.mark.parametrize("channels", [1, 3])
def test_each_filter_is_drawn_from_its_smallest_entry_to_its_largest(channels):
    filters = torch.randn(7, channels, 2, 2)
    filters[3] = -2.0  # flat
    drawn = torch.as_tensor(draw_filters(filters).axes[0].images[0].get_array().data)
    assert drawn.shape == (10, 10, 3)  # three by three, with a line between
    second = drawn[1:3, 4:6]
    expected = filters[1] if channels == 3 else filters[1].expand(3, -1, -1)
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    torch.testing.assert_close(second.permute(2, 0, 1), expected)
    assert drawn.isfinite().all()


def test_modules_without_filters_and_settings_out_of_range_are_refused(tmp_path):
    class WithoutP(Learner):
        @property
        def p(self):
            raise AttributeError

    with pytest.raises(SettingError, match=r"FScore\.filters"):
        fit(tmp_path, FScore(filters="nowhere"), Learner(stay))
    with pytest.raises(SettingError, match=r"FScore\.p"):
        fit(tmp_path, FScore(), WithoutP(stay))
    with pytest.raises(SettingError, match=r"FScore\.filters=\(\)"):
        fit(tmp_path, FScore(filters=lambda module: torch.zeros(())), Learner(stay))
    for settings in (
        {"tolerance": 0.0},
        {"p": 0.5},
        {"threshold": 1.5},
        {"on_collapse": "shout"},
        {"every_n_epochs": 0},
    ):
        with pytest.raises(SettingError, match=next(iter(settings))):
            FScore(**settings)


def test_batches_that_do_not_begin_with_images_need_a_callable(tmp_path, logged):
    loader = torch.utils.data.DataLoader([{"pixels": image} for image in IMAGES], batch_size=4)
    trainer = quiet_trainer(tmp_path, [FScore()], max_epochs=1)
    with pytest.raises(SettingError, match=r"FScore.unpack_batch=None: .* batches of \['pixels'\] to"):
        trainer.fit(WithCurrents(lambda filters, epoch: filters), loader)
    unpacking = FScore(unpack_batch=lambda batch: (batch["pixels"],))
    quiet_trainer(tmp_path, [unpacking], max_epochs=1).fit(
        WithCurrents(lambda filters, epoch: filters), loader
    )
    assert "filters/activity_unconverged" in logged[-1]

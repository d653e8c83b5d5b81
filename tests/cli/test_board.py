"""What the board of a run shows: curves by category, numbers in tables, settings to compare runs by."""

import re

import pytest
from jsonargparse import Namespace
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from lightning_attractors.cli.board import BoardLogger, flat_settings, layout


@pytest.fixture
def board(tmp_path):
    return BoardLogger(tmp_path, name="", version=0, default_hp_metric=False)


def events_of(board):
    board.experiment.flush()
    return EventAccumulator(board.log_dir).Reload()


def settings_on(events):
    content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    values = HParamsPluginData.FromString(content).session_start_info.hparams
    return {name: value.number_value or value.string_value for name, value in values.items()}


def test_single_numbers_and_the_epoch_are_no_curves(board):
    board.log_metrics({"train/loss": 1.0, "epoch": 0}, 1)
    board.log_metrics({"val/loss": 2.0, "test/accuracy": 0.5, "robustness/pgd/R": 0.1, "epoch": 1}, 2)
    assert events_of(board).Tags()["scalars"] == ["train/loss", "val/loss"]
    assert board.results == {"test/accuracy": 0.5, "robustness/pgd/R": 0.1}


def test_curves_are_charted_by_category_once_they_are_known(board):
    board.log_metrics({"train/loss": 1.0}, 1)
    board.log_metrics({"val/loss": 1.0, "val/accuracy": 0.5, "stranger/beauty": 3.0}, 2)
    (*_, newest) = events_of(board).Tensors("custom_scalars__config__")
    shown = layout_pb2.Layout.FromString(newest.tensor_proto.string_val[0])
    assert [category.title for category in shown.category] == ["1 learning", "4 others"]
    loss, accuracy = shown.category[0].chart
    assert (loss.title, list(loss.multiline.tag)) == ("loss", ["^train/loss$", "^val/loss$"])
    assert list(accuracy.multiline.tag) == ["^val/accuracy$"]
    assert re.match(shown.category[1].chart[0].multiline.tag[0], "stranger/beauty")


def test_charts_without_curves_are_left_out():
    assert layout({"filters/f_score"}) == {
        "3 filters": {"shares of the filters": ["Multiline", ["^filters/f_score$"]]}
    }
    assert layout(set()) == {}


def test_settings_are_there_from_the_start_and_the_newest_results_with_them(board):
    board.write_settings({"seed": 3, "model": "SANODE"})
    assert settings_on(events_of(board)) == {"seed": 3, "model": "SANODE"}
    # with an experiment's description TensorBoard would show the columns of one run alone
    assert list(events_of(board).PluginTagToContent("hparams")) == [
        "_hparams_/session_start_info",
        "_hparams_/session_end_info",
    ]
    for accuracy in (0.5, 0.75):  # as of a run that went on
        board.log_metrics({"test/accuracy": accuracy, "val/accuracy": accuracy}, 4)
        board.write_settings({"seed": 3, "model": "SANODE"})
    assert settings_on(events_of(board))["(result) test/accuracy"] == 0.75


def test_a_board_that_is_being_watched_never_leaves_the_running_file(board, tmp_path):
    board.log_metrics({"train/loss": 1.0}, 1)
    board.write_settings({"seed": 0})
    files = sorted(path.name for path in (tmp_path / "version_0").glob("*tfevents*"))
    assert [name.endswith(".settings") for name in files] == [True, False]  # files are read in this order


def test_a_callbacks_hyperparameters_do_not_come_before_the_settings(board):
    board.log_hyperparams({"steps": 2}, {"robustness/pgd/R": 0.1})
    assert board.hparams == {"steps": 2}
    assert "hparams" not in events_of(board).summary_metadata


def test_settings_go_by_dotted_names_and_classes_by_their_own():
    adam = Namespace(class_path="torch.optim.Adam", init_args=Namespace(lr=0.01, betas=[0.9, 0.99]))
    config = Namespace(
        model=Namespace(class_path="a.b.SANODE", init_args=Namespace(steps=5, bound=None, optimizer=adam))
    )
    assert flat_settings(config.as_dict()) == {
        "model": "SANODE",
        "model.steps": 5,
        "model.optimizer": "Adam",
        "model.optimizer.lr": 0.01,
        "model.optimizer.betas": "[0.9, 0.99]",
    }

"""Figures go to whatever logger takes them; the loggers are fakes with the methods of the real ones."""

from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure

from lightning_attractors.callbacks.output import log_figure


class Recorder:
    """Remembers how it was called."""

    def __init__(self):
        self.calls = []

    def __call__(self, *arguments, **named):
        self.calls.append((arguments, named))


FIGURE = Figure()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("tensorboard", (("attractors/1_strip", FIGURE), {"global_step": 7})),
        ("wandb", ((), {"key": "attractors/1_strip", "images": [FIGURE], "step": 7})),
        ("mlflow", (("the run", FIGURE, "attractors/1_strip.png"), {})),
        ("comet", ((), {"figure_name": "attractors/1_strip", "figure": FIGURE, "step": 7})),
    ],
)
def test_every_logger_gets_figures_in_its_own_way(kind, expected):
    sent = Recorder()
    logger = {
        "tensorboard": SimpleNamespace(experiment=SimpleNamespace(add_figure=sent)),
        "wandb": SimpleNamespace(experiment=SimpleNamespace(), log_image=sent),
        "mlflow": SimpleNamespace(experiment=SimpleNamespace(log_figure=sent), run_id="the run"),
        "comet": SimpleNamespace(experiment=SimpleNamespace(log_figure=sent)),
    }[kind]
    log_figure(SimpleNamespace(loggers=[logger], global_step=7), "strip", FIGURE)
    assert sent.calls == [expected]


def test_loggers_without_figures_are_passed_over():
    for logger in (SimpleNamespace(), SimpleNamespace(experiment=None)):
        log_figure(SimpleNamespace(loggers=[logger], global_step=0), "robustness/pgd", FIGURE)

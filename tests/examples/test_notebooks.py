"""Every cell of every notebook runs, in order, in one namespace, and says what the text around it says."""

import json
import logging
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples" / "notebooks").glob("*.ipynb"))


def cells(path):
    """The code of a notebook, cell by cell."""
    return [
        "".join(cell["source"])
        for cell in json.loads(path.read_text())["cells"]
        if cell["cell_type"] == "code"
    ]


@pytest.fixture
def executed(empty_folder, capsys):
    """Runs a notebook in an empty folder, without a screen, and gives its names and what it printed."""
    plt.switch_backend("Agg")
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]

    def run(name):
        path = next(path for path in NOTEBOOKS if path.stem == name)
        names = {"__name__": name}
        for number, code in enumerate(cells(path)):
            exec(compile(code, f"{path.name}, code cell {number}", "exec"), names)
        return names, capsys.readouterr().out

    with plt.rc_context():
        yield run
    plt.close("all")
    for logger, level in zip(loggers, levels, strict=True):  # which notebooks have say less
        logger.setLevel(level)


def test_letters_are_told_apart_by_stable_attractors_and_certified(executed):
    names, text = executed("first_attractor_classifier")
    assert [line[:9] for line in text.splitlines() if "real parts" in line] == [
        f"{x}: stable" for x in "ABCDE"
    ]
    assert names["accuracy"] > 0.8  # chance: 0.2
    proved, attacked = names["proved"], names["attacked"].radii
    assert bool((proved < attacked).all())
    assert float(proved.max()) > 0.1
    assert Path("runs/first_attractor_classifier/stability.json").is_file()


def test_an_own_model_gets_its_table_and_its_curve(executed):
    names, text = executed("how_robust_is_my_model")
    found = names["curve"].results
    assert list(found) == ["fgsm_radius", "pgd_radius", "replace_pixels"]
    assert 0 < found["pgd_radius"]["R"] < found["fgsm_radius"]["R"]
    assert f"{found['pgd_radius']['R']:.4f}" in text
    for line in names["axis"].lines:
        accuracies = line.get_ydata()
        assert accuracies[0] > 0.9 > accuracies[-1]


def test_notebooks_are_small_and_show_what_they_draw():
    assert len(NOTEBOOKS) == 2
    for path in NOTEBOOKS:
        assert path.stat().st_size < 100_000
        code = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        shown = [output for cell in code for output in cell["outputs"]]
        assert all(output["output_type"] in ("stream", "display_data") for output in shown)
        assert sum("image/png" in output.get("data", {}) for output in shown) >= 2

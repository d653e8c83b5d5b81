"""Every cell of every notebook runs, in order, in one namespace, and says what the text around it says."""

import json
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

    def run(name):
        path = next(path for path in NOTEBOOKS if path.stem == name)
        names = {"__name__": name}
        for number, code in enumerate(cells(path)):
            exec(compile(code, f"{path.name}, code cell {number}", "exec"), names)
        return names, capsys.readouterr().out

    with plt.rc_context():
        yield run
    plt.close("all")

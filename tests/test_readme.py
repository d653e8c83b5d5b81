"""The README is short, shows pictures that are there, and everything in it runs as printed."""

import hashlib
import re
from importlib import metadata
from pathlib import Path

import pytest
from data_files import write_mnist
from image_folders import write_folder
from readme_blocks import commands, run_block, sections

from lightning_attractors.callbacks import Predictions
from lightning_attractors.data import MNISTDataModule
from lightning_attractors.models import AttractorClassifier

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = ["README.md", "configs/README.md", "examples/README.md"]
BLOCKS = sections(README)


def test_it_is_short():
    assert len(README.splitlines()) <= 130


@pytest.mark.parametrize("name", PAGES)
def test_pictures_and_pages_that_are_linked_are_there(name):
    page = ROOT / name
    links = re.findall(r'\]\(([^)#]+)\)|src="([^"]+)"', page.read_text())
    paths = [path for path in map("".join, links) if not path.startswith("https:")]
    assert paths
    for path in paths:
        assert (page.parent / path).exists(), path


def test_extras_that_it_names_are_those_of_the_package():
    offered = {*metadata.metadata("lightning-attractors").get_all("Provides-Extra")}
    assert {*re.findall(r"`\[(\w+)\]`", README)} == offered - {"dev", "docs", "test"}


def test_it_shows_at_least_three_pictures():
    pictures = {*re.findall(r"examples/[\w/]+\.png", README)}
    assert len(pictures) >= 3
    for path in pictures:
        assert (ROOT / path).read_bytes().startswith(b"\x89PNG")


def test_every_config_has_its_row():
    text = (ROOT / "configs" / "README.md").read_text()
    for path in (ROOT / "configs").glob("*.yaml"):
        assert f"| `{path.stem}`" in text, path.stem


@pytest.fixture
def small(empty_folder, quick_figures, monkeypatch):
    """Small data where the page has data, and little time for certificates."""
    arrays = write_mnist("data", n_train=5100, n_test=300)
    files = {name: (Path("data/MNIST/raw") / name).read_bytes() for name in arrays}
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(MNISTDataModule, "checksums", sums)
    write_folder("photos", count=10)
    monkeypatch.setattr(AttractorClassifier, "certified_seconds", 0.01)
    monkeypatch.setattr(AttractorClassifier, "traps", lambda self: None)
    monkeypatch.setattr(Predictions.__init__, "__defaults__", (0.5,))


# What each section leaves
LEAVES = {
    "lightning-attractors": ["runs/sa_node_letters/version_0/figures/strip.pdf"],
    "How robust is my classifier?": [
        "robustness/PGD.png",
        "lightning_logs/version_0/robustness/pgd_radius.json",
    ],
    "Your data": ["runs/photos/version_0/predict/predictions.csv", "runs/photos/version_0/results.json"],
    "Your vector field": ["lightning_logs/version_0/stability.json", "lightning_logs/version_0/figures"],
    "The command line": [
        "runs/sa_node_letters/version_0/robustness/pgd_radius.json",
        "runs/sa_node_letters/version_0/checkpoints/best.onnx",
        "runs/sa_node_letters/version_3/predict/predictions.csv",
    ],
}


@pytest.mark.parametrize("title", BLOCKS)
def test_a_section_runs_as_printed(title, small):
    for language, text in BLOCKS[title]:
        run_block(language, text)
    for path in LEAVES[title]:
        assert Path(path).exists(), path


def test_a_block_is_taken_as_bash_takes_it(empty_folder):
    text = "for k in 1 2; do attractors fit --config 'a b' --seed $k; done # twice\n"
    text += "pip install -e .[x] \\\n  && pytest"
    first, second, *rest = commands(text)
    assert (first, second) == (
        ["attractors", "fit", "--config", "a b", "--seed", "1"],
        ["attractors", "fit", "--config", "a b", "--seed", "2"],
    )
    assert rest == [["pip", "install", "-e", ".[x]"], ["pytest"]]

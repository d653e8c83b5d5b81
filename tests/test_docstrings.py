"""The examples in docstrings say what happens."""

import doctest
import importlib
import pkgutil

import pytest

import lightning_attractors


def examples():
    """The examples of every module; what it imports has its own where it is defined."""
    finder = doctest.DocTestFinder()
    for found in pkgutil.walk_packages(lightning_attractors.__path__, "lightning_attractors."):
        if not found.name.endswith("__main__"):
            module = importlib.import_module(found.name)
            yield from (example for example in finder.find(module, found.name) if example.examples)


EXAMPLES = list(examples())


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])
def test_an_example_says_what_happens(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_ATTRACTORS_PRECISION", "")  # so that what a run would set is taken back
    said = []
    result = doctest.DocTestRunner().run(example, out=said.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(said)
    assert list(tmp_path.iterdir()) == []

"""The package's own names: what they are, and that importing it loads nothing."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import lightning_attractors

SOURCE = Path(lightning_attractors.__file__)
LOADS_NOTHING = """
import sys
import lightning_attractors
others = {name.split(".")[0] for name in sys.modules} & {
    "lightning", "torch", "numpy", "yaml", "rich", "torchvision", "matplotlib", "tensorboard", "torchattacks"
}
assert not others, others
assert lightning_attractors.__version__ and "SANODE" in dir(lightning_attractors)
from lightning_attractors import SANODE, RobustnessCurve
extras = {"torchattacks", "torchdiffeq", "shtab"} & sys.modules.keys()
assert not extras, extras
"""


def test_importing_it_loads_nothing_and_importing_its_names_no_extras():
    command = [sys.executable, "-c", LOADS_NOTHING]
    done = subprocess.run(command, cwd=SOURCE.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_type_checkers_see_the_names_that_there_are():
    tree = ast.parse(SOURCE.read_text())
    (seen,) = [node for node in tree.body if isinstance(node, ast.If)]
    names = {alias.name: imported.module for imported in seen.body for alias in imported.names}
    assert {*names, "__version__"} == set(lightning_attractors.__all__)
    for name, room in names.items():
        assert getattr(lightning_attractors, name) is getattr(import_module(room), name)


def test_a_name_that_there_is_not_is_no_attribute():
    with pytest.raises(AttributeError, match="'lightning_attractors' has no attribute 'SANODEE'"):
        _ = lightning_attractors.SANODEE

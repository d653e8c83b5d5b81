"""Prints constraints on pip: of every dependency the oldest version that pyproject.toml allows."""

import re
from pathlib import Path

import tomllib

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
optional = project["optional-dependencies"]
extras = [requirement for extra in optional.keys() - {"dev", "docs"} for requirement in optional[extra]]
for requirement in [*project["dependencies"], *extras]:
    name, _, oldest = re.sub(r"\[.*\]", "", requirement).partition(">=")
    if oldest:
        print(f"{name}=={oldest}")

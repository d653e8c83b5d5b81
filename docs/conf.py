"""Sphinx's settings: a page for each room of the front page's plan, of what the room lists as public."""

import re
from importlib import import_module
from inspect import isclass, isroutine
from pathlib import Path
from pkgutil import walk_packages
from typing import get_origin

import lightning_attractors

project = "lightning-attractors"
version = release = lightning_attractors.__version__
copyright = "the authors of lightning-attractors"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
templates_path = ["templates"]
html_theme = "alabaster"
html_theme_options = {"page_width": "75em", "fixed_sidebar": True}
html_show_sourcelink = False

autodoc_default_options = {"show-inheritance": True}
autodoc_inherit_docstrings = False  # Lightning's own are written for its own pages
autodoc_preserve_defaults = True
napoleon_use_ivar = True

# A reference that leads nowhere is a warning: to a class by its public name, and to all that is no class.
# Classes are also named by signatures, by the files that they are from; so are type variables.
nitpicky = True
nitpick_ignore_regex = [
    ("py:(class|obj|exc)", r"(?!lightning_attractors\.\w+\.\w+$).*|.*\.Drawn"),
    ("py:mod", r"torch\..*"),
]

INDEX = (Path(__file__).parent / "index.rst").read_text()
ROOMS = [f"lightning_attractors.{name}" for name in re.findall(r"^   ([a-z_.]+)$", INDEX, re.MULTILINE)]


def room_of(path):
    """The innermost room that a module is in, or none."""
    return max((room for room in ROOMS if f"{path}.".startswith(f"{room}.")), key=len, default=None)


def source(thing):
    """The path of the module where a class or a function is from; None of anything else."""
    named = isclass(thing) and get_origin(thing) is None  # and no alias such as dict[str, int]
    return thing.__module__ if named or isroutine(thing) else None


def listed(room):
    """What a room lists as public, but for what comes from another room; a single file lists nothing."""
    known = vars(import_module(room))
    own = [name for name, thing in known.items() if name[0] != "_" and source(thing) == room]
    names = known.get("__all__", own)
    return {name: known[name] for name in names if room_of(source(known[name])) in (room, None)}


LISTED = {room: listed(room) for room in ROOMS}
MODULES = walk_packages(lightning_attractors.__path__, "lightning_attractors.")
FILES = [module.name for module in MODULES if not module.ispkg]
# What the pages' template fills in.
autosummary_context = {
    "objects": {room: [name for name in LISTED[room] if source(LISTED[room][name])] for room in ROOMS},
    "constants": {
        # The text of dict[str, int] is that of dict.
        room: [name for name, it in LISTED[room].items() if not source(it) and get_origin(it) is not dict]
        for room in ROOMS
    },
    "files": {
        room: [
            # A function that has the name of its file takes the name's place.
            path
            for path in FILES
            if room_of(path) == room != path and path.rpartition(".")[2] not in LISTED[room]
        ]
        for room in ROOMS
    },
}


def escape_bars(app, what, name, obj, options, lines):
    """Leave ``|x|`` an absolute value: to reStructuredText it is the name of a substitution."""
    lines[:] = [re.sub(r"(``.*?``|^ *>>>.*)|\|", lambda found: found[1] or r"\|", line) for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", escape_bars)

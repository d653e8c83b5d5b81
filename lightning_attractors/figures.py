"""How every figure looks, and how it is kept: one style, one set of colours, PNG and PDF."""

from __future__ import annotations

import functools
import io
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.figure import Figure

from lightning_attractors.norms import NormName
from lightning_attractors.writing import write_atomically

P = ParamSpec("P")
Drawn = TypeVar("Drawn")

COLUMN, PAGE = 3.4, 7.1  # inches: one column of a paper, and both
_LETTER = 0.64  # how wide one is, in sizes of the font: in few names they are wider in the mean
_LINES = 3  # of a name
_CAPTION = 7.5  # points

# Okabe and Ito's, which people tell apart who see no red or green; with what they stand for in all figures
OWN, ATTACK, PROVED, FIT, CHANCE, OTHER = "#0072B2", "#D55E00", "#009E73", "#333333", "#CC79A7", "#9A9A9A"
SEQUENCE = [OWN, "#E69F00", PROVED, ATTACK, "#56B4E9", CHANCE, "#8C6D31", "#5E4FA2", FIT, "#B8B800"]
DIVERGING = "coolwarm"  # of the states of nodes
SYMBOLS: dict[NormName, str] = {"linf": r"$L_\infty$", "l2": "$L_2$"}

STYLE: Any = {  # Any: the type of its keys is another one in every version of matplotlib
    "figure.dpi": 120,
    "savefig.dpi": 240,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so figures are the same everywhere
    "mathtext.fontset": "dejavusans",
    "text.hinting": "none",  # letters are as wide at every resolution: a figure is laid out once
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "axes.prop_cycle": f"cycler('color', {SEQUENCE})",
    "image.interpolation": "nearest",
    "pdf.fonttype": 42,  # letters that stay letters: some journals take no other
}


class _Names(textwrap.TextWrapper):
    """Breaks lines where names of folders and of classes have a joint, too."""

    wordsep_re = re.compile(r"(\s+|[^\s_/-]*[_/-]+)")


def in_lines(name: str, width: float, size: float = 8.0) -> str:
    """A name that others gave, as text of a figure: in at most three lines, and without formulas.

    Args:
        name: of any length; a word that is longer than a line is hyphenated, a dollar sign is one.
        width: of a line, in inches.
        size: of the font, in points.
    """
    letters = max(4, int(72 * width / (_LETTER * size)))
    hyphenated = re.sub(rf"([^\W_]{{{letters - 1}}})(?=[^\W_]{{2}})", r"\1- ", name)
    lines = _Names(width=letters, max_lines=_LINES, placeholder="…").fill(hyphenated)
    return lines.replace("-\n…", "…").replace("$", r"\$")


def add_caption(figure: Figure, text: str) -> None:
    """Say below a figure, over its whole width, what is in it; the figure gets higher by that."""
    letters = int(72 * 0.96 * figure.get_figwidth() / (0.54 * _CAPTION))
    lines = textwrap.wrap(text, letters)
    figure.supxlabel("\n".join(lines), fontsize=_CAPTION, x=0.02, ha="left")
    figure.set_figheight(figure.get_figheight() + (1.2 * len(lines) + 1) * _CAPTION / 72)


def in_style(draw: Callable[P, Drawn]) -> Callable[P, Drawn]:
    """A function that draws, in the style whatever the user's own settings are.

    A figure is laid out here, once: it would be again wherever it goes, which takes as long as to draw it.
    """

    @functools.wraps(draw)
    def drawn(*arguments: P.args, **settings: P.kwargs) -> Drawn:
        with matplotlib.rc_context(STYLE):
            result = draw(*arguments, **settings)
            if isinstance(result, Figure):
                lay_out(result)
            return result

    return drawn


def lay_out(figure: Figure) -> None:
    """Give all parts of a figure their places, for good."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


@in_style
def as_file(figure: Figure, kind: str) -> bytes:
    """The content of a file with the figure; ``kind`` is ``png`` or ``pdf``."""
    content = io.BytesIO()
    # without the time, so that the same figure is the same file
    figure.savefig(content, format=kind, metadata={"CreationDate": None} if kind == "pdf" else None)
    return content.getvalue()


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure as ``path.png``, to look at, and ``path.pdf``, to print, each whole or not at all."""
    for kind in ("png", "pdf"):
        write_atomically(path.with_name(f"{path.name}.{kind}"), as_file(figure, kind))

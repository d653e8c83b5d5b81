"""Where the parts of a figure are, at every resolution that it is drawn in."""

from itertools import combinations

import matplotlib
import pytest

from lightning_attractors.figures import STYLE

# longer than what they stand at, in one word or many, and with what means something in a formula
LONG_NAMES = [
    "Straßenbahn Linie 7 (alt)",
    "golden retriever puppy",
    "Donaudampfschifffahrtsgesellschaft",
    "bicycle-built-for-two",
    "BACKGROUND_Google_images",
    "HOT AIR BALLOON OVER TOWN",
    "2 $ notes and 5 $ notes",
    "^ $a_{$",
    "Bundesautobahn A 100 Süd",
    "mountain bike, all-terrain",
    "_unknown",
    "cat",
]


def require_legible(figure):
    """See that nothing is cut off, and that no two of titles, names and numbers at axes touch."""
    figure.set_layout_engine("none")
    with matplotlib.rc_context(STYLE):
        for dpi in (72, 240):  # of a PDF and of a PNG
            figure.set_dpi(dpi)
            figure.draw_without_rendering()
            inside = figure.get_tightbbox()
            width, height = figure.get_size_inches()
            assert min(inside.x0, inside.y0, width - inside.x1, height - inside.y1) >= 0
            for one, other in combinations(words(figure), 2):
                if one.get_window_extent().overlaps(other.get_window_extent()):
                    pytest.fail(f"{one.get_text()!r} and {other.get_text()!r} overlap")


def words(figure):
    """All texts that are there to be seen but legends, which lay out their own."""
    found = [text for text in (figure._suptitle, figure._supxlabel) if text is not None]
    for axis in figure.axes:
        found.append(axis.title)
        for side in (axis.xaxis, axis.yaxis) * axis.axison:
            low, high = sorted(side.get_view_interval())
            ticks = [tick for tick in side.get_major_ticks() if low <= tick.get_loc() <= high]
            found += [side.label, *(tick.label1 for tick in ticks), *(tick.label2 for tick in ticks)]
    return [text for text in found if text.get_visible() and text.get_text().strip()]

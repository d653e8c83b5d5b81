"""The glyphs."""

from __future__ import annotations

from itertools import combinations
from string import ascii_uppercase

from lightning_attractors.data.glyphs import GLYPHS, glyph_images


def test_there_are_26_glyphs_of_49_pixels_far_apart() -> None:
    images = glyph_images(ascii_uppercase)
    assert sorted(GLYPHS) == list(ascii_uppercase)
    assert images.shape == (26, 1, 7, 7)
    assert set(images.unique().tolist()) == {0, 255}
    for first, second in combinations(range(26), 2):
        assert (images[first] != images[second]).sum() >= 5, ascii_uppercase[first] + ascii_uppercase[second]


def test_a_glyph_looks_as_its_table_does() -> None:
    rows = ["".join(".#"[pixel > 0] for pixel in row) for row in glyph_images("L")[0, 0].tolist()]
    assert rows == ["#......"] * 6 + ["#######"]

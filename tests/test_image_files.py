"""Files of any size and mode become bytes of one shape, or are refused in a line."""

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refusal

from lightning_attractors.image_files import oddity_of, read_image

GREY, COLOUR = (1, 4, 4), (3, 4, 4)


def saved(path, array, mode=None, **options):
    Image.fromarray(np.asarray(array), mode).save(path, **options)
    return path


def plain(value, shape=(4, 4), dtype=np.uint8):
    return np.full(shape, value, dtype)


def test_pixels_of_the_right_shape_stay_as_they_are(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = read_image(saved(tmp_path / "a.png", pixels), COLOUR)
    assert torch.equal(image, torch.from_numpy(pixels).permute(2, 0, 1))


def test_grey_becomes_three_equal_channels_and_colour_its_luminance(tmp_path):
    image = read_image(saved(tmp_path / "grey.png", plain(77)), COLOUR)
    assert image.shape == COLOUR
    assert bool((image == 77).all())
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    assert read_image(saved(tmp_path / "red.png", red), GREY).unique().tolist() == [76]  # 0.299 · 255


def test_of_16_bits_the_upper_8_are_kept(tmp_path):
    path = saved(tmp_path / "deep.png", plain(0x7FFF, dtype=np.uint16))
    assert read_image(path, GREY).unique().tolist() == [0x7F]
    assert oddity_of(path) == "16 bits, of which the upper 8 are kept"


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_counts_as_white(tmp_path, mode):
    pixels = np.zeros((4, 4, len(mode)), np.uint8)
    pixels[:2, :, -1] = 255  # black and opaque above, black and transparent below
    path = tmp_path / "alpha.png"
    Image.fromarray(pixels).save(path)
    image = read_image(path, COLOUR)
    assert image[:, :2].unique().tolist() == [0]
    assert image[:, 2:].unique().tolist() == [255]
    assert oddity_of(path) == "transparent parts, which count as white"


def test_a_palette_with_a_transparent_colour_counts_too(tmp_path):
    picture = Image.fromarray(plain(0), "L").convert("P")
    picture.save(tmp_path / "palette.png", transparency=0)
    assert read_image(tmp_path / "palette.png", GREY).unique().tolist() == [255]


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (8, 20), (20, 8), (2, 2), (1, 50)])
def test_other_sizes_are_cut_to_the_middle_and_resized(tmp_path, rows, columns):
    pixels = plain(200, (rows, columns))
    if columns == 20:
        pixels[:, :5] = 0  # outside of the middle 8 columns
    image = read_image(saved(tmp_path / "a.png", pixels), GREY)
    assert image.shape == GREY
    assert image.unique().tolist() == [200]


def test_a_picture_is_turned_as_the_camera_says(tmp_path):
    picture = Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 2, 0))
    exif = picture.getexif()
    exif[0x0112] = 3  # upside down
    picture.save(tmp_path / "turned.png", exif=exif)
    assert read_image(tmp_path / "turned.png", (1, 2, 2))[0].tolist() == [[255, 0], [255, 0]]


def test_what_is_no_image_is_refused_by_its_name(tmp_path):
    text, cut, floats = tmp_path / "text.png", tmp_path / "cut.png", tmp_path / "floats.tif"
    text.write_text("no image")
    saved(cut, np.random.default_rng(0).integers(0, 256, (99, 99), dtype=np.uint8))
    cut.write_bytes(cut.read_bytes()[:2000])
    saved(floats, plain(0.5, dtype=np.float32))
    message = refusal(read_image, text, GREY)
    assert message == f"image={str(text)!r}: must be an image that can be read (it is in no format of images)"
    assert refusal(oddity_of, text) == message
    assert "cut.png': must be an image that can be read (" in refusal(read_image, cut, GREY)
    assert refusal(read_image, floats, GREY).endswith("(its pixels are in floating point)")
    assert "No such file" in refusal(read_image, tmp_path / "nowhere.png", GREY)

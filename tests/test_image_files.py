import numpy as np
import torch
from PIL import Image
from refusals import refusal

from lightning_attractors.image_files import read_image

GREY = np.arange(0, 256, 16, dtype=np.uint8).reshape(4, 4)


def saved(path, values, mode=None):
    Image.fromarray(values, mode).save(path)
    return path


def test_grey_colours_and_sixteen_bits_are_brought_to_what_is_asked_for(tmp_path):
    grey = torch.from_numpy(GREY).float()[None] / 255
    path = saved(tmp_path / "grey.png", GREY)
    assert torch.equal(read_image(path, (1, 4, 4)), grey)
    assert torch.equal(read_image(path, (3, 4, 4)), grey.expand(3, -1, -1))
    deep = saved(tmp_path / "deep.png", GREY.astype(np.uint16) * 257)
    assert torch.allclose(read_image(deep, (1, 4, 4)), grey)
    colours = np.stack([GREY, 255 - GREY, 0 * GREY], axis=2)
    path = saved(tmp_path / "colours.png", colours)
    found = read_image(path, (3, 4, 4))
    assert torch.equal(found, torch.from_numpy(colours).permute(2, 0, 1) / 255)
    assert torch.allclose(read_image(path, (1, 4, 4))[0], 0.299 * found[0] + 0.587 * found[1])
    opaque = saved(tmp_path / "Größe 1.png", np.dstack([colours, np.full((4, 4), 255, np.uint8)]))
    assert torch.equal(read_image(opaque, (3, 4, 4)), found)
    Image.fromarray(GREY).convert("P").save(tmp_path / "palette.png")
    assert torch.allclose(read_image(tmp_path / "palette.png", (1, 4, 4)), grey, atol=1e-6)


def test_any_size_is_resized_with_antialiasing(tmp_path):
    rows = np.tile(np.array([[0], [255]], np.uint8), (20, 60))
    found = read_image(saved(tmp_path / "rows.png", rows), (1, 4, 6))
    assert found.shape == (1, 4, 6)
    assert torch.allclose(found, torch.tensor(0.5), atol=0.06)


def test_images_are_turned_as_a_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(GREY).save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(read_image(tmp_path / "turned.png", (1, 4, 4)).flip(1, 2)[0] * 255, torch.tensor(GREY))


def test_what_is_no_image_is_refused_in_one_line(tmp_path):
    whole = saved(tmp_path / "whole.png", GREY).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:-30])
    (tmp_path / "text.png").write_text("no image")
    half = saved(tmp_path / "half.png", np.dstack([GREY] * 3 + [GREY]))
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "float.tiff")
    for path, told in (
        (tmp_path / "nowhere.png", "must be a file that exists"),
        (tmp_path, "must be a file that exists"),
        (tmp_path / "text.png", "must be an image that Pillow can read"),
        (tmp_path / "cut.png", "must be an image that is whole"),
        (half, "must have no transparent pixels: save it on a background"),
        (tmp_path / "float.tiff", "must have 8 or 16 bits"),
    ):
        assert refusal(read_image, path, (1, 4, 4)).startswith(f"image='{path}': {told}")
    assert refusal(read_image, half, (2, 4, 4)).startswith("image_shape=(2, 4, 4): must have 1 or 3 channels")

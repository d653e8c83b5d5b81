"""What batches hold is noted where they are, and refused where it cannot be right."""

import pytest
import torch

from lightning_attractors.errors import NonFiniteError, SettingError
from lightning_attractors.metrics import BatchCheck

NAN, INF = float("nan"), float("inf")


def check(**given):
    check = BatchCheck(3)
    check.update(torch.rand(2, 1, 2, 2), torch.tensor([0, 2]), torch.randn(2, 3))
    check.update(**{name: torch.tensor(values) for name, values in given.items()})
    check.update(torch.rand(0, 1, 2, 2), torch.tensor([], dtype=torch.long))
    return check


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"images": [0.5, NAN]}, SettingError, r"test images=\[nan, nan\]: must be finite, from 0 to 1"),
        ({"images": [INF, 0.5]}, SettingError, r"test images=\[0.0\d*, inf\]: must be finite"),
        ({"labels": [1, -1]}, SettingError, r"test labels=\[-1.0, 2.0\]: must be classes from 0 to 2"),
        ({"labels": [3]}, SettingError, r"test labels=\[0.0, 3.0\]: must be classes from 0 to 2"),
        ({"logits": [0.0, NAN]}, NonFiniteError, "logits of test images range from nan to nan: the cure"),
        ({"logits": [-INF, 0.0]}, NonFiniteError, "logits of test images range from -inf to"),
    ],
)
def test_what_cannot_be_right_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        check(**given).require_sound("test", lambda: "the cure")


def test_images_outside_the_unit_range_are_warned_of_once(recwarn):
    seen = check(images=[0, 255])
    for _ in range(2):
        seen.require_sound("val", str)
    check(images=[-1e-6, 1 + 1e-6]).require_sound("val", str)
    (warning,) = recwarn
    assert "val images range from 0 to 255: models take them in [0, 1]" in str(warning.message)


def test_bytes_and_labels_of_any_kind():
    check = BatchCheck()
    check.update(torch.tensor([3, 200], dtype=torch.uint8), torch.tensor([-7]))
    assert check.compute()["images"].tolist() == [3, 200]
    check.require_sound("test", str)

"""Files that load but are not what they say, each refused in one line."""

import zipfile
from pathlib import Path

import pytest
import torch
from refusals import refusal

from lightning_attractors.cli.checkpoint_checks import check_checkpoint

WHOLE = {
    "pytorch-lightning_version": "2.6.0",
    "state_dict": {"weight": torch.ones(2)},
    "epoch": 1,
    "global_step": 2,
    "loops": {"fit_loop": {}},
    "callbacks": {},
    "optimizer_states": [{}],
    "lr_schedulers": [],
}


def without(name):
    return {key: value for key, value in WHOLE.items() if key != name}


@pytest.mark.parametrize(
    ("content", "valid"),
    [
        ([1, 2], "must be a Lightning checkpoint, with"),
        (torch.ones(3), "must be a Lightning checkpoint, with"),
        (None, "must be a Lightning checkpoint, with"),
        ("text", "must be a Lightning checkpoint, with"),
        ({"weight": torch.ones(2)}, "must be a Lightning checkpoint, with"),
        ({**WHOLE, "state_dict": {"weight": "ones"}}, "must have a state_dict of tensors"),
        ({**WHOLE, "state_dict": [torch.ones(2)]}, "must have a state_dict of tensors"),
        ({**WHOLE, "state_dict": {0: torch.ones(2)}}, "must have a state_dict of tensors"),
        ({**WHOLE, "pytorch-lightning_version": "newest"}, "must name the version of Lightning"),
        ({**WHOLE, "pytorch-lightning_version": None}, "must name the version of Lightning"),
        (without("optimizer_states"), "it has no optimizer_states"),
        (without("lr_schedulers"), "it has no lr_schedulers"),
        (without("loops"), "it has no loops"),
        ({**WHOLE, "optimizer_states": {}}, "it has no optimizer_states of a kind that is known"),
        ({**WHOLE, "optimizer_states": [3]}, "states of optimisers and schedulers as dictionaries"),
        ({**WHOLE, "lr_schedulers": ["x"]}, "states of optimisers and schedulers as dictionaries"),
        ({**WHOLE, "epoch": "one"}, "it has no epoch of a kind that is known"),
        ({**WHOLE, "loops": {}}, "must hold the state of a fit in loops"),
        ({**WHOLE, "callbacks": [Path("x")]}, "only if you trust the file: --weights_only false"),
    ],
)
def test_a_file_that_is_no_state_of_a_training_is_refused(content, valid, tmp_path):
    path = str(tmp_path / "file.ckpt")
    torch.save(content, path)
    message = refusal(check_checkpoint, path, True)
    assert message.startswith(f"ckpt_path={path!r}: ")
    assert valid in message


def test_whole_checkpoints_pass_and_weights_alone_do_to_be_tested(tmp_path):
    path = str(tmp_path / "file.ckpt")
    torch.save(WHOLE, path)
    check_checkpoint(path, resumes=True)
    torch.save({key: WHOLE[key] for key in ("state_dict", "pytorch-lightning_version")}, path)
    check_checkpoint(path, resumes=False)
    torch.save({**WHOLE, "hyper_parameters": Path("x")}, path)
    check_checkpoint(path, resumes=True, trusted=True)


def test_zip_files_of_another_kind_and_text_are_refused(tmp_path):
    path = tmp_path / "file.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    assert "this is another kind of zip file" in refusal(check_checkpoint, str(path), True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", "nothing")
    assert "must be a checkpoint that torch can read" in refusal(check_checkpoint, str(path), True)
    for content in ("text", b"\x00\xff", b""):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        assert "must be a checkpoint file that exists and is whole" in refusal(
            check_checkpoint, str(path), True
        )


@pytest.mark.parametrize("path", ["nowhere.ckpt", ".", "/dev/zero"])
def test_what_is_no_file_is_refused(path):
    assert "must be a checkpoint file that exists and is whole" in refusal(check_checkpoint, path, True)

import contextlib
import os
import pickle
from pathlib import Path

import pytest
import torch

from lightning_attractors.reading import Unread, foreign_types, read_checkpoint


class Payload:
    """Runs code as it is unpickled."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Settings(dict):
    """A type of somebody's own, with state."""

    def __init__(self, **values):
        super().__init__(values)
        self.more = [1, 2]


class Names(list):
    pass


@pytest.mark.parametrize("function", [eval, exec, open])
def test_nothing_is_run(function, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = ["ran", "w"] if function is open else ["open('ran', 'w')"]
    torch.save({"weights": torch.ones(2), "payload": Payload(function, *code)}, "file.ckpt")
    torch.load("file.ckpt", weights_only=False)
    assert Path("ran").exists()
    Path("ran").unlink()
    content = read_checkpoint("file.ckpt")
    assert not Path("ran").exists()
    assert torch.equal(content["weights"], torch.ones(2))
    assert isinstance(content["payload"], Unread)


def test_what_is_called_by_way_of_another_object_is_refused(tmp_path):
    torch.save({"payload": Payload(Path.touch, tmp_path / "ran")}, tmp_path / "file.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        read_checkpoint(tmp_path / "file.ckpt")
    assert not (tmp_path / "ran").exists()


def test_the_system_is_not_even_named(tmp_path):
    torch.save({"payload": Payload(os.system, f"touch {tmp_path}/ran")}, tmp_path / "file.ckpt")
    with pytest.raises(Exception, match="posix"):
        read_checkpoint(tmp_path / "file.ckpt")
    assert not (tmp_path / "ran").exists()


def test_weights_are_read_whatever_stands_beside_them(tmp_path):
    beside = {"settings": Settings(a=1), "path": tmp_path, "type": Settings}
    torch.save({"state_dict": {"weight": torch.arange(3)}, **beside}, tmp_path / "file.ckpt")
    content = read_checkpoint(tmp_path / "file.ckpt")
    assert torch.equal(content["state_dict"]["weight"], torch.arange(3))
    assert len(foreign_types(tmp_path / "file.ckpt")) >= 2
    torch.save({"weight": torch.arange(3)}, tmp_path / "plain.ckpt")
    assert foreign_types(tmp_path / "plain.ckpt") == []


def test_a_list_of_a_foreign_type_is_left_out_or_refused(tmp_path):
    torch.save({"weight": torch.arange(3), "names": Names("ab")}, tmp_path / "file.ckpt")
    with contextlib.suppress(pickle.UnpicklingError):  # torch 2.9 fills no lists but Python's
        content = read_checkpoint(tmp_path / "file.ckpt")
        assert isinstance(content["names"], Unread)
        assert content["weight"].tolist() == [0, 1, 2]

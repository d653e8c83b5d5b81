import csv
import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_attractors.writing import csv_table, run_folder, write_atomically


def test_files_are_replaced_whole(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_atomically(path, "first")
    write_atomically(path, b"second")
    assert path.read_text() == "second"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    write_atomically(path, "kept")
    with pytest.raises(TypeError):
        write_atomically(path, 3)  # type: ignore[arg-type]
    assert path.read_text() == "kept"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_table_is_read_back_as_it_was():
    table = csv_table(["index", "class"], [[0, 'A, or "B"'], [1, "two\nlines"]])
    read = list(csv.reader(io.StringIO(table, newline="")))
    assert read == [["index", "class"], ["0", 'A, or "B"'], ["1", "two\nlines"]]


def test_a_runs_folder_is_the_loggers_or_else_the_root():
    assert run_folder(SimpleNamespace(log_dir="logs/version_3", default_root_dir="root")) == Path(
        "logs/version_3"
    )
    assert run_folder(SimpleNamespace(log_dir=None, default_root_dir="root")) == Path("root")

"""Files: whole or refused in one line; an error leaves the old file and nothing half-written."""

import errno
import os
import resource
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from worldmodel.files import (
    is_unfinished,
    read_object,
    read_weights,
    remove_unfinished,
    write_atomically,
    write_json,
    write_weights,
)

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 14\n"


@pytest.mark.parametrize("read", [read_object, read_weights])
def test_a_file_that_is_not_all_there_is_named_in_one_line(read, tmp_path):
    file = tmp_path / "file"
    for content, said in (
        (b"", "empty"),
        (POINTER.encode(), "a Git LFS pointer in place of the file; run git lfs pull"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError) as caught:
            read(file)
        assert str(caught.value) == f"{file}: {said}"
    file.unlink()
    with pytest.raises(ValueError, match=f"{file}: missing"):
        read(file)
    with pytest.raises(ValueError, match=f"{tmp_path}: a folder, expected a file"):
        read(tmp_path)


def test_a_part_of_a_file_is_named_in_one_line(tmp_path):
    weights, described = tmp_path / "weights.safetensors", tmp_path / "world.json"
    save_file({"a": torch.zeros(100)}, weights)
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(ValueError, match=rf"{weights}: not a safetensors file: .*perhaps a part") as caught:
        read_weights(weights)
    assert "\n" not in str(caught.value)
    described.write_text('{"format": 1, "con')
    with pytest.raises(ValueError, match=f"{described}: not JSON"):
        read_object(described)


def test_a_failed_write_names_the_file_and_leaves_the_old_one(tmp_path):
    """In a process of its own, whose files may have 4,000 bytes only."""
    write_json(tmp_path / "old.json", {"old": 1})
    code = f"""
import resource, torch
from pathlib import Path
from worldmodel.files import write_json, write_weights
folder = Path({str(tmp_path)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
for write in (
    lambda: write_json(folder / "old.json", list(range(9999))),
    lambda: write_weights(folder / "weights.safetensors", {{"a": torch.zeros(9999)}}),
):
    try:
        write()
    except OSError as error:
        print(error.errno, error.filename)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        str(errno.EFBIG),
        str(tmp_path / "old.json"),
        str(errno.ENOSPC),
        str(tmp_path / "weights.safetensors"),
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["old.json"]
    assert read_object(tmp_path / "old.json") == {"old": 1}
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4000


def test_an_interrupt_within_a_write_leaves_no_temporary_file(tmp_path):
    def write(path):
        assert is_unfinished(path) and path.suffix == ".png"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "plot.png", write)
    assert list(tmp_path.iterdir()) == []


def test_only_unfinished_files_of_dead_processes_are_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = {
        f".a.{ended.pid}.x1y2.part.json": False,
        f".weights.{ended.pid}.x1y2.part": False,
        f".a.{os.getppid()}.x1y2.part.json": True,  # of a process that still writes
        ".mine.part.json": True,
        "a.json": True,
    }
    (tmp_path / "cells").mkdir()
    for name in names:
        (tmp_path / "cells" / name).touch()
    remove_unfinished(tmp_path)
    assert {name: (tmp_path / "cells" / name).exists() for name in names} == names


def test_weights_are_read_as_they_were_written(tmp_path):
    write_weights(tmp_path / "w", {"a": torch.arange(3.0)})
    assert torch.equal(read_weights(tmp_path / "w")["a"], torch.arange(3.0))

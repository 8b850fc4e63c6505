"""Two runs do not write to one folder at the same time."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from rl_posttrain.adaptation.adapt import adapt
from rl_posttrain.alignment import align
from rl_posttrain.imagination.train import imagine
from rl_posttrain.posttraining.train import posttrain
from worldmodel.processes.alone import alone_in, alone_in_out
from worldmodel.training.pretrain import pretrain


@dataclass(frozen=True)
class Config:
    """Of a training that writes to `out`."""

    out: Path


def test_a_second_run_is_refused_until_the_first_one_ends(tmp_path):
    with alone_in(tmp_path), pytest.raises(ValueError, match="another run is writing there"), alone_in(tmp_path):
        pass
    with alone_in(tmp_path):
        pass


def test_an_error_opens_the_folder_again_and_leaves_no_empty_one(tmp_path):
    out = tmp_path / "run"

    @alone_in_out
    def train(config: Config, fails: bool) -> str:
        with pytest.raises(ValueError, match=f"{out}: another run"), alone_in(config.out):
            pass
        if fails:
            raise KeyError("data")
        (config.out / "world.json").write_text("{}")
        return "done"

    with pytest.raises(KeyError):
        train(Config(out), fails=True)
    assert not out.exists()
    assert train(Config(out), fails=False) == train(config=Config(out), fails=False) == "done"


def test_the_other_launched_processes_do_not_wait_for_the_first(tmp_path, monkeypatch):
    with alone_in(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with alone_in(tmp_path):
            pass


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(ValueError, match="a file, expected a folder"), alone_in(tmp_path / "run"):
        pass


@pytest.mark.parametrize("train", [pretrain, posttrain, imagine, adapt, align])
def test_no_training_begins_where_another_one_is(train, tmp_path):
    with alone_in(tmp_path), pytest.raises(ValueError, match="another run is writing there"):
        train(Config(tmp_path))


def test_a_child_that_was_forked_meanwhile_keeps_nobody_out(tmp_path):
    ours, theirs = os.pipe()
    with alone_in(tmp_path):
        child = os.fork()
        if not child:
            os.close(theirs)
            os.read(ours, 1)  # until the parent closes its end
            os._exit(0)
    with alone_in(tmp_path):
        os.close(theirs)
    os.waitpid(child, 0)
    os.close(ours)

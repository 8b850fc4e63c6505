"""Trackers: what a run sends to TensorBoard, to a tracker of the user, and to none."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import GeneralTracker, get_available_trackers
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rl_posttrain.imagination.log import ImagineLog
from worldmodel.model.precision import full_precision
from worldmodel.training.accelerator import start_accelerator
from worldmodel.training.log import RunLog


class Notes(GeneralTracker):
    """A tracker of the user, in accelerate's interface."""

    name, requires_logging_directory = "notes", False

    def __init__(self):
        super().__init__()
        self.rows, self.finished = [], False

    @property
    def tracker(self):
        return self.rows

    def log(self, values, step=None, **kwargs):
        self.rows.append((step, values))

    def finish(self):
        self.finished = True


def run(accelerator, out, *, steps=10, step=0):
    """A run of a few steps, whose loss is 2 and whose validation is 0.5."""
    log = RunLog(accelerator, out, total_steps=20, minutes=None, clock="cpu")
    log.resume({"step": step, "seconds": 0.0})
    with log:
        for _ in range(steps):
            log.advance(torch.tensor(2.0), {"flow": torch.tensor(1.5)}, frames=4, factor=0.25)
        log.validation({"psnr": 0.5})
    accelerator.end_training()


def scalars(folder):
    """The steps and values in a folder of TensorBoard, by name."""
    found = EventAccumulator(str(folder))
    found.Reload()
    return {name: [(event.step, event.value) for event in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_a_run_is_in_tensorboard(tmp_path):
    run(start_accelerator("cpu", tmp_path, "tensorboard"), tmp_path)
    seen = {"loss/total": 2.0, "loss/flow": 1.5, "learning_rate_factor": 0.25, "psnr": 0.5}
    assert scalars(tmp_path / "log") == {name: [(10, value)] for name, value in seen.items()}


def test_a_resumed_run_takes_the_place_of_what_it_repeats(tmp_path):
    run(start_accelerator("cpu", tmp_path), tmp_path, steps=20)
    run(start_accelerator("cpu", tmp_path), tmp_path, steps=10, step=10)
    assert scalars(tmp_path / "log")["loss/total"] == [(20, 2.0)]


def test_a_tracker_of_accelerates_interface_gets_the_same(tmp_path):
    notes = Notes()
    run(Accelerator(cpu=True, log_with=notes), tmp_path)
    expected = {"loss/total": 2.0, "learning_rate_factor": 0.25, "loss/flow": 1.5}
    assert notes.rows == [(10, expected), (10, {"psnr": 0.5})] and notes.finished


def test_imagination_sends_its_updates_and_measurements(tmp_path):
    notes, shown = Notes(), {"return": 0.5, "kl": 0.0, "value_error": 0.25}
    with ImagineLog(Accelerator(cpu=True, log_with=notes), tmp_path, 2, None, "cpu") as log:
        log.validation({"step": 0, "return": 0.75, "solved": 1.0})
        log.advance(shown)
    values = {f"imagine/{name}": value for name, value in shown.items()}
    assert notes.rows == [(0, {"held_out/return": 0.75, "held_out/solved": 1.0}), (0, values)] and notes.finished


def test_without_a_tracker_only_the_tables_are_written(tmp_path):
    run(start_accelerator("cpu", tmp_path, "none"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["losses.csv", "train.log", "validation.jsonl"]


def test_a_tracker_that_is_not_installed_is_one_line(tmp_path):
    missing = [name for name in ("wandb", "trackio") if name not in map(str, get_available_trackers())]
    if not missing:
        pytest.skip("all are installed")
    with pytest.raises(ValueError, match=f"--log {missing[0]}: .* not installed; .*`pip install {missing[0]}`"):
        start_accelerator("cpu", tmp_path, missing[0])


def test_a_run_may_have_another_number_format_than_the_one_before_it(tmp_path):
    AcceleratorState._reset_state()
    Accelerator(cpu=True, mixed_precision="bf16")
    with full_precision():
        assert start_accelerator("cpu", tmp_path, "none").mixed_precision == "no"
    AcceleratorState._reset_state()

"""The queue of trials by hand, and costs that follow their assumptions."""

import runpy
import sys
from dataclasses import replace

import numpy as np
import pytest
from places import BENCHMARKS

sys.path.insert(0, str(BENCHMARKS))

from scale_queue import QueueResult, StepTime, fitted, simulate, too_many
from scale_units import moving_pictures

SCALE = runpy.run_path(str(BENCHMARKS / "scale.py"))
CONFIG = SCALE["ScaleConfig"]()


def test_one_worker_by_hand():
    # slots 2: trials of 3 and 1 steps begin, the second makes room for that of 2, then all are done
    found = simulate(1, np.array([3, 1, 2]), StepTime(1.0, 0.5), slots=2)
    assert found == QueueResult(seconds=3 * 2.0, mean_batch=2.0, busy=1.0)


def test_two_workers_share_the_queue():
    # worker 0: 4 steps of one trial; worker 1: 1 step, then 2 steps of the next trial
    found = simulate(2, np.array([4, 1, 2]), StepTime(1.0, 0.0), slots=1)
    assert found == QueueResult(seconds=4.0, mean_batch=1.0, busy=7 / 8)


def test_small_batches_waste_what_a_step_costs_anyway():
    lengths = np.full(64, 10)
    results = {workers: simulate(workers, lengths, StepTime(1.0, 0.0), slots=8) for workers in (1, 8, 16, 32, 64)}
    assert [results[workers].seconds for workers in results] == [80, 10, 10, 10, 10]
    assert [results[workers].mean_batch for workers in results] == [8, 8, 4, 2, 1]
    assert too_many(results) == 32 and too_many({1: results[1], 8: results[8]}) is None


def test_more_workers_than_trials():
    found = simulate(5, np.array([2, 2]), StepTime(1.0, 0.0), slots=4)
    assert (found.seconds, found.busy) == (2.0, pytest.approx(2 / 5))


def test_step_times_are_a_line():
    assert fitted([1, 4, 16], [3.0, 4.5, 10.5]) == StepTime(pytest.approx(2.5), pytest.approx(0.5))
    assert StepTime(0.1, 0.5, floor=2.0)(3) == 3.5


def test_costs_follow_what_is_assumed():
    costs, twice = SCALE["trial_costs"], replace(CONFIG, trials=2 * CONFIG.trials, gpu_price=10.0, slots=1)
    small = StepTime(0.0, 0.036)
    (_, _, hours, dollars), *_ = costs(CONFIG, small, 0.012)
    assert (hours, dollars) == ("1,000", "40")  # 3e8 steps of 12 ms; 0.04 dollars an hour
    assert costs(CONFIG, small, 0.012)[1][2:] == ["3,000", "120"]
    large, single = (float(row[2].replace(",", "")) for row in costs(twice, small, 0.012)[2:])
    assert large == single  # one at a time
    per_frame = 5 * 10 / 3350 + (5 * 0.59 + 1.49) / 400
    assert large == pytest.approx(6e8 * per_frame / 3600, abs=1)


def test_a_trained_frame_costs_its_passes():
    assert SCALE["training_tflop"]("LoRA") == pytest.approx(3 * 1.18)
    assert SCALE["training_tflop"]("all weights") == pytest.approx(4 * 1.18)
    rows = {row[0]: row for row in SCALE["pretraining_costs"](CONFIG, 300.0)}
    assert rows["decode all frames once"][1:] == ["1,080,000,000 frames", "1,000 core hours", "40"]
    assert rows["store the latents for a month"][1] == "8.64 TB"
    assert rows["train, LoRA, one pass"][2] == "885 GPU hours"


def test_a_bottleneck_is_what_there_is_over_what_is_needed():
    rows = {tuple(row[:2]): [float(value) for value in row[2:]] for row in SCALE["bottlenecks"](CONFIG, 100.0)}
    needed, there, times = rows["LoRA", "decoding, frames/s"]
    assert needed == pytest.approx(3 * 400 / 3.54, rel=1e-2) and there == 1600
    assert times == pytest.approx(there / needed, rel=1e-2)


def test_pictures_move():
    pictures = moving_pictures(3, side=64)
    assert pictures.shape == (3, 64, 64, 3) and (pictures[0] != pictures[1]).any()

"""Benchmarks that train for hours: what they print of it."""

import json
import runpy
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_episodes import DrawnEpisodes, tiny_world
from places import BENCHMARKS, LEROBOT_V30
from tiny import random_clip
from tiny import tiny_world as tiny_world_of_pusht

from policy_eval.judge.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from worldmodel.fidelity.measure import measure_fidelity
from worldmodel.world_model import WorldModel

SOURCE = DrawnEpisodes([18, 18], lambda e, t: 100 + 3 * t)  # 3 levels a frame: 38.6 dB by copying


def test_a_shipped_checkpoint_comes_with_a_card_of_its_figures(tmp_path):
    script = runpy.run_path(str(BENCHMARKS / "ship.py"))
    run, out = tmp_path / "run", tmp_path / "shipped"
    world = tiny_world()
    trained_on = {"fingerprint": "another", "robot_type": "another", "episodes": [0, 1, 2]}
    world.train_data = [{**trained_on, "reset_seeds": [70, 71, 72]}]
    world.save(run)
    (run / "state").mkdir()
    (run / "state" / "state.json").write_text(json.dumps({"step": 123, "seconds": 600.0}))
    report = measure_fidelity(world, SOURCE, horizon=5, num_steps=2)
    file = tmp_path / "fidelity.json"
    file.write_text(json.dumps(report))
    words = {"machine": "an abacus", "command": "by hand", "limits": "It is grey."}
    script["main"](script["ShipConfig"](run=run, out=out, reports=(file,), **words))

    card = (out / "README.md").read_text()
    assert "123 optimiser steps, 10 minutes. by hand" in card and "It is grey." in card
    assert "3 episodes" in card and "70..72" in card and "an abacus" in card
    assert "| top psnr, dB | 38.6 / 24.6 | 38.6 / 24.6 |" in card
    assert json.loads((out / "fidelity.json").read_text()) == report
    shipped = WorldModel.load(out).dit.state_dict()
    for name, weight in world.dit.state_dict().items():
        assert torch.equal(shipped[name], weight.bfloat16().float()), name


@pytest.mark.slow
def test_the_table_of_ablations_is_of_means_over_seeds():
    table = runpy.run_path(str(BENCHMARKS / "ablations.py"))["table"]
    reports = [measure_fidelity(tiny_world(), SOURCE, horizon=10, seed=seed) for seed in (0, 1)]
    for level, report in enumerate(reports):
        report["cameras"]["top"]["psnr"]["10"] = 20.0 + 2 * level
        report["cameras"]["top"]["masked_psnr"] = {"1": 12.0, "5": 11.0, "10": 9.0 + level}
    runs = [{"steps": 7 + n, "fidelity": report} for n, report in enumerate(reports)]
    head, _, row = table({"default": runs}).splitlines()
    cameras = "top PSNR | top masked PSNR | wrist PSNR | wrist masked PSNR"
    assert head == f"| variant | steps | {cameras} | dB lost under shuffled actions |"
    top = "38.6 / 24.6 / 21.0 | 12.0 / 11.0 / 9.5"
    assert row.startswith(f"| default | 7 / 8 | {top} | 38.6 / 24.6 / ")
    assert row.endswith("| 0.0 / 0.0 / 0.0 |")


@pytest.mark.slow
def test_the_probe_finds_two_squares_and_ignores_what_it_cannot_see():
    try:
        import worldmodel.envs.metaworld.headless  # noqa: F401
    except ValueError as error:  # it names the package that is missing
        pytest.skip(str(error))
    script = runpy.run_path(str(BENCHMARKS / "arm.py"))
    rng = np.random.default_rng(0)
    frames = np.full((600, 64, 64, 3), 40, np.uint8)
    corners = rng.integers(0, 61, (600, 2, 2))
    for frame, places in zip(frames, corners, strict=True):
        for channel, (x, y) in enumerate(places):
            frame[y : y + 4, x : x + 4, channel] = 220
    points = torch.from_numpy(corners + 2.0).float()  # the middle of 4 pixels
    points[500:550] = 99.0  # outside the picture
    probe = script["fit_probe"](torch.from_numpy(frames[:550]), points[:550], 80)
    with torch.no_grad():
        found = probe(torch.from_numpy(frames[550:]))
    assert (found - points[550:]).norm(dim=-1).mean() < 2


def test_a_random_world_can_be_benched(tmp_path):
    script = runpy.run_path(str(BENCHMARKS / "random_world.py"))
    script["main"](script["RandomWorld"](tmp_path / "world", preset="tiny", size=16, views=3))
    world = WorldModel.load(tmp_path / "world")
    assert (len(world.views), world.size, world.config.dit.width) == (3, (16, 16), 192)


def test_the_signal_of_gradients_is_what_they_have_in_common():
    """Rows (1, 1), (1, -1): the common part (1, 0) is half of the squared length 2."""
    signal = runpy.run_path(str(BENCHMARKS / "gradient_signal.py"))["signal"]
    rows = torch.tensor([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
    found = signal(rows)
    # of 12 ordered pairs 4 are of equal rows, with product 2; the products of the others are 0
    assert found["signal"] == pytest.approx(4 * 2 / 12 / 2)
    assert found["halves"] == pytest.approx(0, abs=1e-6)
    assert found["length"] == pytest.approx(2**0.5)
    same = signal(rows[:1].repeat(4, 1))
    assert same["signal"] == pytest.approx(1) and same["halves"] == pytest.approx(1)


@pytest.mark.slow
def test_gradients_of_rewards_and_objectives_are_taken(tmp_path):
    tiny_world_of_pusht().save(tmp_path / "world")
    torch.manual_seed(0)
    shape = InverseDynamicsConfig(("top", "wrist"), (16, 24), 2, {0: 0, 1: 1}, keypoints=4, width=8)
    InverseDynamics(shape).save(tmp_path / "inverse")
    script = runpy.run_path(str(BENCHMARKS / "gradient_signal.py"))
    out = tmp_path / "signal.json"
    options = {"batches": 2, "groups": 1, "prefix": 3, "out": out, "inverse_dynamics": tmp_path / "inverse"}
    known = script["rows_of"](script["SignalConfig"](LEROBOT_V30, tmp_path / "world", **options))
    assert len(known) == 23
    rows = ("supervised self-rollout", "fidelity, cell of 8 px", "agreement, frame", "the same, gated, clip")
    rows += ("Flow-GRPO of fidelity, clip", "Flow-GRPO of fidelity, cell of 8 px, inner pixels")
    script["main"](script["SignalConfig"](LEROBOT_V30, tmp_path / "world", rows=rows, **options))
    found = json.loads(out.read_text())["rows"]
    assert tuple(found) == rows
    assert all(row["length"] > 0 and np.isfinite(row["signal"]) for row in found.values())
    assert found["supervised self-rollout"]["supervision"] == pytest.approx(1, abs=0.01)
    assert found["fidelity, cell of 8 px"]["within"] > 0
    with pytest.raises(SystemExit, match=r"no such rows: \['x'\]"):
        script["main"](script["SignalConfig"](LEROBOT_V30, tmp_path / "world", rows=("x",), **options))


@pytest.mark.slow
def test_ways_of_drawing_candidates_are_compared(tmp_path, capsys):
    tiny_world_of_pusht().save(tmp_path / "world")
    script = runpy.run_path(str(BENCHMARKS / "group_spread.py"))
    draw = script["Draw"]
    script["ROWS"].clear()
    script["ROWS"].update({"plain": draw(prefix=1), "noisy": draw(prefix=1, context_noise=20.0)})
    config = script["SpreadConfig"](LEROBOT_V30, tmp_path / "world", batches=1, groups=2, candidates=2)
    script["main"](replace(config, out=tmp_path / "spread.json"))
    found = json.loads((tmp_path / "spread.json").read_text())["rows"]
    assert set(found) == {"plain", "noisy"} and found["noisy"]["within"] > 0
    assert "| plain" in capsys.readouterr().out


def test_all_rows_branch_at_the_same_recorded_frame():
    clip = random_clip(tiny_world_of_pusht(), frames=9)
    stretch = runpy.run_path(str(BENCHMARKS / "group_spread.py"))["stretch"]
    cut = stretch(clip, 2, 6, states=True)
    assert torch.equal(cut.frames, clip.frames[:, 2:6]) and torch.equal(cut.states, clip.states[:, 2:6])
    assert torch.equal(cut.actions, clip.actions[:, 2:5])
    assert stretch(clip, 2, 6, states=False).states is None

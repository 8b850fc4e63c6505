"""The benchmark, the roof, and the fast engine against the modules it stands for."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_episodes import DrawnEpisodes
from tiny import TINY_DIT, random_clip, tiny_world

from worldmodel import cli
from worldmodel.bench.recompute import recomputed_step
from worldmodel.bench.roof import best_gemm, count_flops, step_flops
from worldmodel.bench.timing import long_run, percentile
from worldmodel.bench.training import training_speed
from worldmodel.model.precision import full_precision
from worldmodel.streaming.engine import FoldedEngine
from worldmodel.streaming.folded_blocks import matrix
from worldmodel.streaming.folded_pixels import paired_convolution, shuffled_matrix
from worldmodel.streaming.plain import PlainEngine
from worldmodel.training.log import CLOCKS

SMALL = replace(TINY_DIT, width=16, encoder_depth=2, decoder_depth=1, head_width=16)


def test_percentile_is_a_value_that_was_measured():
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99
    assert percentile([5.0], 0.99) == 5.0


def test_flops_are_twice_the_multiplications():
    a, b, c = torch.zeros(2, 3), torch.zeros(3, 5), torch.zeros(2, 5)
    assert count_flops(lambda: a @ b) == 2 * 2 * 3 * 5
    assert count_flops(lambda: c.addmm_(a, b)) == 2 * 2 * 3 * 5


def test_flops_of_a_step_grow_with_the_decoder_and_with_the_batch():
    world = tiny_world(SMALL)
    actions = torch.zeros(2, 2)
    stream = world.stream(random_clip(world))
    one, two, four = (step_flops(stream, actions, number) for number in (1, 2, 4))
    assert four - two == 2 * (two - one) > 0
    alone = world.stream(random_clip(world, batch=1))
    assert step_flops(alone, actions[:1], 2) * 2 == two
    assert stream.frame.tolist() == [5, 5]


def test_the_roof_is_a_rate():
    rate = best_gemm(torch.device("cpu"), torch.float32, sizes=(64, 128), seconds=0.01)
    assert 1e8 < rate < 1e13


@pytest.mark.parametrize("injection", ["token", "adaln"])
@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_the_engine_shows_what_the_modules_show(injection, reference, num_steps):
    world = tiny_world(replace(TINY_DIT, reference=reference), injection=injection)
    clip = replace(random_clip(world), view_mask=torch.tensor([[True, False], [True, True]]))
    actions = torch.rand(2, 2, 2, generator=torch.Generator().manual_seed(0))
    with full_precision():
        assert isinstance(world.engine(), FoldedEngine)
        fast = world.rollout(clip, actions, num_steps=num_steps)
        world.fast = False
        assert isinstance(world.engine(), PlainEngine)
        plain = world.rollout(clip, actions, num_steps=num_steps)
    assert (fast.frames.int() - plain.frames.int()).abs().max() <= 1
    torch.testing.assert_close(fast.states, plain.states, atol=5e-3, rtol=1e-3)


def test_the_engine_follows_the_weights():
    world = tiny_world()
    clip, actions = random_clip(world), torch.rand(2, 1, 2)
    before = world.rollout(clip, actions)
    engine = world.engine()
    assert world.engine() is engine
    with torch.no_grad():
        world.dit.head.last.bias.add_(0.5)
    assert not engine.is_current and world.engine() is not engine
    after = world.rollout(clip, actions)
    assert (after.frames.int() - before.frames.int()).float().mean() > 10


def test_the_engine_follows_fused_optimisers():
    """They write without raising the version counters."""
    world = tiny_world()
    clip, actions = random_clip(world), torch.rand(2, 1, 2)
    before = world.rollout(clip, actions)
    world.train()
    world.dit.head.last.bias.grad = -torch.ones_like(world.dit.head.last.bias)
    torch.optim.AdamW([world.dit.head.last.bias], lr=0.5, fused=True).step()
    after = world.eval().rollout(clip, actions)
    assert (after.frames.int() - before.frames.int()).float().mean() > 10


def test_the_engine_reads_through_adapters():
    class Adapter(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.in_features = inner, inner.in_features
            self.low = torch.nn.Parameter(torch.ones(inner.out_features, inner.in_features))

        def forward(self, x):
            return self.inner(x) + x @ self.low.t()

    inner = torch.nn.Linear(3, 2)
    torch.testing.assert_close(matrix(Adapter(inner)), inner.weight + 1, atol=1e-6, rtol=0)


def test_a_matrix_before_the_pixel_shuffle_equals_one_after_it():
    x, weight = torch.randn(1, 8, 3, 3), torch.randn(5, 2)
    after = torch.einsum("oc,bchw->bohw", weight, torch.nn.functional.pixel_shuffle(x, 2))
    rows = x.permute(0, 2, 3, 1) @ shuffled_matrix(weight).t()
    before = rows.view(1, 3, 3, 2, 2, 5).permute(0, 5, 1, 3, 2, 4).reshape(1, 5, 6, 6)
    torch.testing.assert_close(before, after)


def test_a_paired_convolution_equals_the_thin_one():
    x, weight = torch.randn(1, 4, 6, 6), torch.randn(3, 4, 3, 3)
    thin = torch.nn.functional.conv2d(x, weight, padding=1)
    wide = torch.nn.functional.conv2d(x, paired_convolution(weight), stride=2, padding=1)
    paired = wide.view(1, 2, 2, 3, 3, 3).permute(0, 3, 4, 1, 5, 2).reshape(1, 3, 6, 6)
    torch.testing.assert_close(paired, thin, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("frames", [1, 3, 9])
def test_reading_the_context_again_shows_what_the_cache_shows(frames, reference):
    world = tiny_world(replace(TINY_DIT, reference=reference))
    world.config = replace(world.config, temperature=0.0)
    clip = random_clip(world, frames=frames)
    actions = torch.rand(2, 2, generator=torch.Generator().manual_seed(0))
    again = recomputed_step(world, clip, actions)
    cached = world.stream(clip).step(actions)
    assert (again.frames.int() - cached.frames.int()).abs().max() <= 3
    moved = (cached.states - clip.states[:, -1]).abs().max()
    assert (again.states - cached.states).abs().max() <= 0.06 * moved


def test_reading_again_needs_no_actions():
    world = tiny_world(action_dim=0, state_dim=0, relative_to={})
    world.config = replace(world.config, temperature=0.0)
    clip = replace(random_clip(world), actions=None)
    again = recomputed_step(world, clip, None)
    cached = world.stream(clip).step(None)
    assert (again.frames.int() - cached.frames.int()).abs().max() <= 3


def test_a_monolithic_model_cannot_be_read_again():
    world = tiny_world(replace(TINY_DIT, encoder_depth=0, decoder_depth=2))
    clip = random_clip(world)
    with pytest.raises(ValueError, match="monolithic"):
        recomputed_step(world, clip, torch.rand(2, 2))


@pytest.mark.slow
def test_a_long_stream_costs_and_holds_the_same_at_its_end():
    world = tiny_world(SMALL, size=(16, 16), views=("top",))
    clip = random_clip(world, batch=1, frames=2)
    run = long_run(world, clip, 1, frames=60, clock=CLOCKS["cpu"], pairs=20)
    assert len(run.seconds) == 60 and min(run.seconds) > 0
    assert run.memory_growth == 0
    assert 0.3 < run.late_over_early < 3


def test_training_speed_counts_frames_and_waiting():
    episodes = DrawnEpisodes([24] * 3)
    world = tiny_world(
        SMALL,
        views=episodes.views,
        size=episodes.size,
        action_dim=episodes.action_dim,
        state_dim=episodes.state_dim,
        relative_to={},
    )
    before = world.dit.condition_embedding.clone()
    speed = training_speed(world, episodes, steps=1, clock=CLOCKS["cpu"])
    assert speed.frames_per_second > 0 and 0 < speed.data_wait < 1
    assert not torch.equal(world.dit.condition_embedding, before)  # no second world model is in the memory


@pytest.mark.slow
def test_the_command_writes_everything_that_it_promises(tmp_path, capsys):
    world = tiny_world(SMALL)
    world.save(tmp_path / "world")
    file = tmp_path / "bench.json"
    options = "--batch 1 2 --num-steps 1 2 --context 2 5 --rounds 1 --frames 2 --long 25 --workers 1"
    command = ["bench", "--world", str(tmp_path / "world"), "--out", str(file), *options.split()]
    assert cli.main(command) == 0
    assert "Speed of a world model" in file.with_suffix(".html").read_text()
    report = json.loads(file.read_text())
    assert set(report["frames_per_second"]) == set(report["roof_share"]) == {"1", "2"}
    assert len(report["grid"]) == 8
    first = report["grid"][0]
    assert (first["batch"], first["num_steps"], first["context"]) == (1, 1, 2)
    assert report["frames_per_second"]["1"] == first["frames_per_second"]
    assert report["latency_ms"]["p99"] >= report["latency_ms"]["median"]
    median = report["latency_ms"]["median"]
    assert math.isclose(first["frames_per_second"], 1000 / median, rel_tol=1e-9)
    assert 0 < report["roof_share"]["1"] < 1
    assert np.isfinite(report["step_1000_over_step_20"])
    assert [row["context"] for row in report["recompute"]] == [2, 5]
    assert report["processes"][0]["frames_per_second"] > 0
    assert report["long"]["state_growth_bytes"] == 0
    assert len(report["long"]["seconds"]) == 25
    assert report["training"] is None
    assert file.with_suffix(".png").stat().st_size > 1000
    assert "roof share" in capsys.readouterr().out


def test_wrong_numbers_and_missing_devices_are_named(tmp_path, capsys):
    tiny_world(SMALL).save(tmp_path)
    assert cli.main(["bench", "--world", str(tmp_path), "--batch", "0"]) == 2
    assert "batch" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert cli.main(["bench", "--world", str(tmp_path), "--device", "cuda"]) == 2
        assert "device 'cuda': there is none here; choose auto or cpu" in capsys.readouterr().err

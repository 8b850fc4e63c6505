"""One object for running rollouts: what it shows never depends on what else was done with it."""

import random
from dataclasses import replace

import pytest
import torch
from tiny import TINY_DIT, random_clip, tiny_world

from worldmodel.data.clip import Clip
from worldmodel.model.codec import PixelCodec
from worldmodel.model.flow import euler_step
from worldmodel.model.precision import full_precision
from worldmodel.streaming.noise import mix_seed, stream_noise
from worldmodel.world_model import WorldModel

NUMBER = 3
History = tuple[int, int, tuple[int, ...]]
"""Of one stream: the key of its context, its noise seed, and the keys of its actions."""


def action_of(key: int) -> torch.Tensor:
    return torch.rand(1, 2, generator=torch.Generator().manual_seed(key))


def context_of(world: WorldModel, key: int) -> Clip:
    """One to three frames."""
    return random_clip(world, batch=1, frames=1 + key % 3, seed=key)


def joined(clips: list[Clip]) -> Clip:
    return Clip(*(torch.cat([getattr(clip, name) for clip in clips]) for name in ("frames", "actions", "states")))


def shown_among_others(world: WorldModel, place: int, history: History, number: int = NUMBER) -> torch.Tensor:
    """The last frame of a stream that is begun and rolled out straight away among other neighbours."""
    context, seed, actions = history
    stream = world.stream(joined([context_of(world, 51 + 3 * i) for i in range(number)]), seeds=900)
    stream.reset([place], context_of(world, context), seeds=[seed])
    for step, key in enumerate(actions):
        rows = [action_of(5000 + 10 * step + i) for i in range(number)]
        rows[place] = action_of(key)
        stream.step(torch.cat(rows), num_steps=2)
    return stream.observation.frames[place]


def test_any_interleaving_of_200_operations_leaves_every_stream_what_it_would_be_by_itself():
    rng, checked = random.Random(0), 0
    with full_precision():
        world = tiny_world(views=("top",), size=(16, 16))
        stream = world.stream(joined([context_of(world, 0)] * NUMBER), seeds=range(NUMBER))  # of one frame
        histories: list[History] = [(0, seed, ()) for seed in range(NUMBER)]
        snapshots = []
        for index in range(200):
            kind = rng.choice(["step", "step", "step", "branch", "reset", "snapshot", "restore"])
            if kind == "step":
                keys = [rng.randrange(1000) for _ in range(NUMBER)]
                stream.step(torch.cat([action_of(key) for key in keys]), num_steps=2)
                histories = [(c, s, (*a, key)) for (c, s, a), key in zip(histories, keys, strict=True)]
            elif kind == "branch":  # one of the two goes on, and what happens to the other one does not matter
                pair = [stream, stream.branch()]
                rng.shuffle(pair)
                stream, other = pair
                other.step(torch.rand(NUMBER, 2), num_steps=2)
                other.reset([0], context_of(world, 7))
            elif kind == "reset":
                place, key = rng.randrange(NUMBER), rng.randrange(9)
                stream.reset([place], context_of(world, key), seeds=[index])
                histories[place] = (key, index, ())
            elif kind == "snapshot":
                snapshots.append((stream.snapshot(), list(histories)))
            elif snapshots:
                snapshot, histories = rng.choice(snapshots)
                stream.restore(snapshot)
                histories = list(histories)
            place = index % NUMBER
            if index % 2 == 0 and len(histories[place][-1]) < 6:
                seen = stream.observation.frames[place]
                assert torch.equal(seen, shown_among_others(world, place, histories[place])), (index, kind)
                if checked % 3 == 0:
                    alone = shown_among_others(world, 0, histories[place], number=1)
                    assert (seen.int() - alone.int()).abs().max() <= 2
                checked += 1
    assert checked > 40


@pytest.mark.slow
def test_many_steps_stay_finite_in_memory_of_fixed_size():
    world = tiny_world(size=(16, 16), views=("top",))
    stream = world.stream(random_clip(world, batch=1, frames=2))
    actions = torch.rand(1, 300, 2, generator=torch.Generator().manual_seed(0))
    size = stream.num_bytes
    shown = [observation.states.isfinite().all() for observation in stream.roll(actions, num_steps=1)]
    assert stream.num_bytes == size
    assert len(shown) == 300 and all(shown)
    assert stream.latent.abs().max() <= 1
    assert stream.frame.item() == 301


def test_first_frame_stays_pinned_and_the_window_slides():
    world = tiny_world()
    stream = world.stream(random_clip(world, batch=1, frames=1))
    list(stream.roll(torch.rand(1, 7, 2, generator=torch.Generator().manual_seed(0)), num_steps=1))
    held = stream.snapshot().state.cache.frame_index
    assert sorted(held[0].tolist()) == [0, 3, 4, 5, 6]


@pytest.mark.parametrize("fast", [True, False])
def test_a_stream_that_stands_still_is_as_if_the_others_had_not_moved(fast):
    """Even if the window is full, a snapshot is taken in between, and others take its place in the meantime."""
    world = tiny_world(size=(16, 16), views=("top",))
    world.fast = fast
    context = joined([context_of(world, 3 * i) for i in range(NUMBER)])
    rows = [torch.cat([action_of(10 * step + i) for i in range(NUMBER)]) for step in range(14)]
    plain, pausing = (world.stream(context, seeds=[1, 2, 3]) for _ in range(2))
    pace, saved = [], None
    for step, actions in enumerate(rows):
        plain.step(actions)
        for moving in ([True, step % 2 > 0, True], [False, step % 2 == 0, False]):
            wild = torch.where(torch.tensor(moving)[:, None], actions, 9.0)
            pausing.step(wild, moving=torch.tensor(moving))
        for name in ("frames", "states"):
            assert torch.equal(getattr(plain.observation, name), getattr(pausing.observation, name)), step
        pace.append(pausing.frame.tolist())
        if step == 9:
            pausing.step(torch.zeros(NUMBER, 2), moving=torch.zeros(NUMBER, dtype=torch.bool))
            saved = pausing.snapshot([1])
    assert pace == [[step + 1] * NUMBER for step in range(len(rows))]
    other = world.stream(context, seeds=[7, 8, 9])
    other.restore(saved, [1])
    for actions in rows[10:]:
        other.step(actions)
    assert torch.equal(other.observation.frames[1], plain.observation.frames[1])
    with pytest.raises(ValueError, match="snapshot is of 1 streams, these are 2"):
        other.restore(saved, [0, 1])


def test_branches_lie_side_by_side_and_share_the_noise_unless_they_have_seeds():
    world = tiny_world()
    stream = world.stream(random_clip(world), seeds=[5, 6])
    branches = stream.branch(2)
    assert torch.equal(branches.observation.frames, stream.observation.frames[[0, 0, 1, 1]])
    ones = torch.ones(4, 2)
    shared = branches.step(ones).frames.int()
    assert (shared[0] - shared[1]).abs().max() <= 2 and (shared[2] - shared[3]).abs().max() <= 2
    own = stream.branch(2, seeds=[5, 1, 2, 6]).step(ones).frames.int()
    assert (own[0] - shared[0]).abs().max() <= 2 and (own[3] - shared[3]).abs().max() <= 2
    assert (own[1] - shared[1]).abs().max() > 2 and (own[2] - shared[2]).abs().max() > 2


def test_a_stream_begins_with_the_last_frame_of_its_context():
    world = tiny_world()
    clip = random_clip(world)
    stream = world.stream(clip)
    assert torch.equal(stream.observation.frames, clip.frames[:, -1])
    assert torch.equal(stream.observation.states, clip.states[:, -1])
    assert stream.frame.tolist() == [5, 5] and len(stream) == 2


def test_a_stream_follows_the_weights():
    world = tiny_world()
    stream = world.stream(random_clip(world))
    before = stream.snapshot()
    first = stream.step(torch.zeros(2, 2)).frames.int()
    with torch.no_grad():
        world.dit.head.last.bias.add_(0.5)
    stream.restore(before)
    assert (stream.step(torch.zeros(2, 2)).frames.int() - first).float().mean() > 10


def test_what_was_never_learned_is_refused():
    """Without actions only a world model dreams that was trained so at some time."""
    world = tiny_world()
    clip = random_clip(world)
    with pytest.raises(ValueError, match="does not know what happens without one"):
        world.stream(clip).step(None)
    with pytest.raises(ValueError, match="does not know what happens without one"):
        world.stream(replace(clip, actions=None))
    world.train_data = [{"name": "labelled"}, {"name": "unlabelled", "actions": False}]
    assert world.stream(replace(clip, actions=None)).step(None).frames.shape == (2, 2, 16, 24, 3)


def test_wrong_numbers_of_streams_name_both():
    world = tiny_world()
    clip = random_clip(world)
    stream = world.stream(clip)
    with pytest.raises(ValueError, match="actions for 3 streams, there are 2"):
        stream.step(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="3 seeds for 2 streams"):
        world.stream(clip, seeds=[1, 2, 3])
    with pytest.raises(ValueError, match=r"within 0\.\.1, got \[2\]"):
        stream.reset([2], clip.map(lambda x: x[:1]))
    with pytest.raises(ValueError, match="got 2 contexts for 1 streams"):
        stream.reset([0], clip)
    with pytest.raises(ValueError, match="at least 1 branch, got k=0"):
        stream.branch(0)
    with pytest.raises(ValueError, match="snapshot is of 4 streams, these are 2"):
        stream.restore(stream.branch(2).snapshot())


# The sampler


def twice_as_far(predict, noise, num_steps):
    """The default sampler with steps of twice the size."""
    z = noise
    for index in range(num_steps):
        tau, step_size = index / num_steps, 1 / num_steps
        clean = predict(z, tau, step_size)
        z = tuple(euler_step(p, x, tau, 2 * step_size) for p, x in zip(z, clean, strict=True))
    return z


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("dit", [TINY_DIT, replace(TINY_DIT, encoder_depth=0, decoder_depth=2, num_registers=1)])
def test_streams_use_the_sampler_of_their_world(dit, fast):
    world = tiny_world(dit)
    world.fast = fast
    stream = world.stream(random_clip(world))
    before = stream.snapshot()
    first = stream.step(torch.zeros(2, 2)).frames
    world.sampler = twice_as_far
    stream.restore(before)
    assert not torch.equal(stream.step(torch.zeros(2, 2)).frames, first)


# Noise


def test_noise_depends_on_seed_and_frame_alone():
    seeds, frames = torch.tensor([3, 4, 3]), torch.tensor([1, 0, 1])
    noise = stream_noise(seeds, frames, [1000])
    assert torch.equal(noise[0], noise[2])
    assert abs(float(torch.corrcoef(noise[:2])[0, 1])) < 0.1
    assert abs(float(noise[0].mean())) < 0.1 and abs(float(noise[0].std()) - 1) < 0.1


def test_mixed_seeds_differ_where_any_part_does():
    """Sums and products collide: with 1000 s + 1 + i the seeds of (0, 1000) and (1, 0) were one."""
    mixed = {mix_seed(a, b) for a in range(60) for b in range(60)}
    assert len(mixed) == 3600
    assert all(0 <= seed < 2**63 for seed in mixed)
    assert mix_seed(1, 2) == mix_seed(1, 2) != mix_seed(2, 1)


class CountingCodec(PixelCodec):
    """Pixels, and how often they were decoded."""

    decoded = 0

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode, and count it."""
        self.decoded += 1
        return super().decode(latents)


def test_a_jump_shows_the_last_frame_of_a_roll_and_decodes_no_other():
    with full_precision():
        world = tiny_world(size=(16, 16))
        world.codec = CountingCodec()
        clip, actions = random_clip(world, frames=3), torch.rand(2, 4, 2, generator=torch.Generator().manual_seed(1))
        rolled, jumped = world.stream(clip), world.stream(clip)
        *_, last = rolled.roll(actions, num_steps=2)
        before = world.codec.decoded
        found = jumped.jump(actions, num_steps=2)
        assert (before, world.codec.decoded) == (4, 5)
        assert torch.equal(found.frames, last.frames) and torch.equal(found.states, last.states)
        assert jumped.frame.tolist() == rolled.frame.tolist() == [6, 6]
        assert torch.equal(jumped.step(actions[:, 0]).frames, rolled.step(actions[:, 0]).frames)
        with pytest.raises(ValueError, match="num_steps=3"):
            jumped.jump(actions, num_steps=3)

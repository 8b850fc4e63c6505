"""Driving by hand: keys become actions, actions become frames."""

import shutil
from dataclasses import replace

import pytest
import torch
from places import LEROBOT_V30
from tiny import random_clip, tiny_world

from demos.driving.counterfactuals import imagine_futures, proposals
from demos.driving.recording import save_recording
from demos.driving.session import MAX_MOMENTS, UNDO_FRAMES, DriveSession, key_bindings
from demos.driving.simulation import MAX_REWIND
from demos.driving.start import Start, action_names, start_from_data, start_from_environment
from worldmodel.data import open_episodes
from worldmodel.data.video.read import count_frames, read_frames
from worldmodel.dreams.verdict import Verdict

DATA = LEROBOT_V30


def make_world(**settings):
    """A tiny world with actions in [-10, 30], and a context of three frames at state 100."""
    world = tiny_world(**{"relative_to": {}, **settings})
    low, high = (torch.full((world.action_dim * world.stride,), end) for end in (-10.0, 30.0))
    span = torch.stack([torch.zeros(world.state_dim), torch.ones(world.state_dim)])
    world.conditioner.set_statistics(torch.stack([low, high]), span, span[1])
    clip = random_clip(world, batch=1, frames=3)
    states = None if clip.states is None else torch.full_like(clip.states, 100)
    return world, Start(replace(clip, states=states))


def pusht_session(**settings):
    """A drive from a fresh episode of PushT with the simulator beside it."""
    world = tiny_world(size=(32, 32), **settings)
    world.conditioner.set_statistics(
        torch.tensor([[-100.0] * 2, [100.0] * 2]).repeat(1, world.stride),
        torch.tensor([[0.0] * 2, [512.0] * 2]),
        torch.ones(2),
    )
    return DriveSession(world, start_from_environment("pusht", world, seed=4), beside=True)


def test_a_key_aims_from_the_predicted_state():
    session = DriveSession(*make_world(relative_to={0: 1}, state_dim=3), speed=0.5)
    # Half range 20, half speed: a push of 10 beyond the state, 100, or beyond rest, 0.
    assert session.action(["right"]).tolist() == [110, 0]
    assert session.action(["left", "down"]).tolist() == [90, 10]
    assert session.action(["left", "right"]).tolist() == [100, 0]
    # The recorded range ends at -10.
    session.speed = 1.0
    assert session.action(["up"]).tolist() == [0 + 100, -10]


def test_a_chunk_repeats_the_push():
    session = DriveSession(*make_world(relative_to={0: 0}, stride=2), speed=0.5)
    assert session.action(["right", "down"]).tolist() == [110, 10, 110, 10]


@pytest.mark.parametrize("action_dim, views, state_dim", [(1, ("eye",), 0), (7, ("a", "b", "c"), 7), (14, ("a",), 3)])
def test_any_robot(action_dim, views, state_dim):
    settings = {"action_dim": action_dim, "views": views, "state_dim": state_dim}
    session = DriveSession(*make_world(**settings), num_steps=1)
    for key in session.bindings:
        moment = session.step([key])
    assert moment.frames.shape == (len(views), 16, 24, 3)
    assert session.num_frames == len(session.bindings) == 2 * action_dim
    assert (moment.states is not None) == bool(state_dim)
    assert moment.truth is None


def test_keys():
    assert key_bindings(1) == {"left": (0, -1), "right": (0, 1)}
    keys = key_bindings(14)
    assert len(keys) == 28  # no key twice, also where the keyboard ends
    assert (keys["e"], keys["13-"], keys["14+"]) == ((3, 1), (12, -1), (13, 1))
    assert not {"w", "a", "s", "d"} & set(keys)  # other names of the arrows


def test_reset_repeats_the_dream():
    session = DriveSession(*make_world())
    first = [session.step(["left"]).frames for _ in range(3)]
    session.reset()
    assert session.num_frames == 0
    again = [session.step(["left"]).frames for _ in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    session.set(num_steps=2, speed=0.7, seed=1)
    session.reset()
    assert not torch.equal(session.step(["left"]).frames, first[0])


def test_undo_takes_back_the_last_move():
    session = pusht_session()
    for _ in range(3):
        before = session.step(["left"])
    after = [session.step(["up"]) for _ in range(2)]
    session.undo()
    assert session.num_frames == 3 and session.now is before
    again = [session.step(["up"]) for _ in range(2)]
    for new, old in zip(again, after, strict=True):
        assert torch.equal(new.frames, old.frames)
        assert torch.equal(new.truth, old.truth)
    session.undo()
    session.undo()
    assert session.num_frames == 0 and len(session.moments) == 1
    with pytest.raises(ValueError, match="no move left"):
        session.undo()


def test_a_long_move_is_taken_back_in_parts():
    session = DriveSession(*make_world(), num_steps=1)
    for _ in range(UNDO_FRAMES + 3):
        session.step(["left"])
    session.undo()
    assert session.num_frames == UNDO_FRAMES
    session.undo()
    assert session.num_frames == 0


def test_an_endless_drive_forgets_its_beginning():
    session = DriveSession(*make_world(), num_steps=1)
    session.moments *= MAX_MOMENTS
    session.step(["left"])
    assert len(session.moments) == MAX_MOMENTS


def test_the_simulator_does_the_same():
    session = pusht_session(stride=2)
    actions = [session.step(["right", "down"]).actions for _ in range(3)]
    env = session.simulation.env
    shown = session.now.truth
    env.reset(seed=4)
    for action in torch.cat([session.start.context.actions[0], torch.stack(actions)]):
        env.step(action[:2].numpy())
        observation = env.step(action[2:].numpy())[0]
    assert (shown[0].numpy() == observation["observation.images.top"]).all()
    with pytest.raises(ValueError, match=f"within {MAX_REWIND} frames"):
        session.simulation.rewind(MAX_REWIND + 1)


def test_what_cannot_be_steered_is_refused():
    with pytest.raises(ValueError, match="action_dim 0"):
        DriveSession(*make_world(action_dim=0))
    session = DriveSession(*make_world(action_dim=1))
    with pytest.raises(ValueError, match=r"\['up'\].*\['left', 'right'\]"):
        session.action(["up"])
    good = {"num_steps": 2, "speed": 0.5, "seed": 0}
    for wrong in ({"num_steps": 3}, {"speed": 0.0}, {"speed": float("nan")}, {"seed": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
            session.set(**good | wrong)


def test_starting_from_recorded_frames():
    world = tiny_world(size=(32, 32), stride=2)
    source = open_episodes(DATA, size=(32, 32))
    context = start_from_data(source, world, episode=1, start=5).context
    assert context.frames.shape == (1, 8, 2, 32, 32, 3)
    assert torch.equal(context.frames[0], source.read(1, 5, 20, stride=2).frames)
    assert context.actions.shape == (1, 7, 4)
    length = source.lengths[1]
    short = start_from_data(source, world, episode=1, start=length - 3).context
    assert torch.equal(short.frames[0, :, 0], source.read(1, length - 3, length, 2).frames[:, 0])
    with pytest.raises(ValueError, match=f"has {length} frames, none at start {length}"):
        start_from_data(source, world, episode=1, start=length)


def test_starting_from_a_fresh_episode():
    world = tiny_world(size=(32, 32), stride=2)
    start = start_from_environment("pusht", world, seed=4)
    assert start.context.task == "Push the T-shaped block onto the green target."
    context = start.context
    assert context.frames.shape == (1, 8, 2, 32, 32, 3)
    # The agent aims at where it is, so it stays where the reset put it.
    assert torch.allclose(context.states, context.states[:, :1].expand_as(context.states), atol=2)
    assert torch.allclose(context.actions[0, 0, :2], context.states[0, 0])
    session = DriveSession(world, start, beside=True)
    assert torch.equal(session.now.truth, start.frames)  # both begin with the same picture
    with pytest.raises(ValueError, match=r"pusht: no \['observation.images.side'\]"):
        start_from_environment("pusht", tiny_world(views=("side",), size=(32, 32)), seed=4)
    with pytest.raises(ValueError, match=r"top is \(16, 16\) pixels, the world model.s are \(16, 24\)"):
        start_from_environment("pusht", tiny_world(), seed=4)


def test_names_of_action_dims():
    world = tiny_world()
    assert action_names(world, None, "pusht") == ("x", "y")
    assert action_names(world, DATA, "") == ("x", "y")
    assert action_names(tiny_world(action_dim=3), DATA, "") == ("dim 1", "dim 2", "dim 3")
    assert action_names(world, None, "") == ("dim 1", "dim 2")


@pytest.mark.parametrize("stride", [1, 2])
def test_a_drive_is_saved(stride, tmp_path):
    session = pusht_session(stride=stride)
    with pytest.raises(ValueError, match="steer first"):
        save_recording(session, tmp_path / "visitor", ("x", "y"))
    for _ in range(4):
        session.step(["left"])
    video, archive = save_recording(session, tmp_path / "visitor", ("x", "y"))
    assert count_frames(video) == 5
    pictures = read_frames(video, range(5))
    assert pictures.shape[1] > pictures.shape[2]  # three kinds below each other, two cameras
    shutil.unpack_archive(archive, tmp_path)
    source = open_episodes(tmp_path / "dream", size=(32, 32))
    assert source.lengths == (4,) and source.fps == 10 / stride
    clip = source.read(0, 0, 4)
    wanted = torch.stack([moment.actions for moment in session.moments[1:4]])
    assert torch.allclose(clip.actions, wanted)
    seen = torch.stack([moment.frames for moment in session.moments[:4]])
    assert (clip.frames.float() - seen.float()).abs().mean() < 40  # noise, as video


def test_futures_of_one_moment():
    session = DriveSession(*make_world(), num_steps=1)
    session.step(["left"])
    pushes = proposals(session.bindings, k=7, horizon=5, speed=0.5, seed=0)
    assert list(pushes)[:5] == ["hold left", "hold right", "hold up", "hold down", "rest"]
    assert pushes["hold up"].tolist() == [[0, -0.5]] * 5
    random = pushes["random 1"]
    assert torch.allclose(random.norm(dim=1), torch.tensor(0.5))
    assert torch.equal(random[0], random[3]) and not torch.equal(random[3], random[4])

    def brightness(frames):
        return frames.float().mean((1, 2, 3, 4))

    def judge(observation):
        return Verdict(brightness(observation.frames), torch.zeros(len(observation.frames), dtype=torch.bool))

    futures = imagine_futures(session, pushes, judge)
    assert futures.frames.shape == (7, 6, 2, 16, 24, 3)
    assert futures.best == int(brightness(futures.frames[:, -1]).argmax())
    # A future is what driving there would show, and the session has not moved.
    assert session.num_frames == 1
    session.speed = 0.5
    driven = [session.step(["up"]).frames for _ in range(5)]
    apart = (torch.stack(driven).int() - futures.frames[2, 1:].int()).abs()
    assert apart.max() <= 1
    with pytest.raises(ValueError, match="2 to 16 futures of 1 to 60 frames, got 17 of 5"):
        proposals(session.bindings, k=17, horizon=5, speed=0.5, seed=0)

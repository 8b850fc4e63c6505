"""A world model that is told the task in words."""

from dataclasses import replace

import pytest
import torch
from drawn_episodes import DrawnEpisodes
from tiny import random_clip, tiny_world

from conditioning.words import WordsConfig
from worldmodel.bench.recompute import recomputed_step
from worldmodel.model.dit import DiTConfig
from worldmodel.training.build import build_world
from worldmodel.training.loss import LossConfig, draw, training_loss
from worldmodel.world_model import WorldModel

TASKS = ("go to the left", "go to the right")
LEFT, RIGHT = TASKS
WORDS = WordsConfig(TASKS, width=4)


class TwoTasks(DrawnEpisodes):
    """Episodes of two tasks in turn."""

    def task(self, episode: int) -> str:
        return TASKS[episode % 2]


def told_world(**settings) -> WorldModel:
    """Random weights, those of the task included."""
    world = tiny_world(words=WORDS, **settings)
    with torch.no_grad():
        world.conditioner.task.weight.normal_(generator=torch.Generator().manual_seed(1))
    return world


@pytest.mark.parametrize("injection", ["adaln", "token", "cross"])
def test_the_task_tells_from_the_first_frame_on(injection):
    world = told_world(injection=injection)
    clip = random_clip(world, frames=3)
    frames = {}
    for task in (LEFT, RIGHT, (LEFT, RIGHT)):
        stream = world.stream(replace(clip, task=task))
        frames[task] = stream.step(clip.actions[:, 0], num_steps=1).frames
    assert not torch.equal(frames[LEFT], frames[RIGHT])
    assert torch.equal(frames[LEFT, RIGHT], torch.stack([frames[LEFT][0], frames[RIGHT][1]]))


def test_a_world_model_starts_as_one_that_is_not_told():
    world = tiny_world(words=WORDS)
    clip = random_clip(world, frames=3)
    first, second = (world.stream(replace(clip, task=task)).step(clip.actions[:, 0]).frames for task in TASKS)
    assert torch.equal(first, second)


def test_streams_keep_their_task():
    """Also when one of them begins anew with another task, and when they are copied."""
    world = told_world(views=("top",), size=(16, 16))
    clip = replace(random_clip(world, frames=3), task=(LEFT, LEFT))
    stream = world.stream(clip, seeds=[5, 5])
    other = replace(clip.rows([1]), task=(RIGHT,))
    stream.reset(torch.tensor([1]), other, seeds=[5])
    action = clip.actions[:, 0]
    branch = stream.branch(2).step(action.repeat_interleave(2, 0), num_steps=1).frames
    alone = world.stream(other, seeds=[5]).step(action[1:], num_steps=1).frames
    torch.testing.assert_close(stream.step(action, num_steps=1).frames[1:].float(), alone.float(), atol=1.0, rtol=0)
    torch.testing.assert_close(branch[2:3].float(), alone.float(), atol=1.0, rtol=0)


def test_a_step_computed_from_the_frames_alone_is_told_too():
    world = told_world()
    world.config = replace(world.config, temperature=0.0)
    clip = replace(random_clip(world, frames=3), task=(LEFT, RIGHT))
    action = clip.actions[:, 0]
    streamed = world.stream(clip).step(action, num_steps=1).frames
    again = recomputed_step(world, clip, action, num_steps=1).frames
    torch.testing.assert_close(streamed.float(), again.float(), atol=2.0, rtol=0)


def test_training_is_told_the_task_of_each_clip():
    world = told_world()
    clip = random_clip(world, frames=4)
    config = LossConfig()
    draws = draw(world, config, batch=2, frames=4, generator=torch.Generator().manual_seed(0))
    tasks = (TASKS, (RIGHT, LEFT), (LEFT, LEFT))
    losses = [training_loss(world, replace(clip, task=task), draws, config)[0] for task in tasks]
    assert len({loss.item() for loss in losses}) == 3
    losses[0].backward()
    assert world.conditioner.task.weight.grad.abs().sum() > 0 < world.conditioner.words.rows.grad.abs().sum()


def test_a_task_that_is_missing_or_unknown_is_one_line():
    world = told_world()
    clip = random_clip(world, frames=2)
    with pytest.raises(ValueError, match="the task '' is not among the 2 that were trained on"):
        world.stream(clip)
    with pytest.raises(ValueError, match="did you mean 'go to the left'"):
        world.stream(replace(clip, task="go to the lift"))
    with pytest.raises(ValueError, match="told the task in words, and got none"):
        world.conditioner(clip.actions, clip.states[:, :-1], (2, 1))


def test_building_reads_the_tasks(tmp_path):
    dit = DiTConfig(width=16, patch=8, encoder_depth=1, decoder_depth=1, head_width=8)
    settings = {"dit": dit, "stride": 1, "injection": "adaln", "relative_to": {}, "use_actions": True, "codec": None}
    source = TwoTasks([6, 6, 6])
    world = build_world(source, [0, 1, 2], init=None, task_words="table", **settings)
    assert world.config.conditioner.words.tasks == TASKS
    assert build_world(source, [0, 1, 2], init=None, **settings).conditioner.words is None
    with torch.no_grad():
        world.conditioner.words.rows.fill_(3.0)
    world.save(tmp_path)
    assert WorldModel.load(tmp_path).config.conditioner.words == world.config.conditioner.words
    again = build_world(source, [0, 1, 2], init=tmp_path, task_words="table", **settings)
    assert (again.conditioner.words.rows == 3).all()
    with pytest.raises(ValueError, match=r"is told the tasks .*, with --task-words None the data have "):
        build_world(source, [0, 1, 2], init=tmp_path, **settings)

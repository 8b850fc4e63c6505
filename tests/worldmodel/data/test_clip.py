import pytest
import torch
from small_sets import V21, V30

from worldmodel.data import Clip, EpisodeCache, open_episodes, stack_clips
from worldmodel.data.sample import sample_clips


def clip(number: int, task: str) -> Clip:
    frames = torch.full((4, 1, 2, 2, 3), number, dtype=torch.uint8)
    return Clip(frames, actions=torch.full((3, 1), float(number)), task=task)


def test_tasks_follow_the_rows_of_a_batch():
    batch = stack_clips([clip(0, "push"), clip(1, "pull"), clip(2, "lift")])
    assert batch.task == ("push", "pull", "lift")
    for rows, tasks in (
        (slice(1, 3), ("pull", "lift")),
        ([2, 2, 0], ("lift", "lift", "push")),
        (torch.tensor([True, False, True]), ("push", "lift")),
    ):
        chosen = batch.rows(rows)
        assert chosen.task == tasks
        assert [("push", "pull", "lift")[int(number)] for number in chosen.actions[:, 0, 0]] == list(tasks)
    assert batch.head(2).task == batch.task
    assert batch.to("cpu").task == batch.task


def test_one_task_is_that_of_all_clips():
    shared = clip(0, "push").map(lambda tensor: tensor[None])
    assert shared.rows([0, 0]).task == "push"


@pytest.mark.parametrize("folder", [V21, V30])
def test_the_task_of_the_data_reaches_every_batch(folder, tmp_path):
    source = open_episodes(folder)
    cache = EpisodeCache(source, tmp_path)
    task = source.task(0)
    assert task
    assert source.read(0, 0, 3).task == source.columns(0).task == cache.columns(0).task == task
    batch = sample_clips(cache, batch=2, length=3, stride=1, seed=0, index=0, episodes=[0])
    assert batch.task == (task, task)

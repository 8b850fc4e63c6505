"""The task in words as a vector."""

import pytest
import torch

from conditioning.words import TaskWords, WordsConfig, another, zero_linear

TASKS = ("open the door", "close the door", "wait")


def test_a_table_has_a_row_for_each_task():
    torch.manual_seed(0)
    words = TaskWords(WordsConfig(TASKS, width=4))
    found = words(["wait", "open the door", "wait"])
    assert torch.equal(found, words.rows[[2, 0, 2]])
    assert found.requires_grad and len({tuple(row) for row in words.rows.tolist()}) == 3


def test_an_encoder_is_only_asked_about_new_tasks():
    asked = []

    def encode(sentences):
        asked.extend(sentences)
        return torch.full((len(sentences), 2), float(len(sentences[0])))

    words = TaskWords(WordsConfig(TASKS, "mine:encode", 2), encode)
    words.rows.copy_(torch.arange(6.0).view(3, 2))
    assert words(["close the door", "sing", "sing"]).tolist() == [[2, 3], [4, 4], [4, 4]]
    assert asked == ["sing"]
    assert not list(words.parameters()) and "rows" in words.state_dict()


@pytest.mark.parametrize(
    "task, message",
    [
        (
            "open the dor",
            "the task 'open the dor' is not among the 3 that were trained on; did you mean 'open the door'",
        ),
        ("xyzzy", "it knows 'open the door', 'close the door', 'wait'$"),
        ("", "the task '' is not among the 3"),
    ],
)
def test_a_table_knows_no_other_task(task, message):
    with pytest.raises(ValueError, match=message):
        TaskWords(WordsConfig(TASKS))([task])


def test_an_empty_task_is_not_encoded():
    words = TaskWords(WordsConfig(TASKS, "mine:encode", 2), lambda sentences: torch.zeros(1, 2))
    with pytest.raises(ValueError, match="the task ''"):
        words([""])


def test_a_zero_layer_tells_nothing_and_learns():
    layer = zero_linear(3, 2)
    told = layer(torch.ones(1, 3))
    assert told.tolist() == [[0, 0]]
    told.sum().backward()
    assert layer.weight.grad.abs().min() == 1


def test_another_task_is_never_the_same_and_each_other_one_is_drawn():
    generator = torch.Generator().manual_seed(0)
    drawn = {another("wait", TASKS, generator) for _ in range(20)}
    assert drawn == {"open the door", "close the door"}

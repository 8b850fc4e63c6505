"""Vectors of tasks in words, by a table or by a sentence encoder of the user."""

import pytest
import torch
from drawn_episodes import DrawnEpisodes

from worldmodel.data.cache.sentences import encode_sentences, encoder_of, known_rows, words_of

ENCODER = """
asked = []
def encode(sentences):
    asked.append(list(sentences))
    return [[float(len(each)), float(each.count("o"))] for each in sentences]
def shout(sentences):
    return [[-1.0, -1.0]] * len(sentences)
def broken(sentences):
    raise RuntimeError("no weights")
def short(sentences):
    return [[1.0, 2.0]]
def endless(sentences):
    return [[float("inf")]] * len(sentences)
"""


class Tasks(DrawnEpisodes):
    """Episodes with the given tasks."""

    def __init__(self, *tasks: str):
        super().__init__((4,) * len(tasks))
        self.tasks = tasks

    def task(self, episode: int) -> str:
        return self.tasks[episode]


@pytest.fixture
def module(tmp_path, monkeypatch, request):
    """The name of a fresh module in the current folder, with a cache of its own."""
    name = f"sentences_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(ENCODER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLDMODEL_CACHE", str(tmp_path / "cache"))
    return name


def test_each_sentence_is_encoded_once(module):
    import importlib

    first = encode_sentences(f"{module}:encode", ["go on", "stop", "go on"])
    assert first.tolist() == [[5, 2], [4, 1], [5, 2]]
    again = encode_sentences(f"{module}:encode", ["stop", "look"])
    assert again.tolist() == [[4, 1], [4, 2]]
    assert importlib.import_module(module).asked == [["go on", "stop"], ["look"]]
    assert encode_sentences(f"{module}:shout", ["stop"]).tolist() == [[-1, -1]], "another encoder has its own entries"


@pytest.mark.parametrize(
    "name, message",
    [
        ("broken", "broken: fails for 2 sentences: RuntimeError: no weights"),
        ("short", r"returns the shape \(1, 2\) for 2 sentences"),
        ("endless", "expected one vector of finite numbers for each"),
        ("encoed", "has no 'encoed'; did you mean 'encode'"),
    ],
)
def test_an_encoder_that_does_not_work_is_one_line(module, name, message):
    with pytest.raises(ValueError, match=message):
        encode_sentences(f"{module}:{name}", ["a", "b"])


def test_words_of_the_data(module):
    source = Tasks("left", "right", "left", "far right")
    table = words_of(source, [0, 1, 2], "table")
    assert (table.tasks, table.encoder, encoder_of(table)) == (("left", "right"), "", None)
    encoded = words_of(source, range(4), f"{module}:encode")
    assert (encoded.tasks, encoded.width) == (("far right", "left", "right"), 2)
    assert known_rows(encoded).tolist() == [[9, 0], [4, 0], [5, 0]]
    assert torch.equal(encoder_of(encoded)(["good"]), torch.tensor([[4.0, 2.0]]))
    assert words_of(source, range(4), None).tasks == ()


@pytest.mark.parametrize(
    "tasks, spec, message",
    [
        (("left", ""), "table", "drawn: episode 1 has no task in words, which --task-words table needs"),
        (("left", "left"), "table", "every episode has the task 'left', so --task-words table has nothing to tell"),
        (("left", "right"), "tabel", "--task-words is table, or module:name of a sentence encoder, got 'tabel'"),
    ],
)
def test_data_without_words_are_refused(tasks, spec, message):
    with pytest.raises(ValueError, match=message):
        words_of(Tasks(*tasks), range(len(tasks)), spec)

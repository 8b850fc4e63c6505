"""The sentences about an imagination run, one for each verdict, and its page."""

import json

import numpy as np
import pytest
import torch
from tiny import tiny_world

from rl_posttrain.imagination.page import Dreamed, meaning, write_page

EPISODES = np.arange(5).repeat(2)


def dreamed(*returns, solved=0.0):
    frames = torch.zeros(3, 2, 16, 24, 3, dtype=torch.uint8)
    return Dreamed(np.repeat(np.array(returns, float), 2), np.full(10, float(solved)), frames)


BEFORE = dreamed(0.1, 0.2, 0.3, 0.2, 0.2)


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (
            (0.6, 0.7, 0.9, 0.8, 0.7),
            "In dreams of held-out starts the policy got better: the return went from 0.200 to 0.740 (95%",
        ),
        (
            (-0.4, -0.2, 0.0, -0.1, -0.3),
            "In dreams of held-out starts the policy got worse: the return went from 0.200 to -0.200",
        ),
        (
            (-0.4, 0.2, 0.9, 0.1, 0.4),
            "It cannot be told whether the policy got better in dreams of held-out starts: the return",
        ),
    ],
)
def test_the_return_decides(after, words):
    said, warning = meaning(BEFORE, dreamed(*after, solved=1), EPISODES, 3)
    assert said.startswith(words) and "success from 0% to 100%" in said
    assert ("includes 0" in said) == ("cannot be told" in said)
    assert "worldmodel rank" in warning


def test_too_few_episodes_and_no_gain():
    said, _ = meaning(BEFORE, dreamed(0.6, 0.7, 0.9, 0.8, 0.7), np.arange(4).repeat((2, 2, 2, 4)), 3)
    assert "cannot be told" in said and "too few for an interval" in said
    (nothing,) = meaning(BEFORE, BEFORE, EPISODES, 0)
    assert nothing.startswith("Nothing better than the cloned policy was found in dreams of held-out starts")


def test_the_page(tmp_path):
    rows = [{"step": step, "return": step / 10} for step in (0, 5)]
    (tmp_path / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = {"updates": 5, "seconds": 90.0, "kept": 5}
    said = write_page(BEFORE, dreamed(0.6, 0.7, 0.9, 0.8, 0.7), EPISODES, report, tiny_world(), [], tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert said[0] in page and "5 updates in 1.5 minutes" in page
    assert page.count("data:video/mp4") == 1 and page.count("data:image/png") == 2
    assert '<th scope="row">return</th><td>0.200</td><td>0.740</td>' in page

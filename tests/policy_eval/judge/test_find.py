"""Judges of every kind, by what the command line says."""

import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from mine import write_module
from PIL import Image

from policy_eval.judge.find import judge_fingerprint, load_judge
from policy_eval.judge.goals.judge import GoalJudge, GoalShape
from policy_eval.judge.judge import JudgeShape, LearnedJudge
from policy_eval.policies.goal_pictures import read_goals
from worldmodel.dreams.verdict import as_verdict
from worldmodel.streaming.state import Observation

JUDGES = """
import torch

def bright(observation):
    return observation.frames.float().mean((1, 2, 3, 4)) > 100

class Graded:
    threshold = 0.2

    def __call__(self, observation):
        return observation.frames.float().mean((1, 2, 3, 4)) / 255

def doubtful(observation):
    return [float("nan"), 0.9]

def one(observation):
    return [True]

def words(observation):
    return "a success"

class Needy:
    def __init__(self, weights):
        pass

number = 3
"""
DARK_AND_BRIGHT = Observation(
    torch.tensor([60, 160], dtype=torch.uint8)[:, None, None, None, None].repeat(1, 2, 4, 6, 3), None, ("a", "b")
)


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judges")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield write_module(folder, JUDGES)


def test_your_own_judge_gives_truth_values_or_scores(module):
    verdict = load_judge(f"{module}:bright")(DARK_AND_BRIGHT)
    assert (verdict.successes.tolist(), verdict.rewards.tolist()) == ([False, True], [0, 1])
    verdict = load_judge(f"{module}:Graded")(DARK_AND_BRIGHT)
    assert verdict.successes.tolist() == [True, True] and not verdict.unsure.any()
    torch.testing.assert_close(verdict.rewards, torch.tensor([60 / 255, 160 / 255]))
    verdict = load_judge(f"{module}:doubtful")(DARK_AND_BRIGHT)
    assert (verdict.successes.tolist(), verdict.unsure.tolist()) == ([False, True], [True, False])
    assert verdict.rewards[0] == 0
    assert judge_fingerprint(f"{module}:bright") == judge_fingerprint(f"{module}:one")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("one", r"returns the shape \(1,\), expected one answer for 2 streams"),
        ("words", "returns str, expected a Verdict, or a truth value or a score for each stream"),
        ("Needy", "the class Needy is made without arguments, but needs weights"),
        ("number", "expected a callable that takes an Observation, found an object of the class int"),
        ("brigt", "did you mean 'bright'?"),
    ],
)
def test_what_is_no_judge_is_one_line(module, name, said):
    with pytest.raises(ValueError, match=f"judge {module}:{name}: .*{said}"):
        load_judge(f"{module}:{name}")(DARK_AND_BRIGHT)


def test_a_verdict_has_as_many_rows_as_streams():
    with pytest.raises(ValueError, match="2 verdicts for 3 streams"):
        as_verdict(as_verdict([0.0, 1.0], 2), 3)


def test_a_learned_judge_in_a_folder(tmp_path):
    LearnedJudge(JudgeShape(("top",), (16, 16), width=8)).save(tmp_path / "judge")
    assert isinstance(load_judge(tmp_path / "judge"), LearnedJudge)
    with pytest.raises(ValueError, match="no such folder"):
        load_judge(tmp_path / "judgement")


def write_picture(file, grey: int, size=(8, 12)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), grey, np.uint8)).save(file)


def test_a_judge_of_goals_in_a_folder(tmp_path):
    goals = torch.full((3, 2, 4, 6, 3), 7, dtype=torch.uint8)
    GoalJudge(GoalShape(("top", "wrist"), (4, 6), width=8), goals, threshold=0.3).save(tmp_path / "judge")
    judge = load_judge(tmp_path / "judge", views=("top", "wrist"), size=(4, 6))
    assert isinstance(judge, GoalJudge) and torch.equal(judge.goals, goals) and judge.threshold == 0.3
    verdict = judge(DARK_AND_BRIGHT)
    assert torch.equal(verdict.successes, verdict.rewards > 0.3)
    with pytest.raises(ValueError, match=r"looks at .* of \(4, 6\), the frames to judge are .* of \(8, 8\)"):
        load_judge(tmp_path / "judge", views=("top", "wrist"), size=(8, 8))
    before = judge_fingerprint(tmp_path / "judge")
    judge.with_goals(goals[:2]).save(tmp_path / "judge")
    assert judge_fingerprint(tmp_path / "judge") != before


def test_pictures_alone_are_no_judge(tmp_path):
    """The message says how to train one."""
    write_picture(tmp_path / "top" / "one.png", 160)
    with pytest.raises(ValueError, match=f"a folder of pictures; train .*: worldmodel judge --goals {tmp_path} --data"):
        load_judge(tmp_path, views=("top",), size=(4, 6))


def test_pictures_of_the_goal(tmp_path):
    """Of each camera as many, of the same names; resized to the frames to judge."""
    for name, grey in (("one", 160), ("two", 200)):
        for view in ("top", "wrist"):
            write_picture(tmp_path / view / f"{name}.png", grey)
    goals = read_goals(tmp_path, ("top", "wrist"), (4, 6))
    assert goals.shape == (2, 2, 4, 6, 3) and goals.flatten(1).unique(dim=1).tolist() == [[160], [200]]
    assert read_goals(tmp_path / "top", ("top",), (4, 6)).shape == (2, 1, 4, 6, 3)
    with pytest.raises(ValueError, match="no goal pictures of the camera side"):
        read_goals(tmp_path, ("side",), (4, 6))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / "wrist" / "one.png").unlink(), r"pictures \['one'\] of top, but \['two'\] of wrist"),
        (lambda f: write_picture(f / "wrist" / "two.png", 1, size=(8, 8)), "height and width 8 x 8, .* have 4 x 6"),
        (lambda f: (f / "wrist" / "two.png").write_bytes(b"no"), "two.png: cannot be read as a picture"),
    ],
)
def test_wrong_pictures_are_one_line(tmp_path, change, said):
    write_picture(tmp_path / "top" / "one.png", 1)
    write_picture(tmp_path / "wrist" / "one.png", 1)
    write_picture(tmp_path / "wrist" / "two.png", 1)
    change(tmp_path)
    if (tmp_path / "wrist" / "one.png").exists():
        write_picture(tmp_path / "top" / "two.png", 1)
    with pytest.raises(ValueError, match=said):
        read_goals(tmp_path, ("top", "wrist"), (4, 6))


class Server(BaseHTTPRequestHandler):
    """Answers with what the test says, and keeps the question."""

    def do_POST(self):
        self.server.asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, answer = self.server.answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()


def test_a_judge_behind_a_url(server):
    url = f"http://127.0.0.1:{server.server_address[1]}/judge"
    server.answer = (200, {"success": [None, True], "score": [0.5, 2]})
    verdict = load_judge(url, views=("top", "wrist"))(DARK_AND_BRIGHT)
    assert verdict.successes.tolist() == [False, True] and verdict.unsure.tolist() == [True, False]
    assert verdict.rewards.tolist() == [0.5, 2.0]
    asked = server.asked
    assert (asked["task"], asked["views"], asked["states"]) == (["a", "b"], ["top", "wrist"], None)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(asked["frames"][1][0]))))
    assert np.array_equal(picture, DARK_AND_BRIGHT.frames[1, 0].numpy())
    server.answer = (200, {"success": [False, True]})
    assert load_judge(url)(DARK_AND_BRIGHT).rewards.tolist() == [0, 1]
    assert judge_fingerprint(url) == url


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((500, b"CUDA out of\nmemory"), "answers 500 Internal Server Error: CUDA out of memory"),
        ((200, b"<html>"), "Expecting value"),
        ((200, {"verdict": 1}), 'expected an object with "success", got'),
        ((200, {"success": [True]}), "success is a list of 2 times bool or null, got"),
        ((200, {"success": [1, 0]}), "success is a list of 2 times bool or null, got"),
        ((200, {"success": [True, True], "score": [1, "x"]}), "score is a list of 2 times int or float"),
        ((200, b'{"success": [true, true], "score": [NaN, 1]}'), "score is not finite"),
    ],
)
def test_what_a_server_gets_wrong_is_one_line(server, answer, said):
    url = f"http://127.0.0.1:{server.server_address[1]}"
    server.answer = answer
    with pytest.raises(ValueError, match=f"judge {url}: {said}") as caught:
        load_judge(url)(DARK_AND_BRIGHT)
    assert "\n" not in str(caught.value)


def test_nobody_there_is_one_line():
    with pytest.raises(ValueError, match=r"judge http://127.0.0.1:9: "):
        load_judge("http://127.0.0.1:9")(DARK_AND_BRIGHT)

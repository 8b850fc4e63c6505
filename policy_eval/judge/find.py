"""Judges by folder, by `module:name` or by URL, as the command line takes them."""

import inspect
from collections.abc import Sequence
from pathlib import Path

import torch

from policy_eval.judge.goals.judge import GoalJudge
from policy_eval.judge.judge import LearnedJudge
from policy_eval.judge.remote import RemoteJudge
from policy_eval.policies.goal_pictures import goal_files
from worldmodel.dreams.verdict import Judge, Verdict, as_verdict
from worldmodel.files import read_object, shipped
from worldmodel.model.folder import find_model, fingerprint
from worldmodel.resolve import is_spec, kind_of, made, resolve, source_hash
from worldmodel.streaming.state import Observation

JUDGE_FILE = "judge.json"


class NamedJudge:
    """A judge of yours, by its name; its answers are checked.

    Args:
        judge: Gets an `Observation` and returns a `Verdict`, truth values, or scores; see `as_verdict`. If it
            has an attribute `threshold`, scores above that are successes; `reward_range`, its lowest and
            highest reward, is 0 to 1 if it has none.
        name: Its name, for messages.
    """

    def __init__(self, judge: object, name: str):
        self.judge, self.name = judge, name
        self.reward_range = reward_range(judge)

    def __call__(self, observation: Observation) -> Verdict:
        """The verdict on the latest frame of every stream.

        Raises:
            ValueError: The answer is not a verdict.
        """
        with torch.no_grad():
            answer = self.judge(observation)
        threshold = float(getattr(self.judge, "threshold", 0.5))
        return as_verdict(answer, len(observation.frames), threshold=threshold, name=f"judge {self.name}")


def load_judge(
    spec: str | Path,
    device: torch.device | str = "cpu",
    *,
    views: Sequence[str] = (),
    size: tuple[int, int] | None = None,
) -> Judge:
    """Load a judge.

    Args:
        spec: Folder of a judge that `worldmodel judge` trained, or `hf://USER/NAME@REV`; `module:name` of one of
            yours, see `docs/extend/judge.md`; or `http://` or `https://` of a server that judges. If a folder has that
            name, the folder is used.
        device: Where a trained judge runs.
        views: Cameras of the frames that it will get.
        size: Height and width of these frames.

    Raises:
        ValueError: There is no judge at that place (the message says what was found instead), or it looks at other
            cameras or sizes.
    """
    text = str(spec)
    if is_address(text):
        return RemoteJudge(text, views=views)
    if _is_yours(spec):
        return _named(text)
    judge = load_trained(spec, device)
    mine, theirs = (tuple(judge.shape.views), tuple(judge.shape.size)), (tuple(views), size and tuple(size))
    if (views or size) and mine != theirs:
        raise ValueError(
            f"judge {spec}: looks at {mine[0]} of {mine[1]}, the frames to judge are {theirs[0]} of {theirs[1]}"
        )
    return judge


def load_trained(spec: str | Path, device: torch.device | str = "cpu") -> LearnedJudge | GoalJudge:
    """Load a judge that `worldmodel judge` trained: of success and reward, or of goals.

    Raises:
        ValueError: There is no such judge in the folder; of a folder of pictures the message says how to train one.
    """
    folder = shipped(spec)
    if folder.is_dir() and not (folder / JUDGE_FILE).is_file() and goal_files(folder):
        raise ValueError(
            f"judge {spec}: a folder of pictures; train a judge of this goal first: "
            f"worldmodel judge --goals {spec} --data DATA --out JUDGE"
        )
    description = read_object(find_model(spec, JUDGE_FILE) / JUDGE_FILE)
    return (GoalJudge if "goals" in description else LearnedJudge).load(spec, device)


def reward_range(judge: object) -> tuple[float, float]:
    """Lowest and highest reward of a judge: its attribute `reward_range`, or 0 to 1."""
    return getattr(judge, "reward_range", (0.0, 1.0))


def judge_fingerprint(spec: str | Path) -> str:
    """Changes whenever the judge does: a hash of its files or of its source text; the URL of a server."""
    if is_address(str(spec)):
        return str(spec)
    if _is_yours(spec):
        return source_hash(str(spec), "judge")
    return fingerprint(spec)


def is_address(spec: str) -> bool:
    """Whether `spec` is the URL of a judge."""
    return spec.startswith(("http://", "https://"))


def _is_yours(spec: str | Path) -> bool:
    return is_spec(str(spec)) and not Path(spec).exists()


def _named(spec: str) -> NamedJudge:
    """A callable, or a class or a function without arguments that makes one."""
    found = resolve(spec, "judge")
    if isinstance(found, type) or (inspect.isroutine(found) and not inspect.signature(found).parameters):
        needed = [p.name for p in inspect.signature(found).parameters.values() if _is_needed(p)]
        if needed:
            raise ValueError(f"judge {spec}: {kind_of(found)} is made without arguments, but needs {', '.join(needed)}")
        found = made(found, spec, "judge")
    if not callable(found):
        raise ValueError(f"judge {spec}: expected a callable that takes an Observation, found {kind_of(found)}")
    return NamedJudge(found, spec)


def _is_needed(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )

"""The film of a policy alone and steered, with what it imagined at its first decision."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from policy_eval.evaluation import Trial, evaluate
from policy_eval.policies.find import load_policy
from policy_eval.policies.policy import Observations, Policy
from policy_eval.ranking.setup import TrialSetup
from policy_eval.real_envs import RealEnvs
from policy_eval.scores import Scores
from policy_eval.steering.steered import Choice, SteeredPolicy
from worldmodel.data.video.write import write_video
from worldmodel.dreams.film import side_by_side
from worldmodel.dreams.starts import Starts
from worldmodel.envs import make_simulator
from worldmodel.model.precision import choose_device


@dataclass(frozen=True)
class SteeringFilm:
    """A trial of each row from one start.

    Attributes:
        file: The video, the first row above.
        caption: What happens in it.
        decision_ms: 50th and 99th percentile of the time of one decision for one robot, in milliseconds.
        choice: The decision of the steered policy in which the scores differ most.
    """

    file: Path
    caption: str
    decision_ms: tuple[float, float]
    choice: Choice


class Watched:
    """A steered policy whose decisions are kept and timed; everything else is as it was."""

    def __init__(self, policy: SteeredPolicy):
        self.policy, self.choices, self.seconds = policy, [], []

    def reset(self, seeds: list[int]) -> None:
        """Begin one episode per seed."""
        self.policy.reset(seeds)

    def act(self, observation: Observations) -> torch.Tensor:
        """The action of the steered policy."""
        before, began = self.policy.choice, time.perf_counter()
        action = self.policy.act(observation)
        if self.policy.choice is not before:
            self.choices.append(self.policy.choice)
            self.seconds.append(time.perf_counter() - began)
        return action


def shown_start(alone: Scores, steered: Scores) -> int:
    """Seed of the first start where the choice decides: the policy alone fails and the steered one succeeds.

    Where there is none, that of the first trial.
    """
    gained = (steered.outcomes > 0.5) & (alone.outcomes <= 0.5)
    return int(steered.seeds[gained.argmax() if gained.any() else 0])


def film_steering(
    setup: TrialSetup, policies: Mapping[str, str | Path], scores: Mapping[str, Scores], out: Path
) -> SteeringFilm:
    """Let each policy act once more from one start, and write the video.

    Args:
        setup: The setup of the trials.
        policies: What `load_policy` takes, by row; the last one is the steered policy.
        scores: The trials of these rows, from equal starts.
        out: Folder of the video.
    """
    first, last = policies
    seed = shown_start(scores[first], scores[last])
    starts, stride = setup.loaded_starts, setup.loaded_world.stride
    chosen = Starts(starts.source, [starts.episodes[starts.seeds.index(seed)]])
    size, limit = starts.source.size[0], setup.horizon * stride
    envs = RealEnvs(lambda: make_simulator(setup.place, size=size, time_limit=limit), chosen, num_envs=1, stride=stride)
    trials: list[Trial] = []
    for name, spec in policies.items():
        loaded = load_policy(spec, choose_device(setup.device))
        policy: Policy = Watched(loaded) if name == last else loaded
        evaluate(policy, envs, name=name, horizon=setup.horizon, record=trials.append)
    envs.close()
    length = max(len(trial.frames) for trial in trials)
    rows = {name: torch.from_numpy(_held(t.frames, length)) for name, t in zip(policies, trials, strict=True)}
    file = out / "film.mp4"
    write_video(file, side_by_side(rows, starts.views), setup.loaded_world.fps / stride)
    ends = [f"{name}: {'success' if t.outcome > 0.5 else 'failure'}" for name, t in zip(policies, trials, strict=True)]
    quantiles = np.percentile(1000 * np.array(policy.seconds), [50, 99])
    clearest = max(policy.choices, key=lambda choice: float(choice.scores.max() - choice.scores.min()))
    return SteeringFilm(
        file,
        f"Real trials from the start with the reset seed {seed}. {', '.join(ends)}.",
        (float(quantiles[0]), float(quantiles[1])),
        clearest,
    )


def _held(frames: UInt8[np.ndarray, "t v H W 3"], length: int) -> UInt8[np.ndarray, "u v H W 3"]:
    """The frames, with the last one repeated up to `length` frames."""
    return frames[np.minimum(np.arange(length), len(frames) - 1)]

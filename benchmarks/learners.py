"""Does a learner of Stable-Baselines3 improve for real by learning in a dream?

python benchmarks/learners.py --out runs/learners
python benchmarks/learners.py --out runs/learners --minutes 10

Records Meta-World's reach-v3, trains a world model and a judge on it, lets SAC learn in dreams alone, and
lets the agent act in the simulator before and after, from the same 100 starts that neither of them has
seen. A script that drives to the middle of the goals acts there, too.

The goal of an episode is only visible in the pictures: the agent sees the hand and the keypoints of the
judge, which stay as they are. Its reward is the judge's where the dreamed hand is near recorded ones, and 0
elsewhere, because world model and judge know nothing of other places (MOReL, Kidambi et al. 2020,
2005.05951, ends an episode there). Every part that is finished is kept, so a killed
run continues with the part that it was in. Writes `learners.json` with every trial.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import numpy as np
import torch
import tyro
from einops import rearrange
from jaxtyping import Bool, Float, Float32, Float64
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor

from policy_eval.judge.judge import LearnedJudge
from policy_eval.policies.policy import AgentPolicy, Policy
from worldmodel.data import open_episodes
from worldmodel.dreams.sb3 import StableBaselinesEnv
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Verdict
from worldmodel.envs import make_env
from worldmodel.fidelity.intervals import bootstrap_interval
from worldmodel.files import read_object, write_json
from worldmodel.model.card import table
from worldmodel.streaming.state import Observation
from worldmodel.world_model import WorldModel

ENV = "metaworld:reach-v3"
DREAM = "worldmodel.dreams:worldmodel/Dream-v0"
HORIZON = 30
BEST_REWARD = 10.0
"""Largest reward of a step in Meta-World."""
MIDDLE = (0.0, 0.85, 0.175)
"""The middle of the region of goals in metres, which the agent is not told."""
NEIGHBOURS = 10
POINTS = 30
"""Points of the curve of a run; the agent is kept at each of them."""


@dataclass(frozen=True)
class BenchmarkConfig:
    """Learn in dreams of reach-v3, and measure for real."""

    out: Path
    """Folder of the data, the models, the agent and `learners.json`."""
    minutes: float = 15.0
    """CPU minutes of learning; the issue's bar is at most 30."""
    pretrain_minutes: float = 6.0
    """CPU minutes of the world model's training, from the one of push-v3, which has the same robot."""
    episodes: int = 100
    """Real trials before and after."""
    num_envs: int = 16
    """Dreams side by side."""
    seed: int = 0
    """Seed of the agent."""


class Known:
    """Whether the hand is where recorded hands were.

    Args:
        hands: Recorded places in metres. A place is known if it is as near to `NEIGHBOURS` of them as 99% of the
            recorded places are to others.
    """

    def __init__(self, hands: Float[torch.Tensor, "n 3"]):
        self.hands = hands
        self.radius = float(self.distances(hands[::20], NEIGHBOURS + 1).quantile(0.99))

    def distances(self, places: Float[torch.Tensor, "b 3"], number: int = NEIGHBOURS) -> Float[torch.Tensor, "b"]:
        """The distance to the recorded place that is the `number`th nearest one."""
        return torch.cdist(places, self.hands).kthvalue(number).values

    def __call__(self, observation: Observation) -> Bool[torch.Tensor, "b"]:
        """Of each stream."""
        return self.distances(observation.states[:, :3].float()) <= self.radius


class Endless:
    """A judge whose successes do not end a dream, so that staying at the goal pays; rewards are 0 to 1."""

    def __init__(self, judge: LearnedJudge, known: Known):
        self.judge, self.known = judge, known

    def __call__(self, observation: Observation) -> Verdict:
        """The verdict on the latest frame of every stream; at an unknown place the reward is 0."""
        rewards = self.judge(observation).rewards / BEST_REWARD * self.known(observation)
        return Verdict(rewards, torch.zeros(len(rewards), dtype=torch.bool))


class Keypoints:
    """The hand, and where the judge's network sees things in every camera.

    Args:
        judge: Its convolutions are used as they are.
        states: States of the data, for their mean and spread.
    """

    def __init__(self, judge: LearnedJudge, states: torch.Tensor):
        self.encoders, self.views = judge.network.encoders, judge.shape.views
        self.mean, self.std = states.mean(0).numpy(), states.std(0).clamp(min=1e-3).numpy()

    @torch.no_grad()
    def __call__(self, observation: dict[str, np.ndarray]) -> dict[str, Float32[np.ndarray, "n f"]]:
        """What the agent sees."""
        pictures = [torch.from_numpy(observation[f"observation.images.{view}"]) for view in self.views]
        seen = [encode(frames).numpy() for encode, frames in zip(self.encoders, pictures, strict=True)]
        hand = (observation["observation.state"] - self.mean) / self.std
        return {"seen": np.concatenate([hand.clip(-3, 3), *seen], axis=1).astype(np.float32)}


class Middle:
    """A script for comparison: it drives to the middle of the region of goals, whatever the pictures show."""

    def reset(self, seeds: Sequence[int]) -> None:
        """Nothing to forget."""

    def act(self, observation: dict[str, torch.Tensor]) -> Float[torch.Tensor, "n 4"]:
        """Towards the middle, with the gain of Meta-World's experts."""
        way = 10 * (torch.tensor(MIDDLE) - observation["observation.state"][:, :3])
        return torch.nn.functional.pad(way.clamp(-1, 1), (0, 1))


class Clock(BaseCallback):
    """Ends the learning after some CPU seconds of this process, and keeps the curve of the dreamed return."""

    def __init__(self, seconds: float, kept: Path):
        super().__init__()
        self.seconds, self.kept, self.began, self.shown = seconds, kept, time.process_time(), 0.0
        self.curve: list[dict[str, float]] = []

    def _on_step(self) -> bool:
        spent = time.process_time() - self.began
        if spent - self.shown >= self.seconds / POINTS and self.model.ep_info_buffer:
            self.shown = spent
            returns = float(np.mean([each["r"] for each in self.model.ep_info_buffer]))
            self.curve.append({"cpu_seconds": spent, "frames": self.num_timesteps, "dreamt_return": returns})
            self.model.save(self.kept / "agent.zip")
            write_json(self.kept / "learning.json", {"curve": self.curve})
            print(f"{spent:.0f} CPU s, {self.num_timesteps} frames, dreamed return {returns:.2f}", flush=True)
        return spent < self.seconds


def prepare(config: BenchmarkConfig) -> None:
    """Record data, train the world model and the judge, whatever is missing."""
    data, world = str(config.out / "data"), str(config.out / "world")
    heldout, judge = str(config.out / "heldout"), str(config.out / "judge")
    minutes = ["--minutes", str(config.pretrain_minutes), "--clock", "cpu", "--steps", "100000"]
    rates = ["--learning-rate", "5e-4", "--average-decay", "0.98", "--validation-interval", "100000"]
    fresh = ["--seed", "62", "--behaviour", "random", "--horizon", "3", "--episodes", str(config.episodes)]
    training = ["--init", "checkpoints/metaworld-push", *minutes, *rates]
    parts = {
        "data/meta/info.json": ["record", ENV, "--out", data, "--seed", "61", "--episodes", "240"],
        "heldout/meta/info.json": ["record", ENV, "--out", heldout, *fresh],
        "world/weights.safetensors": ["pretrain", "tiny", "--data", data, "--out", world, *training],
        "judge/report.json": ["judge", "--data", data, "--out", judge],
    }
    for made, command in parts.items():
        if not (config.out / made).is_file():
            subprocess.run([sys.executable, "-m", "worldmodel.cli", *command], check=True)


def make_agent(config: BenchmarkConfig) -> tuple[SAC, Keypoints, tuple[np.ndarray, np.ndarray]]:
    """A fresh agent in its dreams, what it sees, and the bounds of its actions."""
    world, judge = WorldModel.load(config.out / "world"), LearnedJudge.load(config.out / "judge")
    source = open_episodes(config.out / "data", tuple(world.size), world.views)
    states = torch.cat([source.columns(episode).states for episode in range(len(source))])
    features = Keypoints(judge, states)
    envs = gymnasium.make_vec(
        DREAM,
        num_envs=config.num_envs,
        world=world,
        data=Starts(source),
        judge=Endless(judge, Known(states[:, :3])),
        horizon=HORIZON,
        num_steps=1,
        seed=config.seed,
    )
    agent = SAC(
        "MultiInputPolicy",
        VecMonitor(StableBaselinesEnv(envs, features)),
        learning_rate=1e-3,
        gamma=0.95,
        batch_size=256,
        gradient_steps=6,
        learning_starts=60 * config.num_envs,
        policy_kwargs={"net_arch": [128, 128]},
        seed=config.seed,
        device="cpu",
    )
    return agent, features, (envs.action_low, envs.action_high)


def learn(config: BenchmarkConfig, agent: SAC) -> tuple[SAC, list[dict[str, float]]]:
    """The agent after its minutes in dreams, and its curve; an agent that was kept after as many minutes is loaded."""
    kept, seconds = config.out / "learning.json", 60 * config.minutes
    curve = read_object(kept)["curve"] if kept.is_file() else []
    if curve and curve[-1]["cpu_seconds"] >= seconds * (1 - 1 / POINTS):
        return SAC.load(config.out / "agent.zip", device="cpu"), curve
    (config.out / "after.json").unlink(missing_ok=True)  # trials of another agent
    clock = Clock(seconds, config.out)
    agent.learn(10**9, callback=clock).save(config.out / "agent.zip")
    return agent, clock.curve


def act_for_real(policy: Policy, starts: Starts, kept: Path) -> dict[str, Float64[np.ndarray, "e"]]:
    """Return over 30 steps, successes included, and whether the goal was reached, from every start."""
    if kept.is_file():
        return {name: np.array(values) for name, values in read_object(kept).items()}
    env = make_env(ENV, time_limit=HORIZON)
    returns, solved = np.zeros(len(starts)), np.zeros(len(starts))
    for trial, seed in enumerate(starts.seeds):
        observation, _ = env.reset(seed=seed)
        policy.reset([seed])
        for _ in range(HORIZON):
            batch = {name: torch.from_numpy(value[None]) for name, value in observation.items()}
            action = rearrange(policy.act(batch), "1 a -> a").numpy()
            observation, reward, success, _, _ = env.step(action)
            returns[trial] += reward
            solved[trial] = max(solved[trial], success)
    write_json(kept, {"return": returns.tolist(), "success": solved.tolist()})
    return {"return": returns, "success": solved}


def main(config: BenchmarkConfig) -> None:
    """Prepare, learn, measure, write, print."""
    torch.set_num_threads(1)  # two threads wait for each other on frames this small
    config.out.mkdir(parents=True, exist_ok=True)
    prepare(config)
    agent, features, bounds = make_agent(config)
    policy = AgentPolicy(agent, features=features, bounds=bounds)
    starts = Starts(open_episodes(config.out / "heldout"), range(config.episodes))
    found = {"config": {name: str(value) for name, value in vars(config).items()}, "seeds": list(starts.seeds)}
    before = act_for_real(policy, starts, config.out / "before.json")
    policy.agent, found["curve"] = learn(config, agent)
    after = act_for_real(policy, starts, config.out / "after.json")
    middle = act_for_real(Middle(), starts, config.out / "middle.json")
    rows = []
    for name in before:
        gains = after[name] - before[name]
        low, high = bootstrap_interval(gains, np.arange(len(gains)), resamples=4000)
        trials = {"before": before, "after": after, "middle": middle}
        found[name] = {when: values[name].tolist() for when, values in trials.items()} | {"interval": (low, high)}
        means = [f"{values[name].mean():.2f}" for values in trials.values()]
        rows.append([f"real {name}, {len(gains)} starts", *means, f"{gains.mean():+.2f} [{low:+.2f}, {high:+.2f}]"])
    heads = ["figure", "before learning", "after", "a script that drives to the middle of the goals"]
    print(table([*heads, "gain, 95% interval"], rows))
    write_json(config.out / "learners.json", found)


if __name__ == "__main__":
    main(tyro.cli(BenchmarkConfig))

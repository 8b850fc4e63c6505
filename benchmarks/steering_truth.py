"""Which part keeps steering from helping in Meta-World: the world model, the judge, or the plans?

python benchmarks/steering_truth.py --policy P --world W --judge J --real metaworld:reach-v3 --data D

Every plan is not only imagined but also carried out in the simulator, which is then put back. So each choice can be
made by the judge of the dreamed frame, by the judge of the true frame, or by the simulator's own reward, and for every
decision the three are compared. Where steering helps by `judge` but not by `dream`, the world model is to blame; where
it helps by `reward` alone, the judge; where it helps by none, the plans.
"""

import worldmodel.envs.metaworld.headless  # noqa: F401

# isort: split

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mujoco
import numpy as np
import torch
import tyro
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor

from policy_eval.evaluation import evaluate
from policy_eval.judge.find import load_judge
from policy_eval.policies.find import load_policy
from policy_eval.policies.policy import Observations
from policy_eval.real_envs import RealEnvs
from policy_eval.steering.scorers import Candidates, by_value, nearest_the_mean
from policy_eval.steering.steered import Choice, SteeredPolicy, offsets
from worldmodel.data import open_episodes
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Judge
from worldmodel.envs import make_env
from worldmodel.envs.metaworld.env import MetaWorld
from worldmodel.files import write_json
from worldmodel.model.card import table
from worldmodel.streaming.state import Observation
from worldmodel.world_model import WorldModel

By = Literal["alone", "dream", "judge", "reward"]
STATE = mujoco.mjtState.mjSTATE_INTEGRATION


@dataclass(frozen=True)
class TruthConfig:
    """Steering by the dream, by the true frame, and by the true reward."""

    policy: str
    """Who is steered."""
    world: str
    """Who imagines."""
    judge: str
    """Who scores."""
    real: str
    """A task of Meta-World."""
    data: Path
    """Held-out episodes to start from."""
    by: tuple[By, ...] = ("alone", "dream", "judge", "reward")
    """Who chooses, a row each."""
    episodes: int = 20
    """Trials of every row."""
    horizon: int = 30
    """Most steps of a trial."""
    k: int = 4
    """Plans to choose from."""
    spread: float = 0.3
    """How far they lie apart, as in `worldmodel steer`."""
    lookahead: int = 8
    """Imagined steps."""
    out: Path = Path("runs/steering/truth.json")
    """Every trial and every decision."""


class Truth(SteeredPolicy):
    """Carries out every plan in the simulator before one is chosen; for one stream."""

    def __init__(self, policy: Any, judge: Judge, world: WorldModel, env: MetaWorld, by: By, **settings: Any):
        super().__init__(policy, nearest_the_mean, world, **settings)
        self.judge, self.env, self.by = judge, env, by
        self.noted: list[dict[str, list[float]]] = []

    def choose(self, observation: Observations) -> Choice:
        """Score the plans by the dream, by the judge of the true frame and by the true reward."""
        plans = self.proposal(self.policy, observation, self.k, self.sigma, self.seeds, self.step)
        candidates = Candidates(plans, self.imagine(plans))
        saved = snapshot(self.env)
        ends = []
        for plan in plans[0]:
            ends.append(self._carried_out(plan))
            restore(self.env, saved)
        frames = torch.stack(
            [torch.stack([seen[f"observation.images.{v}"] for v in self.world.views]) for seen, _ in ends]
        )
        states = torch.stack([seen["observation.state"] for seen, _ in ends])
        judged = self.judge(Observation(frames, states, self.tasks * self.k)).rewards
        miss = (candidates.imagined.states[:, -1, :3] - states[:, :3]).norm(dim=1)
        scores = {
            "dream": by_value(self.judge)(candidates)[0],
            "judge": judged,
            "reward": torch.tensor([reward for _, reward in ends]),
        }
        self.noted.append({name: each.tolist() for name, each in scores.items()} | {"miss": miss.tolist()})
        chosen = scores[self.by][None].float()
        return Choice(candidates, chosen, chosen.argmax(1))

    def _carried_out(self, plan: Float[Tensor, "h a"]) -> tuple[dict[str, Tensor], float]:
        """What is seen after the steps of a dream, and the reward there."""
        queue, reward = list(plan), 0.0
        for _ in range(self.lookahead):
            if not queue:
                queue = list(self.policy.plan({name: value[None] for name, value in self._seen().items()})[0])
            motion = queue.pop(0).numpy().clip(-1, 1)
            for _ in range(self.env.action_repeat):
                self.env.simulator.curr_path_length = 0
                self.env.vector, reward, *_ = self.env.simulator.step(motion)
        return self._seen(), float(reward)

    def _seen(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(value) for name, value in self.env.get_obs().items()}


def snapshot(env: MetaWorld) -> dict[str, Any]:
    """All of a simulator that a step changes."""
    model, data = env.simulator.model, env.simulator.data
    state = np.empty(mujoco.mj_stateSize(model, STATE))
    mujoco.mj_getState(model, data, state, STATE)
    plain = {name: np.copy(value) for name, value in vars(env.simulator).items() if isinstance(value, np.ndarray)}
    return {"state": state, "vector": env.vector.copy(), "plain": plain}


def restore(env: MetaWorld, saved: dict[str, Any]) -> None:
    """Put a simulator back."""
    model, data = env.simulator.model, env.simulator.data
    mujoco.mj_setState(model, data, saved["state"], STATE)
    mujoco.mj_forward(model, data)
    env.vector = saved["vector"].copy()
    for name, value in saved["plain"].items():
        setattr(env.simulator, name, value.copy())


def main(config: TruthConfig) -> None:
    """Try every row; print success, and what the decisions say."""
    torch.set_num_threads(1)
    policy, world = load_policy(config.policy), WorldModel.load(config.world)
    judge = load_judge(config.judge, views=world.views, size=tuple(world.size))
    starts = Starts(open_episodes(config.data), range(config.episodes))
    envs = RealEnvs(lambda: make_env(config.real), starts, num_envs=1)
    settings = {"sigma": offsets(world, config.spread), "lookahead": config.lookahead, "k": config.k}
    found, noted = {}, []
    for by in config.by:
        if by == "alone":
            tried = SteeredPolicy(policy, nearest_the_mean, **settings | {"k": 1})
        else:
            tried = Truth(policy, judge, world, envs.envs[0], by, **settings)
        found[by] = evaluate(tried, envs, name=by, horizon=config.horizon)
        noted += [] if by == "alone" else tried.noted
        write_json(config.out, {"rows": {name: each.to_json() for name, each in found.items()}, "noted": noted})
    print(table(["chosen by", "real success", "trials"], [[n, f"{s.mean:.2f}", str(len(s))] for n, s in found.items()]))
    if noted:
        print(table(["of the decisions", "value"], decisions(noted)))


def decisions(noted: list[dict[str, list[float]]]) -> list[list[str]]:
    """How well dream and judge order the plans of one decision, and how much reward their choice brings."""
    lines = []
    for name in ("dream", "judge"):
        told = [each for each in noted if np.ptp(each[name]) > 0 and np.ptp(each["reward"]) > 0]
        orders = [spearmanr(each[name], each["reward"]).statistic for each in told]
        lines.append([f"Spearman of {name} and true reward", f"{np.mean(orders):.2f}"])
    for name in ("dream", "judge", "reward"):
        gains = [each["reward"][int(np.argmax(each[name]))] - each["reward"][0] for each in noted]
        lines.append([f"true reward that the choice by {name} adds to the policy's plan", f"{np.mean(gains):+.2f}"])
    lines.append(["miss of the dreamed hand, cm", f"{100 * np.mean([each['miss'] for each in noted]):.1f}"])
    return [*lines, ["decisions", str(len(noted))]]


if __name__ == "__main__":
    main(tyro.cli(TruthConfig))

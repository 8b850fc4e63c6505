"""A judge without labels: how many steps a frame is away from pictures of the goal.

The network sees two frames and says how many steps lie between them. Two frames of one recorded episode, the later
one as the goal, teach it that (hindsight), so any episodes will do, play included: Tian et al., Model-Based Visual
Planning with Self-Supervised Functional Distances (arXiv 2012.15373); Hartikainen et al., Dynamical Distance Learning
(arXiv 1907.08225).
"""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from einops import repeat
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from policy_eval.policies.keypoints import KeypointEncoder
from worldmodel.dreams.verdict import Verdict, scored_verdict
from worldmodel.model.card import CardFacts
from worldmodel.model.folder import load_model, save_model
from worldmodel.model.hub import push_saved
from worldmodel.streaming.state import Observation

NUM_BINS = 10
"""Bins of the steps between two frames of one episode. One more bin is for frames of two episodes."""
NEAREST = 0.25
"""Share of the goal pictures, the nearest ones, that a frame is compared with; at least one."""


@dataclass(frozen=True)
class GoalShape:
    """All that is needed to build the network; saved beside its weights."""

    views: tuple[str, ...]
    """Cameras that it looks at, in the order of the data."""
    size: tuple[int, int]
    """Height and width of a frame."""
    farthest: int = 40
    """Steps from the goal at which the reward is 0; more steps are not told apart."""
    width: int = 256
    """Width of the perceptron."""


@dataclass(frozen=True)
class GoalDescription:
    """What `judge.json` of a `GoalJudge` holds."""

    shape: GoalShape
    threshold: float
    """Score above which the goal counts as reached."""
    goals: int
    """Number of goal pictures, which lie beside the weights."""
    doubt: float | None = None
    """Score from which a frame that is not at the goal is unsure; `None` for a judge that never is."""


def first_steps(farthest: int) -> Int64[Tensor, " bins"]:
    """The lowest number of steps of each bin: log-spaced from 0 to `farthest`, each number once.

    For 40 they are 0, 1, 2, 3, 5, 7, 11, 17, 27 and 40.
    """
    even = torch.linspace(0, math.log1p(farthest), NUM_BINS, dtype=torch.float64)
    return even.expm1().sub(1e-9).ceil().long().unique()


class GoalNetwork(nn.Module):
    """Keypoints of every camera, and a perceptron that compares those of a frame with those of a goal."""

    def __init__(self, shape: GoalShape):
        super().__init__()
        self.encoders = nn.ModuleList([KeypointEncoder() for _ in shape.views])
        width = sum(e.num_features for e in self.encoders)
        self.head = nn.Sequential(
            nn.Linear(3 * width, shape.width),
            nn.ReLU(),
            nn.Linear(shape.width, shape.width),
            nn.ReLU(),
            nn.Linear(shape.width, len(first_steps(shape.farthest)) + 1),
        )

    def features(self, frames: UInt8[Tensor, "n v H W 3"]) -> Float[Tensor, "n f"]:
        """Keypoints of all cameras."""
        return torch.cat([encode(frames[:, i]) for i, encode in enumerate(self.encoders)], dim=-1)

    def compare(self, frames: Float[Tensor, "*n f"], goals: Float[Tensor, "*n f"]) -> Float[Tensor, "*n bins"]:
        """Logits of the bins of the steps from a frame to a goal, from their features; the last is another episode."""
        return self.head(torch.cat([frames, goals, frames - goals], dim=-1))


def nearness(logits: Float[Tensor, "*n bins"], farthest: int) -> Float[Tensor, "*n"]:
    """`1 - E[log(1 + steps)] / log(1 + farthest)` over the bins of one episode, 0 to 1.

    Whether frame and goal are of one recorded episode says nothing about the goal, so that bin is left out.
    """
    logs = first_steps(farthest).to(logits).log1p() / math.log1p(farthest)
    return 1 - (logits[..., :-1].softmax(-1) * logs).sum(-1)


class GoalJudge:
    """How near frames are to pictures of the goal, in steps, learned without labels.

    ```python
    judge = GoalJudge.load("runs/goal-judge")            # with the pictures that it was trained with
    judge = judge.with_goals(clip.frames[-1:])           # another goal, at any time
    envs = DreamEnv(world, starts, judge, num_envs=16, horizon=60)
    ```

    The score, and the reward, is `nearness`: 1 at the goal, 0 at `farthest` steps or more, and the logarithm of the
    steps between them. Of several goal pictures the nearest quarter count, by their mean.

    Args:
        shape: Cameras and sizes.
        goals: Pictures of the goal, `g v H W 3`; or `n g v H W 3`, `g` pictures for each of `n` streams.
        threshold: Score above which the goal counts as reached.
        network: The trained network; by default a new one.
        doubt: Score from which a frame that is not at the goal is unsure; `None` for a judge that never is.

    Raises:
        ValueError: There is no goal picture, or it has other cameras or another size.
    """

    reward_range = (0.0, 1.0)
    doubts_last = True

    def __init__(
        self,
        shape: GoalShape,
        goals: UInt8[Tensor, "..."],
        *,
        threshold: float = 0.5,
        network: nn.Module | None = None,
        doubt: float | None = None,
    ):
        expected = (len(shape.views), *shape.size, 3)
        if goals.dim() not in (5, 6) or not goals.numel() or tuple(goals.shape[-4:]) != expected:
            raise ValueError(f"goals are at least one picture of {expected}, got {tuple(goals.shape)}")
        self.shape, self.goals, self.threshold, self.doubt = shape, goals, threshold, doubt
        self.network = GoalNetwork(shape).eval() if network is None else network

    def with_goals(self, goals: UInt8[Tensor, "..."]) -> "GoalJudge":
        """The same judge for other goals, of the shape that `GoalJudge` takes; the network is shared."""
        return GoalJudge(self.shape, goals, threshold=self.threshold, network=self.network, doubt=self.doubt)

    @cached_property
    def _goal_features(self) -> Float[Tensor, "*n g f"]:
        every = self.network.features(self.goals.flatten(0, -5).to(self._device))
        return every.unflatten(0, self.goals.shape[:-4])

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    @torch.no_grad()
    def score(self, frames: UInt8[Tensor, "n v H W 3"]) -> Float[Tensor, "n"]:
        """How near each frame is to the goal, 0 to 1.

        With goals for each stream there may be several frames of each, those of a stream side by side.

        Raises:
            ValueError: The frames have other cameras or another size, or do not divide among the streams.
        """
        expected = (len(self.shape.views), *self.shape.size, 3)
        if tuple(frames.shape[1:]) != expected:
            raise ValueError(f"the judge looks at frames of {expected}, got {tuple(frames.shape[1:])}")
        goals, number = self._goal_features, len(frames)
        if goals.dim() == 2:
            goals = goals.expand(number, -1, -1)
        elif number % len(goals):
            raise ValueError(f"the judge has goals for {len(goals)} streams, got {number} frames")
        else:
            goals = goals.repeat_interleave(number // len(goals), 0)
        features = self.network.features(frames.to(self._device))
        logits = self.network.compare(repeat(features, "n f -> n g f", g=goals.shape[1]), goals)
        near = nearness(logits.float(), self.shape.farthest)
        return near.topk(max(round(NEAREST * near.shape[1]), 1), dim=1).values.mean(1)

    def predict(self, frames: UInt8[Tensor, "n v H W 3"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """Score and reward, which are the same; as `LearnedJudge.predict`."""
        scores = self.score(frames)
        return scores, scores

    def steps(self, frames: UInt8[Tensor, "n v H W 3"]) -> Float[Tensor, "n"]:
        """The score as a number of steps to the goal, 0 to `farthest`."""
        return torch.expm1((1 - self.score(frames)) * math.log1p(self.shape.farthest))

    def __call__(self, observation: Observation) -> Verdict:
        """The verdict on the latest frame of every stream."""
        scores = self.score(observation.frames)
        return scored_verdict(scores, scores, self.threshold, self.doubt)

    def save(self, folder: str | Path, *, dtype: torch.dtype = torch.bfloat16) -> None:
        """Write `judge.json` and `weights.safetensors`, the goals included; `dtype` is that of the weights.

        Raises:
            ValueError: Its goals are those of running streams.
        """
        if self.goals.dim() != 5:
            raise ValueError(f"goals of {len(self.goals)} streams are not saved; pass one set to with_goals first")
        tensors = {name: tensor.to(dtype) for name, tensor in self.network.state_dict().items()}
        described = GoalDescription(self.shape, self.threshold, len(self.goals), self.doubt)
        save_model(folder, "judge.json", described, tensors | {"goals": self.goals.cpu().contiguous()})

    def push_to_hub(
        self, name: str, *, private: bool = True, facts: CardFacts | None = None, token: str | None = None
    ) -> str:
        """Upload the judge as `save` writes it to `USER/NAME` on the hub, with a card; see `worldmodel.push`."""
        return push_saved(self.save, name, private=private, facts=facts, token=token)

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> "GoalJudge":
        """Load what `save` wrote, from a folder or `hf://USER/NAME@REV`.

        Raises:
            ValueError: There is no valid judge of goals; the message says what is wrong, see `load_model`.
        """
        said, stored = load_model(folder, "judge.json", GoalDescription, _with_room_for_goals)
        goals = stored.goals
        del stored.goals
        return cls(said.shape, goals, threshold=said.threshold, network=stored.to(device).eval(), doubt=said.doubt)


def _with_room_for_goals(said: GoalDescription, _: Path) -> GoalNetwork:
    network = GoalNetwork(said.shape)
    shape = (said.goals, len(said.shape.views), *said.shape.size, 3)
    network.register_buffer("goals", torch.zeros(shape, dtype=torch.uint8))
    return network

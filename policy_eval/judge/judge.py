"""A learned judge, which maps the frames of all cameras to reward and success.

It is a `worldmodel.dreams.verdict.Judge`, like `GoalJudge` and any other callable that maps an observation to a
verdict. You can use each of them wherever a judge is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from conditioning.words import TaskWords, WordsConfig
from policy_eval.policies.keypoints import KeypointEncoder
from worldmodel.data.cache.sentences import encoder_of
from worldmodel.dreams.verdict import Verdict, scored_verdict
from worldmodel.model.card import CardFacts
from worldmodel.model.folder import load_model, save_model
from worldmodel.model.hub import push_saved
from worldmodel.streaming.state import Observation


@dataclass(frozen=True)
class JudgeShape:
    """All that is needed to build a learned judge; saved beside its weights."""

    views: tuple[str, ...]
    """Cameras that it looks at, in the order of the data."""
    size: tuple[int, int]
    """Height and width of a frame."""
    width: int = 128
    """Width of the perceptron."""
    words: WordsConfig = field(default_factory=WordsConfig)
    """How the judge is told the task in words; by default it is not."""


@dataclass(frozen=True)
class JudgeDescription:
    """What `judge.json` holds."""

    shape: JudgeShape
    threshold: float
    """Success probability above which a frame is called a success."""
    reward_range: tuple[float, float]
    """Lowest and highest reward of the training data."""
    doubt: float | None = None
    """Success probability from which a frame that is no success is unsure; `None` for a judge that never is."""


class JudgeNetwork(nn.Module):
    """Keypoints of every camera and a perceptron with two outputs."""

    def __init__(self, shape: JudgeShape):
        super().__init__()
        self.words = TaskWords(shape.words, encoder_of(shape.words)) if shape.words.tasks else None
        told = 0 if self.words is None else shape.words.width
        self.encoders = nn.ModuleList([KeypointEncoder(told=told) for _ in shape.views])
        self.head = nn.Sequential(
            nn.Linear(sum(e.num_features for e in self.encoders), shape.width),
            nn.ReLU(),
            nn.Linear(shape.width, shape.width),
            nn.ReLU(),
            nn.Linear(shape.width, 2),
        )

    def forward(self, frames: UInt8[Tensor, "n v H W 3"], tasks: Sequence[str] = ()) -> Float[Tensor, "n 2"]:
        """Logit of success, and the reward with 0 and 1 at the ends of its range.

        Main arguments: `frames`.
        Other arguments: `tasks`, one for each frame, for a judge that is told the task; any other ignores them.
        """
        told = None if self.words is None else self.words(tasks)
        features = [encode(frames[:, i], told) for i, encode in enumerate(self.encoders)]
        return self.head(torch.cat(features, dim=-1))


class LearnedJudge:
    """Success and reward of single frames, learned from real frames, failures included.

    ```python
    judge = LearnedJudge.load("runs/judge")
    envs = DreamEnv(world, starts, judge, num_envs=16, horizon=60)
    ```

    Args:
        shape: Cameras and sizes.
        threshold: Success probability above which a frame is called a success.
        reward_range: Lowest and highest reward of the training data.
        doubt: Success probability from which a frame that is no success is unsure; `None` for a judge that never is.
            `worldmodel calibrate --error` sets it.
    """

    doubts_last = True

    def __init__(
        self,
        shape: JudgeShape,
        *,
        threshold: float = 0.5,
        reward_range: tuple[float, float] = (0.0, 1.0),
        doubt: float | None = None,
    ):
        self.shape, self.threshold, self.reward_range, self.doubt = shape, threshold, reward_range, doubt
        self.network = JudgeNetwork(shape).eval()

    @property
    def told(self) -> bool:
        """Whether the judge is told the task in words."""
        return self.network.words is not None

    @torch.no_grad()
    def predict(
        self, frames: UInt8[Tensor, "n v H W 3"], tasks: Sequence[str] = ()
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """Success probability, 0 to 1, and reward, within `reward_range`.

        Args:
            frames: All cameras.
            tasks: The task of each frame in words, for a judge that is told it; any other ignores them.

        Raises:
            ValueError: The frames have other cameras or another size, or a judge that is told the task does not get
                one that it knows for each frame.
        """
        expected = (len(self.shape.views), *self.shape.size, 3)
        if tuple(frames.shape[1:]) != expected:
            raise ValueError(f"the judge looks at frames of {expected}, got {tuple(frames.shape[1:])}")
        if self.told and len(tasks) != len(frames):
            raise ValueError(f"the judge is told the task in words, got {len(tasks)} tasks for {len(frames)} frames")
        device = next(self.network.parameters()).device
        logit, reward = self.network(frames.to(device), tasks).unbind(-1)
        low, high = self.reward_range
        return logit.sigmoid(), low + reward.clamp(0, 1) * (high - low)

    def score(self, frames: UInt8[Tensor, "n v H W 3"], tasks: Sequence[str] = ()) -> Float[Tensor, "n"]:
        """Success probability; arguments as for `predict`."""
        return self.predict(frames, tasks)[0]

    def __call__(self, observation: Observation) -> Verdict:
        """The verdict on the latest frame of every stream."""
        probability, rewards = self.predict(observation.frames, observation.task)
        return scored_verdict(probability, rewards, self.threshold, self.doubt)

    def save(self, folder: str | Path, *, dtype: torch.dtype = torch.bfloat16) -> None:
        """Write `judge.json` and `weights.safetensors`; `dtype` is that of the weights."""
        tensors = {name: tensor.to(dtype) for name, tensor in self.network.state_dict().items()}
        described = JudgeDescription(self.shape, self.threshold, self.reward_range, self.doubt)
        save_model(folder, "judge.json", described, tensors)

    def push_to_hub(
        self, name: str, *, private: bool = True, facts: CardFacts | None = None, token: str | None = None
    ) -> str:
        """Upload the judge as `save` writes it to `USER/NAME` on the hub, with a card; see `worldmodel.push`."""
        return push_saved(self.save, name, private=private, facts=facts, token=token)

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> "LearnedJudge":
        """Load what `save` wrote, from a folder or `hf://USER/NAME@REV`.

        Raises:
            ValueError: There is no valid judge; the message says what is wrong, see `load_model`.
        """
        said, network = load_model(folder, "judge.json", JudgeDescription, lambda said, _: JudgeNetwork(said.shape))
        judge = cls(said.shape, threshold=said.threshold, reward_range=said.reward_range, doubt=said.doubt)
        judge.network = network.to(device).eval()
        return judge

"""Small visuomotor policies, cloned from demonstrations: keypoints per camera, and a head that plans."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss

from conditioning.angles import wrapped
from conditioning.words import TaskWords, WordsConfig
from policy_eval.policies.flow_head import FlowHead
from policy_eval.policies.keypoints import KeypointEncoder
from policy_eval.policies.needs import Needs
from policy_eval.policies.policy import Observations
from worldmodel.data.cache.sentences import encoder_of
from worldmodel.model.card import CardFacts
from worldmodel.model.folder import load_model, save_model
from worldmodel.model.hub import push_saved
from worldmodel.streaming.noise import stream_noise

DRAWS = 4
"""Noise levels that a training step of a flow draws for each frame: cheap, since the encoders are most of the work."""


@dataclass(frozen=True)
class PolicyConfig:
    """All that is needed to build a cloned policy; saved beside its weights."""

    views: tuple[str, ...]
    """Cameras that it looks at."""
    size: tuple[int, int]
    """Height and width of their pictures."""
    action_dim: int
    """Width of an action."""
    state_dim: int
    """Width of `observation.state`; 0 for a policy without proprioception."""
    relative_to: dict[int, int] = field(default_factory=dict)
    """Action dim and state dim pairs: absolute targets, learned as displacements from the state."""
    angles: dict[int, tuple[float, float]] = field(default_factory=dict)
    """State dims that are angles, each with the interval at whose ends it wraps."""
    chunk: int = 1
    """Actions planned at once and then carried out in order."""
    action_noise: float = 0.0
    """Sigma of Gaussian noise on every action, in the units of the action."""
    width: int = 128
    """Width of the perceptron."""
    head: Literal["regression", "flow"] = "regression"
    """What makes the plans: a regression has one plan for an observation, a flow has many; see `FlowPolicy`."""
    replan_after: int | None = None
    """Actions of a plan that are carried out before the next plan is made; `None` for all."""
    flow_steps: int = 5
    """Integration steps of a flow, from noise to a plan."""
    goals: int = 0
    """Pictures of the goal that are kept with the weights; 0 for a policy that is shown no goal."""
    words: WordsConfig = field(default_factory=WordsConfig)
    """How the policy is told the task in words; by default it is not."""

    @property
    def carried(self) -> int:
        """How many actions of a plan are carried out."""
        return self.chunk if self.replan_after is None else self.replan_after


@dataclass(frozen=True)
class PolicyDescription:
    """What `policy.json` holds."""

    config: PolicyConfig


class ClonedPolicy(nn.Module):
    """Behaviour cloning (Pomerleau 1991): regress the demonstrator's next actions.

    ```python
    policy = ClonedPolicy.load("runs/policies/pusht-position/most-demos")
    policy.reset(seeds=[0, 1])
    actions = policy.act(observation)         # LeRobot's keys, two streams
    ```

    Args:
        config: Sizes and what the policy sees.

    Attributes:
        action_mean: Mean of the actions, relative ones as displacements; likewise `action_std`.
        state_mean: Mean of the states; likewise `state_std`.
        goals: Pictures of the goal, `g v H W 3`, of a policy that is shown one.

    Raises:
        ValueError: The configuration names another head.
    """

    planner: ClassVar[str] = "regression"

    def __init__(self, config: PolicyConfig):
        super().__init__()
        if config.head != self.planner:
            raise ValueError(f"head is {config.head}, {type(self).__name__} has {self.planner}; make_policy takes both")
        self.config = config
        self.words = TaskWords(config.words, encoder_of(config.words)) if config.words.tasks else None
        told = config.words.width if self.words is not None else 0
        self.encoders = nn.ModuleList([KeypointEncoder(told=told) for _ in config.views])
        self.tasks: tuple[str, ...] = ()
        looked = sum(e.num_features for e in self.encoders)
        self.num_features = looked * (3 if config.goals else 1) + config.state_dim
        self.head = self._make_head()
        for name, dim in (("action", config.action_dim), ("state", config.state_dim)):
            self.register_buffer(f"{name}_mean", torch.zeros(dim))
            self.register_buffer(f"{name}_std", torch.ones(dim))
        if config.goals:
            shape = (config.goals, len(config.views), *config.size, 3)
            self.register_buffer("goals", torch.zeros(shape, dtype=torch.uint8))

    def _make_head(self) -> nn.Module:
        width = self.config.width
        return nn.Sequential(
            nn.Linear(self.num_features, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, self.config.chunk * self.config.action_dim),
        )

    @property
    def needs(self) -> Needs:
        """What the policy needs; see `policy_eval.policies.needs`."""
        views = dict.fromkeys(self.config.views, tuple(self.config.size))
        told = self.words is not None
        return Needs(views=views, state_dim=self.config.state_dim, action_dim=self.config.action_dim, task=told)

    def forward(
        self, frames: UInt8[Tensor, "n v H W 3"], states: Float[Tensor, "n s"] | None
    ) -> Float[Tensor, "n k a"]:
        """Normalised actions of the next `k` steps, relative dims as displacements."""
        return self.plans(self.features(frames, states))

    def features(self, frames: UInt8[Tensor, "n v H W 3"], states: Float[Tensor, "n s"] | None) -> Float[Tensor, "n f"]:
        """Keypoints of every camera and the normalised state; those of the goal, too, if the policy is shown one.

        A policy that is told the task looks for the tasks of the latest `instruct`.
        """
        looked, goal = self.look(frames, self._told(len(frames))), None
        if self.config.goals:
            goal = self.look(self.goals).mean(0).expand(len(frames), -1)
        return self.join(looked, states, goal)

    def look(
        self, frames: UInt8[Tensor, "n v H W 3"], told: Float[Tensor, "n q"] | None = None
    ) -> Float[Tensor, "n l"]:
        """Keypoints of every camera; `told` is the vector of the task, for a policy that is told it."""
        return torch.cat([encode(frames[:, i], told) for i, encode in enumerate(self.encoders)], dim=-1)

    def _told(self, number: int) -> Float[Tensor, "n q"] | None:
        """The vectors of the tasks, of a policy that is told them."""
        if self.words is None:
            return None
        if len(self.tasks) != number:
            raise ValueError(
                f"the policy is told the task in words: instruct got {len(self.tasks)} tasks for {number} observations"
            )
        return self.words(self.tasks)

    def join(
        self, looked: Float[Tensor, "n l"], states: Float[Tensor, "n s"] | None, goal: Float[Tensor, "n l"] | None
    ) -> Float[Tensor, "n f"]:
        """The features of what was seen, from keypoints of the frames and of the goals; see `look`."""
        features = [looked]
        if self.config.state_dim:
            features.append((states - self.state_mean) / self.state_std)
        if goal is not None:
            features += [goal, looked - goal]
        return torch.cat(features, dim=-1)

    def plans(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "n k a"]:
        """The normalised plan for what was seen."""
        return rearrange(self.head(features), "n (k a) -> n k a", k=self.config.chunk)

    def loss(
        self,
        features: Float[Tensor, "n f"],
        plans: Float[Tensor, "n k a"],
        generator: torch.Generator | None = None,
        rows: slice = slice(None),
        total: int | None = None,
    ) -> Float[Tensor, "n"]:
        """How far the plan for each row is from the demonstrated one, `plans`, both normalised; draws no numbers."""
        return smooth_l1_loss(self.plans(features).float(), plans, reduction="none").mean((1, 2))

    def reset(self, seeds: Sequence[int]) -> None:
        """Begin one episode per seed."""
        self.seeds = torch.tensor(list(seeds), dtype=torch.long)
        self.step = 0
        self.queue: list[Tensor] = []
        self.tasks = ()

    def instruct(self, tasks: Sequence[str]) -> None:
        """Tell the policy the task of each episode in words; one that was not trained with --task-words forgets it."""
        self.tasks = tuple(tasks)

    def keep(self, streams: Sequence[int]) -> None:
        """Go on with these streams only; the episodes of the others have ended."""
        rows = torch.tensor(list(streams), dtype=torch.long)
        self.seeds = self.seeds[rows]
        self.queue = [actions[rows] for actions in self.queue]
        self.tasks = tuple(self.tasks[row] for row in streams) if self.tasks else ()

    @torch.no_grad()
    def act(self, observation: Observations) -> Float[Tensor, "n a"]:
        """The next planned action; a new plan is made when the last one has been carried out.

        Raises:
            ValueError: A camera or the state is missing, or has another shape.
        """
        if not self.queue:
            self.queue = list(self._next_plan(observation).unbind(1))
        action = self._noisy(self.queue.pop(0), self.step)
        self.step += 1
        return action

    def ahead(self) -> list[Float[Tensor, "n a"]]:
        """The raw actions that will follow the last one of `act` before the next plan is made."""
        return [self._noisy(action, self.step + index) for index, action in enumerate(self.queue)]

    def _noisy(self, action: Float[Tensor, "n a"], step: int) -> Float[Tensor, "n a"]:
        """A planned action with the noise of its step."""
        if not self.config.action_noise:
            return action
        noise = stream_noise(self.seeds, torch.full_like(self.seeds, step), [self.config.action_dim])
        return action + self.config.action_noise * noise.to(action.device)

    @torch.no_grad()
    def plan(self, observation: Observations) -> Float[Tensor, "n k a"]:
        """The raw actions up to the next plan, without noise; changes nothing in the policy."""
        frames, states = self._read(observation)
        return self.commands(self(frames, states), states)[:, : self.config.carried]

    def _next_plan(self, observation: Observations) -> Float[Tensor, "n k a"]:
        """The plan that is carried out."""
        return self.plan(observation)

    def commands(self, planned: Float[Tensor, "n k a"], states: Float[Tensor, "n s"] | None) -> Float[Tensor, "n k a"]:
        """Normalised actions in the units of the data, relative dims added to the state."""
        raw = planned * self.action_std + self.action_mean
        for action, state in self.config.relative_to.items():
            raw[..., action] += states[:, None, state]
        turning = {a: self.config.angles[s] for a, s in self.config.relative_to.items() if s in self.config.angles}
        return wrapped(raw, turning)

    def _read(self, observation: Observations) -> tuple[Tensor, Tensor | None]:
        """Frames `n v H W 3` and states of the cameras it looks at."""
        device = self.action_mean.device
        names = [f"observation.images.{view}" for view in self.config.views]
        shapes = dict.fromkeys(names, (*self.config.size, 3))
        if self.config.state_dim:
            shapes["observation.state"] = (self.config.state_dim,)
        for name, shape in shapes.items():
            found = tuple(observation[name].shape[1:]) if name in observation else None
            if found != shape:
                raise ValueError(f"the policy expects {name} of shape {shape}, got {found}")
        frames = torch.stack([observation[name] for name in names], dim=1).to(device)
        states = observation["observation.state"].to(device) if self.config.state_dim else None
        return frames, states

    def save(self, folder: str | Path, *, dtype: torch.dtype = torch.bfloat16) -> None:
        """Write `policy.json` and `weights.safetensors`; `dtype` is that of the weights."""
        tensors = {k: v.to(dtype) for k, v in self.named_parameters()} | dict(self.named_buffers())
        save_model(folder, "policy.json", PolicyDescription(self.config), tensors)

    def push_to_hub(
        self, name: str, *, private: bool = True, facts: CardFacts | None = None, token: str | None = None
    ) -> str:
        """Upload the policy as `save` writes it to `USER/NAME` on the hub, with a card; see `worldmodel.push`."""
        return push_saved(self.save, name, private=private, facts=facts, token=token)

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> "ClonedPolicy":
        """Load what `save` wrote, from a folder or `hf://USER/NAME@REV`.

        Raises:
            ValueError: There is no valid policy; the message says what is wrong, see `load_model`.
        """
        _, policy = load_model(folder, "policy.json", PolicyDescription, lambda said, at: make_policy(said.config, at))
        return policy.to(device).eval()


class FlowPolicy(ClonedPolicy):
    """A cloned policy with many plans for one observation: a flow over chunks of actions, see `FlowHead`.

    A regression learns the mean of what demonstrators did. Where they did different things, the mean is none of them.
    A flow learns how their plans are distributed. `sample` draws from it, and `act` carries out one sample. `plan` is
    what zero noise leads to: the same for every seed, and a little less good, since it gets stuck more often.

    ```python
    policy = ClonedPolicy.load("runs/flow")
    policy.sample(observation, 4, seeds, step)     # four plans for each stream: n 4 h a
    ```
    """

    planner: ClassVar[str] = "flow"

    def _make_head(self) -> nn.Module:
        shown = self.config
        return FlowHead(self.num_features, shown.chunk, shown.action_dim, shown.width, shown.flow_steps)

    def plans(
        self, features: Float[Tensor, "n f"], noise: Float[Tensor, "n k a"] | None = None
    ) -> Float[Tensor, "n k a"]:
        """The normalised plan that `noise`, standard normal or by default zero, leads to for what was seen."""
        if noise is None:
            noise = torch.zeros(len(features), self.config.chunk, self.config.action_dim, device=features.device)
        return self.head.plans(features, noise)

    def loss(
        self,
        features: Float[Tensor, "n f"],
        plans: Float[Tensor, "n k a"],
        generator: torch.Generator | None = None,
        rows: slice = slice(None),
        total: int | None = None,
    ) -> Float[Tensor, "n"]:
        """Flow loss of each row: the mean over `DRAWS` noise levels, for which the features are computed only once.

        Args:
            features: What was seen, from `features`.
            plans: Demonstrated plans, normalised.
            generator: Draws noise and noise levels, on the CPU; by default torch's global one.
            rows: The rows of a larger minibatch that are given; the numbers of all its rows are drawn.
            total: Rows of that minibatch; by default as many as are given.
        """
        number, device = len(plans) if total is None else total, plans.device
        noise = torch.randn(number, DRAWS, *plans.shape[1:], generator=generator)[rows].to(device)
        tau = torch.rand(number, DRAWS, generator=generator)[rows].to(device)
        return self.head.loss(features, plans, noise, tau)

    def _next_plan(self, observation: Observations) -> Float[Tensor, "n k a"]:
        return rearrange(self.sample(observation, 1, self.seeds, self.step), "n 1 h a -> n h a")

    @torch.no_grad()
    def sample(self, observation: Observations, k: int, seeds: Int[Tensor, "n"], step: int) -> Float[Tensor, "n k h a"]:
        """Raw actions of `k` plans for each stream, as long as that of `plan`; changes nothing in the policy.

        They depend only on what was seen, the seed of the stream and the step.
        """
        frames, states = self._read(observation)
        shape = [k, self.config.chunk, self.config.action_dim]
        noise = stream_noise(seeds, torch.full_like(seeds, step), shape).to(frames.device)
        features = repeat(self.features(frames, states), "n f -> (n k) f", k=k)
        planned = self.plans(features, rearrange(noise, "n k h a -> (n k) h a"))
        if states is not None:
            states = repeat(states, "n s -> (n k) s", k=k)
        raw = self.commands(planned, states)[:, : self.config.carried]
        return rearrange(raw, "(n k) h a -> n k h a", k=k)


def make_policy(config: PolicyConfig, where: str | Path = "policy") -> ClonedPolicy:
    """A policy with fresh weights and the head that the configuration names.

    Args:
        config: The configuration.
        where: Where it is from, for the message.

    Raises:
        ValueError: A plan cannot be made, or not be carried out, as the configuration says.
    """
    if config.chunk < 1 or config.flow_steps < 1:
        raise ValueError(f"{where}: chunk and flow_steps are at least 1, got {config.chunk} and {config.flow_steps}")
    if not 1 <= config.carried <= config.chunk:
        raise ValueError(f"{where}: replan_after is 1 to {config.chunk}, which is the chunk, got {config.carried}")
    return FlowPolicy(config) if config.head == "flow" else ClonedPolicy(config)

"""The world model as a Gymnasium environment: many dreams at once, one action in, one frame out."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float, Float64, UInt8
from torch import Tensor

from worldmodel.dreams.infos import finals, masked, success
from worldmodel.dreams.spaces import (
    IMAGES,
    KEYS,
    STATE,
    named,
    named_space,
    other_pictures,
    side_by_side,
    stretched,
    unit_box,
)
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Judge
from worldmodel.dreams.world import World, held
from worldmodel.streaming.noise import mix_seed

Observations = dict[str, Any]
Step = tuple[Observations, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


class DreamEnv(VectorEnv):
    """`num_envs` dreams side by side behind the interface of the real environment.

    ```python
    envs = DreamEnv(world, Starts(open_episodes("data/pusht")), judge, num_envs=16, horizon=60)
    observation, info = envs.reset(seed=0)
    observation, reward, terminated, truncated, info = envs.step(envs.action_space.sample())
    ```

    A dream begins from the first real frame of a recorded episode; `judge` looks at every dreamed
    frame and supplies reward and success, and success terminates. The start and the noise of a
    stream are a pure function of its seed: `reset(seed=s)` gives stream `i` the seed `s + i`, as in
    Gymnasium. `reset(options={"starts": indices})` chooses the starts instead, and the noise is
    then a function of `seed` below and of the start's reset seed. `options={"reset_mask": mask}`
    leaves the other streams as they are; `starts` then still has one entry per stream.

    The autoreset modes are those of Gymnasium's `SyncVectorEnv`. With
    `SAME_STEP` (as in DIAMOND and most of RL) a finished stream begins anew at once, and the last frame
    of the old one is in `info["final_obs"]`. With `NEXT_STEP` it begins anew in the next step, whose
    action it ignores. With `DISABLED` it stands still, with reward 0, until it is reset.

    `info["success"]`, and the same under `is_success`, says for each stream whether the task is solved.
    A verdict that can be unsure adds `unsure`.

    A world model whose latents are several frames each, `world.chunk` of them, dreams faster if it knows the next
    actions: pass them to `step` as `ahead`. `policy_eval.evaluate` does that for policies that plan.

    A world model of stride `s` shows every `s`-th frame of the data: a step takes one action, which is
    held for `s` steps of the data, or with `actions="chunk"` the `s` actions side by side.

    Args:
        world: The world model.
        starts: The real frames that dreams begin from.
        judge: Gives the reward and the success of each dreamed frame.
        num_envs: Streams in a batch.
        horizon: Steps after which an episode is truncated.
        num_steps: Denoising steps per frame.
        seed: Seed of the noise of chosen starts, and of a `reset` without a seed.
        autoreset_mode: `SAME_STEP`, `NEXT_STEP` or `DISABLED`, as one of Gymnasium's `AutoresetMode`, by its
            name, or by its value (`"SameStep"`).
        actions: Whether an action is `held` over the stride of the world model, or a step takes a `chunk`.
        normalise_actions: Whether actions lie within -1..1, as learners expect them, and are stretched to
            the bounds of raw actions, `metadata["action_low"]` and `metadata["action_high"]`.
        keys: Names of the observations: `lerobot` (`observation.images.CAMERA`, `observation.state`) or `gym`
            (`pixels`, which is a dictionary if there are several cameras, and `agent_pos`).
        like: The real environment; its spaces are taken over. By default the spaces come from the
            data: actions within their range, states without bounds.
        render_mode: `rgb_array`: `render` gives a picture of each stream, cameras side by side. `None`: nothing.

    Raises:
        ValueError: World model, starts and spaces do not fit, or a number is out of range.
    """

    def __init__(
        self,
        world: World,
        starts: Starts,
        judge: Judge,
        *,
        num_envs: int,
        horizon: int,
        num_steps: int = 2,
        seed: int = 0,
        actions: Literal["held", "chunk"] = "held",
        normalise_actions: bool = False,
        keys: str = "lerobot",
        like: gymnasium.Env | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = "rgb_array",
    ):
        super().__init__()
        if num_envs < 1 or horizon < 1:
            raise ValueError(f"num_envs and horizon are at least 1, got {num_envs} and {horizon}")
        if keys not in KEYS or render_mode not in (None, "rgb_array"):
            raise ValueError(
                f"keys is one of {', '.join(KEYS)}, render_mode is rgb_array or None, got {keys!r} and {render_mode!r}"
            )
        check_starts(world, starts)
        if like is not None and (other := other_pictures(like.observation_space, starts.views, starts.source.size)):
            raise ValueError(f"{starts.source.name}: {other}")
        self.world, self.starts, self.judge = world, starts, judge
        self.num_envs, self.horizon, self.num_steps, self.seed = num_envs, horizon, num_steps, seed
        self.keys, self.render_mode = keys, render_mode
        self._space, self.single_action_space = (
            starts.spaces() if like is None else (like.observation_space, like.action_space)
        )
        if self.single_action_space.shape != (world.action_dim,):
            raise ValueError(
                f"{starts.source.name}: actions have the shape {self.single_action_space.shape}, "
                f"those of the world model ({world.action_dim},)"
            )
        self.repeats = world.stride if actions == "held" else 1
        if actions == "chunk":
            self.single_action_space = side_by_side(self.single_action_space, world.stride)
        self.action_low, self.action_high = self.single_action_space.low, self.single_action_space.high
        self.normalise_actions = normalise_actions
        if normalise_actions:
            self.single_action_space = unit_box(self.single_action_space, starts.source.name)
        self.single_observation_space = named_space(self._space, starts.views, keys)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {
            "autoreset_mode": autoreset_named(autoreset_mode),
            "render_modes": ["rgb_array"],
            "render_fps": world.fps / world.stride,
            "action_low": self.action_low,
            "action_high": self.action_high,
        }
        drawn = np.random.default_rng(seed).integers(2**31, size=num_envs)
        self._generators = [np.random.default_rng(each) for each in drawn]
        self._stream = None

    @property
    def autoreset(self) -> AutoresetMode:
        """When finished streams begin anew."""
        return self.metadata["autoreset_mode"]

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Begin dreams; see the class for `seed` and `options`.

        Raises:
            ValueError: An option is unknown or does not have one entry per stream, or there is no
                such start.
        """
        options = options or {}
        unknown = set(options) - {"starts", "reset_mask"}
        if unknown:
            raise ValueError(f"reset has the options starts and reset_mask, got {sorted(unknown)}")
        mask = np.asarray(options.get("reset_mask", np.ones(self.num_envs, bool)), bool)
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"reset_mask has one entry for each of {self.num_envs} streams and is true "
                f"somewhere, got {mask.tolist()}"
            )
        if self._stream is None and not mask.all():
            raise ValueError("the first reset is of all streams, got a reset_mask")
        streams = np.flatnonzero(mask)
        self._seed(streams, seed)
        if "starts" in options:
            starts = list(options["starts"])
            if len(starts) != self.num_envs:
                raise ValueError(f"got {len(starts)} starts for {self.num_envs} streams")
            self._begin(streams, [starts[i] for i in streams])
        else:
            self._begin_at_random(streams)
        return self._copy(), success(np.zeros(self.num_envs, bool), mask)

    def step(self, actions: np.ndarray, ahead: Sequence[np.ndarray] = ()) -> Step:
        """Apply one action per stream, clipped to the action space, and dream the next frame.

        Args:
            actions: An action per stream.
            ahead: The actions of the next steps, as far as they are known; see `Stream.step`.

        Raises:
            ValueError: The actions have another shape than the action space, or are not finite.
        """
        assert self._stream is not None, "reset comes before step"
        known = [held(self._commands(each), self.repeats) for each in (actions, *ahead)]
        told = {"ahead": torch.stack(known[1:], dim=1)} if ahead else {}
        dreamed = self._stream.step(known[0], num_steps=self.num_steps, **told)
        verdict = self.judge(replace(dreamed, task=tuple(self._tasks)))
        over = self._terminated | self._truncated
        self._show(np.flatnonzero(~over), dreamed.frames, dreamed.states)
        rewards = np.where(over, 0.0, _numbers(verdict.rewards))
        self._steps += ~over
        self._terminated |= ~over & verdict.successes.cpu().numpy()
        self._truncated |= ~over & (self._steps >= self.horizon)
        begun = over if self.autoreset is AutoresetMode.NEXT_STEP else np.zeros(self.num_envs, bool)
        terminated, truncated = self._terminated & ~begun, self._truncated & ~begun
        unsure = {} if verdict.unsure is None else {"unsure": verdict.unsure.cpu().numpy()}
        info: dict[str, Any] = {}
        if self.autoreset is AutoresetMode.SAME_STEP and (terminated | truncated).any():
            begun = terminated | truncated
            info = finals(self._last(begun), success(terminated, begun) | masked(unsure, begun), begun)
        everywhere = np.ones(self.num_envs, bool)
        info |= success(terminated & ~begun, everywhere) | masked(unsure, ~over & ~begun)
        if begun.any():
            self._begin_at_random(np.flatnonzero(begun))
        return self._copy(), rewards, terminated, truncated, info

    def render(self) -> tuple[UInt8[np.ndarray, "H W 3"], ...] | None:
        """The latest frame of each stream, cameras side by side; nothing if `render_mode` is `None`."""
        if self.render_mode is None:
            return None
        pictures = [self._observations[IMAGES + view] for view in self.starts.views]
        return tuple(np.concatenate(pictures, axis=2))

    def _commands(self, actions: np.ndarray) -> Float[Tensor, "n a"]:
        """Raw actions within their bounds."""
        actions = np.asarray(actions, np.float32)
        if actions.shape != self.action_space.shape or not np.isfinite(actions).all():
            raise ValueError(
                f"actions are finite numbers of the shape {self.action_space.shape}, got the shape "
                f"{actions.shape}: {actions.tolist()}"
            )
        clipped = actions.clip(self.action_space.low, self.action_space.high)
        if self.normalise_actions:
            clipped = stretched(clipped, self.action_low, self.action_high)
        return torch.from_numpy(clipped)

    def _seed(self, streams: np.ndarray, seed: int | Sequence[int | None] | None) -> None:
        """Seed the generators of the given streams, from which their starts and their noise are drawn."""
        if seed is None:
            return
        seeds = [seed + i for i in range(self.num_envs)] if _whole(seed) else list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"got {len(seeds)} seeds for {self.num_envs} streams")
        for stream in streams:
            if seeds[stream] is not None:
                self._generators[stream] = np.random.default_rng(seeds[stream])

    def _begin_at_random(self, streams: np.ndarray) -> None:
        """Begin each stream; its generator determines the start and the noise."""
        draws = [self._generators[stream] for stream in streams]
        starts = [int(rng.integers(len(self.starts))) for rng in draws]
        self._begin(streams, starts, [int(rng.integers(2**40)) for rng in draws])

    def _begin(self, streams: np.ndarray, starts: Sequence[int], noise: Sequence[int] | None = None) -> None:
        """Overwrite the given streams with fresh dreams."""
        clip = self.starts.clip(starts)
        if noise is None:
            noise = [mix_seed(self.seed, self.starts.seeds[start]) for start in starts]
        if self._stream is None:
            self._stream = self.world.stream(clip, seeds=noise)
            self._tasks = [""] * self.num_envs
            space = self._space.spaces
            empty = {name: np.zeros((self.num_envs, *s.shape), s.dtype) for name, s in space.items()}
            self._observations = empty
            self._steps = np.zeros(self.num_envs, np.int64)
            self._terminated = np.zeros(self.num_envs, bool)
            self._truncated = np.zeros(self.num_envs, bool)
        else:
            self._stream.reset(torch.from_numpy(streams), clip, seeds=noise)
        for stream, start in zip(streams, starts, strict=True):
            self._tasks[stream] = self.starts.tasks[start]
        self._steps[streams] = 0
        self._terminated[streams] = self._truncated[streams] = False
        rows = torch.arange(len(streams))
        for name, values in self._columns(clip.frames[:, 0], _first(clip.states)).items():
            self._observations[name][streams] = values[rows]

    def _show(self, streams: np.ndarray, frames: Tensor, states: Tensor | None) -> None:
        """Write dreamed frames and states to the observations of the given streams."""
        for name, values in self._columns(frames, states).items():
            self._observations[name][streams] = values[streams]

    def _columns(self, frames: Tensor, states: Tensor | None) -> Observations:
        pictures = frames.cpu().numpy()
        columns = {IMAGES + view: pictures[:, index] for index, view in enumerate(self.starts.views)}
        if states is not None:
            space = self._space[STATE]
            columns[STATE] = states.cpu().numpy().clip(space.low, space.high)
        return columns

    def _copy(self) -> Observations:
        copies = {name: values.copy() for name, values in self._observations.items()}
        return named(copies, self.starts.views, self.keys)

    def _last(self, finished: Bool[np.ndarray, "n"]) -> dict[int, Observations]:
        """The last observations of the finished streams."""
        found = {}
        for stream in np.flatnonzero(finished):
            last = {name: values[stream].copy() for name, values in self._observations.items()}
            found[int(stream)] = named(last, self.starts.views, self.keys)
        return found


def autoreset_named(mode: AutoresetMode | str) -> AutoresetMode:
    """A mode of Gymnasium, given as the mode itself, by its name (`SAME_STEP`) or by its value (`SameStep`).

    Raises:
        ValueError: There is no such mode.
    """
    known = {each.value: each for each in AutoresetMode} | dict(AutoresetMode.__members__)
    if isinstance(mode, str) and mode not in known:
        raise ValueError(f"autoreset_mode is one of {', '.join(AutoresetMode.__members__)}, got {mode!r}")
    return known[mode] if isinstance(mode, str) else mode


def check_starts(world: World, starts: Starts) -> None:
    """Raise a `ValueError` with both values when dreams cannot begin from `starts`."""
    name = starts.source.name
    if tuple(world.views) != starts.views:
        raise ValueError(f"{name}: views {starts.views}, the world model {tuple(world.views)}")
    if tuple(world.size) != tuple(starts.source.size):
        raise ValueError(f"{name}: frames of {starts.source.size}, the world model {world.size}")
    if world.state_dim != (0 if starts.states is None else starts.states.shape[-1]):
        raise ValueError(
            f"{name}: observation.state has {starts.source.state_dim} dims, the world model's {world.state_dim}"
        )


def _whole(seed: object) -> bool:
    return isinstance(seed, int | np.integer)


def _numbers(values: Tensor) -> Float64[np.ndarray, "n"]:
    return values.detach().cpu().double().numpy()


def _first(states: Tensor | None) -> Tensor | None:
    return None if states is None else states[:, 0]

"""The world model as a Gymnasium environment: many dreams at once, one action in, one frame out."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Float64
from torch import Tensor

from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Judge
from worldmodel.dreams.world import held
from worldmodel.streaming.noise import mix_seed
from worldmodel.world_model import WorldModel

Observations = dict[str, np.ndarray]
Step = tuple[Observations, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


class DreamEnv(VectorEnv):
    """`num_envs` dreams side by side behind the interface of the real environment.

    ```python
    envs = DreamEnv(world, Starts(open_episodes("data/pusht")), judge, num_envs=16, horizon=60)
    observation, info = envs.reset(seed=0)
    observation, reward, terminated, truncated, info = envs.step(envs.action_space.sample())
    ```

    A dream begins from the first real frame of a recorded episode; `judge` looks at every dreamt
    frame and supplies reward and success, and success terminates. The start and the noise of a
    stream are a pure function of its seed: `reset(seed=s)` gives stream `i` the seed `s + i`, as in
    Gymnasium. `reset(options={"starts": indices})` chooses the starts instead, and the noise is
    then a function of `seed` below and of the start's reset seed. `options={"reset_mask": mask}`
    leaves the other streams as they are; `starts` then still has one entry per stream.

    With autoreset `SAME_STEP` (as in DIAMOND and most of RL) a finished stream begins anew at once, and
    the last frame of the old one is in `info["final_obs"]`. With `DISABLED` it stands still, with
    reward 0, until it is reset.

    A world model of stride `s` shows every `s`-th frame of the data: a step takes one action, which is
    held for `s` steps of the data, or with `actions="chunk"` the `s` actions side by side.

    Args:
        world: The world model.
        starts: The real frames that dreams begin from.
        judge: Gives the reward and the success of each dreamt frame.
        num_envs: Streams in a batch.
        horizon: Steps after which an episode is truncated.
        num_steps: Denoising steps per frame.
        seed: Seed of the noise of chosen starts, and of a `reset` without a seed.
        autoreset_mode: `SAME_STEP` or `DISABLED`.
        actions: Whether an action is `held` over the stride of the world model, or a step takes a `chunk`.
        like: The real environment; its spaces are taken over. By default the spaces come from the
            data: actions within their range, states without bounds.

    Raises:
        ValueError: World model, starts and spaces do not fit, or a number is out of range.
    """

    def __init__(
        self,
        world: WorldModel,
        starts: Starts,
        judge: Judge,
        *,
        num_envs: int,
        horizon: int,
        num_steps: int = 2,
        seed: int = 0,
        actions: Literal["held", "chunk"] = "held",
        like: gymnasium.Env | None = None,
        autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
    ):
        super().__init__()
        if num_envs < 1 or horizon < 1:
            raise ValueError(f"num_envs and horizon are at least 1, got {num_envs} and {horizon}")
        if autoreset_mode is AutoresetMode.NEXT_STEP:
            raise ValueError(f"autoreset_mode is SAME_STEP or DISABLED, got {autoreset_mode}")
        _check(world, starts)
        self.world, self.starts, self.judge = world, starts, judge
        self.num_envs, self.horizon, self.num_steps, self.seed = num_envs, horizon, num_steps, seed
        self.metadata = {"autoreset_mode": autoreset_mode, "render_fps": world.fps / world.stride}
        self.single_observation_space, self.single_action_space = (
            starts.spaces() if like is None else (like.observation_space, like.action_space)
        )
        if self.single_action_space.shape != (world.action_dim,):
            raise ValueError(
                f"{starts.source.name}: actions have the shape {self.single_action_space.shape}, "
                f"those of the world model ({world.action_dim},)"
            )
        self.repeats = world.stride if actions == "held" else 1
        if actions == "chunk":
            space = self.single_action_space
            low, high = (np.tile(bound, world.stride) for bound in (space.low, space.high))
            self.single_action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._seeds = np.random.default_rng(seed)
        self._stream = None

    @property
    def autoreset(self) -> bool:
        """Whether finished streams begin anew by themselves."""
        return self.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
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
        if "starts" in options:
            starts = list(options["starts"])
            if len(starts) != self.num_envs:
                raise ValueError(f"got {len(starts)} starts for {self.num_envs} streams")
            self._begin(np.flatnonzero(mask), [starts[i] for i in np.flatnonzero(mask)])
        else:
            if seed is None:
                seeds = self._draw_seeds(self.num_envs)
            else:
                seeds = [seed + i for i in range(self.num_envs)] if _whole(seed) else list(seed)
                self._seeds = np.random.default_rng(seeds)
            if len(seeds) != self.num_envs:
                raise ValueError(f"got {len(seeds)} seeds for {self.num_envs} streams")
            self._begin_at_random(np.flatnonzero(mask), [seeds[i] for i in np.flatnonzero(mask)])
        return self._copy(), {}

    def step(self, actions: np.ndarray) -> Step:
        """Apply one action per stream, clipped to the action space, and dream the next frame.

        Raises:
            ValueError: The actions have another shape than the action space, or are not finite.
        """
        assert self._stream is not None, "reset comes before step"
        actions = np.asarray(actions, np.float32)
        if actions.shape != self.action_space.shape or not np.isfinite(actions).all():
            raise ValueError(
                f"actions are finite numbers of the shape {self.action_space.shape}, got the shape "
                f"{actions.shape}: {actions.tolist()}"
            )
        clipped = torch.from_numpy(actions.clip(self.action_space.low, self.action_space.high))
        dreamt = self._stream.step(held(clipped, self.repeats), num_steps=self.num_steps)
        verdict = self.judge(replace(dreamt, task=tuple(self._tasks)))
        running = ~(self._terminated | self._truncated)
        self._show(np.flatnonzero(running), dreamt.frames, dreamt.states)
        rewards = np.where(running, _numbers(verdict.rewards), 0.0)
        self._steps += running
        self._terminated |= running & verdict.successes.cpu().numpy()
        self._truncated |= running & (self._steps >= self.horizon)
        terminated, truncated = self._terminated.copy(), self._truncated.copy()
        info = {"success": terminated.copy(), "_success": np.ones(self.num_envs, bool)}
        if verdict.unsure is not None:
            info |= {"unsure": running & verdict.unsure.cpu().numpy(), "_unsure": running}
        finished = np.flatnonzero(terminated | truncated)
        if self.autoreset and len(finished):
            info |= self._finals(finished)
            self._begin_at_random(finished, self._draw_seeds(len(finished)))
        return self._copy(), rewards, terminated, truncated, info

    def _draw_seeds(self, number: int) -> list[int]:
        return self._seeds.integers(2**31, size=number).tolist()

    def _begin_at_random(self, streams: np.ndarray, seeds: Sequence[int]) -> None:
        """Begin each stream; its seed determines the start and the noise."""
        draws = [np.random.default_rng(seed) for seed in seeds]
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
            space = self.single_observation_space.spaces
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
        """Write dreamt frames and states to the observations of the given streams."""
        for name, values in self._columns(frames, states).items():
            self._observations[name][streams] = values[streams]

    def _columns(self, frames: Tensor, states: Tensor | None) -> Observations:
        pictures = frames.cpu().numpy()
        columns = {f"observation.images.{view}": pictures[:, index] for index, view in enumerate(self.starts.views)}
        if states is not None:
            space = self.single_observation_space["observation.state"]
            columns["observation.state"] = states.cpu().numpy().clip(space.low, space.high)
        return columns

    def _copy(self) -> Observations:
        return {name: values.copy() for name, values in self._observations.items()}

    def _finals(self, finished: np.ndarray) -> dict[str, Any]:
        """The last observations of the finished streams, in the format of Gymnasium."""
        last = np.full(self.num_envs, None, object)
        success = np.zeros(self.num_envs, bool)
        mask = np.zeros(self.num_envs, bool)
        mask[finished] = True
        for stream in finished:
            last[stream] = {k: values[stream].copy() for k, values in self._observations.items()}
            success[stream] = self._terminated[stream]
        final = {"success": success, "_success": mask.copy()}
        return {"final_obs": last, "_final_obs": mask, "final_info": final, "_final_info": mask}


def _check(world: WorldModel, starts: Starts) -> None:
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

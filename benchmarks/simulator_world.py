"""The simulator in the place of the world model: what imagination could do in a perfect dream.

A diagnosis, not a method: it takes real steps. Where imagination fails in the world model and
succeeds here, the world model is to blame, and not the way of learning.
"""

from collections.abc import Callable, Sequence

import gymnasium
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from worldmodel.data import Clip, EpisodeSource
from worldmodel.dreams.verdict import Judge, Verdict, observed
from worldmodel.envs.protocol import succeeded
from worldmodel.streaming.state import Observation

Seen = dict[str, np.ndarray]


class SimulatorStream:
    """Simulators side by side; a `worldmodel.dreams.world.RunningStream`.

    Args:
        envs: The simulators, one for each stream.
        seen: What each of them shows.
        world: Where the frames are known.
    """

    def __init__(self, envs: Sequence[gymnasium.Env], seen: Sequence[Seen], world: "SimulatorWorld"):
        self.envs, self.seen, self.world = list(envs), list(seen), world

    @property
    def observation(self) -> Observation:
        """What the simulators show."""
        stacked = {name: np.stack([each[name] for each in self.seen]) for name in self.seen[0]}
        return observed(stacked, self.world.views)

    def step(self, actions: Float[Tensor, "b a"], *, num_steps: int) -> Observation:
        """Act for real; a solved simulator goes on."""
        stepped = [env.step(action) for env, action in zip(self.envs, actions.numpy(), strict=True)]
        self.seen = [step[0] for step in stepped]
        self.world.solved = torch.tensor([succeeded(step[2], step[4]) for step in stepped])
        return self.observation

    def reset(self, streams: Sequence[int], context: Clip, *, seeds: Sequence[int]) -> None:
        """Begin the given simulators anew where the last frames of the clips were seen."""
        for stream, frames in zip(streams, context.frames, strict=True):
            self.seen[stream] = self.world.replay(self.envs[stream], frames[-1])


class SimulatorWorld:
    """A `worldmodel.dreams.world.World` that recognises recorded frames and acts on from there.

    The simulator is reset with the seed of the frame's episode and carries out the recorded actions
    up to the frame.

    Args:
        make: Makes one simulator.
        source: Where the frames are from; every one of them is remembered by its bytes.

    Attributes:
        solved: Whether the last step of the latest stream solved the task, one for each simulator.
    """

    def __init__(self, make: Callable[[], gymnasium.Env], source: EpisodeSource):
        self.make, self.source, self.views, self.stride = make, source, tuple(source.views), 1
        self.envs: list[gymnasium.Env] = []
        self.solved = torch.zeros(0, dtype=torch.bool)
        self.places: dict[bytes, tuple[int, int]] = {}
        for episode in range(len(source)):
            clip = source.read(episode, 0, source.lengths[episode])
            for frame, picture in enumerate(clip.frames):
                self.places[picture.numpy().tobytes()] = (episode, frame)

    def stream(self, context: Clip, *, seeds: Sequence[int]) -> SimulatorStream:
        """Begin where the last frames of the clips were seen; there is no noise to seed.

        The simulators are used again by the next call, so one stream runs at a time.
        """
        while len(self.envs) < len(context.frames):
            self.envs.append(self.make())
        envs = self.envs[: len(context.frames)]
        self.solved = torch.zeros(len(envs), dtype=torch.bool)
        seen = [self.replay(env, frames[-1]) for env, frames in zip(envs, context.frames, strict=True)]
        return SimulatorStream(envs, seen, self)

    def replay(self, env: gymnasium.Env, picture: UInt8[Tensor, "v H W 3"]) -> Seen:
        """Bring a simulator to where a recorded picture was seen; returns what it shows."""
        episode, frame = self.places[picture.numpy().tobytes()]
        observation, _ = env.reset(seed=self.source.reset_seed(episode))
        if frame:
            for action in self.source.read(episode, 0, frame + 1).actions:
                observation, *_ = env.step(action.numpy())
        return observation


def true_judge(judge: Judge, world: SimulatorWorld) -> Judge:
    """A judge with the simulator's own successes; the rewards are still those of `judge`."""

    def see(observation: Observation) -> Verdict:
        return Verdict(judge(observation).rewards, world.solved.to(observation.frames.device))

    return see

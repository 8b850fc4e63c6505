"""Signals of how far a dream is to be trusted: one number for each step of a trial, higher where it is less.

`inverse-dynamics` follows SC3-Eval (arXiv 2606.18610): the actions are decoded from the dreamed frames, and compared
with those that were commanded. A dream in which the robot does something else than it was told says little about the
policy. `seeds` dreams the same actions again with noise; where the frames differ, the world model does not know what
happens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from einops import repeat
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from policy_eval.evaluation import Trial
from policy_eval.judge.inverse_dynamics import InverseDynamics
from worldmodel.data import Clip
from worldmodel.dreams.starts import Starts
from worldmodel.fidelity.uncertainty.calibration import disagreement
from worldmodel.model.folder import fingerprint
from worldmodel.streaming.noise import mix_seed
from worldmodel.world_model import WorldModel

WINDOW = 5
"""Steps over which the errors of decoded actions are averaged."""
Trace = Float64[np.ndarray, "m"]
Kind = Literal["none", "inverse-dynamics", "seeds"]


@runtime_checkable
class Signal(Protocol):
    """A number for each action of every trial, in the order of the trials; higher where the dream is less trusted.

    Attributes:
        reads_recordings: Whether it can also be computed of recorded frames, which no world model has dreamed.
    """

    reads_recordings: bool

    def __call__(self, trials: Sequence[Trial]) -> list[Trace]:
        """One array per trial."""
        ...


class DecodedActions:
    """Root mean square of decoded minus commanded actions, over the last steps, in deviations of the commands.

    Dims that not even recorded frames show are left out. Whether a moment is visible is not asked of the dream, since a
    dream that loses the robot is not to be excused.

    Args:
        dynamics: Decodes the actions.
        window: Number of steps, the current one and those before it, whose squared errors are averaged.
    """

    reads_recordings = True

    def __init__(self, dynamics: InverseDynamics, window: int = WINDOW):
        self.dynamics, self.window = dynamics, window

    def __call__(self, trials: Sequence[Trial]) -> list[Trace]:
        """One array per trial."""
        return [self._trace(trial) for trial in trials]

    def _trace(self, trial: Trial) -> Trace:
        actions = wide(trial.actions, self.dynamics.config.action_dim)[None]
        states = None if trial.states is None else torch.from_numpy(trial.states).float()[None]
        clip = Clip(torch.from_numpy(trial.frames)[None], actions, states).to(self.dynamics.mean.device)
        errors = self.dynamics.errors(clip)[0][:, self.dynamics.limit > 0]
        return np.sqrt(running_mean(errors.square().mean(1).double().cpu().numpy(), self.window))


class SeedDisagreement:
    """Deviation between the dream and another one of the same actions, root mean square over pixels, 0 to 1.

    The other dream has noise at full scale, also where the world model dreams without any.

    Args:
        world: Dreams.
        starts: Where the trials began; found by their seeds.
        num_steps: Denoising steps per frame.
        seed: Seed of the noise.
    """

    reads_recordings = False

    def __init__(self, world: WorldModel, starts: Starts, *, num_steps: int, seed: int = 0):
        self.world, self.starts, self.num_steps, self.seed = world, starts, num_steps, seed

    def __call__(self, trials: Sequence[Trial]) -> list[Trace]:
        """One array per trial."""
        context = self.starts.clip([self.starts.seeds.index(trial.seed) for trial in trials])
        stream = self.world.stream(context, seeds=[mix_seed(self.seed, trial.seed, 1) for trial in trials])
        width = self.world.action_dim * self.world.stride
        actions = pad_sequence([wide(trial.actions, width) for trial in trials], batch_first=True)
        seen = []
        for action in actions.unbind(1):
            seen.append(stream.step(action, num_steps=self.num_steps, temperature=1.0).frames.cpu())
        traces = []
        for row, trial in enumerate(trials):
            again = torch.stack([frames[row] for frames in seen[: len(trial.actions)]])
            both = torch.stack([torch.from_numpy(trial.frames[1:]), again])
            traces.append(disagreement(both, 2)[0].double().numpy())
        return traces


@dataclass(frozen=True)
class SignalSetup:
    """Which signal.

    Attributes:
        kind: Its name.
        inverse_dynamics: Folder of inverse dynamics, or `hf://USER/NAME@REV`; for `inverse-dynamics`.
    """

    kind: Kind = "none"
    inverse_dynamics: str | Path | None = None

    def load(self, world: WorldModel, starts: Starts, *, num_steps: int, seed: int) -> Signal | None:
        """The signal; `None` where none is asked for.

        Raises:
            ValueError: The inverse dynamics are missing, made for other frames or actions than those of the dreams, or
                show no action even on recorded frames.
        """
        if self.kind == "none":
            return None
        if self.kind == "seeds":
            return SeedDisagreement(world, starts, num_steps=num_steps, seed=seed)
        dynamics = InverseDynamics.load(self.inverse_dynamics, world.device)
        theirs = (tuple(dynamics.config.views), tuple(dynamics.config.size), dynamics.config.action_dim)
        mine = (tuple(world.views), tuple(world.size), world.action_dim * world.stride)
        if theirs != mine:
            raise ValueError(
                f"--inverse-dynamics {self.inverse_dynamics}: made for cameras {theirs[0]}, frames of {theirs[1]} and "
                f"actions of {theirs[2]} numbers, the world model has {mine[0]}, {mine[1]} and {mine[2]}"
            )
        if not (dynamics.limit > 0).any():
            raise ValueError(
                f"--inverse-dynamics {self.inverse_dynamics}: no action is visible even in recorded frames, see its "
                "report.html; train it for longer or on more data"
            )
        return DecodedActions(dynamics)

    @property
    def made_with(self) -> dict[str, object]:
        """What the signal depends on; empty without one."""
        if self.kind == "none":
            return {}
        folder = self.inverse_dynamics
        return {"signal": [self.kind, None if self.kind == "seeds" else fingerprint(folder)]}


def running_mean(values: Trace, window: int) -> Trace:
    """Mean of each value and the `window - 1` before it, or of as many as there are."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    begins = (ends - window).clip(0)
    return (sums[ends] - sums[begins]) / (ends - begins)


def wide(actions: Float64[np.ndarray, "m a"], width: int) -> Float[Tensor, "m w"]:
    """Actions as a world model with a stride takes them: each is held for so many steps that it is `width` wide."""
    return repeat(torch.from_numpy(actions).float(), "m a -> m (k a)", k=width // actions.shape[1])

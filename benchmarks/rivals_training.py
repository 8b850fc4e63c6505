"""Train somebody else's world model for a number of CPU minutes. A killed training continues where it was saved."""

import importlib
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from leaderboard_worlds import Entrant
from torch import Tensor

from worldmodel.data import EpisodeSource
from worldmodel.display.progress import ProgressLine
from worldmodel.files import write_atomically
from worldmodel.processes import single_thread
from worldmodel.streaming.noise import mix_seed
from worldmodel.training.log import CLOCKS, RunClock

STATE = "state.pt"
SAVE_SECONDS = 30.0
"""CPU seconds between two states on the disk."""


@dataclass(frozen=True)
class Lesson:
    """What a rival is given to learn from.

    Attributes:
        source: Recorded episodes of one or more cameras.
        episodes: Those to train on.
        code: Folders of the code of other projects, by name.
    """

    source: EpisodeSource
    episodes: Sequence[int]
    code: dict[str, Path]

    def folder(self, project: str, address: str) -> Path:
        """The folder of a project's code.

        Args:
            project: Its name in `--code`.
            address: Where a user gets it, for the message.

        Raises:
            ValueError: It is not named, or there is no such folder.
        """
        if project not in self.code:
            raise ValueError(f"--code has no {project}: git clone {address}, then pass --code {project} FOLDER")
        if not self.code[project].is_dir():
            raise ValueError(f"--code {project} {self.code[project]}: there is no such folder; git clone {address}")
        return self.code[project].resolve()


class Rival(Entrant, Protocol):
    """A world model that trains with its own code. `learn` is one step of its optimiser on a batch of its own choice.

    Everything random in it comes from the global generators of PyTorch and NumPy, which are seeded before each step.

    Attributes:
        num_steps: Denoising steps with which it is measured.
    """

    num_steps: int

    def parameters(self) -> Iterable[Tensor]:
        """The weights, which are counted."""
        ...

    def learn(self) -> float:
        """Take a step; returns the loss."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimiser and schedule: all that a training needs to continue."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        ...


def seed_all(*parts: int) -> None:
    """Seed the global generators of PyTorch and NumPy."""
    seed = mix_seed(*parts)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (the generator that other projects use)


def trained(
    make: Callable[[Lesson], Rival], lesson: Lesson, out: Path, *, minutes: float, seed: int
) -> tuple[Rival, int]:
    """Make a rival, and train it in one thread until its CPU minutes are over.

    The batch of a step and its noise depend on the seed and the number of the step only, so a resumed training
    repeats an uninterrupted one.

    Args:
        make: Makes the rival with fresh weights.
        lesson: What it learns from.
        out: Folder of the state.
        minutes: CPU time of this process that the training takes, saving included.
        seed: Seed of weights, batches and noise.

    Returns:
        The rival and the number of its steps.

    Raises:
        ValueError: The loss is not finite.
    """
    seed_all(seed)
    rival = make(lesson)
    file, clock = out / STATE, RunClock(10**9, minutes, CLOCKS["cpu"])
    if file.exists():
        saved = torch.load(file)
        rival.load_state_dict(saved["rival"])
        clock.resume(saved)
    clock.start()
    last_saved = clock.seconds
    out.mkdir(parents=True, exist_ok=True)
    with single_thread(), ProgressLine(f"training {out.name}", 1.0, completed=min(clock.done, 1.0)) as line:
        while clock.done < 1:
            seed_all(seed, clock.step)
            loss = rival.learn()
            if not np.isfinite(loss):
                raise ValueError(f"{out}: the loss is {loss} at step {clock.step}")
            clock.count()
            line.update(min(clock.done, 1.0), f"step {clock.step}, loss {loss:.3f}")
            if clock.done >= 1 or clock.seconds - last_saved > SAVE_SECONDS:
                save(file, rival, clock)
                last_saved = clock.seconds
    return rival, clock.step


def save(file: Path, rival: Rival, clock: RunClock) -> None:
    """Write the state of a training."""
    state = {"rival": rival.state_dict(), "step": clock.step, "seconds": clock.seconds}
    write_atomically(file, lambda path: torch.save(state, path))


def modules_of(folder: Path, *names: str) -> list[ModuleType]:
    """Import modules of another project from its folder, so that two projects may both have a module `utils`.

    They are left out of `sys.modules` afterwards.
    """
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).is_relative_to(folder):
                del sys.modules[name]

"""What every training run needs: optimisers, learning rate, moving average, exact resume."""

import json
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

from worldmodel.data.clip import EpisodeSource
from worldmodel.files import write_json, write_weights
from worldmodel.muon import Muon

T = TypeVar("T")


class Ahead(Generic[T]):
    """Makes the batch of a step while the step before it is computed, in a thread.

    Args:
        make: From the number of a step to its batch; must depend on nothing else.
        enabled: Otherwise a batch is made when it is asked for, as on a CPU, where reading and
            computing would share the cores.
    """

    def __init__(self, make: Callable[[int], T], *, enabled: bool):
        self.make, self.enabled = make, enabled
        self.pool = ThreadPoolExecutor(1)
        self.coming: dict[int, Future[T]] = {}

    def __enter__(self) -> "Ahead[T]":
        """Nothing is made before the first call."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Forget what nobody asked for."""
        self.pool.shutdown(cancel_futures=True)

    def __call__(self, step: int) -> T:
        """The batch of `step`; begins that of the next one. Raises what `make` raises."""
        if not self.enabled:
            return self.make(step)
        now = self.coming.pop(step, None) or self.pool.submit(self.make, step)
        self.coming = {step + 1: self.pool.submit(self.make, step + 1)}
        return now.result()


def default_device() -> torch.device:
    """CUDA when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def split_episodes(source: EpisodeSource, num_held_out: int) -> tuple[range, range]:
    """Episodes to train on, and the last ones, held out for validation.

    Raises:
        ValueError: If nothing is left to train on.
    """
    num_train = len(source) - num_held_out
    if num_train < 1:
        raise ValueError(
            f"{source.name}: {len(source)} episodes, of which --validation-episodes "
            f"{num_held_out} are held out: none left to train on"
        )
    return range(num_train), range(num_train, len(source))


def process_rows(batch: int, accelerator: Accelerator) -> slice:
    """The rows of the global batch that this process computes.

    Raises:
        ValueError: If the batch does not divide by the number of processes.
    """
    share, rest = divmod(batch, accelerator.num_processes)
    if rest:
        raise ValueError(f"batch {batch} does not divide by {accelerator.num_processes} processes")
    return slice(accelerator.process_index * share, (accelerator.process_index + 1) * share)


def build_optimizers(model: nn.Module, learning_rate: float, *, muon: bool) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices of the transformer blocks, AdamW for the rest.

    Muon's update is scaled to AdamW's root mean square, so one learning rate serves both
    (Moonlight, 2502.16982).
    """
    hidden, rest = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        in_block = ".encoder." in f".{name}" or ".decoder." in f".{name}"
        is_matrix = parameter.ndim == 2 and name.endswith("weight")
        (hidden if muon and in_block and is_matrix else rest).append(parameter)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    ]
    if hidden:
        optimizers.append(Muon(hidden, learning_rate, weight_decay=0.01))
    return optimizers


def learning_rate_factor(step: int, progress: float, *, warmup: int, decay: float = 0.5) -> float:
    """Linear warm-up over `warmup` steps, constant, linear to zero over the last `decay` of a run.

    `progress` in [0, 1] is how much of the run is over.
    """
    return min((step + 1) / max(warmup, 1), 1.0) * min((1.0 - progress) / decay, 1.0)


class MovingAverage:
    """Exponential moving average of the trainable weights, with a warm-up of the decay."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.names = [name for name, p in model.named_parameters() if p.requires_grad]
        self.shadow = [p.detach().clone() for p in self._weights(model)]

    def _weights(self, model: nn.Module) -> list[Tensor]:
        parameters = dict(model.named_parameters())
        return [parameters[name].detach() for name in self.names]

    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the weights by `1 - min(decay, (1 + step) / (10 + step))`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.shadow, self._weights(model), 1 - decay)

    def swap(self, model: nn.Module) -> None:
        """Exchange the average and the weights; call twice to restore."""
        for shadow, weight in zip(self.shadow, self._weights(model), strict=True):
            kept = weight.clone()
            weight.copy_(shadow)
            shadow.copy_(kept)


def save_state(
    folder: Path, model: nn.Module, average: MovingAverage, optimizers: Iterable[torch.optim.Optimizer], progress: dict
) -> None:
    """Write everything an exact resume needs into one file, atomically."""
    tensors = {f"model.{name}": p for name, p in model.named_parameters() if p.requires_grad}
    tensors |= {f"average.{n}": t for n, t in zip(average.names, average.shadow, strict=True)}
    for index, optimizer in enumerate(optimizers):
        for key, entries in optimizer.state_dict()["state"].items():
            for name, value in entries.items():
                tensors[f"optimizer.{index}.{key}.{name}"] = torch.as_tensor(value)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"state-{progress['step']:08d}.safetensors"
    write_weights(folder / name, tensors)
    write_json(folder / "state.json", {**progress, "file": name})
    for old in folder.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink()


def load_state(
    folder: Path, model: nn.Module, average: MovingAverage, optimizers: Iterable[torch.optim.Optimizer]
) -> dict:
    """Restore what `save_state` wrote; returns its progress.

    Raises:
        ValueError: If the folder holds no state, or one of another model.
    """
    if not (folder / "state.json").is_file():
        raise ValueError(f"{folder}: nothing to resume, state.json is missing")
    progress = json.loads((folder / "state.json").read_text())
    tensors = load_file(folder / progress["file"])
    parameters = dict(model.named_parameters())
    expected = {f"model.{name}" for name in average.names}
    found = {name for name in tensors if name.startswith("model.")}
    if expected != found:
        raise ValueError(f"{folder}: state of another model, differs in {expected ^ found}")
    for name in average.names:
        mine, theirs = tuple(parameters[name].shape), tuple(tensors[f"model.{name}"].shape)
        if mine != theirs:
            raise ValueError(f"{folder}: state of another model, {name} is {theirs}, not {mine}")
    for index, name in enumerate(average.names):
        parameters[name].detach().copy_(tensors[f"model.{name}"])
        average.shadow[index].copy_(tensors[f"average.{name}"])
    for index, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith(f"optimizer.{index}."):
                _, _, key, entry = name.split(".")
                state.setdefault(int(key), {})[entry] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return progress

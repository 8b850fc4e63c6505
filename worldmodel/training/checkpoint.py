"""Exact resume: weights, their moving average and optimiser states in one file, written atomically."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from worldmodel.files import write_json, write_weights


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

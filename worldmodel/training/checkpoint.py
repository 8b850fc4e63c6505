"""Exact resume: weights, their moving average and optimiser states in one file, and the settings of the run."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.files import read_object, read_weights, remove_unfinished, write_json, write_weights
from worldmodel.model.folder import first_file
from worldmodel.training.share import divided_as, fill, share, whole

STATE = "state/state.json"
SETTINGS = "state/settings.json"
UNNOTED = ("out", "resume", "overwrite")
"""Settings that say where and how a run is started, and are not kept."""
FREE = ("device", "save_interval", "log", "accumulate", "reading.cache_gb")
"""Settings in which a resumed run may differ, because they do not change what it computes."""
ENDS = ("steps", "updates", "minutes", "clock", "patience")
"""Settings of when a run ends, in which a resumed run may differ; it prints a line about it."""
LEFT = (
    "state/*.json",
    "state/*.safetensors",
    "losses.csv",
    "updates.jsonl",
    "evaluations.jsonl",
    "validation.jsonl",
    "discriminator.jsonl",
    "calibration.json",
    "train.log",
)
"""Files of a run that a new run in the same folder must not read. The finished model stays until the new one replaces
it."""


class RunSettings:
    """The settings of a run that can be resumed, kept beside its state and compared when it is resumed.

    Args:
        config: The configuration, a dataclass with `out`, `resume` and `overwrite`.
        made_from: Fingerprints of the data and of the models that the run reads, by the name of the
            setting; they are compared in place of the paths.
        free: More settings in which a resumed run may differ.
    """

    def __init__(self, config: Any, made_from: Mapping[str, str], *, free: Sequence[str] = ()):
        self.config, self.free = config, (*FREE, *free)
        self.file = config.out / SETTINGS
        self.values = settings_of(config, made_from)

    def check(self) -> None:
        """Compare the settings with those of the stopped run, if this run resumes one.

        Prints a line if the end of the run has moved.

        Raises:
            ValueError: There is no stopped run in the folder, or it had other settings; the message
                names each with both values.
        """
        if not self.config.resume:
            return
        if not self.file.is_file():
            raise ValueError(f"{self.config.out}: nothing to resume, {SETTINGS} is missing")
        said = differences(read_object(self.file), self.values)
        other = [words for name, words in said.items() if name not in (*self.free, *ENDS)]
        if other:
            raise ValueError(
                f"{self.config.out}: --resume goes on with the settings of the stopped run; {'; '.join(other)}"
            )
        for name in ENDS:
            if name in said:
                print(f"{self.config.out}: {said[name]}: the run ends at another point")

    def write(self) -> None:
        """Write down the settings, before anything else is written; a new run removes what an earlier one left."""
        if not self.config.resume:
            for pattern in LEFT:
                for file in self.config.out.glob(pattern):
                    file.unlink()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.file, self.values)


def claim_folder(out: Path, values: Mapping[str, Any], what: str, *, free: Sequence[str]) -> None:
    """Note settings in `out`, or compare them with those that are noted there.

    For commands that keep their finished parts, and go on without `--resume`.

    Args:
        out: The folder.
        values: The settings, as `settings_of` returns them.
        what: What the folder holds, such as `an alignment`.
        free: Settings in which a command that goes on may differ.

    Raises:
        ValueError: The folder holds something else, or was begun with other settings; the message names each with
            both values.
    """
    file = out / "settings.json"
    if file.is_file():
        other = [words for name, words in differences(read_object(file), values).items() if name not in free]
        if other:
            raise ValueError(f"{out} holds {what} with other settings: {'; '.join(other)}")
        remove_unfinished(out)
        return
    found = first_file(out)
    if found is not None:
        raise ValueError(f"{out} holds {found.relative_to(out)} and is not {what}; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json(file, values)


def has_state(out: Path) -> bool:
    """Whether a run in this folder has saved its state."""
    return (out / STATE).is_file()


def settings_of(config: Any, made_from: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a configuration; those in `made_from` are fingerprints."""
    values = {name: value for name, value in flat(config).items() if name not in (*UNNOTED, *made_from)}
    return values | {f"{name} (fingerprint)": value for name, value in made_from.items()}


def differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, str]:
    """The settings that differ, each with both values in words."""
    names = [name for name in {**there, **wanted} if there.get(name) != wanted.get(name)]
    return {name: f"{name} was {_shown(there, name)}, now {_shown(wanted, name)}" for name in names}


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """The fields of nested dataclasses as JSON holds them, with names such as `dit.width`."""
    values: dict[str, Any] = {}
    for field in fields(config):
        value, name = getattr(config, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            values |= flat(value, f"{name}.")
        else:
            values[name] = json.loads(json.dumps(value, default=str))
    return values


def _shown(values: Mapping[str, Any], name: str) -> str:
    return json.dumps(values[name]) if name in values else "not known"


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

    @contextmanager
    def shown(self, model: nn.Module) -> Iterator[None]:
        """Give the model the average of its weights within a `with` block; meanwhile `shadow` has its own."""
        self._exchange(model)
        try:
            yield
        finally:
            self._exchange(model)

    def _exchange(self, model: nn.Module) -> None:
        for shadow, weight in zip(self.shadow, self._weights(model), strict=True):
            kept = weight.clone()
            weight.copy_(shadow)
            shadow.copy_(kept)


def save_state(
    folder: Path, model: nn.Module, average: MovingAverage, optimizers: Iterable[torch.optim.Optimizer], progress: dict
) -> None:
    """Write everything an exact resume needs into one file, atomically.

    All processes call it, since with FSDP each has a part of the tensors; the first one writes.
    """
    tensors = {f"model.{name}": whole(p) for name, p in model.named_parameters() if p.requires_grad}
    tensors |= {f"average.{n}": whole(t) for n, t in zip(average.names, average.shadow, strict=True)}
    for index, optimizer in enumerate(optimizers):
        for key, entries in optimizer.state_dict()["state"].items():
            for name, value in entries.items():
                tensors[f"optimizer.{index}.{key}.{name}"] = whole(torch.as_tensor(value))
    if not share().first:
        return
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
    progress = read_object(folder / "state.json")
    missing = [name for name in ("step", "seconds", "file") if name not in progress]
    if missing:
        raise ValueError(f"{folder / 'state.json'}: the field {missing[0]!r} is missing; it is not the state of a run")
    tensors = read_weights(folder / progress["file"])
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
        fill(parameters[name].detach(), tensors[f"model.{name}"])
        fill(average.shadow[index], tensors[f"average.{name}"])
    for index, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for name, value in tensors.items():
            if name.startswith(f"optimizer.{index}."):
                _, _, key, entry = name.split(".")
                state.setdefault(int(key), {})[entry] = divided_as(trained[int(key)], value)
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return progress

"""Run a command in fp32, and record its first gradients and what it sampled. For comparing numbers of processes.

python benchmarks/recorded_run.py FOLDER COMMAND ...
accelerate launch --multi_gpu --num_processes 2 --num_machines 1 benchmarks/recorded_run.py FOLDER COMMAND ...

FOLDER gets `gradients.safetensors`, the gradients of each optimiser at its first step, and of every process
`samples-INDEX.json`: of each batch its number and a hash of each clip, in their order.
"""

import json
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import save_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

import rl_posttrain.posttraining.pathwise.rollout as pathwise
import rl_posttrain.posttraining.train as posttraining
import worldmodel.training.pretrain as pretraining
from worldmodel.cli import main
from worldmodel.data import Clip
from worldmodel.model.precision import full_precision
from worldmodel.training.share import share, whole

SAMPLERS = (pretraining, posttraining, pathwise)
"""Modules that call `sample_clips`."""


def note_gradients(found: dict[str, torch.Tensor]) -> Callable[..., None]:
    """A hook that notes the gradients of each optimiser before its first step, as `NUMBER.PARAMETER`."""
    seen: list[torch.optim.Optimizer] = []

    def note(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if optimizer in seen:
            return
        seen.append(optimizer)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for number, parameter in enumerate(parameters):
            if parameter.grad is not None:
                gradient = whole(parameter.grad.detach()).float().cpu()
                found[f"{len(seen)}.{number}"] = gradient.clone(memory_format=torch.contiguous_format)

    return note


def note_samples(module: ModuleType, found: list[tuple[int, list[str]]]) -> None:
    """Let a module note what it samples."""
    sample = module.sample_clips

    def noted(*arguments: Any, **settings: Any) -> Clip:
        clip = sample(*arguments, **settings)
        found.append((settings["index"], [sha256(each.numpy().tobytes()).hexdigest()[:12] for each in clip.frames]))
        return clip

    module.sample_clips = noted


def record(folder: Path, command: list[str]) -> int:
    """Run the command; returns its exit status."""
    gradients: dict[str, torch.Tensor] = {}
    samples: list[tuple[int, list[str]]] = []
    register_optimizer_step_pre_hook(note_gradients(gradients))
    for module in SAMPLERS:
        note_samples(module, samples)
    with full_precision():
        status = main(command)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"samples-{share().index}.json").write_text(json.dumps(samples))
    if share().first:
        save_file(gradients, folder / "gradients.safetensors")
    return status


if __name__ == "__main__":
    sys.exit(record(Path(sys.argv[1]), sys.argv[2:]))

"""The accelerator of a training run: its device, its number format and its tracker."""

import os
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import LoggerType, get_available_trackers
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    FullyShardedDataParallelPlugin,
    InitProcessGroupKwargs,
)
from torch import nn

from worldmodel.model.precision import choose_device, command_device, compute_dtype, say_device
from worldmodel.training.optimizers import Muon

Tracker = Literal["tensorboard", "wandb", "trackio", "none"]
PROJECT = "worldmodel"
"""The project of the runs of a tracker that has projects."""
PATIENCE = timedelta(hours=6)
"""How long a process waits for the others, while the first one measures and writes."""


def start_accelerator(device: str, out: Path, log: Tracker = "tensorboard") -> Accelerator:
    """Start `accelerate`, which chooses the device when several processes train and joins them.

    Every stage of a command that trains in several processes calls it once, before it reads the share of the process.

    Args:
        device: `auto`, or a device by name; see `choose_device`.
        out: Folder of the run.
        log: The tracker, which `start_trackers` opens.

    Raises:
        ValueError: There is no such device, `accelerate` was launched for another kind, or the
            package of the tracker is not installed.
    """
    check_tracker(log)
    chosen = choose_device(device)
    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)
    if os.environ.get("WORLD_SIZE", "1") == "1":  # an earlier run of this process may have had another number format
        AcceleratorState._reset_state()
    accelerator = Accelerator(
        cpu=chosen.type == "cpu",
        mixed_precision="bf16" if compute_dtype(chosen) == torch.bfloat16 else "no",
        log_with=None if log == "none" else log,
        project_dir=out,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    _shard(accelerator)
    if device != "auto" and accelerator.device.type != chosen.type:
        raise ValueError(f"device {device!r}: accelerate was launched for {accelerator.device}")
    if accelerator.is_main_process:
        say_device(accelerator.device)
    return accelerator


def training_device(name: str) -> torch.device:
    """The device of a command that trains small networks; it joins the processes where several were launched.

    Raises:
        ValueError: As `start_accelerator` does.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return command_device(name)
    return start_accelerator(name, Path(), "none").device


def _shard(accelerator: Accelerator) -> None:
    """Set up FSDP2, which gives every process a part of the weights, where it was launched.

    `accelerate` shards on GPUs only, although FSDP2 also does it on CPUs. Weights keep their number formats, and
    autocast computes in bf16, as without it: its own policy would also round noise levels and states.

    Raises:
        ValueError: It was launched with FSDP1.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false") != "true" or accelerator.num_processes == 1:
        return
    state, plugin = accelerator.state, FullyShardedDataParallelPlugin()
    if plugin.fsdp_version != 2:
        raise ValueError(f"--fsdp_version {plugin.fsdp_version}: launch with --fsdp_version 2")
    plugin.cpu_ram_efficient_loading, plugin.mixed_precision_policy = False, None
    state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, plugin


def joined(
    accelerator: Accelerator,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    *,
    blocks: Sequence[nn.Module] = (),
    unused: bool = False,
) -> tuple[nn.Module, list[torch.optim.Optimizer]]:
    """The module and its optimisers as they train in all processes of the accelerator; gradients are averaged.

    Args:
        accelerator: As `start_accelerator` made it.
        model: Its `forward` gives the loss.
        optimizers: Those of its weights.
        blocks: Parts of it that are called as modules, of one class: with FSDP the weights of one are there at a time.
        unused: Whether some batches leave some weights without a gradient; finding them takes a moment in every step.

    Raises:
        ValueError: FSDP was launched for Muon, which needs whole matrices.
    """
    if accelerator.is_fsdp2:
        if any(isinstance(each, Muon) for each in optimizers):
            raise ValueError(
                "Muon needs whole matrices, which FSDP does not keep; pass --no-muon, or launch without it"
            )
        from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy  # half a second, for FSDP alone

        plugin = accelerator.state.fsdp_plugin
        plugin.auto_wrap_policy = transformer_auto_wrap_policy if blocks else None
        plugin.transformer_cls_names_to_wrap = sorted({type(block).__name__ for block in blocks})
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")  # keys, never overwritten
        model, *sharded = accelerator.prepare(model, *optimizers)
        return model, sharded
    accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=unused)
    warnings.filterwarnings("ignore", message="(?s).*Grad strides do not match bucket view strides")  # of 1x1 kernels
    return accelerator.prepare(model), optimizers


def check_tracker(log: Tracker) -> None:
    """Raise a `ValueError` that says what to install, where the package of a tracker is missing."""
    if log != "none" and LoggerType(log) not in get_available_trackers():
        raise ValueError(
            f"--log {log}: the package {log} is not installed; install it with `pip install {log}`, "
            "or pass --log none, which keeps the tables in the folder of the run"
        )


def start_trackers(accelerator: Accelerator, out: Path, step: int) -> None:
    """Open the accelerator's tracker for a run; one that is open already stays as it is.

    TensorBoard writes to `log` in the folder of the run. A tracker with projects gets a run with the name of
    that folder in the project `worldmodel`.

    Args:
        accelerator: As `start_accelerator` made it.
        out: Folder of the run, which exists.
        step: The step at which the run goes on; TensorBoard drops what an earlier session wrote from there on.
    """
    if accelerator.trackers:
        return
    project = "log" if LoggerType.TENSORBOARD in accelerator.log_with else PROJECT
    settings = {
        "tensorboard": {"purge_step": step or None},
        "wandb": {"name": out.name, "dir": str(out)},
        "trackio": {"name": out.name},
    }
    accelerator.init_trackers(project, init_kwargs=settings)


def end_trackers(accelerator: Accelerator) -> None:
    """Close the trackers of a run; `accelerate` goes on.

    `Accelerator.end_training` would part the processes, and the same script could not go on with another stage.
    """
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.trackers.clear()

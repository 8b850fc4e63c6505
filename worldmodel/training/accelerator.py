"""The accelerator of a training run: its device, its number format and its TensorBoard."""

from pathlib import Path

import torch
from accelerate import Accelerator

from worldmodel.model.precision import choose_device, compute_dtype, say_device


def start_accelerator(device: str, out: Path) -> Accelerator:
    """Start `accelerate`, which chooses the device when several processes train.

    Args:
        device: `auto`, or a device by name; see `choose_device`.
        out: Folder of the run; TensorBoard writes to `log` in it, once a `RunLog` is open.

    Raises:
        ValueError: There is no such device, or `accelerate` was launched for another kind.
    """
    chosen = choose_device(device)
    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)
    mixed = "bf16" if compute_dtype(chosen) == torch.bfloat16 else "no"
    accelerator = Accelerator(cpu=chosen.type == "cpu", mixed_precision=mixed, log_with="tensorboard", project_dir=out)
    if device != "auto" and accelerator.device.type != chosen.type:
        raise ValueError(f"device {device!r}: accelerate was launched for {accelerator.device}")
    if accelerator.is_main_process:
        say_device(accelerator.device)
    return accelerator

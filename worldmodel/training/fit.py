"""Train a small module on minibatches: AdamW, a schedule, a progress line."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from worldmodel.display.progress import ProgressLine
from worldmodel.training.share import average_gradients, over_processes, share


def fit(
    module: nn.Module,
    loss_of: Callable[[int], Float[Tensor, ""]],
    *,
    steps: int,
    learning_rate: float,
    name: str,
    decay: Literal["cosine", "linear"] = "cosine",
    log: Path | None = None,
) -> float:
    """Train `module` in place by AdamW; leaves it in evaluation mode.

    Of several processes that `accelerate` has joined each computes the loss of its share of the minibatch, and their
    gradients are averaged; only the first one shows the progress.

    Args:
        module: The module to train; it begins with the same weights in all processes.
        loss_of: The loss of the minibatch of a step, 0 to `steps - 1`. It draws the minibatch
            itself, from a seeded generator or as a function of the step. In several processes it draws the whole
            minibatch in each, and returns the mean over the rows of `share().rows`, times `share().weight` where the
            shares are not equal.
        steps: Optimiser steps, at least 1.
        learning_rate: At the first step; it falls to 0 at the end.
        name: Stands before the progress line and in errors.
        decay: How the learning rate falls.
        log: File to append the progress to; its folder is made if it is missing. A new log of a training that does not
            end is removed, so that the same command can be called again.

    Returns:
        The mean loss of the last tenth of the steps.

    Raises:
        ValueError: If a loss is not finite.
    """
    log = log if share().first else None
    optimizer = torch.optim.AdamW(module.parameters(), lr=learning_rate, fused=True)
    if decay == "cosine":
        schedule = CosineAnnealingLR(optimizer, steps)
    else:
        schedule = LambdaLR(optimizer, lambda step: 1 - step / steps)
    losses = []
    module.train()
    line = ProgressLine(name, steps, unit="steps", log=log, disable=not share().first)
    with _kept_if_finished(log), line as progress:
        for step in range(steps):
            loss = loss_of(step)
            value = over_processes(loss.detach()).item()
            if not isfinite(value):
                raise ValueError(f"{name}, step {step}: loss is {value}; lower the learning rate, {learning_rate}")
            optimizer.zero_grad()
            loss.backward()
            average_gradients(module.parameters())
            optimizer.step()
            schedule.step()
            losses.append(value)
            progress.advance(note=f"loss {losses[-1]:.4f}")
    module.eval()
    last = losses[-max(steps // 10, 1) :]
    return sum(last) / len(last)


@contextmanager
def _kept_if_finished(log: Path | None) -> Iterator[None]:
    if log is None:
        yield
        return
    fresh = not log.exists()
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if fresh:
            log.unlink(missing_ok=True)
            with suppress(OSError):  # the folder holds something else
                log.parent.rmdir()
        raise

"""The share of one process in a training that `accelerate launch` started in several.

Everything random is drawn for the whole batch, as one process alone would draw it, and each process then takes its
rows. So the number of processes changes neither the data nor the noise of a step, and a run can go on with another
number.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, gather, reduce
from einops import rearrange
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_gather

Value = TypeVar("Value")


@dataclass(frozen=True)
class Share:
    """One process of several.

    Attributes:
        index: Its number, from 0 on; process 0 prints and writes files.
        number: How many there are.
    """

    index: int = 0
    number: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes files."""
        return self.index == 0

    def rows(self, total: int) -> slice:
        """The rows of this process, of `total` ones: consecutive, and as many as of the others or one more or less.

        Raises:
            ValueError: There are fewer rows than processes.
        """
        if total < self.number:
            raise ValueError(f"a batch of {total} cannot be divided among {self.number} processes")
        return slice(self.index * total // self.number, (self.index + 1) * total // self.number)

    def equal_rows(self, total: int, name: str) -> slice:
        """The rows of this process where every process must have as many.

        Raises:
            ValueError: The number, which is that of the option `name`, does not divide by that of the processes.
        """
        if total % self.number:
            raise ValueError(f"{name} {total} does not divide by {self.number} processes")
        return self.rows(total)

    def padded_rows(self, total: int) -> list[int]:
        """As many rows for every process, for `collected`: the last row is repeated where they do not suffice."""
        each = -(-total // self.number)
        return [min(self.index * each + i, total - 1) for i in range(each)]

    def weight(self, mine: int, total: int) -> float:
        """What to multiply the mean over `mine` of `total` rows with, so that the mean over processes is that over all.

        With equal shares it is 1.
        """
        return self.number * mine / total


def share() -> Share:
    """The share of this process; all of it, unless `accelerate` has joined several."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return Share()
    return Share(distributed.get_rank(), distributed.get_world_size())


def backward_in_parts(
    accelerator: Accelerator, model: nn.Module, batches: Sequence[tuple[Any, ...]]
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Add up the gradients of equal parts of a batch, computed one after another; processes are averaged once.

    Args:
        accelerator: It prepared the model.
        model: Called with each part, returns the mean loss of its rows and figures to show.
        batches: What the model is called with, for every part.

    Returns:
        Loss and figures, both the mean over the parts, without gradient.
    """
    number = len(batches)
    losses, shown = [], []
    for index, batch in enumerate(batches):
        with nullcontext() if index == number - 1 else accelerator.no_sync(model):
            with accelerator.autocast():
                loss, parts = model(*batch)
            accelerator.backward(loss / number)
        losses.append(loss.detach())
        shown.append(parts)
    return torch.stack(losses).mean(), {k: torch.stack([each[k] for each in shown]).mean() for k in shown[0]}


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace the gradients by their mean over the processes, as `DistributedDataParallel` does for wrapped modules.

    For small modules whose loss is no `forward`. A gradient that is missing in one process has to be missing in all.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if share().number == 1 or not gradients:
        return
    means = reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
    for gradient, mean in zip(gradients, means.split([each.numel() for each in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def over_processes(value: Shaped[Tensor, "*n"], how: str = "mean") -> Shaped[Tensor, "*n"]:
    """Mean or sum (`how`) of a tensor over the processes, without gradient."""
    return value if share().number == 1 else reduce(value.detach().clone(), how)


def figures_over_processes(figures: Mapping[str, float | int]) -> dict[str, float | int]:
    """The mean of every figure over the processes."""
    if share().number == 1:
        return dict(figures)
    values = torch.tensor(list(figures.values()), dtype=torch.float32, device=PartialState().device)
    return dict(zip(figures, over_processes(values).tolist(), strict=True))


def mean_over_all(values: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
    """A number whose mean over the processes is the mean of all their values, with gradient.

    They may have different numbers of values, or none.
    """
    number = share().number
    if number == 1:
        return values.mean()
    total = over_processes(torch.tensor(float(values.numel()), device=values.device), "sum")
    return number * values.sum() / total


def every_row(rows: Float[Tensor, "b *n"]) -> Float[Tensor, "all *n"]:
    """The rows of all processes, which have equally many, with gradient: for a loss that compares the rows of a batch.

    The loss is then the same in all processes, and so is the mean of its gradients over them.
    """
    return rows if share().number == 1 else torch.cat(all_gather(rows.contiguous()))


def not_none(rows: Bool[Tensor, "b *n"]) -> Bool[Tensor, "b *n"]:
    """The rows to compute; where there are none in this process, the first one, since others may have some.

    FSDP needs the network to be called as often in all processes. Alone it is `rows`.
    """
    if share().number == 1 or rows.any():
        return rows
    first = torch.zeros_like(rows)
    first[:1] = True
    return first


def agreed(seconds: float, asked: bool) -> tuple[float, bool]:
    """The seconds of process 0, and whether any process was asked to stop; the same in all processes."""
    if share().number == 1:
        return seconds, asked
    told = torch.tensor([seconds if share().first else 0.0, float(asked)], device=PartialState().device)
    seconds, number = over_processes(told, "sum").tolist()
    return seconds, number > 0


def wait_for_all() -> None:
    """Wait until all processes are there."""
    if share().number > 1:
        PartialState().wait_for_everyone()


def collected(rows: Shaped[Tensor, "b *n"], total: int, repeats: int = 1) -> Shaped[Tensor, "all *n"]:
    """The rows of all processes in their order, where each has those of `Share.padded_rows`.

    Args:
        rows: Rows of this process; row `j * n + i` is repetition `j` of its row `i`.
        total: Number of different rows.
        repeats: How often each row is there.
    """
    number = share().number
    if number == 1:
        return rows
    every = gather(rows.contiguous())
    every = rearrange(every, "(p k i) ... -> k (p i) ...", p=number, k=repeats)[:, :total]
    return rearrange(every, "k n ... -> (k n) ...")


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which FSDP gives every process a part; all processes have to ask for it."""
    return tensor.full_tensor() if _is_part(tensor) else tensor


def is_divided(model: nn.Module) -> bool:
    """Whether FSDP has given this process a part of the weights only."""
    return any(_is_part(parameter) for parameter in model.parameters())


def _is_part(tensor: Tensor) -> bool:
    """Whether FSDP has divided this tensor; its class, which takes half a second to import, is there only then."""
    if not distributed.is_initialized():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def divided_as(tensor: Tensor, values: Tensor) -> Tensor:
    """The values, divided among the processes as a tensor of their shape is; as they are where it is not."""
    if not _is_part(tensor) or values.shape != tensor.shape:
        return values
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(values.to(tensor.device), tensor.device_mesh, tensor.placements)


def fill(tensor: Tensor, values: Tensor) -> None:
    """Overwrite a tensor, or the part of it that this process has."""
    tensor.copy_(divided_as(tensor, values))


def from_first(make: Callable[[], Value]) -> Value:
    """What process 0 makes, in all processes; the others wait for it."""
    if share().number == 1:
        return make()
    made = [make() if share().first else None]
    broadcast_object_list(made)
    return made[0]

"""The task in words as a vector: a row of a learned table, or the answer of a sentence encoder."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

TABLE_WIDTH = 32
"""Width of the rows of a table."""

Encode = Callable[[Sequence[str]], Float[Tensor, "n q"]]
"""Maps sentences to vectors; always the same vector for the same sentence."""


@dataclass(frozen=True)
class WordsConfig:
    """How a model is told the task in words."""

    tasks: tuple[str, ...] = ()
    """The tasks of the training data; none for a model that is not told the task."""
    encoder: str = ""
    """`module:name` of the sentence encoder; empty for a table with one row for each of `tasks`."""
    width: int = TABLE_WIDTH
    """Width of a vector."""


class TaskWords(nn.Module):
    """Vectors of tasks in words.

    The rows of a table are drawn at random and learned. The vectors of an encoder are fixed; those of the tasks that
    were trained on are kept with the weights, so that only a new task needs the encoder.

    Args:
        config: The known tasks.
        encode: The sentence encoder for tasks that are not among them; `None` with a table.
    """

    def __init__(self, config: WordsConfig, encode: Encode | None = None):
        super().__init__()
        self.config, self.encode = config, encode
        rows = torch.randn(len(config.tasks), config.width)
        if config.encoder:
            self.register_buffer("rows", rows.zero_())
        else:
            self.rows = nn.Parameter(rows)

    def forward(self, tasks: Sequence[str]) -> Float[Tensor, "n q"]:
        """The vector of each task.

        Raises:
            ValueError: A task is empty; or it is not among the known ones, and there is no sentence encoder.
        """
        known = {task: row for row, task in enumerate(self.config.tasks)}
        found = {}
        for task in dict.fromkeys(tasks):
            if task in known:
                found[task] = self.rows[known[task]]
            elif not task or self.encode is None:
                raise ValueError(unknown(task, self.config.tasks))
            else:
                found[task] = self.encode([task])[0].to(self.rows)
        return torch.stack([found[task] for task in tasks])


def another(task: str, known: Sequence[str], generator: torch.Generator) -> str:
    """One of the other tasks, each as likely."""
    others = [each for each in known if each != task]
    return others[int(torch.randint(len(others), (), generator=generator))]


def zero_linear(width: int, out: int) -> nn.Linear:
    """A linear layer that returns zeros until it is trained: a model that is told something starts as one that is not.

    As in ControlNet (Zhang et al. 2023, arXiv 2302.05543), section 3.1.
    """
    layer = nn.Linear(width, out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def unknown(task: str, known: Sequence[str]) -> str:
    """The message about a task that a table does not have."""
    near = difflib.get_close_matches(task, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it knows {', '.join(map(repr, known[:4]))}"
    more = ", ..." if not near and len(known) > 4 else ""
    return f"the task {task!r} is not among the {len(known)} that were trained on; {hint}{more}"

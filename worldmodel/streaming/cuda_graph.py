"""A streamed step as a CUDA graph: one launch per frame instead of one per kernel.

A frame of a small model takes hundreds of kernels of a few microseconds each, which a CPU launches
more slowly than a GPU runs them. The shapes of a stream never change, so its step is recorded once
and replayed from then on.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from worldmodel.streaming.state import StreamState

EAGER_STEPS = 2  # of a stream before its step is recorded; they choose and load the kernels
VARYING = ("frame", "latent", "reference", "states", "view_mask", "words")  # fields that change from step to step


class RecordedStep:
    """The kernels that a function launches, recorded once.

    Args:
        step: The function. Besides its arguments it reads only memory that is never moved, and it
            writes only to such memory.
        inputs: Its first arguments; later ones are copied over them and must have the same shapes.
    """

    def __init__(self, step: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor]):
        self.inputs = [each.clone() for each in inputs]
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.outputs = step(*self.inputs)

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The function's result for `inputs`."""
        for held, given in zip(self.inputs, inputs, strict=True):
            held.copy_(given)
        self.graph.replay()
        return tuple(each.clone() for each in self.outputs)


def replayed(
    run: Callable[..., tuple[Tensor, ...]],
    key: Hashable,
    state: StreamState,
    actions: Tensor | None,
    noise: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """`run(state, actions, *noise)`; on a GPU it is a CUDA graph from the third step of a stream on.

    Args:
        run: One step; it writes to the cache of its state in place.
        key: Identifies `run`, and keeps the objects alive that it reads besides its arguments.
        state: The streams; graphs are kept with their cache, so a copy records its own.
        actions: Raw actions; `None` means no action is known.
        noise: Further arguments of `run`.
    """
    if state.frame.device.type != "cuda":
        return run(state, actions, *noise)
    given = {name: getattr(state, name) for name in VARYING}
    given["actions"] = None if actions is None else actions.to(state.frame.device).float()
    given |= {f"noise {index}": each for index, each in enumerate(noise)}
    names = tuple(name for name, value in given.items() if value is not None)
    inputs = [given[name] for name in names]

    def step(*values: Tensor) -> tuple[Tensor, ...]:
        now = dict(zip(names, values, strict=True))
        varying = {name: now.get(name) for name in VARYING}
        extra = [value for name, value in now.items() if name.startswith("noise")]
        return run(replace(state, **varying), now.get("actions"), *extra)

    recorded, place = state.cache.recorded, (key, names)
    seen = recorded.get(place, 0)
    if isinstance(seen, RecordedStep):
        return seen(inputs)
    if seen < EAGER_STEPS:
        recorded[place] = seen + 1
        return step(*inputs)
    recorded[place] = RecordedStep(step, inputs)
    return recorded[place](inputs)

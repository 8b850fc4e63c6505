"""One function over all tensors of nested dataclasses."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import TypeVar

from torch import Tensor

Tree = TypeVar("Tree")


def tree_map(function: Callable[..., Tensor], tree: Tree, *others: Tree) -> Tree:
    """Apply `function` to every tensor of a dataclass, of its fields, and of tuples of them.

    Everything else, `None` too, stays as it is.

    Args:
        function: Gets a tensor of `tree` and the tensors in the same place of `others`.
        tree: A tensor, a dataclass or a tuple.
        others: Trees with tensors in the same places.
    """
    if isinstance(tree, Tensor):
        return function(tree, *others)
    if is_dataclass(tree):
        names = [field.name for field in fields(tree)]
        parts = {n: tree_map(function, getattr(tree, n), *(getattr(o, n) for o in others)) for n in names}
        return replace(tree, **parts)
    if isinstance(tree, tuple):
        return tuple(tree_map(function, *parts) for parts in zip(tree, *others, strict=True))
    return tree

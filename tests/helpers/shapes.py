"""Check types at every call, and the names of axes only where there are any.

The option --jaxtyping-packages decorates every function with `jaxtyping.jaxtyped`, which binds all arguments at every
call so that an axis has one length in all of them. Four of five functions take and return no tensor: their types are
checked by beartype alone, at a tenth of the price.
"""

import functools
import inspect
import typing
from collections.abc import Callable

import jaxtyping

SHAPED = jaxtyping.jaxtyped


def has_axes(annotation: object) -> bool:
    """Whether a tensor with named axes stands anywhere in it; taken to be so of what is written as a string."""
    if isinstance(annotation, str | typing.ForwardRef):
        return True
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(has_axes(part) for part in typing.get_args(annotation))


def jaxtyped(checked: object = None, *, typechecker: Callable | None) -> object:
    """`jaxtyping.jaxtyped` for what has axes, the type checker for other functions."""
    if checked is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    plain = inspect.isfunction(checked) and not any(map(has_axes, checked.__annotations__.values()))
    return typechecker(checked) if plain else SHAPED(checked, typechecker=typechecker)


def install() -> None:
    """Let the modules that are imported from now on use this `jaxtyped`."""
    jaxtyping.jaxtyped = jaxtyped

"""Which numbers an option takes: written into the type of its field, and checked before a command does anything.

```python
@dataclass(frozen=True)
class Config:
    steps: Count = 3000
    minutes: Positive | None = None

check_ranges(Config(steps=0))  # ValueError: --steps is at least 1, got 0
```
"""

import math
import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import tyro
from annotated_types import Ge, Gt, Le, Lt

Whole = Annotated[int, Ge(0)]
"""A whole number from 0 on."""
Count = Annotated[int, Ge(1)]
"""A whole number from 1 on."""
Several = Annotated[int, Ge(2)]
"""A whole number from 2 on."""
Port = Annotated[int, Ge(0), Le(65535)]
"""A port of TCP."""
Weight = Annotated[float, Ge(0)]
"""A number from 0 on."""
Positive = Annotated[float, Gt(0)]
"""A number above 0."""
Share = Annotated[float, Ge(0), Le(1)]
"""A share, from nothing to all."""
OpenShare = Annotated[float, Ge(0), Lt(1)]
"""A share that is not all."""
InnerShare = Annotated[float, Gt(0), Lt(1)]
"""A share that is neither nothing nor all."""
ErrorRate = Annotated[float, Gt(0), Lt(0.5)]
"""A rate of errors that is better than guessing."""

Number = int | float
Bound = Ge | Gt | Le | Lt
NAMED = type(tyro.conf.arg(name=""))


def check_ranges(config: Any) -> None:
    """Check every number of a config dataclass and of those inside it against the type of its field.

    Where a field has no bounds, a number still has to be finite.

    Args:
        config: An instance of a dataclass.

    Raises:
        ValueError: A number is out of range; the message has the option, the range and the number.
    """
    for option, hint, value in _options(config, "--"):
        for number, bounds in _numbers(hint, value, ()):
            if not (math.isfinite(number) and all(_holds(number, bound) for bound in bounds)):
                said = [*map(_words, bounds), *([] if math.isfinite(number) else ["finite"])]
                raise ValueError(f"{option} is {' and '.join(said)}, got {number:g}")


def _options(config: Any, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    """Every option as it is typed, with type and value."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        hint, value = hints[field.name], getattr(config, field.name)
        marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        named = next((mark.name for mark in marks if isinstance(mark, NAMED) and mark.name is not None), field.name)
        option = f"{prefix}{named.replace('_', '-')}"
        if is_dataclass(value):
            yield from _options(value, f"{option}." if named else prefix)
        else:
            yield option, hint, value


def _numbers(hint: Any, value: Any, bounds: tuple[Bound, ...]) -> Iterator[tuple[Number, tuple[Bound, ...]]]:
    """The numbers in a value, each with the bounds that its type has."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        yield from _numbers(inner[0], value, (*bounds, *(mark for mark in inner[1:] if isinstance(mark, Bound))))
    elif origin in (Union, types.UnionType):
        for each in inner:
            yield from _numbers(each, value, bounds)
    elif origin is tuple and isinstance(value, tuple):
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        for kind, each in zip(kinds, value, strict=True):
            yield from _numbers(kind, each, bounds)
    elif origin is dict and isinstance(value, dict):
        for pair in value.items():
            for kind, each in zip(inner, pair, strict=True):
                yield from _numbers(kind, each, bounds)
    elif hint in (int, float) and isinstance(value, Number) and not isinstance(value, bool):
        yield value, bounds


def _holds(number: Number, bound: Bound) -> bool:
    match bound:
        case Ge(ge=least):
            return number >= least
        case Gt(gt=below):
            return number > below
        case Le(le=most):
            return number <= most
        case Lt(lt=above):
            return number < above


def _words(bound: Bound) -> str:
    match bound:
        case Ge(ge=least):
            return f"at least {least}"
        case Gt(gt=below):
            return f"above {below}"
        case Le(le=most):
            return f"at most {most}"
        case Lt(lt=above):
            return f"below {above}"

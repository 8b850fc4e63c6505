"""Numbers out of range are refused before anything is done, in every command."""

import importlib
import math
import shlex
from dataclasses import dataclass, field, is_dataclass
from typing import Annotated, Any, get_args, get_type_hints

import pytest
import tyro

from worldmodel.cli import COMMANDS, main
from worldmodel.display.ranges import (
    Bound,
    Count,
    ErrorRate,
    OpenShare,
    Port,
    Positive,
    Several,
    Share,
    Whole,
    check_ranges,
)


@dataclass(frozen=True)
class Inner:
    """Nested options."""

    share: Share = 1.0
    free: float = 0.0


@dataclass(frozen=True)
class Config:
    """Options of every kind."""

    steps: Count = 1
    frames: Several = 2
    seed: Whole = 0
    minutes: Positive | None = None
    decay: OpenShare = 0.0
    error: ErrorRate = 0.1
    workers: Whole | str = "ray"
    port: Port = 8000
    batch: tuple[Count, ...] = (1,)
    size: tuple[Count, Count] | None = None
    pairs: dict[Whole, Whole] = field(default_factory=dict)
    on: bool = True
    loss: Inner = field(default_factory=Inner)
    open: Annotated[Inner, tyro.conf.arg(name="")] = field(default_factory=Inner)


def test_numbers_within_their_ranges_pass():
    check_ranges(Config())
    check_ranges(Config(minutes=0.1, workers=0, batch=(1, 8), size=(1, 1), pairs={0: 3}, on=False, error=0.49))


@pytest.mark.parametrize(
    "config, message",
    [
        (Config(steps=0), "--steps is at least 1, got 0"),
        (Config(frames=1), "--frames is at least 2, got 1"),
        (Config(seed=-1), "--seed is at least 0, got -1"),
        (Config(minutes=0.0), "--minutes is above 0, got 0"),
        (Config(minutes=math.nan), "--minutes is above 0 and finite, got nan"),
        (Config(decay=1.0), "--decay is at least 0 and below 1, got 1"),
        (Config(error=0.5), "--error is above 0 and below 0.5, got 0.5"),
        (Config(workers=-1), "--workers is at least 0, got -1"),
        (Config(port=65536), "--port is at least 0 and at most 65535, got 65536"),
        (Config(batch=(8, 0)), "--batch is at least 1, got 0"),
        (Config(size=(4, 0)), "--size is at least 1, got 0"),
        (Config(pairs={0: -2}), "--pairs is at least 0, got -2"),
        (Config(loss=Inner(share=1.5)), "--loss.share is at least 0 and at most 1, got 1.5"),
        (Config(loss=Inner(free=math.inf)), "--loss.free is finite, got inf"),
        (Config(open=Inner(share=-1.0)), "--share is at least 0 and at most 1, got -1"),
    ],
)
def test_a_number_out_of_range_is_named(config, message):
    with pytest.raises(ValueError) as error:
        check_ranges(config)
    assert str(error.value) == message


# Every command

WEIGHTS = ("fidelity", "agreement", "executability", "state", "motion", "moving_area", "on_track", "outcome")
"""Weights of rewards, the only options that may be any finite number."""


def presets(config: Any) -> list[type]:
    """The dataclasses of a command."""
    return [get_args(kind)[0] for kind in get_args(config)] if not is_dataclass(config) else [config]


def bounds_in(hint: Any) -> list[Bound]:
    """All bounds in a type."""
    marks = [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Bound)]
    return marks + [bound for part in get_args(hint) for bound in bounds_in(part)]


def numbers_in(hint: Any) -> bool:
    """Whether a type has numbers."""
    return hint in (int, float) or any(numbers_in(part) for part in get_args(hint))


def options(kind: type) -> list[tuple[type, str, Any]]:
    """Class, name and type of every option of a config, of nested ones, too."""
    found = []
    for each, hint in get_type_hints(kind, include_extras=True).items():
        inner = [part for part in (hint, *get_args(hint)) if isinstance(part, type) and is_dataclass(part)]
        found += [(kind, each, hint)] if not inner else options(inner[0])
    return found


def test_every_number_of_every_command_has_a_range():
    missing = set()
    for command in COMMANDS.values():
        for preset in presets(getattr(importlib.import_module(command.module), command.config)):
            for kind, name, hint in options(preset):
                if numbers_in(hint) and not bounds_in(hint):
                    missing.add(f"{kind.__name__}.{name}")
    assert missing == {f"RewardWeights.{each}" for each in WEIGHTS}


NOT_PLAIN = ("tuple", "dict", "Suppress")
"""In the types of options that take several numbers, or that are not offered."""


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "push"])
def test_every_command_looks_at_its_numbers_first(name, tmp_path, monkeypatch, capsys):
    command = COMMANDS[name]
    monkeypatch.chdir(tmp_path)
    config = presets(getattr(importlib.import_module(command.module), command.config))[0]
    plain = [
        name for _, name, hint in options(config) if bounds_in(hint) and not any(w in str(hint) for w in NOT_PLAIN)
    ]
    option = f"--{plain[0].replace('_', '-')}"
    assert main([*shlex.split(command.example), option, "-1"]) == 2
    shown = capsys.readouterr()
    assert f"{option} is " in shown.err and shown.err.endswith(", got -1\n")
    assert not shown.out and not list(tmp_path.rglob("*"))

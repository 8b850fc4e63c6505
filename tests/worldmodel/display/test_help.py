"""The help of the commands: short, with an example that parses, and complete."""

import importlib
import re
import shlex
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
import tyro

from worldmodel.cli import COMMANDS, help_of, parse
from worldmodel.display.help import groups_of, help_text, options_of, presets_of


@dataclass(frozen=True)
class Inner:
    """Not shown."""

    rate: float = 0.5
    """How fast it learns."""


@dataclass(frozen=True)
class Parent:
    """A parent."""

    seed: int = 0
    """Seed of
    everything."""


@dataclass(frozen=True)
class Outer(Parent):
    """A command."""

    out: str = field(kw_only=True)
    """Folder."""
    steps: int = 3
    """Steps."""
    clock: Literal["wall", "cpu"] = "wall"
    """Clock."""
    muon: bool = True
    """Use Muon."""
    minutes: float | None = None
    """Longest time."""
    pairs: dict[int, int] = field(default_factory=dict)
    """Pairs."""
    batch: tuple[int, ...] = (1, 8)
    """Batches."""
    hidden: Annotated[int, tyro.conf.Suppress] = 0
    """Not shown."""
    plain: Annotated[Inner, tyro.conf.arg(name="")] = field(default_factory=Inner)
    """Not shown."""
    inner: Inner = field(default_factory=Inner)
    """How it learns."""


@dataclass(frozen=True)
class Large(Outer):
    """A large one."""

    steps: int = 9
    """Steps."""


CHOICE = (
    Annotated[Outer, tyro.conf.subcommand("small", description="A small one.")]
    | Annotated[Large, tyro.conf.subcommand("large")]
)


def test_help_begins_with_what_is_needed_and_ends_with_what_is_rare(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert (
        help_text("worldmodel go", "Go there.", "worldmodel go --out x", Outer, ["minutes", "no-muon"])
        == """\
usage: worldmodel go --out TEXT [options]

Go there.

example:
  worldmodel go --out x

options:
  --out TEXT                Folder. (required)
  --minutes FLOAT           Longest time.
  --no-muon                 Use Muon. (on by default; this
                            flag turns it off)

further options:
  --seed INT                Seed of everything. (default: 0)
  --steps INT               Steps. (default: 3)
  --clock {wall,cpu}        Clock. (default: wall)
  --pairs INT INT ...       Pairs.
  --batch INT ...           Batches. (default: 1 8)
  --rate FLOAT              How fast it learns. (default:
                            0.5)

How it learns (--inner.*):
  --inner.rate FLOAT        How fast it learns. (default:
                            0.5)
"""
    )


def test_a_preset_shows_its_own_defaults():
    assert [text for _, text in presets_of(CHOICE).values()] == ["A small one.", "A large one."]
    said = help_text("worldmodel go", "Go.", "x", CHOICE, [])
    assert "usage: worldmodel go {small,large} --out TEXT" in said
    assert "(default: 3)" in said and "those of small" in said
    large = help_text("worldmodel go", "Go.", "x", CHOICE, [], ["large", "--help"])
    assert "(default: 9)" in large and "usage: worldmodel go large --out TEXT" in large


def test_an_everyday_option_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="there is no option stpes, only seed, steps, "):
        groups_of([option for option in options_of(Outer) if not option.required], ["stpes"])


def test_a_long_example_is_one_command_for_a_shell():
    example = "worldmodel go --out " + "a" * 50 + " --steps 3 --clock cpu --minutes 1 --batch 1"
    said = help_text("worldmodel go", "Go.", example, Outer, [])
    assert "\\\n" in example_in(said) and shlex.split(example_in(said).replace("\\\n", "")) == shlex.split(example)


def example_in(said: str) -> str:
    """The lines of the example."""
    return said.split("example:\n")[1].split("\n\n")[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_teaches(name, monkeypatch, capsys):
    """At most 60 lines before the further options, and the example is one that the command parses."""
    monkeypatch.setenv("COLUMNS", "100")
    said = help_of(name)
    first = said.split("\nfurther options:\n")[0].split(":*):\n")[0].splitlines()
    assert len(first) <= 60 and max(map(len, said.splitlines())) <= 100
    assert COMMANDS[name].more.endswith(".") and COMMANDS[name].everyday
    program, command, *arguments = shlex.split(example_in(said).replace("\\\n", ""))
    assert (program, command) == ("worldmodel", name)
    parse(name, arguments)
    capsys.readouterr()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "pretrain"] + ["pretrain tiny", "pretrain base"])
def test_the_help_shows_exactly_the_options_that_are_parsed(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    command, *preset = name.split()
    ours = set(re.findall(r"^  (--[a-z][-a-z.]*)", help_of(command, preset), re.MULTILINE))
    with pytest.raises(SystemExit):
        parse(command, [*preset, "--help"])
    theirs = set(re.findall(r"^.? {1,2}(--[a-z][-a-z.]*)", capsys.readouterr().out, re.MULTILINE))
    assert ours == theirs and theirs


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_text(name):
    kind = getattr(importlib.import_module(COMMANDS[name].module), COMMANDS[name].config)
    for config in [each for each, _ in presets_of(kind).values()] or [kind]:
        assert [option.name for option in options_of(config) if len(option.text) < 7] == []

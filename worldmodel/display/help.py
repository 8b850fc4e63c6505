"""The help of a command: what it does, an example, everyday options, and then all the further ones.

The options are those that `tyro` parses: one for each field of the command's config, with the docstring of the field.
"""

import ast
import inspect
import re
import shutil
import textwrap
import types
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

WIDTH = 100
"""Most columns of the help; it is narrower in a narrower terminal."""
FLAGS = 28
"""Columns of the names of options."""
KINDS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH", bool: "BOOL"}
NAMED, PRESET = type(tyro.conf.arg(name="")), type(tyro.conf.subcommand(""))


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Attributes:
        name: The option as it is typed, such as `--data`; of a positional argument, its name in capitals.
        values: What follows the name, such as `INT`; empty for a flag.
        text: What it does.
        default: The value when the option is not given, in words; empty where `text` says it.
        group: Title of the group of options; empty for those of the command itself.
        required: Whether the command needs it.
    """

    name: str
    values: str
    text: str
    default: str
    group: str
    required: bool

    @property
    def usage(self) -> str:
        """The option as it is typed, with its values."""
        return f"{self.name} {self.values}".rstrip()


def help_text(
    prog: str, about: str, example: str, config: Any, everyday: Sequence[str], arguments: Sequence[str] = ()
) -> str:
    """The help of a command.

    Args:
        prog: The command as it is typed.
        about: What the command does.
        example: A command line that works.
        config: The config dataclass, or a union of presets of it.
        everyday: The options to show first, without `--`, in this order; required ones are always among them.
        arguments: The arguments of the user; if the first one names a preset, the defaults shown are its.

    Raises:
        ValueError: `everyday` names an option that the command does not have.
    """
    presets = presets_of(config)
    named = bool(arguments) and arguments[0] in presets
    chosen = arguments[0] if named else next(iter(presets), None)
    groups = groups_of(list(options_of(presets[chosen][0] if chosen else config)), everyday)
    width = min(shutil.get_terminal_size().columns, WIDTH)
    choice = [chosen if named else "{" + ",".join(presets) + "}"] if presets else []
    needed = [option.usage.split(" [")[0] for option in groups["options"] if option.required]
    lines = [*unbroken(" ".join(["usage:", prog, *choice, *needed, "[options]"]), width), ""]
    lines += [*wrapped(about, width), "", "example:"]
    lines += [f"  {line} \\" for line in unbroken(example, width - 4)]
    lines[-1] = lines[-1].removesuffix(" \\")
    if presets and not named:
        lines += ["", f"presets (the defaults below are those of {chosen}):"]
        lines += [line for name, (_, text) in presets.items() for line in row(name, text, width)]
    for title, options in groups.items():
        lines += ["", *wrapped(f"{title}:", width), *(line for each in options for line in row(*shown(each), width))]
    return "\n".join(lines) + "\n"


def groups_of(found: Sequence[Option], everyday: Sequence[str]) -> dict[str, list[Option]]:
    """The options by title: the required and the everyday ones first, then those of the command, then nested ones.

    Raises:
        ValueError: `everyday` names an option that is not among those found.
    """
    names = {option.name.removeprefix("--"): option for option in found}
    if unknown := [name for name in everyday if name not in names]:
        raise ValueError(f"there is no option {', '.join(unknown)}, only {', '.join(names)}")
    first = [option for option in found if option.required]
    first += [names[name] for name in everyday if names[name] not in first]
    groups = {"options": first, "further options": []}
    for option in found:
        if option not in first:
            groups.setdefault(option.group or "further options", []).append(option)
    return {title: options for title, options in groups.items() if options}


def presets_of(config: Any) -> dict[str, tuple[type, str]]:
    """The dataclasses that a command chooses between, by name, each with its description; none for a single one."""
    found = {}
    for kind in get_args(config) if get_origin(config) in (Union, types.UnionType) else ():
        preset, *marks = get_args(kind)
        for mark in marks:
            if isinstance(mark, PRESET):
                text = mark.description or inspect.cleandoc(preset.__doc__).split("\n\n")[0]
                found[mark.name] = (preset, " ".join(text.split()))
    return found


def options_of(config: type, prefix: str = "", group: str = "") -> Iterator[Option]:
    """The options of a config dataclass, in the order of its fields; nested dataclasses are groups."""
    hints, texts = get_type_hints(config, include_extras=True), field_texts(config)
    for field in fields(config):
        kind, *marks = (
            get_args(hints[field.name]) if get_origin(hints[field.name]) is Annotated else [hints[field.name]]
        )
        named = next((mark for mark in marks if isinstance(mark, NAMED)), None)
        if tyro.conf.Suppress in marks:
            continue
        name = field.name if named is None or named.name is None else named.name
        if is_dataclass(kind):
            title = f"{texts[field.name].rstrip('.')} (--{name}.*)" if name else group
            yield from options_of(kind, f"{prefix}{name}." if name else prefix, title)
        else:
            metavar = named and named.metavar
            yield option_of(
                field, kind, prefix + name, texts[field.name], group, tyro.conf.Positional in marks, metavar
            )


def option_of(
    field: Field, kind: Any, name: str, text: str, group: str, positional: bool, metavar: str | None
) -> Option:
    """The option of one field."""
    value = default_of(field)
    name = name.replace("_", "-")
    if kind is bool:
        said = "on by default; this flag turns it off" if value else ""
        return Option(f"--no-{name}" if value else f"--{name}", "", text, said, group, False)
    values = metavar or values_of(kind)
    if positional:
        return Option(name.upper(), "", text, default_text(value), group, value is MISSING)
    return Option(f"--{name}", values, text, default_text(value), group, value is MISSING)


def default_of(field: Field) -> Any:
    """The default of a field; `MISSING` where there is none."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def default_text(value: Any) -> str:
    """A default as it would be typed; empty where there is none to type."""
    if value is MISSING or value is None or value in ("", (), {}):
        return ""
    values = value if isinstance(value, tuple) else (value,)
    return f"default: {' '.join(map(str, values))}"


def values_of(kind: Any) -> str:
    """What is typed after an option of this type, such as `INT` or `{wall,cpu}`."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return values_of(inner[0])
    if origin is Literal:
        return "{" + ",".join(map(str, inner)) + "}"
    if origin in (Union, types.UnionType):
        marks = [mark.metavar for each in inner for mark in get_args(each)[1:] if isinstance(mark, NAMED)]
        return (
            marks[0] if marks else "|".join(dict.fromkeys(values_of(each) for each in inner if each is not type(None)))
        )
    if origin is tuple and inner[-1] is Ellipsis:
        return f"{values_of(inner[0])} ..."
    if origin in (tuple, dict):
        return " ".join(map(values_of, inner)) + (" ..." if origin is dict else "")
    return KINDS[kind]


def field_texts(config: type) -> dict[str, str]:
    """The docstring of every field of a dataclass, its parents' included, each as one line."""
    texts = {}
    for parent in reversed(config.__mro__):
        if is_dataclass(parent):
            body = ast.parse(textwrap.dedent(inspect.getsource(parent))).body[0].body
            for line, following in pairwise(body):
                if isinstance(line, ast.AnnAssign) and isinstance(following, ast.Expr):
                    texts[line.target.id] = " ".join(ast.literal_eval(following.value).split())
    return {field.name: texts.get(field.name, "") for field in fields(config)}


def shown(option: Option) -> tuple[str, str]:
    """Both columns of an option."""
    said = "required" if option.required else option.default
    return option.usage, f"{option.text} ({said})" if said else option.text


def row(left: str, right: str, width: int) -> list[str]:
    """The lines of two columns; a left one that is too long gets a line of its own."""
    lines = wrapped(right, width - FLAGS) or [""]
    if len(left) > FLAGS - 4:
        return [f"  {left}", *(" " * FLAGS + line for line in lines)]
    return [f"  {left}".ljust(FLAGS) + lines[0], *(" " * FLAGS + line for line in lines[1:])]


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """The lines of a text; `indent` stands before all but the first."""
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def unbroken(command: str, width: int) -> list[str]:
    """The lines of a command, none of which ends between an option and its values."""
    glued = re.sub(" (?!--|\\[)", "\0", command)
    return [line.replace("\0", " ") for line in wrapped(glued, width, "    ")]

"""The pages of docs/figures: what stands between two markers is written from the stored results, the rest by hand."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from worldmodel.files import read_object, write_text
from worldmodel.model.card import table

INDEX = "index"
BLOCK = re.compile(r"(<!-- figure: (?P<name>[\w-]+) -->\n)(?P<text>.*?)(<!-- end: (?P=name) -->)", re.DOTALL)
NOT_MADE = "This figure has not been made.\n"
REPORTS = "benchmarks/reports.py"


class Listed(Protocol):
    """What a page says about a figure besides its result."""

    name: str
    title: str
    page: str
    baseline: str
    aim: str
    interval: str
    picture: str | None


@dataclass(frozen=True)
class Result:
    """What a figure's commands printed, and where.

    Attributes:
        command: The commands.
        date: The day of the run.
        revision: The commit; a plus means that files differed from it. Empty where it was not noted.
        machine: What it ran on.
        minutes: How long it took; `None` where that was not noted.
        table: Lines of Markdown.
        note: What a reader has to know of this run.
    """

    command: tuple[str, ...]
    date: str
    revision: str
    machine: str
    minutes: float | None
    table: tuple[str, ...]
    note: str = ""


def read_results(folder: Path, names: Mapping[str, object]) -> dict[str, Result]:
    """The stored results by the name of the figure; those that are not there are left out.

    Raises:
        ValueError: A file is no result.
    """
    found = {}
    for name in names:
        file = folder / f"{name}.json"
        if file.is_file():
            values = read_object(file)
            try:
                lines = {key: tuple(values[key]) for key in ("command", "table")}
                found[name] = Result(**{**values, **lines})
            except (KeyError, TypeError) as error:
                raise ValueError(f"{file}: this is no result of a figure: {error}") from error
    return found


def anchor(title: str) -> str:
    """The anchor of a heading, as GitHub and MkDocs make it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip())


def block(figure: Listed, result: Result | None) -> str:
    """What stands between the markers of a figure."""
    if result is None:
        return NOT_MADE
    lines = ["", *result.table, ""]
    if figure.picture is not None:
        lines += [f"![{figure.title}](../images/{figure.picture})", ""]
    took = "" if result.minutes is None else f" It took {result.minutes:g} minutes."
    at = f"commit `{result.revision}`" if result.revision else "commit not noted"
    lines += [
        f"- **Baseline:** {figure.baseline}",
        f"- **Interval:** {figure.interval}",
        f"- **Aim:** {figure.aim}",
        f"- **Measured:** {result.date}, {at}, on {result.machine}.{took}",
    ]
    if result.note:
        lines.append(f"- **Note:** {result.note}")
    return "\n".join([*lines, "", "```sh", *result.command, "```", ""]) + "\n"


def index(figures: Mapping[str, Listed], results: Mapping[str, Result]) -> str:
    """The table of all figures."""
    rows = []
    for name, figure in figures.items():
        result = results.get(name)
        topic = figure.page
        link = f"[{figure.title}]({figure.page}.md#{anchor(figure.title)})"
        if result is None:
            rows.append([topic, link, "-", "-", "not made", "-"])
            continue
        minutes = "-" if result.minutes is None else f"{result.minutes:g}"
        rows.append([topic, link, f"`{short(result.command)}`", minutes, result.date, result.machine])
    return "\n" + table(["page", "figure", "command", "minutes", "date", "machine"], rows) + "\n\n"


def short(commands: Sequence[str]) -> str:
    """The script, or the subcommand, that measures; not one that records data or prints a report."""
    measuring = [each for each in commands if not each.startswith("worldmodel record") and REPORTS not in each]
    words = (measuring or commands)[-1].split()
    return next((word for word in words if word.endswith(".py")), " ".join(words[:2]))


def filled_page(text: str, figures: Mapping[str, Listed], results: Mapping[str, Result]) -> str:
    """A page with everything between markers written anew.

    Raises:
        ValueError: A marker names no figure of the list.
    """

    def rendered(found: re.Match) -> str:
        name = found["name"]
        if name == INDEX:
            inside = index(figures, results)
        elif name in figures:
            inside = block(figures[name], results.get(name))
        else:
            raise ValueError(f"marker {name!r}: no figure of this name; known are {', '.join(figures)}")
        return f"{found[1]}{inside}{found[4]}"

    return BLOCK.sub(rendered, text)


def write_pages(figures: Mapping[str, Listed], results: Mapping[str, Result], source: Path, target: Path) -> None:
    """Write every page of `source/figures` into `target/figures`, each at once."""
    (target / "figures").mkdir(parents=True, exist_ok=True)
    for page in sorted((source / "figures").glob("*.md")):
        try:
            text = filled_page(page.read_text(encoding="utf-8"), figures, results)
        except ValueError as error:
            raise ValueError(f"{page}: {error}") from error
        write_text(target / "figures" / page.name, text)

"""Make the published figures again: run their commands, store what they print, and write the pages of docs/figures.

python benchmarks/figures.py                     all of benchmarks/figures.toml; this takes days of a small machine
python benchmarks/figures.py --only NAME ...     some of them
python benchmarks/figures.py --quick             small settings, minutes; the result is in runs/figures-quick
python benchmarks/figures.py --render            no command runs; only the pages are written from what is stored

Every command prints its tables in Markdown; these lines, the date, the revision and the processor are stored in
`benchmarks/results/NAME.json`. A failed command is named at the end, the others go on, and the exit status is then 1;
if it printed tables, they are kept with a note. A figure whose needs are not there (a GPU, a processor of another kind,
a package, data that no command records) is left out and named.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import tyro
from figure_machine import describe_machine, missing, revision
from figure_pages import Result, read_results, write_pages

from worldmodel.display.progress import ProgressLine
from worldmodel.files import write_json

ROOT = Path(__file__).resolve().parents[1]
CLI = {"worldmodel": [sys.executable, "-m", "worldmodel.cli"], "python": [sys.executable]}
FAULTY = "The command ended with an error: something that has to hold does not, or rows are missing."
CAPTION = re.compile(r"^#+ (?P<text>.+)$")


@dataclass(frozen=True)
class Figure:
    """One published figure.

    Attributes:
        name: Name in the list, of its result and of its marker.
        title: Heading of its section.
        page: Page of `docs/figures`.
        command: What prints its tables; `{data}` and `{out}` are folders.
        minutes: CPU minutes of a whole run, roughly.
        baseline: What it is compared with.
        aim: What was aimed at.
        interval: What the brackets mean.
        quick: Small settings of the command; without them the figure is not part of a quick run.
        quick_minutes: CPU minutes of the quick run, roughly.
        data: Names of the data sets that it needs.
        needs: What the machine must have.
        picture: Name of the plot that the command writes into `{out}`.
    """

    name: str
    title: str
    page: str
    command: tuple[str, ...]
    minutes: float
    baseline: str
    aim: str
    interval: str
    quick: tuple[str, ...] = ()
    quick_minutes: float = 0.5
    data: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    picture: str | None = None


@dataclass(frozen=True)
class Recording:
    """A data set that several figures need: how it is recorded, also for a quick run; no command: a download."""

    command: str = ""
    quick: str = ""

    def line(self, config: "FiguresConfig") -> str:
        """The command of this run."""
        return filled(self.quick if config.quick and self.quick else self.command, "data", config)


@dataclass(frozen=True)
class FiguresConfig:
    """Which figures to make again."""

    only: tuple[str, ...] = ()
    """Names of figures; all when not given."""
    quick: bool = False
    """Small settings; what is published is not touched, the result is in `runs/figures-quick`."""
    render: bool = False
    """Run nothing, and write the pages from the stored results."""
    resume: bool = False
    """Go on in the folders that a killed run left; without it every figure starts from nothing."""
    root: Path = ROOT
    """The tree with `benchmarks/figures.toml`, `benchmarks/results` and `docs/figures`."""

    @property
    def work(self) -> Path:
        """Folder of data sets, outputs and logs."""
        return self.root / "runs" / ("figures-quick" if self.quick else "figures")

    @property
    def data(self) -> Path:
        """Folder of the data sets."""
        return self.work / "data" if self.quick else self.root / "data"

    @property
    def results(self) -> Path:
        """Folder of the stored results."""
        return self.work / "results" if self.quick else self.root / "benchmarks" / "results"

    @property
    def docs(self) -> Path:
        """Folder of pages and pictures."""
        return self.work / "docs" if self.quick else self.root / "docs"


def read_figures(root: Path) -> tuple[dict[str, Figure], dict[str, Recording]]:
    """The list of figures and that of data sets, by name.

    Raises:
        ValueError: A figure lacks a field, has an unknown one, or needs a data set that is not listed.
    """
    file = root / "benchmarks" / "figures.toml"
    listed = tomllib.loads(file.read_text())
    recordings = {name: Recording(**row) for name, row in listed.get("data", {}).items()}
    figures = {}
    for name, row in listed["figures"].items():
        lists = {key: tuple(value) if isinstance(value, list) else (value,) for key, value in row.items()}
        values = {**row, **{key: lists[key] for key in ("command", "quick", "data", "needs") if key in row}}
        try:
            figures[name] = Figure(name, **values)
        except TypeError as error:
            raise ValueError(f"{file}: figure {name}: {error}") from error
        unknown = sorted(set(figures[name].data) - set(recordings))
        if unknown:
            raise ValueError(f"{file}: figure {name} needs the data set {unknown[0]!r}, listed are {list(recordings)}")
    return figures, recordings


def tables_of(text: str) -> list[str]:
    """The tables of a command's output, one line each; a heading above a table becomes its caption in bold."""
    kept: list[str] = []
    caption, inside = "", False
    for line in text.splitlines():
        if line.startswith("|"):
            if not inside:
                kept += [""] * bool(kept) + ([f"**{caption}**", ""] if caption else [])
            kept.append(line.rstrip())
            caption, inside = "", True
            continue
        inside = False
        if found := CAPTION.match(line):
            caption = found["text"]
    return kept


def filled(command: str, figure: str, config: FiguresConfig) -> str:
    """The command with the folders of this run, below the root."""
    data, work = (folder.relative_to(config.root) for folder in (config.data, config.work))
    return command.format(data=data, out=work / figure)


class Failed(RuntimeError):
    """A command ended with an error; it has said something before."""

    def __init__(self, message: str, said: str):
        super().__init__(message)
        self.said = said


def run_command(command: str, config: FiguresConfig, log: Path) -> str:
    """Run a command, append what it says to a log, and return what it prints on stdout.

    Raises:
        Failed: It ended with an error.
    """
    first, *rest = shlex.split(command)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(config.root), os.environ.get("PYTHONPATH", "")])}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as stream:
        stream.write(f"$ {command}\n")
        stream.flush()
        settings = {"cwd": config.root, "env": environment, "stdout": subprocess.PIPE, "stderr": stream}
        process = subprocess.Popen([*CLI.get(first, [first]), *rest], text=True, **settings)
        lines = []
        for line in process.stdout:
            lines.append(line)
            stream.write(line)
            stream.flush()
        status = process.wait()
    if status:
        raise Failed(f"status {status} of `{command}`; see {log.relative_to(config.root)}", "".join(lines))
    return "".join(lines)


def record(name: str, recording: Recording, config: FiguresConfig) -> None:
    """Record a data set, unless it is there."""
    folder = config.data / name
    if folder.exists():
        return
    try:
        run_command(recording.line(config), config, config.work / "logs" / f"data-{name}.log")
    except BaseException:  # also Ctrl-C: half a data set must not be taken for a whole one
        shutil.rmtree(folder, ignore_errors=True)
        raise


def make(
    figure: Figure, recordings: Mapping[str, Recording], config: FiguresConfig
) -> tuple[Result | None, RuntimeError | None]:
    """Run a figure's commands; what they printed, if there is a table, and the error, if there is one."""
    for name in figure.data:
        record(name, recordings[name], config)
    out, log = config.work / figure.name, config.work / "logs" / f"{figure.name}.log"
    if not config.resume:
        shutil.rmtree(out, ignore_errors=True)
        log.unlink(missing_ok=True)
    commands = [filled(each, figure.name, config) for each in (figure.quick if config.quick else figure.command)]
    begin, commit, machine = time.monotonic(), revision(config.root), describe_machine(gpu="gpu" in figure.needs)
    said, error = "", None
    try:
        for command in commands:
            said += run_command(command, config, log)
    except Failed as failed:
        said, error = said + failed.said, failed
    table = tables_of(said)
    if not table:
        return None, error or RuntimeError(f"`{commands[-1]}` printed no table; see {log.relative_to(config.root)}")
    if figure.picture is not None and error is None:
        (config.docs / "images").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(out / figure.picture, config.docs / "images" / figure.picture)
    recorded = [line for name in figure.data if (line := recordings[name].line(config))]
    result = Result(
        command=(*recorded, *commands),
        date=date.today().isoformat(),
        revision=commit,
        machine=machine,
        minutes=round((time.monotonic() - begin) / 60, 1),
        table=tuple(table),
        note="" if error is None else FAULTY,
    )
    return result, error


def make_all(
    chosen: Sequence[Figure], figures: Mapping[str, Figure], recordings: Mapping[str, Recording], config: FiguresConfig
) -> dict[str, str]:
    """Make the chosen figures, and write the pages after each one; returns what failed, and why."""
    failed = {}
    config.results.mkdir(parents=True, exist_ok=True)
    spent = [figure.quick_minutes if config.quick else figure.minutes for figure in chosen]
    with ProgressLine("figures", sum(spent), unit="minutes of work", log=config.work / "figures.log") as progress:
        for figure, minutes in zip(chosen, spent, strict=True):
            progress.advance(0, figure.name)
            try:
                result, error = make(figure, recordings, config)
                if result is not None:
                    write_json(config.results / f"{figure.name}.json", vars(result))
                    render(figures, config)
                if error is not None:
                    raise error
                print(f"{figure.name}: {result.minutes} minutes", flush=True)
            except (RuntimeError, OSError) as error:
                failed[figure.name] = str(error)
                print(f"{figure.name}: failed: {error}", file=sys.stderr, flush=True)
            progress.advance(minutes)
    return failed


def render(figures: Mapping[str, Figure], config: FiguresConfig) -> None:
    """Write the pages from what is stored."""
    write_pages(figures, read_results(config.results, figures), config.root / "docs", config.docs)


def lacks(figure: Figure, recordings: Mapping[str, Recording], config: FiguresConfig) -> list[str]:
    """What this machine must have for a figure, and does not."""
    folders = [config.data / name for name in figure.data if not recordings[name].line(config)]
    absent = [str(folder.relative_to(config.root)) for folder in folders if not folder.exists()]
    return [*missing(figure.needs), *(f"data in {folder}, which no command records" for folder in absent)]


def main(config: FiguresConfig) -> int:
    """Make the figures and write the pages; returns the exit status."""
    try:
        figures, recordings = read_figures(config.root)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    unknown = sorted(set(config.only) - set(figures))
    if unknown:
        print(f"there is no figure {unknown[0]!r}; known are {', '.join(figures)}", file=sys.stderr)
        return 1
    chosen = [figure for name, figure in figures.items() if not config.only or name in config.only]
    lacking = {figure.name: lacks(figure, recordings, config) for figure in chosen}
    ready = [f for f in chosen if not lacking[f.name] and (f.quick or not config.quick)]
    failed = {}
    if not config.render:
        config.work.mkdir(parents=True, exist_ok=True)
        failed = make_all(ready, figures, recordings, config)
    render(figures, config)
    if config.render:
        return 0
    print(f"{len(ready) - len(failed)} of {len(chosen)} figures made; the pages are in {config.docs / 'figures'}")
    for figure in chosen:
        if figure not in ready:
            why = f"it needs {', '.join(lacking[figure.name])}" if lacking[figure.name] else "it has no quick command"
            print(f"  left out: {figure.name}: {why}")
    for name, why in failed.items():
        print(f"  failed: {name}: {why}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(FiguresConfig, description=__doc__, config=(tyro.conf.FlagCreatePairsOff,))))

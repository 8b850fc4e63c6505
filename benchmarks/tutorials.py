"""Run the tutorials: every command and every block of Python, in the order of the page, at tiny settings.

    python benchmarks/tutorials.py                                    # all pages and all notebooks
    python benchmarks/tutorials.py rank serve                         # two of them
    python benchmarks/tutorials.py rank --real --out runs/tutorials   # the settings that the page shows

Each page or notebook runs in a folder of its own that looks like a clone of this repository without data. In front of
a block a page says how the block is run here:

    <!-- tiny                                   each line is text of the block and what is run in its place
    --episodes 100 => --episodes 4
    -->
    <!-- background until: is served at -->     runs until the page is done; the page goes on after this output
    <!-- instead: COMMAND -->                   with the next one: what is run in place of the block
    *Not run in our tests: REASON*              shown to the reader

`sh` and `bash` blocks are commands, and `python` blocks share their names; one that begins with `# NAME.py` is written
to that file. `text` blocks are output. A block that is none of these is a fault of the page. In a notebook the
metadata of a cell has `tiny`, a list of such lines, or `not_run`, the reason.
"""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import tyro

ROOT = Path(__file__).resolve().parents[1]
CLONE = ("benchmarks", "checkpoints", "docs", "examples", "tests")
"""Folders of the repository that a page may name."""
COMMANDS, CODE, OUTPUT = ("sh", "bash"), "python", "text"
FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
NOTE = re.compile(
    r"<!-- (tiny|background until:|instead:)\s+(.*?)\s*-->|\*(Not run in our tests): ([^*]*)\*", re.DOTALL
)
NOTES = re.compile(r"(?:<!--(?:(?!-->).)*-->|\*Not run in our tests: [^*]*\*|\s)*\Z", re.DOTALL)
MARK = re.compile(r"^ *(?:```|~~~)", re.MULTILINE)
TYPED = re.compile(r"^(\$ |worldmodel [a-z-]+ \S|python |pip |make )", re.MULTILINE)
FILE = re.compile(r"# (\w+\.py)\n")
ARROW = " => "
START_SECONDS, STOP_SECONDS, CELL_SECONDS = 300, 30, 900


@dataclass(frozen=True)
class Block:
    """A block of a page, or a cell of a notebook.

    Attributes:
        where: Page and line, or notebook and cell.
        language: As written behind the fence.
        text: What the reader sees.
        tiny: Texts of the block and what is run in their place.
        background: The output after which the page goes on; empty for a block that has to end.
        not_run: Why the block is not run; empty where it is.
        instead: The command that is run in place of the block.
    """

    where: str
    language: str
    text: str
    tiny: tuple[tuple[str, str], ...] = ()
    background: str = ""
    not_run: str = ""
    instead: str = ""

    def fault(self) -> str:
        """Why this block is neither run nor excused, or run otherwise than the page says; empty if all is well."""
        if self.language == OUTPUT:
            typed = TYPED.search(self.text)
            return f"{self.where}: output that looks like a command: {typed[0].strip()!r}" if typed else ""
        if self.language not in (*COMMANDS, CODE) and not self.not_run:
            return f"{self.where}: a block of {self.language or 'no language'!r} is neither run nor excused"
        if self.instead and not self.not_run:
            return f"{self.where}: something else is run instead, and the page does not say why"
        missing = [shown for shown, _ in self.tiny if shown not in self.text]
        return f"{self.where}: a tiny setting replaces {missing[0]!r}, which is not in the block" if missing else ""

    def source(self, *, real: bool = False) -> str:
        """What is run: the text with its tiny settings, or as it stands if `real`.

        Raises:
            ValueError: The block is neither run nor excused, or a tiny setting replaces what is not there.
        """
        if fault := self.fault():
            raise ValueError(fault)
        if self.language == OUTPUT or self.not_run:
            return self.instead
        text = self.text
        for shown, run in () if real else self.tiny:
            text = text.replace(shown, run)
        return text


def replacements(lines: str, where: str) -> tuple[tuple[str, str], ...]:
    """The pairs of `SHOWN => RUN` lines."""
    pairs = [line.split(ARROW) for line in lines.splitlines() if line.strip()]
    if bad := [pair for pair in pairs if len(pair) != 2]:
        raise ValueError(f"{where}: a tiny setting is a line SHOWN{ARROW}RUN, got {ARROW.join(bad[0])!r}")
    return tuple((shown.strip(), run.strip()) for shown, run in pairs)


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order, with the notes in front of them."""
    text, found = page.read_text(), []
    fences = list(FENCE.finditer(text))
    if (marks := len(MARK.findall(text))) != 2 * len(fences):
        raise ValueError(
            f"{page.name}: {marks} lines begin with ``` or ~~~, {2 * len(fences)} begin or end a block of ```"
        )
    for fence in fences:
        where = f"{page.name}:{text[: fence.start()].count(chr(10)) + 1}"
        said = NOTES.search(text[: fence.start()])[0]
        notes = {a or c: b or d for a, b, c, d in NOTE.findall(said)}
        if len(notes) != said.count("<!--") + said.count("*Not run"):
            raise ValueError(f"{where}: a note in front of the block is not understood, or is there twice")
        found.append(
            Block(
                where,
                fence[2],
                fence[3],
                tiny=replacements(notes.get("tiny", ""), where),
                background=notes.get("background until:", ""),
                not_run=notes.get("Not run in our tests", ""),
                instead=notes.get("instead:", ""),
            )
        )
    return found


def cells(notebook: Path) -> list[Block]:
    """The cells with code of a notebook, in order."""
    found = []
    for number, cell in enumerate(json.loads(notebook.read_text())["cells"]):
        if cell["cell_type"] == "code":
            where, notes = f"{notebook.name}, cell {number}", cell["metadata"]
            tiny = replacements("\n".join(notes.get("tiny", [])), where)
            found.append(Block(where, CODE, "".join(cell["source"]), tiny=tiny, not_run=notes.get("not_run", "")))
    return found


def tutorials(names: tuple[str, ...] = ()) -> list[Path]:
    """The pages and notebooks with these names, or all."""
    every = [*sorted((ROOT / "docs" / "tutorials").glob("*.md")), *sorted((ROOT / "notebooks").glob("*.ipynb"))]
    if unknown := set(names) - {key for path in every for key in (path.stem, path.name)}:
        raise ValueError(f"no tutorial is called {sorted(unknown)}; there are {[path.name for path in every]}")
    return [path for path in every if not names or path.stem in names or path.name in names]


@dataclass
class PageRun:
    """One page that is run in `folder`: the names of its Python, and what runs in the background."""

    folder: Path
    names: dict[str, object] = field(default_factory=lambda: {"__name__": "tutorial"})
    servers: list[subprocess.Popen] = field(default_factory=list)

    def run(self, block: Block, text: str) -> str:
        """Run a block; returns what went wrong, empty if nothing did."""
        if block.instead or block.language in COMMANDS:
            return self.serve(block, text) if block.background else self.command(text)
        if name := FILE.match(text):
            (self.folder / name[1]).write_text(text)
            return ""
        printed = io.StringIO()
        try:
            with contextlib.chdir(self.folder), contextlib.redirect_stdout(printed):
                exec(compile(text, block.where, "exec"), self.names)
        except Exception:
            return printed.getvalue() + traceback.format_exc()
        self.log(printed.getvalue())
        return ""

    def command(self, text: str) -> str:
        """Run commands until one fails."""
        done = subprocess.run(shell(text), cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.log(done.stdout)
        return f"{done.stdout}\nexit status {done.returncode}" if done.returncode else ""

    def serve(self, block: Block, text: str) -> str:
        """Start a command and wait for the output after which the page goes on."""
        log = self.folder / f"server-{len(self.servers)}.log"
        with log.open("w") as file:
            run = shell("exec " + text.strip())
            server = subprocess.Popen(run, cwd=self.folder, stdout=file, stderr=subprocess.STDOUT)
        self.servers.append(server)
        until = time.monotonic() + START_SECONDS
        while block.background not in log.read_text():
            if server.poll() is not None or time.monotonic() > until:
                return f"{log.read_text()}\nthe output {block.background!r} did not come"
            time.sleep(0.2)
        return ""

    def log(self, text: str) -> None:
        """Keep what a block printed, for those who look into `--out`."""
        with (self.folder / "output.log").open("a") as file:
            file.write(text)

    def close(self) -> None:
        """End what runs in the background."""
        for server in self.servers:
            server.terminate()  # SIGINT is ignored by all that a shell started in the background
            try:
                server.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def shell(text: str) -> list[str]:
    """The call that runs `text` and stops at the first command that fails."""
    return ["bash", "-euo", "pipefail", "-c", text]


def run_page(page: Path, folder: Path, *, real: bool) -> Iterator[tuple[str, str]]:
    """Run a page; yields where each block that was run is and what went wrong."""
    sources = [(block, block.source(real=real)) for block in blocks(page)]
    sys.path.insert(0, str(folder))
    run = PageRun(folder)
    try:
        for block, text in sources:
            if text:
                yield block.where, run.run(block, text)
    finally:
        run.close()
        sys.path.remove(str(folder))


def run_notebook(notebook: Path, folder: Path, *, real: bool) -> Iterator[tuple[str, str]]:
    """Run a notebook in a kernel of its own; yields as `run_page` does."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    read = nbformat.read(notebook, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    quiet = ["--log-level=40"]  # the kernel warns that it talks over TCP, which it does on this machine alone
    client = NotebookClient(
        read, timeout=CELL_SECONDS, kernel_name="python3", resources=resources, extra_arguments=quiet
    )
    sources = iter(cells(notebook))
    with client.setup_kernel():
        for index, cell in enumerate(read.cells):
            if cell.cell_type != "code":
                continue
            block = next(sources)
            if not (text := block.source(real=real)):
                continue
            cell.source, wrong = text, ""
            try:
                client.execute_cell(cell, index)
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
                wrong = str(error)
            yield block.where, wrong
    nbformat.write(read, folder / notebook.name)


def clone(folder: Path) -> None:
    """Make a folder that looks like this repository without data."""
    if folder.exists():
        raise ValueError(f"{folder} is there already; choose another --out")
    folder.mkdir(parents=True)
    for name in CLONE:
        (folder / name).symlink_to(ROOT / name)


def run_all(pages: list[Path], folder: Path, *, real: bool) -> list[str]:
    """Run pages and notebooks, and print the seconds of each block; returns where something failed.

    A page ends at its first failure, because the blocks that follow need it.
    """
    failed = []
    for page in pages:
        run = run_notebook if page.suffix == ".ipynb" else run_page
        began = time.monotonic()
        try:
            clone(folder / page.name)
            for where, wrong in run(page, folder / page.name, real=real):
                print(f"{time.monotonic() - began:7.1f} s  {where}{'  FAILED' if wrong else ''}", flush=True)
                began = time.monotonic()
                if wrong:
                    print(wrong, flush=True)
                    failed.append(where)
                    break
        except ValueError as error:
            print(error, flush=True)
            failed.append(str(error))
    return failed


@dataclass(frozen=True)
class TutorialsConfig:
    """Run the tutorials at tiny settings."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Pages and notebooks, such as `rank`; all when not given."""
    real: bool = False
    """Run the settings that the pages show; takes long."""
    out: Path | None = None
    """Folder for what the pages make; a temporary one that is removed when not given."""


def main(config: TutorialsConfig) -> int:
    """Run the tutorials; returns 1 if something failed, and 2 if there is no tutorial of a name."""
    try:
        pages = tutorials(config.names)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MPLBACKEND", "Agg")
    folder = Path(config.out or tempfile.mkdtemp(prefix="tutorials-")).resolve()
    try:
        failed = run_all(pages, folder, real=config.real)
    finally:
        if config.out is None:
            shutil.rmtree(folder)
    spent = os.times()
    minutes = (spent.user + spent.system + spent.children_user + spent.children_system) / 60
    print(f"{minutes:.1f} CPU minutes; " + (f"failed: {', '.join(failed)}" if failed else "nothing failed"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(TutorialsConfig)))

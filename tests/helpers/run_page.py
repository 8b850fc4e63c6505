"""Run the code of a page of documentation in the current folder: `python run_page.py PAGE...`.

Of all but the last page only the files are written. The variable FREE_PORT takes the place of the port of a page.

A Python block that begins with `# NAME.py` is written to that file. Other Python blocks are executed, one after the
other, and share their names. Each line of a `sh` block is a command of `worldmodel`, which has to succeed.
"""

import os
import re
import shlex
import sys
from pathlib import Path

from worldmodel.cli import main

BLOCK = re.compile(r"```(python|sh)\n(.*?)```", re.DOTALL)
FILE = re.compile(r"# (\w+\.py)\n")
PORT = "8765"


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of every block of a page."""
    return BLOCK.findall(page.read_text().replace(PORT, os.environ.get("FREE_PORT", PORT)))


def write_files(page: Path, folder: Path) -> None:
    """Write the files that a page shows."""
    for language, text in blocks(page):
        if language == "python" and (name := FILE.match(text)):
            (folder / name[1]).write_text(text)


def run_command(line: str) -> None:
    """Run one command; recordings and trials in this process."""
    program, *arguments = shlex.split(line)
    assert program == "worldmodel", f"{line}: not a command of worldmodel"
    single = ["--workers", "1"] if arguments[0] in ("record", "rank") and "--workers" not in arguments else []
    assert main([*arguments, *single]) == 0, line


def run(page: Path) -> dict[str, object]:
    """Do what a page says; returns the names of its Python code."""
    names: dict[str, object] = {}
    sys.path.insert(0, str(Path.cwd()))  # as for a script that lies here
    write_files(page, Path.cwd())
    for language, text in blocks(page):
        if language == "sh":
            for line in text.strip().splitlines():
                run_command(line)
        elif not FILE.match(text):
            exec(compile(text, str(page), "exec"), names)
    return names


if __name__ == "__main__":
    for name in sys.argv[1:-1]:
        write_files(Path(name), Path.cwd())
    run(Path(sys.argv[-1]))

"""Faults put into the code one at a time: do the tests notice each?

python benchmarks/mutants.py                     all of benchmarks/mutants.toml
python benchmarks/mutants.py --only NAME ...     some of them

Every worker has a copy of the tree in a temporary folder. It replaces one text in one file, runs the tests that should
notice with PYTHONPATH at the copy, and puts the text back. A fault survives when they pass; then the exit status is 1.
Before that all these tests must pass without a fault. A fault whose text moved is named: give it the new text.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from queue import Queue

import tyro

ROOT = Path(__file__).parents[1]
LEFT_OUT = (".git", ".venv", "runs", "checkpoints", "docs", "__pycache__", ".ruff_cache", ".pytest_cache", "*.egg-info")
SECONDS = 300
"""Tests that take longer count as failed: a fault may hang them."""
SECOND = count(1_000_000_000)
"""When the next fault is said to be written."""


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        name: What is wrong then.
        file: Where, below the root.
        text: What is replaced; occurs once in the file.
        fault: What it becomes.
        tests: Test files or node ids that should notice.
    """

    name: str
    file: str
    text: str
    fault: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class MutantsConfig:
    """Which faults to put in, and how many at a time."""

    only: tuple[str, ...] = ()
    """Names of faults; all when not given."""
    workers: int = 2
    """Copies of the tree, each with one fault at a time."""
    root: Path = ROOT
    """The tree to copy; its list of faults is `benchmarks/mutants.toml`."""


def read_mutants(root: Path) -> list[Mutant]:
    """The list, in its order."""
    listed = tomllib.loads((root / "benchmarks" / "mutants.toml").read_text())
    return [Mutant(file=file, **{**row, "tests": tuple(row["tests"])}) for file, rows in listed.items() for row in rows]


def problems(mutants: Sequence[Mutant], root: Path) -> list[str]:
    """What is wrong with the list, a line each: texts that do not occur once, tests that are not there."""
    found = []
    for mutant in mutants:
        file = root / mutant.file
        count = file.read_text().count(mutant.text) if file.is_file() else 0
        if count != 1:
            found.append(f"{mutant.name}: {mutant.file} has its text {count} times, expected once: {mutant.text!r}")
        if mutant.text == mutant.fault:
            found.append(f"{mutant.name}: the fault changes nothing")
        missing = [test for test in mutant.tests if not (root / test.split("::")[0]).is_file()]
        if missing or not mutant.tests:
            found.append(f"{mutant.name}: no such tests: {list(mutant.tests)}")
    names = [mutant.name for mutant in mutants]
    return found + [f"{name}: the name of two faults" for name in sorted(set(names)) if names.count(name) > 1]


def run_tests(copy: Path, tests: Sequence[str]) -> int | None:
    """The exit status of the fast ones of these tests; `None` when they took too long."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a copy is compiled once, and each fault alone after that
    with (copy / "tests.log").open("w") as log:
        try:
            settings = {"cwd": copy, "env": environment, "stdout": log, "stderr": subprocess.STDOUT}
            return subprocess.run(command, timeout=SECONDS, check=False, **settings).returncode
        except subprocess.TimeoutExpired:
            return None


@contextmanager
def faulty(copy: Path, mutant: Mutant) -> Iterator[None]:
    """The fault in the copy, taken back at the end.

    Compiled files are told apart by the second in which their source was written: each fault gets one of its own.
    """
    file = copy / mutant.file
    whole, second = file.read_text(), next(SECOND)
    written = file.stat().st_mtime
    file.write_text(whole.replace(mutant.text, mutant.fault))
    os.utime(file, (second, second))
    try:
        yield
    finally:
        file.write_text(whole)
        os.utime(file, (written, written))


def verdict(copy: Path, mutant: Mutant) -> str:
    """`killed`, `survived`, or why the tests could not run."""
    with faulty(copy, mutant):
        status = run_tests(copy, mutant.tests)
    words = {0: "survived", 1: "killed", None: "killed (too slow)"}
    return words.get(status, f"tests did not run, status {status}")


def try_all(mutants: Sequence[Mutant], copies: Queue) -> list[str]:
    """Put in every fault, as many at a time as there are copies; prints them and returns the names that survive."""

    def one(mutant: Mutant) -> tuple[str, float]:
        copy, begin = copies.get(), time.monotonic()
        try:
            return verdict(copy, mutant), time.monotonic() - begin
        finally:
            copies.put(copy)

    survivors, begin = [], time.monotonic()
    with ThreadPoolExecutor(copies.qsize()) as pool:
        waiting = {pool.submit(one, mutant): mutant for mutant in mutants}
        for number, done in enumerate(as_completed(waiting), 1):
            mutant, (said, seconds) = waiting[done], done.result()
            left = (time.monotonic() - begin) / number * (len(mutants) - number)
            print(
                f"{number}/{len(mutants)} {said} in {seconds:.1f} s, {left:.0f} s left: {mutant.name} ({mutant.file})",
                flush=True,
            )
            if not said.startswith("killed"):
                survivors.append(mutant.name)
    return survivors


def without_fault(mutants: Sequence[Mutant], copies: Queue) -> list[str]:
    """The tests of the list that fail in the code as it is; each copy runs its part of them at once."""
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    parts = [part for number in range(copies.qsize()) if (part := tests[number :: copies.qsize()])]
    print(f"{len(tests)} files and tests without a fault", flush=True)

    def fail(part: Sequence[str]) -> list[str]:
        copy = copies.get()
        try:
            whole = run_tests(copy, part)
            return [] if whole == 0 else [test for test in part if run_tests(copy, [test]) != 0]
        finally:
            copies.put(copy)

    with ThreadPoolExecutor(len(parts)) as pool:
        return [test for failing in pool.map(fail, parts) for test in failing]


def main(config: MutantsConfig) -> int:
    """Returns the exit status."""
    mutants = read_mutants(config.root)
    unknown = sorted(set(config.only) - {mutant.name for mutant in mutants})
    wrong = [f"no fault is called {name!r}" for name in unknown] + problems(mutants, config.root)
    if wrong:
        print(wrong[0], file=sys.stderr)
        return 1
    chosen = [mutant for mutant in mutants if not config.only or mutant.name in config.only]
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copies: Queue = Queue()
        for number in range(config.workers):
            shutil.copytree(config.root, Path(folder, str(number)), ignore=shutil.ignore_patterns(*LEFT_OUT))
            copies.put(Path(folder, str(number)))
        failing = without_fault(chosen, copies)
        if failing:
            print(f"these fail without a fault: {', '.join(failing)}", file=sys.stderr)
            return 1
        survivors = try_all(chosen, copies)
    print(f"{len(survivors)} of {len(chosen)} faults survive, {time.monotonic() - begin:.0f} s")
    for name in survivors:
        print(f"  {name}")
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(MutantsConfig, description=__doc__)))

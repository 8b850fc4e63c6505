"""Faults put into the code one at a time: do the tests notice each?

python benchmarks/mutants.py                                all of benchmarks/mutants.toml
python benchmarks/mutants.py --only NAME ...                some of them
python benchmarks/mutants.py --shard 1/4 --results FILE     the first quarter; the same call goes on where it stopped

Every worker has a copy of the tree in a temporary folder and a process that has imported PyTorch. It replaces one text
in one file, runs the tests that should notice in a fork, and puts the text back. A fault survives when they pass, also
with types and shapes checked at every call; then the exit status is 1. Before that the tests must pass without a fault.
A fault whose text moved is named: give it the new text.
"""

import json
import os
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from queue import Queue
from threading import Lock

import tyro
from mutants_fork import TestProcess

ROOT = Path(__file__).parents[1]
LEFT_OUT = (".git", ".venv", "runs", "__pycache__", ".ruff_cache", ".pytest_cache", "*.egg-info")
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
    shard: str = "1/1"
    """K/N: every N-th of these faults, from the K-th on."""
    results: Path | None = None
    """A file to which each verdict is added; faults that it says are killed are not tried again."""
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


def verdict(tests: TestProcess, copy: Path, mutant: Mutant) -> tuple[str, float]:
    """`killed`, `survived`, or why the tests could not run; and the seconds of processor time."""
    with faulty(copy, mutant):
        status, seconds = tests.run(mutant.tests, limit=SECONDS)
        words = {1: "killed", None: "killed (too slow)"}
        if status == 0:
            status, more = tests.run(mutant.tests, shapes=True, limit=SECONDS)
            words, seconds = {0: "survived", 1: "killed (types or shapes)", None: "survived"}, seconds + more
    return words.get(status, f"tests did not run, status {status}"), seconds


class Results:
    """The verdicts, printed as they come and kept in a file, so that a stopped run can go on.

    Args:
        file: A line of JSON for each fault; `None` keeps nothing.
        mutants: The faults to try.
    """

    def __init__(self, file: Path | None, mutants: Sequence[Mutant]):
        lines = file.read_text().splitlines() if file and file.exists() else []
        known = {row["fault"]: row["verdict"] for row in map(json.loads, lines) if row["verdict"].startswith("killed")}
        self.file = file
        self.verdicts = {mutant.name: known[repr(mutant)] for mutant in mutants if repr(mutant) in known}
        self.total, self.before, self.begin, self.seconds = len(mutants), len(self.verdicts), time.monotonic(), 0.0
        self.lock = Lock()

    def add(self, mutant: Mutant, said: str, seconds: float) -> None:
        """Keep a verdict and the seconds of processor time that it took."""
        with self.lock:
            self.verdicts[mutant.name] = said
            self.seconds += seconds
            done = len(self.verdicts)
            left = (time.monotonic() - self.begin) / (done - self.before) * (self.total - done)
            print(
                f"{done}/{self.total} {said} in {seconds:.1f} s, {self.seconds / 60:.1f} minutes of processor time, "
                f"{left / 60:.0f} minutes left: {mutant.name} ({mutant.file})",
                flush=True,
            )
            if self.file:
                row = {"fault": repr(mutant), "verdict": said, "seconds": round(seconds, 2)}
                with self.file.open("a") as file:
                    file.write(json.dumps(row) + "\n")

    def survivors(self) -> list[str]:
        """The names of the faults that were not noticed."""
        return [name for name, said in self.verdicts.items() if not said.startswith("killed")]


def groups(mutants: Sequence[Mutant]) -> list[list[Mutant]]:
    """Faults that the same tests should notice stand together."""
    together: dict[tuple[str, ...], list[Mutant]] = {}
    for mutant in mutants:
        together.setdefault(mutant.tests, []).append(mutant)
    return list(together.values())


def try_group(group: Sequence[Mutant], copies: Queue, results: Results) -> None:
    """Run the tests of these faults without a fault, then with each."""
    tests, copy = copies.get()
    try:
        status, seconds = tests.run(group[0].tests, limit=SECONDS * len(group[0].tests))
        results.seconds += seconds
        for mutant in group:
            said, seconds = ("its tests fail without it", 0.0) if status else verdict(tests, copy, mutant)
            results.add(mutant, said, seconds)
    finally:
        copies.put((tests, copy))


@contextmanager
def copies_of(root: Path, number: int) -> Iterator[Queue]:
    """So many copies of the tree, each with the process that runs its tests."""
    with tempfile.TemporaryDirectory() as folder:
        copies: Queue = Queue()
        for name in map(str, range(number)):
            shutil.copytree(root, Path(folder, name), ignore=shutil.ignore_patterns(*LEFT_OUT))
            copies.put((TestProcess(Path(folder, name)), Path(folder, name)))
        yield copies
        while not copies.empty():
            copies.get()[0].close()


def shard(mutants: Sequence[Mutant], asked: str) -> list[Mutant]:
    """Every n-th fault from the k-th on, for `k/n`.

    Raises:
        ValueError: If that is not two whole numbers with 1 <= k <= n.
    """
    part, _, parts = asked.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise ValueError(f"--shard {asked}: expected K/N with 1 <= K <= N, for example 2/4")
    return list(mutants[int(part) - 1 :: int(parts)])


def main(config: MutantsConfig) -> int:
    """Returns the exit status."""
    mutants = read_mutants(config.root)
    unknown = sorted(set(config.only) - {mutant.name for mutant in mutants})
    wrong = [f"no fault is called {name!r}" for name in unknown] + problems(mutants, config.root)
    if wrong:
        print(wrong[0], file=sys.stderr)
        return 1
    chosen = shard([mutant for mutant in mutants if not config.only or mutant.name in config.only], config.shard)
    results = Results(config.results, chosen)
    rest = groups([mutant for mutant in chosen if mutant.name not in results.verdicts])
    with copies_of(config.root, config.workers) as copies, ThreadPoolExecutor(config.workers) as pool:
        for done in [pool.submit(try_group, group, copies, results) for group in rest]:
            done.result()
    survivors = results.survivors()
    print(f"{len(survivors)} of {len(chosen)} faults survive, {results.seconds / 60:.1f} minutes of processor time")
    for name in survivors:
        print(f"  {name}: {results.verdicts[name]}")
    return int(bool(survivors))


if __name__ == "__main__":
    try:
        sys.exit(main(tyro.cli(MutantsConfig, description=__doc__)))
    except ValueError as problem:
        sys.exit(str(problem))

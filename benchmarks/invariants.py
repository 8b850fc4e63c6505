"""Does this checkout compute the same numbers as another revision? For refactorings.

python benchmarks/invariants.py --against REV [--allow NAME...] [--json FILE]

Takes the other revision out of git into a temporary folder, and runs in each tree, on one thread,
the probes of that tree: its `invariants_probe.py`, or `invariants_legacy.py` of this one where its
modules lie flat. They dream with the shipped worlds, train a tiny one, record, rank, and make two
updates by post-training and by imagination. Prints what is identical and how much the rest differs,
and ends with status 1 if something differs that `--allow` does not name. Takes about a minute of
one core for each tree.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from worldmodel.files import write_json

BENCHMARKS = Path(__file__).resolve().parent
IDENTICAL = "identical"


@dataclass(frozen=True)
class InvariantsConfig:
    """Compare the numbers of this checkout with those of another revision."""

    against: str
    """The revision: a commit, a branch, or a tag."""
    allow: tuple[str, ...] = ()
    """Names that may differ, with wildcards: `training.*`."""
    probes: tuple[str, ...] = ()
    """Only these probes, such as dreams and ranking; by default all."""
    tree: Path = BENCHMARKS.parent
    """The checkout to compare, with what is not committed yet; by default the one of this file."""
    json: Path | None = None
    """File of all differences."""


def take_out(repository: Path, revision: str, folder: Path) -> Path:
    """Write the files of a revision into `folder`; returns it.

    Raises:
        ValueError: There is no such revision.
    """
    done = subprocess.run(["git", "-C", str(repository), "archive", revision], capture_output=True)
    if done.returncode:
        raise ValueError(f"--against {revision}: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def probe(tree: Path, work: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of a tree, by its own probes in a process of its own; `work` is an empty folder."""
    script = tree / "benchmarks" / "invariants_probe.py"
    if not script.exists():
        flat = (tree / "worldmodel" / "pretrain.py").exists()
        script = BENCHMARKS / ("invariants_legacy.py" if flat else script.name)
    settings = {
        "PYTHONPATH": str(tree),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "SDL_VIDEODRIVER": "dummy",
        "WORLDMODEL_CACHE": str(work / "cache"),
    }
    command = [sys.executable, str(script), str(work / "found.npz"), *names]
    subprocess.run(command, cwd=tree, env={**os.environ, **settings}, check=True, stdout=subprocess.DEVNULL)
    return dict(np.load(work / "found.npz"))


def difference(old: np.ndarray | None, new: np.ndarray | None) -> str:
    """`identical`, or in words what differs.

    Numbers differ by the largest absolute difference, given with the largest size of the old ones.
    """
    if old is None or new is None:
        return "only in the new tree" if old is None else "only in the old tree"
    if (old.shape, old.dtype.kind) != (new.shape, new.dtype.kind):
        return f"{old.dtype} {old.shape} became {new.dtype} {new.shape}"
    numbers = old.dtype.kind in "fiu"
    if np.array_equal(old, new, equal_nan=numbers):
        return IDENTICAL
    if not numbers:
        return "differs"
    apart = np.abs(old.astype(float) - new.astype(float))
    return f"{np.max(apart):.3g} of {np.max(np.abs(old.astype(float))):.3g}"


def compare(old: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The difference of every array of either tree, by name."""
    return {name: difference(old.get(name), new.get(name)) for name in {**old, **new}}


def forbidden(found: Mapping[str, str], allow: Sequence[str]) -> list[str]:
    """What differs though no pattern in `allow` names it.

    Raises:
        ValueError: A pattern names nothing.
    """
    idle = [pattern for pattern in allow if not any(fnmatchcase(name, pattern) for name in found)]
    if idle:
        raise ValueError(f"--allow {' '.join(idle)}: no such name; there are {', '.join(found)}")
    different = [name for name, words in found.items() if words != IDENTICAL]
    return [name for name in different if not any(fnmatchcase(name, pattern) for pattern in allow)]


def table(found: Mapping[str, str], wrong: Sequence[str], revision: str) -> Table:
    """What is printed; an asterisk marks what may not differ."""
    shown = Table("name", f"against {revision}", "")
    for name, words in found.items():
        shown.add_row(name, words, "*" if name in wrong else "" if words == IDENTICAL else "allowed")
    return shown


def main(config: InvariantsConfig) -> int:
    """Probe both trees, print and write; returns the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        old = take_out(config.tree, config.against, Path(folder) / "tree")
        arrays = {}
        for name, tree in (("old", old), ("new", config.tree.resolve())):
            work = Path(folder) / name
            work.mkdir()
            arrays[name] = probe(tree, work, config.probes)
    found = compare(arrays["old"], arrays["new"])
    wrong = forbidden(found, config.allow)
    Console().print(table(found, wrong, config.against))
    if config.json is not None:
        write_json(config.json, {"against": config.against, "differences": found, "forbidden": wrong})
    print(f"{len(found)} arrays, {sum(w != IDENTICAL for w in found.values())} differ, {len(wrong)} of them must not")
    return int(bool(wrong))


if __name__ == "__main__":
    try:
        sys.exit(main(tyro.cli(InvariantsConfig)))
    except ValueError as error:
        sys.exit(str(error))

"""Damage data sets at random: each must open right, or be refused in one line that names the folder.

    python benchmarks/mutated_folders.py --number 1000

The pictures of the sets show which episode and frame they are, so that actions which are lost or shifted are found.
Exits with 1 if a set opens with other data than was written, or fails in another way than by one line. A further
layout takes part with one line in `LAYOUTS`.
"""

import argparse
import random
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))

from folder_mutations import mutate_folder
from hdf5_sets import damage_hdf5_set, hdf5_faults, write_hdf5_set
from plain_mutations import damage_plain_folder, plain_faults, write_form
from robot_sets import KINDS, faults, write_set

from worldmodel.data.formats import open_set
from worldmodel.data.options import Request
from worldmodel.data.source import TableSource
from worldmodel.model.card import table


@dataclass(frozen=True)
class Layout:
    """How a set is written into a new folder, how it is damaged, and how what is read is checked.

    Attributes:
        damage: Says what was done, and how an opened set is checked from then on.
    """

    write: Callable[[Path], Path]
    damage: Callable[[random.Random, Path], tuple[str, Callable[[TableSource], list[str]]]]


def damage_lerobot(rng: random.Random, folder: Path) -> tuple[str, Callable[[TableSource], list[str]]]:
    """One or two changes."""
    done = [mutate_folder(rng, folder) for _ in range(rng.choice([1, 1, 1, 2]))]
    return " and ".join(done), faults


def damage_plain(rng: random.Random, folder: Path) -> tuple[str, Callable[[TableSource], list[str]]]:
    """One change of a folder in one of many forms."""
    form, done = damage_plain_folder(rng, folder)
    return done, partial(plain_faults, form=form)


def damage_hdf5(rng: random.Random, folder: Path, kind: str) -> tuple[str, Callable[[TableSource], list[str]]]:
    """One or two changes."""
    done = " and ".join(damage_hdf5_set(rng, folder, kind) for _ in range(rng.choice([1, 1, 1, 2])))
    return done, partial(hdf5_faults, done=done)


LAYOUTS = {name: Layout(partial(write_set, kind=kind), damage_lerobot) for name, kind in KINDS.items()}
LAYOUTS["plain"] = Layout(partial(write_form, form="pandas"), damage_plain)
for kind in ("robomimic", "ALOHA"):
    LAYOUTS[kind] = Layout(partial(write_hdf5_set, kind=kind), partial(damage_hdf5, kind=kind))
"""See `robot_sets`, `plain_folders` and `hdf5_sets` for what the pictures show."""
OUTCOMES = ("opened", "opened with notes", "refused", "FAULT")


def outcome(folder: Path, request: Request, check: Callable[[TableSource], list[str]]) -> tuple[str, str]:
    """How opening and reading a folder ends, and what was said."""
    try:
        source = open_set(folder, request)
        found = check(source)
    except ValueError as error:
        line = str(error)
        named = str(folder) in line and "\n" not in line
        return ("refused", line) if named else ("FAULT", f"the message is no line that names the folder: {line!r}")
    except Exception:
        return "FAULT", traceback.format_exc()
    if found:
        return "FAULT", f"{found} with the notes {source.notes}"
    return ("opened with notes" if source.notes else "opened"), "; ".join(source.notes)


def run(number: int, seed: int, *, say: bool = False) -> dict[str, Counter]:
    """Damage `number` folders, all layouts in turn; count how they end."""
    counts = {name: Counter() for name in LAYOUTS}
    with tempfile.TemporaryDirectory() as scratch:
        whole = {name: layout.write(Path(scratch) / f"whole-{name}") for name, layout in LAYOUTS.items()}
        for trial in range(number):
            name = list(LAYOUTS)[trial % len(LAYOUTS)]
            rng = random.Random(f"{seed} {trial}")
            folder = shutil.copytree(whole[name], Path(scratch) / "damaged")
            done, check = LAYOUTS[name].damage(rng, folder)
            for request in (Request(), Request(skip_broken=True)):
                end, said = outcome(folder, request, check)
                skipped = "skip-broken " if request.skip_broken else ""
                counts[name][f"{skipped}{end}"] += 1
                if end == "FAULT" or say:
                    print(f"{trial} {name} {skipped}{end}: {done}\n    {said}", flush=True)
            shutil.rmtree(folder)
    return counts


def main() -> None:
    """Run, print a table, exit with 1 on any fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=1000, help="damaged folders")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--say", action="store_true", help="print every folder, not only faults")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    counts = run(options.number, options.seed, say=options.say)
    columns = [*OUTCOMES, *(f"skip-broken {end}" for end in OUTCOMES)]
    print(
        table(["layout", *columns], [[name, *(str(count[end]) for end in columns)] for name, count in counts.items()])
    )
    sys.exit(any(count[column] for count in counts.values() for column in columns if column.endswith("FAULT")))


if __name__ == "__main__":
    main()

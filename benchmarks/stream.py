"""The same batches from a folder, from a URL, and with a cache of a tenth of the data.

    python benchmarks/stream.py
    python benchmarks/stream.py --data data/pusht data/demos.hdf5 --batches 20
    python benchmarks/stream.py --store http s3         real stores; pip install aiohttp s3fs 'moto[server]'

Batches of random clips are read from the folder itself and compared, bit for bit, with those of the same data set by a
URL (`memory://`, and `file://` from two processes at once), with a bound on the fetched files of a tenth of their size,
and through a cache of decoded frames of a tenth of theirs. The disk column is the most that the cache folder held
between batches; a file that is larger than the bound is fetched all the same, alone.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import fsspec
import torch
import tyro
from stream_stores import STORES

from worldmodel.data import Clip, EpisodeCache, EpisodeSource, open_episodes
from worldmodel.data.options import DataOptions
from worldmodel.data.remote.contents import contents_folder
from worldmodel.data.sample import sample_clips
from worldmodel.files import write_json
from worldmodel.model.card import table

TENTH = 0.1
SETS = Path(__file__).parents[1] / "tests" / "data"


@dataclass(frozen=True)
class StreamConfig:
    """Which data sets are compared."""

    data: tuple[Path, ...] = (SETS / "lerobot_v21_pusht", SETS / "lerobot_v30_pusht")
    """Folders of data sets, or files."""
    batches: int = 5
    """Number of batches."""
    batch: int = 8
    """Clips in a batch."""
    length: int = 6
    """Frames of a clip."""
    store: tuple[Literal["http", "s3"], ...] = ()
    """Servers to start on this machine and to read from, too."""
    out: Path = Path("runs/benchmarks/stream.json")
    """Where the numbers go."""


@contextmanager
def own_cache() -> Iterator[Path]:
    """An empty cache folder, which goes at the end."""
    before = os.environ.get("WORLDMODEL_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WORLDMODEL_CACHE"] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop("WORLDMODEL_CACHE")
            if before is not None:
                os.environ["WORLDMODEL_CACHE"] = before


def batches(source: EpisodeSource, config: StreamConfig) -> Iterator[Clip]:
    """Random batches, the same for the same data."""
    for index in range(config.batches):
        yield sample_clips(
            source,
            batch=config.batch,
            length=config.length,
            stride=1,
            seed=0,
            index=index,
            episodes=range(len(source)),
            gap=2,
        )


def equal(one: Clip, other: Clip) -> bool:
    """Whether two batches agree in every bit."""
    names = ("frames", "actions", "states", "rewards", "successes")
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    return all((a is None) == (b is None) and (a is None or torch.equal(a, b)) for a, b in pairs)


def held_bytes(folder: Path) -> int:
    """Bytes of files in a folder, without marks and locks."""
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # another process removes files meanwhile
                status = os.stat(Path(at, name))
                if not name.endswith((".json", ".lock", ".sha256")):
                    total += min(status.st_size, 512 * status.st_blocks)
    return total


def compare(expected: list[Clip], source: EpisodeSource, config: StreamConfig, disk: Path) -> dict[str, float]:
    """How many batches are equal, the seconds, and the most bytes on the disk."""
    begin, same, most = time.perf_counter(), 0, 0
    for mine, other in zip(expected, batches(source, config), strict=True):
        same += equal(mine, other)
        most = max(most, held_bytes(disk))
    return {"equal": same, "seconds": time.perf_counter() - begin, "disk": most}


def in_process(url: str, folder: Path, bound: float, config: StreamConfig) -> dict[str, float]:
    """The comparison in a process of its own, which shares the cache with others."""
    expected = list(batches(open_episodes(folder), config))
    source = open_episodes(url, options=DataOptions(cache_gb=bound))
    return compare(expected, source, config, contents_folder())


def measure(folder: Path, config: StreamConfig) -> list[dict[str, object]]:
    """One row for each way to read a data set."""
    files = [folder] if folder.is_file() else [file for file in folder.rglob("*") if file.is_file()]
    size, largest = (pick(file.stat().st_size for file in files) for pick in (sum, max))
    local = open_episodes(folder)
    decoded = sum(local.lengths) * len(local.views) * local.size[0] * local.size[1] * 3
    begin = time.perf_counter()
    expected = list(batches(local, config))
    known = {"set": folder.name, "size": size, "largest": largest}
    rows = [known | {"way": "the folder itself", "equal": len(expected), "seconds": time.perf_counter() - begin}]
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for file in files:
        memory.pipe_file(f"/set/{file.relative_to(folder.parent).as_posix()}", file.read_bytes())
    url = f"memory://set/{folder.name}"
    for way, bound in (("memory://", None), ("memory://, a tenth of the files", TENTH * size / 1e9)):
        with own_cache():
            source = open_episodes(url, options=DataOptions(cache_gb=bound))
            rows.append(known | {"way": way, "bound": bound} | compare(expected, source, config, contents_folder()))
    with own_cache() as disk:
        bound = TENTH * decoded / 1e9
        cached = EpisodeCache(open_episodes(folder), disk / "frames", bound)
        found = compare(expected, cached, config, disk / "frames")
        rows.append(known | {"way": "decoded, a tenth of the frames", "bound": bound} | found)
    with own_cache(), ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        bound = TENTH * size / 1e9
        calls = [pool.submit(in_process, f"file://{folder.resolve()}", folder, bound, config) for _ in range(2)]
        for number, call in enumerate(calls, 1):
            way = f"file://, process {number} of 2, a tenth of the files"
            rows.append(known | {"way": way, "bound": bound} | call.result())
    for store in config.store:
        with own_cache(), STORES[store](folder) as url:
            source = open_episodes(url, options=DataOptions(cache_gb=bound))
            way = f"{store}://, a tenth of the files"
            rows.append(known | {"way": way, "bound": bound} | compare(expected, source, config, contents_folder()))
    return rows


def main(config: StreamConfig) -> None:
    """Compare, and print one table."""
    rows = [row for folder in config.data for row in measure(folder, config)]
    lines = [
        [
            str(row["set"]),
            str(row["way"]),
            f"{row['equal']} of {config.batches}",
            f"{row['seconds']:.1f}",
            "-" if row.get("bound") is None else f"{1e3 * row['bound']:.3f}",
            f"{row['disk'] / 1e6:.3f}" if "disk" in row else "-",
            f"{row['largest'] / 1e6:.3f}",
        ]
        for row in rows
    ]
    head = ["data set", "read from", "equal batches", "s", "bound, MB", "most on the disk, MB", "largest file, MB"]
    print(table(head, lines))
    config.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(config.out, {"rows": rows})
    assert all(row["equal"] == config.batches for row in rows), "batches differ"


if __name__ == "__main__":
    main(tyro.cli(StreamConfig))

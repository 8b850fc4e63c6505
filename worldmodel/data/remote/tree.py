"""A folder that stands for a data set behind a URL: all its files are there, with their sizes, and without content.

The readers of all formats find files in it by their names, as in any folder. Before they open one they ask `held`
for a file with the content. Nothing else has to know that the data set is not on this disk.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from worldmodel.data.remote.contents import Part, fetched
from worldmodel.data.remote.listing import Listing, RemoteFile, list_files, read_listing
from worldmodel.data.remote.url import UnreachableError, normal_url
from worldmodel.files import HUB, default_cache_folder, fetch_from_hub, write_json, write_text

GB = 10**9


@dataclass(frozen=True)
class Place:
    """A file of a tree."""

    tree: Path
    file: RemoteFile

    @property
    def limit(self) -> int | None:
        """Most bytes of the contents, as the last process that opened the data set has set it."""
        gigabytes = float((self.tree / "cache_gb").read_text() or "inf")
        return None if gigabytes == float("inf") else int(gigabytes * GB)


def trees_folder() -> Path:
    """Where the trees of all data sets lie."""
    return default_cache_folder() / "streams" / "trees"


def stand_in(url: str | Path, cache_gb: float | None = None) -> Path:
    """List a data set, and return the folder (or the file) that stands for it.

    Every state of a data set has a tree of its own, so that a change while it is read is noticed. Without a network, an
    earlier download of `hf://USER/NAME@REV` is used.

    Args:
        url: Any URL of fsspec, or `hf://USER/NAME@REV`.
        cache_gb: Most gigabytes of fetched files on the disk; by default what it holds.

    Raises:
        ValueError: The URL lists no files or cannot be read, or the names of its files do not fit on this disk.
    """
    address = normal_url(url)
    try:
        listing = list_files(address)
    except UnreachableError:
        if not HUB.fullmatch(str(url)):
            raise
        return fetch_from_hub(url, kind="dataset", offline=True)
    tree = trees_folder() / listing.key
    tree.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{tree}.lock"):
        if not (tree / "listing.json").is_file():
            _plant(listing, tree)
        write_text(tree / "cache_gb", "" if cache_gb is None else str(cache_gb))
    return tree / "files" / next(iter(listing.files)) if listing.alone else tree / "files"


def _plant(listing: Listing, tree: Path) -> None:
    """Make files without content, and at last the listing, which says that they are complete."""
    for name, file in listing.files.items():
        path = tree / "files" / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as stream:
                stream.truncate(file.size)
        except OSError as error:
            raise ValueError(f"{file.url}: {path} cannot be made for it: {error.strerror}") from error
    write_json(tree / "listing.json", listing.as_json())


def find_place(path: Path | str) -> Place | None:
    """Which file behind a URL a path stands for; `None` for a path of this disk."""
    text, root = str(path), f"{trees_folder()}{os.sep}"
    if not text.startswith(root):
        return None
    key, _, name = text.removeprefix(root).partition(f"{os.sep}files{os.sep}")
    tree = Path(root, key)
    file = read_listing(tree / "listing.json").files.get(name)
    return None if file is None else Place(tree, file)


def too_large(path: Path) -> list[str]:
    """A note if `path` stands for a data set with a file that is larger than the bound of the cache."""
    place = find_place(path if path.is_file() else next((file for file in path.rglob("*") if file.is_file()), path))
    if place is None or place.limit is None:
        return []
    largest = max(read_listing(place.tree / "listing.json").files.values(), key=lambda file: file.size)
    if largest.size <= place.limit:
        return []
    sizes = f"{largest.size / 1e6:,.3f} MB, more than the {place.limit / 1e6:,.3f} MB of --cache-gb"
    return [f"{largest.url} has {sizes}; of such files parts are fetched where that is possible"]


@contextmanager
def held(path: Path | str, part: Part | None = None) -> Iterator[Path]:
    """A file to open in the place of `path`, which is `path` itself if it is on this disk; fetched where needed.

    Args:
        path: The file.
        part: The bytes that are needed of a file behind a URL; by default all.

    Raises:
        ValueError: It cannot be fetched; also all of the block, which then name `path`.
    """
    place = find_place(path)
    local = nullcontext(Path(path))
    with local if place is None else fetched(place.file, place.limit, part) as file, renamed(file, path):
        yield file


@contextmanager
def renamed(file: Path, path: Path | str) -> Iterator[None]:
    """Name `path` in the `ValueError`s of the block that name `file`."""
    try:
        yield
    except ValueError as error:
        if str(file) == str(path) or str(file) not in str(error):
            raise
        raise ValueError(str(error).replace(str(file), str(path))) from error


def told(text: str) -> str:
    """A message with URLs in the place of the folders that stand for them."""
    root = str(trees_folder())
    if root not in text:
        return text

    def url(found: re.Match[str]) -> str:
        listing = read_listing(Path(root, found[1]) / "listing.json")
        alone = listing.alone and found[2] and found[2][1:] in listing.files
        return listing.url if alone else f"{listing.url.rstrip('/')}{found[2] or ''}"

    return re.sub(rf"{re.escape(root)}/(\w+)/files(/[^\s:;,]*)?", url, text)

"""The files behind a URL: names, sizes, and whatever tells that a file has changed."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from worldmodel.data.remote.url import refuse
from worldmodel.files import read_object

THREADS = 8
STAMPS = ("ETag", "etag", "lfs", "blob_id", "md5", "md5Hash", "checksum", "content_md5", "sha256", "generation")
TIMES = ("LastModified", "last_modified", "mtime", "modified", "updated", "created")


@dataclass(frozen=True)
class RemoteFile:
    """One file behind a URL.

    Attributes:
        root: The URL of the data set.
        name: Its path below that, with `/` between the parts.
        path: Its path as the driver of fsspec calls it.
        size: In bytes.
        stamp: A checksum or a time of the driver; another one means another content.
    """

    root: str
    name: str
    path: str
    size: int
    stamp: str

    @property
    def url(self) -> str:
        """For messages."""
        alone = PurePosixPath(self.root).name == self.name
        return self.root if alone else f"{self.root.rstrip('/')}/{self.name}"

    @cached_property
    def key(self) -> str:
        """The name of its content in the cache."""
        return hashlib.sha256(f"{self.root}\0{self.name}\0{self.size}\0{self.stamp}".encode()).hexdigest()[:32]

    @cached_property
    def suffix(self) -> str:
        """Such as `.mp4`; readers look at it."""
        return PurePosixPath(self.name).suffix


@dataclass(frozen=True)
class Listing:
    """The files of a data set, by name; `alone` if the URL is that of a file."""

    url: str
    files: Mapping[str, RemoteFile]
    alone: bool

    @property
    def key(self) -> str:
        """The name of this state of the data set: another one as soon as a file differs."""
        facts = [(file.name, file.size, file.stamp) for file in self.files.values()]
        return hashlib.sha256(json.dumps([self.url, sorted(facts)]).encode()).hexdigest()[:24]

    def as_json(self) -> dict[str, Any]:
        """What `read_listing` reads."""
        files = {name: [file.path, file.size, file.stamp] for name, file in self.files.items()}
        return {"url": self.url, "alone": self.alone, "files": files}


@cache
def read_listing(file: Path) -> Listing:
    """Read what was written of `Listing.as_json`; it never changes, so each process reads it once."""
    values = read_object(file)
    url = values["url"]
    return Listing(
        url, {name: RemoteFile(url, name, *facts) for name, facts in values["files"].items()}, values["alone"]
    )


def list_files(url: str) -> Listing:
    """Ask the driver for all files at or below a URL; hidden ones do not belong to a data set.

    Args:
        url: As `normal_url` returns it.

    Raises:
        ValueError: The driver is missing, there are no files, access is refused, or names or sizes are of no use;
            `UnreachableError` for anything else that a driver raises.
    """
    try:
        system, root = fsspec.core.url_to_fs(url)
        system.invalidate_cache()
        found = system.find(root, detail=True)
        alone = list(found) == [root] or (not found and system.isfile(root))
        found = found or ({root: system.info(root)} if alone else {})
        found = {path: info for path, info in found.items() if _is_visible(_name(path, root, alone))}
        sized = _sized(system, found)
    except Exception as error:  # drivers raise classes of their own
        refuse(url, error)
    if not sized:
        raise ValueError(f"{url}: lists no files")
    files = {}
    for path, info in sized.items():
        name, size = _name(path, root, alone), info.get("size")
        if ".." in PurePosixPath(name).parts or "\\" in name or not isinstance(size, int):
            raise ValueError(f"{url}: {name!r:.100} has size {size}, expected a name below the URL and a size in bytes")
        stamp = next((str(info[key]) for key in (*STAMPS, *TIMES) if info.get(key)), "")
        files[name] = RemoteFile(url, name, path, size, stamp)
    return Listing(url, dict(sorted(files.items())), alone)


def _name(path: str, root: str, alone: bool) -> str:
    return PurePosixPath(path).name if alone else path.removeprefix(root).lstrip("/")


def _is_visible(name: str) -> bool:
    return bool(name) and not name.endswith("/") and not any(part.startswith(".") for part in name.split("/"))


def _sized(system: fsspec.AbstractFileSystem, found: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same with the sizes that a listing leaves out, as that of an HTTP server does."""
    without = [path for path, info in found.items() if info.get("size") is None]
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(found) | dict(zip(without, pool.map(system.info, without), strict=True))

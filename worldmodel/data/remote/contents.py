"""The fetched contents of files behind URLs: one flat folder, bounded, the least recently used go first.

fsspec's own caches do not serve: `filecache` and `simplecache` have no bound on their size, and the index of
`filecache` is rewritten whole by every process.
"""

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import fsspec
from filelock import FileLock

from worldmodel.data.remote.listing import RemoteFile
from worldmodel.data.remote.url import UnreachableError, refuse
from worldmodel.files import default_cache_folder, write_text

CHUNK = 2**20
TRIES = 3
ROUNDS = 20  # in which other processes may remove a content between its arrival and its use
PAUSE = 0.5  # seconds before the second try, twice as many before the third
_whole: set[tuple[str, int, int]] = set()  # key, inode and time of the contents whose hash this process compared


@dataclass(frozen=True)
class Part:
    """Some bytes of a file; its content is as long as the file, and takes the space of these bytes only.

    Attributes:
        outline: A file on this disk that has the bytes of `boxes`.
        boxes: Where they begin and end.
        ranges: Where the bytes begin and end that have to be fetched.
    """

    outline: Path
    boxes: tuple[tuple[int, int], ...]
    ranges: tuple[tuple[int, int], ...]

    @property
    def key(self) -> str:
        """What the name of its content has after that of the file."""
        return "-" + hashlib.sha256(repr(self.ranges).encode()).hexdigest()[:16]


def contents_folder() -> Path:
    """Where the contents of all data sets lie."""
    return default_cache_folder() / "streams" / "contents"


def content(file: RemoteFile, part: Part | None = None) -> Path:
    """Where the content of a file, or of a part of it, lies once it was fetched."""
    return contents_folder() / f"{file.key}{part.key if part else ''}{file.suffix}"


@contextmanager
def fetched(file: RemoteFile, limit: int | None, part: Part | None = None) -> Iterator[Path]:
    """The content of a file; while the context lasts, it is not removed.

    A content whose size or hash is not that which was noted when it was fetched is fetched again; the hash is
    compared once in each process. Contents in use are never removed, and one that is larger than the bound is fetched
    all the same. So the bound is exceeded by what is in use at most.

    Args:
        file: The file behind the URL.
        limit: Most bytes of all contents together; `None` for what the disk holds.
        part: Which bytes are needed; by default all.

    Raises:
        ValueError: The file cannot be fetched, is not as it was listed, or does not fit.
    """
    place = content(file, part)
    handle = _whole_content(file, place, part)
    for _ in range(ROUNDS):
        if handle is None:
            _fetch(file, place, limit, part)
            handle = _whole_content(file, place, part)
    if handle is None:
        raise ValueError(f"{file.url}: its copy in {place.parent} was damaged or removed {ROUNDS} times in a row")
    try:
        status = os.fstat(handle)
        os.utime(place, ns=(time.time_ns(), status.st_mtime_ns))  # the time of access orders the contents
        yield place
    finally:
        os.close(handle)


def _whole_content(file: RemoteFile, place: Path, part: Part | None) -> int | None:
    """A handle of the content, locked against removal; `None` if it is not there, or damaged."""
    handle = _hold(place)
    if handle is not None and not _is_whole(file, place, handle, part):
        os.close(handle)
        return None
    return handle


def _hold(place: Path) -> int | None:
    """A handle of the content, locked against removal; `None` if it is not there."""
    try:
        handle = os.open(place, os.O_RDONLY)
    except FileNotFoundError:
        return None
    fcntl.flock(handle, fcntl.LOCK_SH)
    with suppress(FileNotFoundError):
        if os.stat(place).st_ino == os.fstat(handle).st_ino:
            return handle
    os.close(handle)  # removed before the lock was ours
    return None


def _is_whole(file: RemoteFile, place: Path, handle: int, part: Part | None) -> bool:
    status = os.fstat(handle)
    mark = place.name, status.st_ino, status.st_mtime_ns
    if status.st_size != file.size:
        return False
    if mark not in _whole:
        noted = _note(place)
        if not noted.is_file() or noted.read_text() != _digest(file, place, part):
            return False
        _whole.add(mark)
    return True


def _digest(file: RemoteFile, place: Path, part: Part | None) -> str:
    digest = hashlib.sha256()
    with place.open("rb") as stream:
        for start, stop in _spans(file, part):
            stream.seek(start)
            while start < stop and (chunk := stream.read(min(CHUNK, stop - start))):
                digest.update(chunk)
                start += len(chunk)
    return digest.hexdigest()


def _spans(file: RemoteFile, part: Part | None) -> tuple[tuple[int, int], ...]:
    """The bytes that a content has."""
    return ((0, file.size),) if part is None else (*part.boxes, *part.ranges)


def _note(place: Path) -> Path:
    """The file with the hash of a content."""
    return place.with_name(f"{place.name}.sha256")


def _fetch(file: RemoteFile, place: Path, limit: int | None, part: Part | None) -> None:
    """Fetch a content, unless another process has done so in the meantime."""
    folder = place.parent
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{file.key[:2]}.lock"):
        handle = _whole_content(file, place, part)
        if handle is not None:
            os.close(handle)
            return
        with FileLock(folder / "room.lock"):
            place.unlink(missing_ok=True)
            _make_room(file, sum(stop - start for start, stop in _spans(file, part)), folder, limit)
            handle, name = tempfile.mkstemp(dir=folder, prefix=f"{file.key}.", suffix=".part")
            fcntl.flock(handle, fcntl.LOCK_EX)
            os.truncate(handle, file.size)
            _reserve(file, handle, part)
        try:
            with os.fdopen(handle, "r+b") as stream:
                _download(file, stream, part)
                write_text(_note(place), _digest(file, Path(name), part))
                os.chmod(name, 0o644)
                os.replace(name, place)
        finally:
            Path(name).unlink(missing_ok=True)


def _reserve(file: RemoteFile, handle: int, part: Part | None) -> None:
    """Take the space on the disk at once, so that other processes count it."""
    if sys.platform != "linux":
        return
    try:
        for start, stop in _spans(file, part):
            if stop > start:
                os.posix_fallocate(handle, start, stop - start)
    except OSError as error:
        os.close(handle)
        raise ValueError(f"{file.url}: cannot be written to {contents_folder()}: {error.strerror}") from error


def _make_room(file: RemoteFile, need: int, folder: Path, limit: int | None) -> None:
    """Remove the contents that were not used for the longest time, and what killed processes left."""
    entries = [entry for entry in os.scandir(folder) if not entry.name.endswith((".lock", ".sha256"))]
    kept = []
    for entry in entries:
        with suppress(FileNotFoundError):
            status = entry.stat()
            if entry.name.endswith(".part") and _remove(Path(entry.path)):
                continue
            taken = min(status.st_size, status.st_blocks * 512)  # a part takes less than its length
            kept.append((status.st_atime_ns, taken, Path(entry.path)))
    total = sum(size for _, size, _ in kept)
    for _, size, path in sorted(kept):
        free = shutil.disk_usage(folder).free
        if need <= free and (limit is None or total + need <= limit):
            return
        if path.suffix != ".part" and _remove(path):
            total -= size
    free = shutil.disk_usage(folder).free
    if need > free:
        raise ValueError(
            f"{file.url}: has {need / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free in {folder}; set "
            "WORLDMODEL_CACHE to a folder on another disk"
        )


def _remove(path: Path) -> bool:
    """Remove a content or an unfinished one, unless somebody uses it."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        path.unlink(missing_ok=True)
        _note(path).unlink(missing_ok=True)
        return True
    finally:
        os.close(handle)


def _download(file: RemoteFile, stream: BinaryIO, part: Part | None) -> None:
    """Write the content to an open file; a broken connection is tried again."""
    for number in range(TRIES):
        try:
            return _copy(file, stream) if part is None else _copy_part(file, stream, part)
        except UnreachableError:
            if number == TRIES - 1:
                raise
            time.sleep(PAUSE * 2**number)
    raise AssertionError


def _copy(file: RemoteFile, stream: BinaryIO) -> None:
    count = 0
    stream.seek(0)
    with _driven(file) as system, system.open(file.path, "rb", cache_type="readahead") as source:
        while count <= file.size and (chunk := source.read(CHUNK)):
            count += len(chunk)
            if count <= file.size:
                _write(file, stream, chunk)
    if count != file.size:
        more = "more than " * (count > file.size)
        raise UnreachableError(f"{file.url}: has {more}{min(count, file.size)} bytes, {file.size} when it was listed")
    stream.flush()


def _copy_part(file: RemoteFile, stream: BinaryIO, part: Part) -> None:
    with part.outline.open("rb") as outline:
        for start, stop in part.boxes:
            outline.seek(start)
            stream.seek(start)
            _write(file, stream, outline.read(stop - start))
    for start, stop in part.ranges:
        with _driven(file) as system:
            chunk = system.cat_file(file.path, start=start, end=stop)
        if len(chunk) != stop - start:
            raise UnreachableError(f"{file.url}: has {len(chunk)} bytes from {start} on, expected {stop - start}")
        stream.seek(start)
        _write(file, stream, chunk)
    stream.flush()


@contextmanager
def _driven(file: RemoteFile) -> Iterator[fsspec.AbstractFileSystem]:
    """The driver of a file; its errors become a `ValueError` in one line."""
    try:
        system, _ = fsspec.core.url_to_fs(file.root)
        yield system
    except FileNotFoundError as error:
        raise ValueError(f"{file.url}: is gone, it was there when the data set was listed") from error
    except Exception as error:  # drivers raise classes of their own
        if isinstance(error, ValueError) and str(error).startswith(f"{file.url}: "):
            raise  # of `_write`
        refuse(file.url, error)


def _write(file: RemoteFile, stream: BinaryIO, chunk: bytes) -> None:
    try:
        stream.write(chunk)
    except OSError as error:
        raise ValueError(f"{file.url}: cannot be written to {contents_folder()}: {error.strerror}") from error

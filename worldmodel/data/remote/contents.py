"""The fetched contents of files behind URLs: one flat folder, bounded, the least recently used go first.

fsspec's own caches do not serve: `filecache` and `simplecache` have no bound on their size, and the index of
`filecache` is rewritten whole by every process.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import fsspec
from filelock import FileLock

from worldmodel.data.remote.listing import RemoteFile
from worldmodel.data.remote.url import UnreachableError, refuse
from worldmodel.files import default_cache_folder, write_text

CHUNK = 2**20
TRIES = 3
PAUSE = 0.5  # seconds before the second try, twice as many before the third
_whole: set[tuple[str, int, int]] = set()  # key, inode and time of the contents whose hash this process compared


def contents_folder() -> Path:
    """Where the contents of all data sets lie."""
    return default_cache_folder() / "streams" / "contents"


def content(file: RemoteFile) -> Path:
    """Where the content of a file lies once it was fetched."""
    return contents_folder() / f"{file.key}{file.suffix}"


@contextmanager
def fetched(file: RemoteFile, limit: int | None) -> Iterator[Path]:
    """The content of a file; while the context lasts, it is not removed.

    A content whose size or hash is not that which was noted when it was fetched is fetched again; the hash is
    compared once in each process. Contents in use are never removed, and one that is larger than the bound is fetched
    all the same; so the bound is exceeded by what is in use at most.

    Args:
        file: The file behind the URL.
        limit: Most bytes of all contents together; `None` for what the disk holds.

    Raises:
        ValueError: The file cannot be fetched, is not as it was listed, or does not fit.
    """
    place = content(file)
    while (handle := _hold(place)) is None or not _is_whole(file, place, handle):
        if handle is not None:
            os.close(handle)
        _fetch(file, place, limit)
    try:
        status = os.fstat(handle)
        os.utime(place, ns=(time.time_ns(), status.st_mtime_ns))  # the time of access orders the contents
        yield place
    finally:
        os.close(handle)


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


def _is_whole(file: RemoteFile, place: Path, handle: int) -> bool:
    status = os.fstat(handle)
    mark = file.key, status.st_ino, status.st_mtime_ns
    if status.st_size != file.size:
        return False
    if mark not in _whole:
        noted = _note(place)
        with place.open("rb") as stream:
            if not noted.is_file() or noted.read_text() != hashlib.file_digest(stream, "sha256").hexdigest():
                return False
        _whole.add(mark)
    return True


def _note(place: Path) -> Path:
    """The file with the hash of a content."""
    return place.with_name(f"{place.name}.sha256")


def _fetch(file: RemoteFile, place: Path, limit: int | None) -> None:
    """Fetch a content, unless another process has done so in the meantime."""
    folder = place.parent
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{file.key[:2]}.lock"):
        handle = _hold(place)
        if handle is not None:
            try:
                if _is_whole(file, place, handle):
                    return
            finally:
                os.close(handle)
        with FileLock(folder / "room.lock"):
            place.unlink(missing_ok=True)
            _make_room(file, folder, limit)
            handle, name = tempfile.mkstemp(dir=folder, prefix=f"{file.key}.", suffix=".part")
            fcntl.flock(handle, fcntl.LOCK_EX)
            os.truncate(handle, file.size)  # its whole size counts from now on
        try:
            with os.fdopen(handle, "r+b") as part:
                digest = _download(file, part)
                write_text(_note(place), digest)
                os.chmod(name, 0o644)
                os.replace(name, place)
        finally:
            Path(name).unlink(missing_ok=True)


def _make_room(file: RemoteFile, folder: Path, limit: int | None) -> None:
    """Remove the contents that were not used for the longest time, and what killed processes left."""
    entries = [entry for entry in os.scandir(folder) if not entry.name.endswith((".lock", ".sha256"))]
    kept = []
    for entry in entries:
        with suppress(FileNotFoundError):
            status = entry.stat()
            if entry.name.endswith(".part") and _remove(Path(entry.path)):
                continue
            kept.append((status.st_atime_ns, status.st_size, Path(entry.path)))
    total = sum(size for _, size, _ in kept)
    for _, size, path in sorted(kept):
        free = shutil.disk_usage(folder).free
        if file.size <= free and (limit is None or total + file.size <= limit):
            return
        if path.suffix != ".part" and _remove(path):
            total -= size
    free = shutil.disk_usage(folder).free
    if file.size > free:
        raise ValueError(
            f"{file.url}: has {file.size / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free in {folder}; set "
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


def _download(file: RemoteFile, part: BinaryIO) -> str:
    """Write the content to an open file, and return its hash; a broken connection is tried again."""
    for number in range(TRIES):
        try:
            return _copy(file, part)
        except UnreachableError:
            if number == TRIES - 1:
                raise
            time.sleep(PAUSE * 2**number)
    raise AssertionError


def _copy(file: RemoteFile, part: BinaryIO) -> str:
    digest, count = hashlib.sha256(), 0
    part.seek(0)
    try:
        system, _ = fsspec.core.url_to_fs(file.root)
        with system.open(file.path, "rb", cache_type="readahead") as stream:
            while chunk := stream.read(CHUNK):
                count += len(chunk)
                if count > file.size:
                    break
                digest.update(chunk)
                _write(file, part, chunk)
    except ValueError:
        raise
    except Exception as error:  # drivers raise classes of their own
        if isinstance(error, FileNotFoundError):
            raise ValueError(f"{file.url}: is gone, it was there when the data set was listed") from error
        refuse(file.url, error)
    if count != file.size:
        more = "more than " * (count > file.size)
        raise UnreachableError(f"{file.url}: has {more}{min(count, file.size)} bytes, {file.size} when it was listed")
    part.flush()
    return digest.hexdigest()


def _write(file: RemoteFile, part: BinaryIO, chunk: bytes) -> None:
    try:
        part.write(chunk)
    except OSError as error:
        raise ValueError(f"{file.url}: cannot be written to {contents_folder()}: {error.strerror}") from error

"""What the URL of a data set may look like, and how drivers' errors about it are told."""

import re
from pathlib import Path
from typing import NoReturn
from urllib.parse import parse_qsl

from worldmodel.files import HUB, is_on_hub

SCHEME = re.compile(r"[A-Za-z][\w+.-]+:/")
ONE_SLASH = re.compile(r"(?<![\w:])((?!file:|local:)[A-Za-z][\w+.-]+):/(?!/)")  # what a Path makes of s3://
PASSWORD = re.compile(r"//[^/\s@]*:[^/\s@]*@")
QUERY = re.compile(r"(https?://[^\s?'\"]*)\?[^\s'\")>]*")
SECRET = re.compile(r"sig|token|secret|password|passwd|credential|access.?key|api.?key|^key$", re.IGNORECASE)


def is_url(name: str | Path) -> bool:
    """Whether a user means a URL of fsspec, such as `s3://bucket/set` or `zip://::https://host/set.zip`."""
    return SCHEME.match(str(name)) is not None or "::" in str(name)


def whole_url(name: str | Path) -> str:
    """The URL as the user wrote it: a `Path` turns `s3://` into `s3:/`."""
    return ONE_SLASH.sub(r"\1://", str(name))


def normal_url(name: str | Path) -> str:
    """The URL to ask fsspec for: without a slash at its end, and `hf://USER/SET@REV` as a data set of the hub.

    Raises:
        ValueError: It holds a password or a signature, which would be saved with what is trained; or it names
            something on the hub in another way than `hf://USER/SET@REV`.
    """
    url = whole_url(name)
    names = [key for key, _ in parse_qsl(url.partition("?")[2], keep_blank_values=True)]
    if PASSWORD.search(url) or any(SECRET.search(key) for key in names):
        raise ValueError(
            f"{without_secrets(url)}: the URL holds a password or a signature; give it to fsspec in "
            "~/.config/fsspec/conf.json or in the driver's environment variables, for the URL is saved with what "
            "is trained"
        )
    if is_on_hub(url) and not url.startswith("hf://datasets/"):
        if not HUB.fullmatch(url):
            raise ValueError(f"{name}: expected hf://USER/NAME or hf://USER/NAME@REVISION")
        url = url.replace("hf://", "hf://datasets/")
    bare = url.rstrip("/")
    return url if bare.endswith(":") else bare


def without_secrets(text: str) -> str:
    """A message without the passwords and the queries of the URLs in it: a signed query is as good as a password."""
    return QUERY.sub(r"\1?...", PASSWORD.sub("//...@", text))


class UnreachableError(ValueError):
    """A URL cannot be read now, and the reason is not that it is wrong: no network, for example."""


def refuse(url: str, error: BaseException) -> NoReturn:
    """Raise the `ValueError` that tells in one line what a driver's error means.

    Raises:
        UnreachableError: The driver did not say that the file is missing, or that access is refused.
        ValueError: It said so, or the driver is not installed or not known.
    """
    url = without_secrets(url)
    lines = " ".join(str(error).split())
    reason = without_secrets(lines or type(error).__name__)[:300]
    if isinstance(error, ImportError):
        missing = getattr(error.__cause__, "name", None) or error.name or ""
        package = missing.partition(".")[0]
        raise ValueError(f"{url}: " + (f"needs {package}: pip install {package}" if package else reason)) from error
    if isinstance(error, ValueError) and "rotocol not known" in reason:
        raise ValueError(f"{url}: fsspec knows no such kind of URL") from error
    if isinstance(error, FileNotFoundError):
        raise ValueError(f"{url}: there is no such file or folder") from error
    if isinstance(error, PermissionError) or any(word in reason for word in ("Forbidden", "AccessDenied")):
        raise ValueError(f"{url}: access is refused: {reason}") from error
    raise UnreachableError(f"{url}: cannot be read: {reason}") from error

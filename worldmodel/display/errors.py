"""What to say about an error of the operating system."""

import errno

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""The disk is full or read-only."""


def said_of(error: OSError) -> str | None:
    """One line about an error of the operating system: a file that cannot be read or written, or a full disk.

    `None` for other errors, such as those of a network, which name no file.
    """
    if error.filename is not None:
        return f"{error.filename}: {error.strerror or error}"
    return error.strerror if error.errno in DISK else None

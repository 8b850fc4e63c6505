"""A file system of fsspec whose files can break, disappear and be refused; it keeps them in memory."""

from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem


class RefusingFileSystem(MemoryFileSystem):
    """Raises what it is told to.

    Attributes:
        errors: By the end of a path, the errors that the next calls raise.
        opened: The paths that were opened, in their order.
    """

    protocol = "refusing"
    store: dict = {}  # noqa: RUF012 - fsspec shares it between instances
    pseudo_dirs = [""]  # noqa: RUF012
    errors: dict[str, list[BaseException]] = {}  # noqa: RUF012
    opened: list[str] = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.replace("refusing://", "memory://"))

    def _open(self, path, mode="rb", **options):
        self.opened.append(path)
        self._raise(path)
        return super()._open(path, mode, **options)

    def find(self, path, **options):
        self._raise(path)
        return super().find(path, **options)

    def cat_file(self, path, start=None, end=None, **options):
        self._raise(path)
        with MemoryFileSystem._open(self, self._strip_protocol(path)) as stream:
            return stream.getvalue()[start:end]

    def _raise(self, path: str) -> None:
        for end, errors in self.errors.items():
            if path.endswith(end) and errors:
                raise errors.pop(0)


def refusing() -> type[RefusingFileSystem]:
    """The file system behind `refusing://`, empty."""
    RefusingFileSystem.store, RefusingFileSystem.pseudo_dirs = {}, [""]
    RefusingFileSystem.errors, RefusingFileSystem.opened = {}, []
    register_implementation("refusing", RefusingFileSystem, clobber=True)
    return RefusingFileSystem

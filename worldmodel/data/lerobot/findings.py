"""What is found while a data set is opened: notes, and the episodes that are broken."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from worldmodel.data.options import ranges

PARTS = ("meta", "data", "videos", "images")


class Findings:
    """Notes and broken episodes, collected so that all are named at once.

    Attributes:
        folder: The data set; file names in notes and reasons are relative to it.
        broken: What is wrong with an episode, by its number; only the first reason is kept.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.broken: dict[int, str] = {}
        self._notes: dict[str, set[int]] = {}

    def note(self, text: str, episode: int | None = None) -> None:
        """Remember something odd; a note about several episodes becomes one line."""
        episodes = self._notes.setdefault(self._short(text), set())
        if episode is not None:
            episodes.add(episode)

    def blame(self, episode: int, reason: str) -> None:
        """Remember that an episode is broken."""
        self.broken.setdefault(episode, self._short(reason))

    @contextmanager
    def blaming(self, episode: int) -> Iterator[None]:
        """Turn a `ValueError` into a broken episode."""
        try:
            yield
        except ValueError as error:
            self.blame(episode, str(error))

    def notes(self, kept: Iterable[int]) -> tuple[str, ...]:
        """All notes in the order in which they were found, without those about episodes that were left out."""
        kept = set(kept)
        lines = []
        for text, episodes in self._notes.items():
            named = sorted(episodes & kept)
            if not episodes:
                lines.append(text)
            elif named:
                lines.append(f"{text} (episode{'s' if len(named) > 1 else ''} {ranges(named)})")
        return tuple(lines)

    def _short(self, text: str) -> str:
        """`text` in one line; paths inside the folder are relative to it."""
        begin = rf"(?<![\w./\\'\"-]){re.escape(str(self.folder))}/(?=(?:{'|'.join(PARTS)})\b)"
        return " ".join(re.sub(begin, "", text).split())

"""How much of a limit is in use, counted by one process or by several that serve together."""

from collections.abc import MutableSequence


class Tally:
    """A number of things in use that all processes of a server see.

    Every process changes only its own place, so nobody has to wait for a lock, which a killed process would keep for
    ever. Who takes something counts it before looking at the limit: two processes can refuse the last one at the same
    time, but never give it twice.

    Args:
        counts: One number for each process, in memory that they share; by default this process is alone.
        place: The place of this process.
    """

    def __init__(self, counts: MutableSequence[int] | None = None, place: int = 0):
        self.counts: MutableSequence[int] = [0] if counts is None else counts
        self.place = place

    @property
    def total(self) -> int:
        """The number in use by all processes."""
        return sum(self.counts)

    def take(self, number: int, limit: int) -> bool:
        """Count `number` more, if all processes together then have at most `limit`."""
        self.counts[self.place] += number
        if self.total <= limit:
            return True
        self.give_back(number)
        return False

    def give_back(self, number: int) -> None:
        """Count `number` less."""
        self.counts[self.place] -= number

"""How much the visitors of a server may use."""

from dataclasses import dataclass, fields

from worldmodel.display.ranges import Count, Positive, Weight, Whole
from worldmodel.wire.fields import MOST_STREAMS

BATCHES = (1, 2, 4, 8, MOST_STREAMS)
"""Numbers of rows that are computed together; a session chooses one of them."""


@dataclass(frozen=True)
class Limits:
    """How much the visitors of a server may use, all together and each of them.

    Raises:
        ValueError: A limit is not positive.
    """

    connections: Count = 64
    """Number of connections at a time; more are refused with the status 503."""
    rows: Count = 64
    """Number of dreams that can be computed at a time; a batch of 8 counts as 8, however many of them are in use."""
    sessions: Count = 16
    """Number of sessions of one connection."""
    snapshots: Whole = 64
    """Number of saved streams of one connection; a snapshot of a session with 4 streams counts as 4."""
    actions: Count = 256
    """Number of actions of one stream in one message."""
    reply_mb: Count = 32
    """Size of the frames in one reply, before they are compressed, in MB."""
    idle_seconds: Positive = 300.0
    """Seconds without a message after which a session or a connection is closed."""
    gather_ms: Weight = 10.0
    """Milliseconds that a step waits for the other sessions that took part in the last step."""

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0 and not (field.name == "gather_ms" and value == 0):
                raise ValueError(f"--limits.{field.name.replace('_', '-')} is positive, got {value}")

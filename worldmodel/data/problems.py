"""Problems that a well-formed data set may still have, found in its numbers and pictures."""

from collections.abc import Iterator

import numpy as np

from worldmodel.data.source import TableSource

SHORTEST = 9  # frames of a training clip
DARK = 8  # of 255: a picture without a brighter pixel is black
OUTLIER = 20.0  # standard deviations


def find_problems(source: TableSource, *, look_at: int = 8) -> list[str]:
    """Everything suspicious in a data set, one line each; empty when nothing is.

    Args:
        source: An opened data set.
        look_at: Episodes, evenly spaced, of which the first, middle and last frame are decoded.
    """
    return [*_episode_problems(source), *_table_problems(source), *_picture_problems(source, look_at)]


def _episode_problems(source: TableSource) -> Iterator[str]:
    short = [e for e, length in enumerate(source.lengths) if length < SHORTEST]
    if short:
        yield (
            f"{len(short)} episodes are shorter than {SHORTEST} frames, the first is {short[0]} "
            f"with {source.lengths[short[0]]}; they are not trained on"
        )
    seen: dict[bytes, int] = {}
    for episode, rows in enumerate(source.rows):
        tables = [table for table in (rows.actions, rows.states) if table is not None]
        if not tables:
            continue
        key = b"".join(table.tobytes() for table in tables)
        first = seen.setdefault(key, episode)
        if first != episode:
            yield f"episode {episode} has the same actions and states as episode {first}"


def _table_problems(source: TableSource) -> Iterator[str]:
    for name in ("actions", "states"):
        tables = [getattr(rows, name) for rows in source.rows]
        if tables[0] is None:
            continue
        values = np.concatenate(tables).astype(np.float64)
        for dim, column in enumerate(values.T):
            spread = column.std()
            if spread == 0:
                yield f"{name} dim {dim} is {column[0]:.4g} in every frame"
                continue
            distance = np.abs(column - np.median(column)) / spread
            if distance.max() > OUTLIER:
                row = int(distance.argmax())
                ends = np.cumsum([len(table) for table in tables])
                episode = int(np.searchsorted(ends, row, side="right"))
                frame = row - int(ends[episode] - len(tables[episode]))
                yield (
                    f"{name} dim {dim} is {column[row]:.4g} in frame {frame} of episode {episode}, "
                    f"{distance[row]:.0f} standard deviations from the median"
                )


def _picture_problems(source: TableSource, look_at: int) -> Iterator[str]:
    sizes = {box.source for box in source.boxes}
    if len(sizes) > 1:
        listed = ", ".join(f"{width} x {height}" for height, width in sorted(sizes))
        yield f"cameras differ in size ({listed}); the smaller ones are scaled up and padded"
    chosen = np.linspace(0, len(source) - 1, min(look_at, len(source))).round().astype(int)
    brightest = np.zeros(len(source.views), int)
    moved = np.zeros(len(source.views), bool)
    for episode in chosen.tolist():
        length = source.lengths[episode]
        try:
            frames = [source.read(episode, at, at + 1).frames[0] for at in _looks(length)]
        except ValueError as error:
            yield str(error)
            continue
        for camera in range(len(source.views)):
            views = [frame[camera].int() for frame in frames]
            brightest[camera] = max(brightest[camera], *(int(view.max()) for view in views))
            changes = [int((view - views[0]).abs().max()) for view in views]
            moved[camera] |= length > 1 and max(changes) > DARK
    for camera, view in enumerate(source.views):
        if len(chosen) and brightest[camera] < DARK:
            yield f"camera {view} is black in the episodes looked at"
        elif len(chosen) and not moved[camera] and max(source.lengths) > 1:
            yield f"camera {view} shows the same picture throughout the episodes looked at"


def _looks(length: int) -> list[int]:
    return sorted({0, length // 2, length - 1})

"""Whether recordings fit what reads them."""

from dataclasses import dataclass

import pytest
from drawn_episodes import DrawnEpisodes

from worldmodel.dreams.context import check_views


@dataclass
class Rival:
    """Another project's world model, which is no `WorldModel`."""

    views: tuple[str, ...]
    size: tuple[int, int] = (16, 16)
    action_dim: int = 0
    state_dim: int = 0


def test_any_class_with_cameras_and_widths_is_compared_with_the_recordings():
    source = DrawnEpisodes([5])
    check_views(Rival(tuple(source.views)), source)
    with pytest.raises(ValueError, match=r"drawn: views is .*, the world model has \('side',\)"):
        check_views(Rival(("side",)), source)

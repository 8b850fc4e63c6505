"""Reading, checking, caching and writing episodes."""

from worldmodel.data.cache import EpisodeCache
from worldmodel.data.clip import Clip, EpisodeSource, stack_clips
from worldmodel.data.formats import open_episodes

__all__ = ["Clip", "EpisodeCache", "EpisodeSource", "open_episodes", "stack_clips"]

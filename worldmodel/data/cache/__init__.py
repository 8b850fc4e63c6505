"""Decoded frames on the disk, bounded where the user says so."""

from worldmodel.data.cache.episodes import EpisodeCache, piece_frames

__all__ = ["EpisodeCache", "piece_frames"]

"""Scoring and ranking policies inside a world model."""

"""Judges: whether a frame shows success, and which action led to it."""

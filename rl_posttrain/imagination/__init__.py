"""Policies trained in the dreams of a world model."""

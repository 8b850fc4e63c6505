"""Pretraining from video and actions."""

"""Rewards of imagined rollouts."""

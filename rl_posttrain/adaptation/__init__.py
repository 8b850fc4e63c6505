"""Adapt a policy to a changed environment by its own real rollouts, relabelled with what they reached."""

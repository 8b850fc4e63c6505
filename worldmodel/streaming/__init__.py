"""A running rollout, and what makes it fast."""

"""From which step of a dream its outcome should not be trusted."""

"""The pathwise objective: the gradient of rewards through the last decoding step of a self-rollout."""

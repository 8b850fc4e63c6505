"""Post-training: the world model improved by rewards on its own rollouts."""

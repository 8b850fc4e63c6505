"""What the environments that are simulated by MuJoCo have in common: how their pictures are drawn."""

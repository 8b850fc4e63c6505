"""A learned simulator: data, codec, diffusion transformer, rollout engine, pretraining."""

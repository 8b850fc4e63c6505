"""Pretrained networks of diffusers as parts of a world model."""

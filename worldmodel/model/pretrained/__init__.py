"""Pretrained video transformers as the network of a world model."""

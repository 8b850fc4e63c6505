"""The whole package in one go."""

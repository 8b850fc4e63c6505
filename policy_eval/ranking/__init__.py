"""Rank policies by their dreams, and hold the order against real trials."""

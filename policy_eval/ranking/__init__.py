"""Rank policies by their dreams, and compare the order with real trials."""

"""Policies that learn what a planner finds in their dreams."""

"""Thresholds of a judge, set by real rollouts. `worldmodel calibrate`."""

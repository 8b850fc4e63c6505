"""Statistics of trials: agreement, intervals, noise ceiling."""

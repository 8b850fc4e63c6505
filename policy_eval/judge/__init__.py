"""Who says whether a task succeeded, and which action was seen."""

"""Whether the cameras of a dream tell one story."""

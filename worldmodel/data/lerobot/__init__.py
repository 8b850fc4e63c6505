"""Read LeRobot folders v2.0, v2.1 and v3.0, and write v3.0."""

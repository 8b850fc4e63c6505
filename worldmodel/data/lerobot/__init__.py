"""LeRobot folders: v2.0, v2.1 and v3.0 in, v3.0 out."""

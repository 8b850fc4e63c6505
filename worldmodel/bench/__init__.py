"""How fast a world model is, and what share of the hardware's peak speed it reaches."""

"""How fast a world model is, and how near to what the hardware allows."""

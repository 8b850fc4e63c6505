"""How faithful a world model is to held-out episodes."""

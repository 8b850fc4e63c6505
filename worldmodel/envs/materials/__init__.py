"""Rope and sand on the table of PushT."""

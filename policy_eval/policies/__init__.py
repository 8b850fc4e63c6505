"""Policies: the protocol, adapters, and small policies cloned from demonstrations."""

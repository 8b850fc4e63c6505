"""Serve a world model or a policy over a websocket."""

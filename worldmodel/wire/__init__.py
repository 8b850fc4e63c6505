"""Dreams and policies over a websocket: the messages, the server, its sessions and the Python client."""

"""A drive: session, start, simulator beside, recording; no user interface."""

"""Driving a world model by hand: the session, its start, the simulator beside it, the recording."""

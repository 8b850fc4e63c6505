"""Dreams as environments and as films, and the recorded frames that they start from."""

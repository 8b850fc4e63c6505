"""Data sets behind a URL: listed at once, and each file fetched when it is first needed."""

"""Whether noise seeds disagree where a dream is wrong."""

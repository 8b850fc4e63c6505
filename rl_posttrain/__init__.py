"""Everything that updates weights from a reward."""

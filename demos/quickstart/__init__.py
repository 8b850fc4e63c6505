"""`worldmodel quickstart`: record, train, dream, measure, rank and improve, in one go."""

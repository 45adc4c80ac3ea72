"""Raw data to canonical tables."""

"""Raw data to canonical tables (architecture.md: Tables and shards)."""

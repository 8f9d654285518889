"""The commands of toto-shards, by topic."""

"""Datasets made of datasets: `pack`, `split`, `merge`; and of tokens that somebody else made: `import`.

    snapshots or files -> lines (catalog) -> pieces -> units -> plan/0001.parquet -> shards, commits -> seal

What comes out is an ordinary dataset: it is verified, trained on, exported and derived from like any other.
"""

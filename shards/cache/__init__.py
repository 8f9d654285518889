"""Inflated batches on this machine's disk and in its processes, and what brings them there ahead of the reader."""

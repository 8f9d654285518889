"""A checkpoint as a folder that transformers loads, with a report of how equal the two are."""

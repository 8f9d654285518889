"""What the tokens of datasets tell: codebook use, redundancy, n-grams, and what two datasets share.

record batches ─blocks─▶ codes [frames, h, w] ─▶ counters (bounded; spill to disk) ─▶ figures, JSON, PNG
"""

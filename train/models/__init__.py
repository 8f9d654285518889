"""Models: ids -> logits, losses and features."""

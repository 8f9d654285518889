"""Clips that a checkpoint goes on with: prompts -> codes of whole clips -> a dataset, pictures, how true they are."""

"""Rows, windows and training steps as pictures and pages, with the way back to their sources."""

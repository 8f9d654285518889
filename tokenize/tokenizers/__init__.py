"""Tokenizers: a picture to a grid of codes and back, one class a file."""

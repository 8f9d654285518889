"""Datasets for other people's loaders: baked windows or whole rows, as their own libraries read them."""

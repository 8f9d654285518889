"""How a stream finds its n-th sequence: mixture, order, windows, and the reading of many at once."""

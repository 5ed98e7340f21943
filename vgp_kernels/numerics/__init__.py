"""Arithmetic, random numbers, sums and products: the same bits on every target."""

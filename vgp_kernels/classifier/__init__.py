"""Networks with explicit weights, and how they learn."""

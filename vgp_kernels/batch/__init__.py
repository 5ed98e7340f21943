"""Feed-forward networks with batches, norms and skips."""

"""One input through layers without norms and skips."""

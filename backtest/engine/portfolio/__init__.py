"""A run of an account with several positions: inputs, loop, result."""

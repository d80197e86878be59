"""Parameter sets: what may vary, which values are allowed, and the space a search draws from."""

"""Models of price paths: what they draw, and their fit to history."""

"""The quality report: what market data hold, what looks wrong, and what they are fit for."""

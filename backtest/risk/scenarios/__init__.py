"""Shocks to an account, historical crashes, and the move that it survives."""

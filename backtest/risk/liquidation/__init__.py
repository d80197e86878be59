"""Accounts on simulated paths: the probability of liquidation, and the leverage that it allows."""

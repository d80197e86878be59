"""Sweeps of several positions: one account for each set, on arrays that all sets share."""

"""The compiled loop that takes 64 parameter sets through a market side by side."""

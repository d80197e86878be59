"""Serve the pages of saved results to a browser on this machine, reading only."""

"""Readers of files: formats, vendors' column names, and folders of several files."""

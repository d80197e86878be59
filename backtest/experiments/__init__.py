"""Tests as tables of TOML: read from files, checked, built, and written."""

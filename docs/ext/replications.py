"""The table of replications, from their stored results."""

from __future__ import annotations


def list_pages() -> dict[str, str]:
    """Return the pages."""
    return {}

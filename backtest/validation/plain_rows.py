"""Rows of tables as data for JSON."""

from __future__ import annotations

from typing import Any

import pandas as pd


def list_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table with its index, times as ISO 8601 text.

    Examples
    --------
    >>> list_rows(pd.DataFrame({"at": [pd.Timestamp("2024-01-01", tz="UTC")]}))
    [{'index': 0, 'at': '2024-01-01T00:00:00+00:00'}]
    """
    plain = table.reset_index()
    for name in plain.columns:
        if isinstance(plain[name].dtype, pd.DatetimeTZDtype):
            plain[name] = [time.isoformat() for time in plain[name]]
    return [{str(name): value for name, value in row.items()} for row in plain.to_dict("records")]

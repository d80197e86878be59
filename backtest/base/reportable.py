"""The base class of all results: each can be written as a report."""

from __future__ import annotations

from pathlib import Path

from backtest.base.checked_calls import checked
from backtest.base.later_import import call_later


class Reportable:
    """Base of results that can be written as a report.

    Reports import results, never the reverse; see :mod:`backtest.report`.
    """

    _write_report = call_later("backtest.report", "write_report")
    _write_cell = call_later("backtest.report", "write_cell")

    @checked
    def report(self, path: str | Path, format: str | None = None) -> Path:  # noqa: A002
        """Write a report and return its path.

        Parameters
        ----------
        path : str or Path
            The file.
        format : str, optional
            ``"html"``, ``"md"``, ``"json"`` or ``"png"`` (drawn by an installed Chromium, Chrome
            or Edge). The default is the ending of the file's name, or HTML if it has none.

        Raises
        ------
        DataError
            If the file cannot be written.
        """
        written: Path = self._write_report(Path(path), format)
        return written

    def _repr_html_(self) -> str:
        return str(self._write_cell())

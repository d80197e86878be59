"""The base class of all results: each can be written as a report."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from backtest.base.checked_calls import checked
from backtest.base.later_import import call_later
from backtest.base.provenance import Making, get_attached_making


class Reportable:
    """Base of results that can be written as a report.

    ``kind`` is the name of what it is. Reports import results, never the reverse; see
    :mod:`backtest.report`.
    """

    kind: ClassVar[str]
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

    @property
    def _is_empty(self) -> bool:
        """Whether there is nothing to report yet."""
        return False

    def _find_making(self) -> Making | None:
        """Return how the result was made, as noted in memory."""
        return get_attached_making(self)

    def _repr_html_(self) -> str:
        return str(self._write_cell())


class Viewable:
    """Base of markets, venues, accounts, policies and paths: a notebook shows their facts."""

    __slots__ = ()
    _write_view = call_later("backtest.report", "write_view")

    def _repr_html_(self) -> str:
        return str(self._write_view())

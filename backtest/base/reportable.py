"""The base class of all results: each can be written as a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from backtest.base.checked_calls import checked


class Reportable:
    """Base of results that can be written as a report.

    Reports import results, never the reverse. ``import backtest`` therefore assigns both functions;
    see :mod:`backtest.report`.
    """

    _write_report: ClassVar[Callable[[Any, Path, str | None], Path]]
    _write_cell: ClassVar[Callable[[Any], str]]

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
        return self._write_report(Path(path), format)

    def _repr_html_(self) -> str:
        return self._write_cell()

"""The base class of what a notebook shows as a small table."""

from __future__ import annotations

from backtest.base.later_import import call_later


class Viewable:
    """Base of markets, venues, accounts, policies and paths: a notebook shows their facts."""

    __slots__ = ()
    _write_view = call_later("backtest.report", "write_view")

    def _repr_html_(self) -> str:
        return str(self._write_view())

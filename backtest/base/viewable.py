"""The base class of what a notebook shows as a small table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar


class Viewable:
    """Base of markets, venues, accounts, policies and paths: a notebook shows their facts.

    As of :class:`backtest.base.reportable.Reportable`, ``import backtest`` assigns the function.
    """

    __slots__ = ()
    _write_view: ClassVar[Callable[[Any], str]]

    def _repr_html_(self) -> str:
        return self._write_view()

"""What a venue's terms read of the market of an asset; a venue itself knows no market."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from backtest.base import FloatArray, IntArray


@runtime_checkable
class PriceHistory(Protocol):
    """The prices of one asset through time, and further columns by bar; a Market is one."""

    @property
    def instrument(self) -> str:
        """Return the name of the asset."""

    @property
    def source(self) -> str:
        """Return the expression that made the prices."""

    @property
    def time(self) -> IntArray:
        """Return the opens of the bars, UTC ns, of shape (n_bars,)."""

    @property
    def mark_close(self) -> FloatArray:
        """Return the mark price at each close, of shape (n_bars,)."""

    @property
    def columns(self) -> Mapping[str, FloatArray]:
        """Return further columns of shape (n_bars,), by name."""

    @property
    def content_hash(self) -> str:
        """Return the hash of the whole content."""

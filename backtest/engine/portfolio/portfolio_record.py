"""The record of a run of several positions, from which its tables are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from backtest.account import Account
from backtest.base.units import FloatArray, IntArray
from backtest.engine.fee_days import TradedDays
from backtest.engine.portfolio.book_loop import ACCOUNT_RECORD, POSITION_RECORD
from backtest.measures.run_span import RunSpan
from backtest.measures.tally import Tally
from backtest.policy import Policy
from backtest.venue import Venue

if TYPE_CHECKING:
    from backtest.market import Markets
    from backtest.portfolio.book_records import Book


@dataclass(frozen=True, eq=False, repr=False)
class PortfolioRecord:
    """The record of a run of several positions; tables are made of it on first access.

    ``record`` has shape (n_bars, fields) and ``positions`` (n_bars, n, fields), in the order of
    :data:`backtest.engine.portfolio.book_loop.ACCOUNT_RECORD` and ``POSITION_RECORD``. ``marks``
    and ``asset_marks`` are mark closes, of shape (n_bars, n) and (n_bars, C), NaN outside the
    ``spans`` of the instruments. ``market_returns`` are those of the benchmark.
    ``markets`` are None in a result that was loaded. ``started`` is when the account began (ns),
    ``traded`` the volumes that choose fee tiers, ``weights`` the signal by instrument and bar of
    ``markets``. ``measure_cuts`` returns the rows of ``target_cuts``, and ``no_fill`` is why no
    order was filled, empty if one was.
    """

    policies: Mapping[str, Policy]
    overlay: Policy | None
    venues: Mapping[str, Venue]
    account: Account
    manifest: Mapping[str, Any]
    names: tuple[str, ...]
    span: RunSpan
    spans: IntArray
    interval: int
    is_session: bool
    tally: Tally
    book: Book
    memory: FloatArray
    first_peak: float
    record: FloatArray
    positions_record: FloatArray
    entries: FloatArray
    marks: FloatArray
    asset_marks: FloatArray
    ends_sample: FloatArray
    market_returns: FloatArray
    markets: Markets | None = None
    started: int = 0
    traded: TradedDays | None = None
    measure_cuts: Callable[[], Sequence[Mapping[str, Any]]] = tuple
    no_fill: str = ""
    weights: FloatArray | None = None

    @property
    def time(self) -> IntArray:
        """Open times of the bars, int64 ns of shape (n_bars,)."""
        return self.span.closes - self.interval

    @property
    def last_time(self) -> int:
        """Open time of the last bar, in ns."""
        return int(self.time[-1])

    def of_account(self, name: str) -> FloatArray:
        """Return a field of the account at each close, of shape (n_bars,)."""
        return self.record[:, ACCOUNT_RECORD.index(name)]

    def of_positions(self, name: str) -> FloatArray:
        """Return a field of the positions at each close, of shape (n_bars, n)."""
        return self.positions_record[:, :, POSITION_RECORD.index(name)]

    @cached_property
    def cut_rows(self) -> Sequence[Mapping[str, Any]]:
        """The rows of ``target_cuts``, measured once; none in a result saved without them."""
        return self.measure_cuts()

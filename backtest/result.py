"""What a run produced: measures, tables, ledger, and the manifest of how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.measures.performance import sampled_returns
from backtest.measures.summary import Span, summarise
from backtest.tables import bars_table, events_table
from backtest.units import FloatArray, IntArray, utc_index

if TYPE_CHECKING:
    from backtest.account import Account
    from backtest.bar import State
    from backtest.market import Market
    from backtest.measures.tally import Tally
    from backtest.policy import Policy
    from backtest.venue import Venue


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What a run produced. Tables are made when first asked for.

    Attributes
    ----------
    metrics : mapping of str to float
        The measures of a run by name: fractions (0.25 is 25 %), money in the settlement currency,
        times in days.
    bars : DataFrame
        One row per bar; see :func:`backtest.tables.bars_table`.
    events : DataFrame
        The ledger; see :func:`backtest.tables.events_table`.
    returns : Series
        Simple returns of the unit value per sampling period.
    manifest : mapping
        Data, venue, account, policy, settings, versions: what made this result.
    state, memory
        Where the account stands at the last close, to resume from.
    """

    policy: Policy | None
    venue: Venue
    account: Account
    manifest: Mapping[str, Any]
    span: Span
    tally: Tally
    state: State
    memory: tuple[float, ...]
    started: int
    first_peak: float
    interval: int
    last_mark: float
    close: FloatArray
    mark: FloatArray
    multiplier: FloatArray
    ends_sample: FloatArray
    record: FloatArray
    entries: FloatArray | pd.DataFrame
    market: Market | None = None

    @property
    def last_time(self) -> int:
        """Open time of the last bar, in ns."""
        return int(self.time[-1])

    @property
    def time(self) -> IntArray:
        """Open times of the bars, int64 ns of shape (n_bars,)."""
        return self.span.closes - self.interval

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """The measures by name."""
        unit, equity = float(self.record[6, -1]), float(self.record[0, -1])
        measured = summarise(self.tally, self.span, unit, equity, self._sampled)
        return MappingProxyType(measured)

    @cached_property
    def bars(self) -> pd.DataFrame:
        """One row per bar."""
        x = np.broadcast_to(self.multiplier, self.close.shape)
        table = bars_table(
            self.venue, self.account, self.time, self.close, self.mark, x, self.record
        )
        peak = np.maximum.accumulate(np.maximum(self.record[6], self.first_peak))
        return table.assign(drawdown=1.0 - self.record[6] / peak)

    @cached_property
    def events(self) -> pd.DataFrame:
        """One row per event."""
        if isinstance(self.entries, pd.DataFrame):
            return self.entries
        return events_table(self.venue, self.time, self.entries, self.span.first)

    @cached_property
    def _sampled(self) -> FloatArray:
        return sampled_returns(self.record[6], self.ends_sample, self.tally.first_unit)

    @cached_property
    def returns(self) -> pd.Series:
        """Simple returns per sampling period, indexed by the open of its last bar."""
        ends = self.time[self.ends_sample != 0.0]
        return pd.Series(self._sampled, index=utc_index(ends), name="return")

    def __repr__(self) -> str:
        metrics = self.metrics
        return (
            f"<Result {self.manifest['policy']['text']} on {self.manifest['data']['source']}: "
            f"equity {metrics['final_equity']:.2f}, sharpe {metrics['sharpe']:.2f}, "
            f"{metrics['liquidations']:.0f} liquidations>"
        )

    def summary(self) -> str:
        """Return what happened to the account, for a terminal."""
        from backtest.summary_text import write_summary  # noqa: PLC0415 - only when printed

        return write_summary(self)

    def save(self, folder: str | Path = "results") -> Path:
        """Write the result into a folder of its own inside ``folder``; return that folder.

        The same experiment makes the same folder, with the same bytes.
        """
        from backtest.store import save_result  # noqa: PLC0415 - files are not always needed

        return save_result(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Result:
        """Return a saved result; nothing in the folder is executed.

        Raises
        ------
        DataError
            If a file is missing, damaged, or not the one that was written.
        """
        from backtest.store import load_result  # noqa: PLC0415 - files are not always needed

        return load_result(Path(folder))

    def to_vectorbt(self) -> Any:
        """Return vectorbt's returns accessor on this account, bar by bar.

        vectorbt's own portfolio knows no margin, funding or liquidation, so what is handed over
        are the account's returns: ``result.to_vectorbt().stats()``, ``.total()``. Its measures are
        of returns per bar, ours of returns per sampling period; its index is UTC without a zone.
        """
        import vectorbt  # noqa: PLC0415 - takes two seconds to import

        unit = np.concatenate(([self.tally.first_unit], self.record[6]))
        change = np.divide(unit[1:], unit[:-1], out=np.ones(len(unit) - 1), where=unit[:-1] > 0.0)
        index = utc_index(self.time).tz_localize(
            None
        )  # with a zone vectorbt takes ten times longer
        series = pd.Series(change - 1.0, index=index, name="return")
        return vectorbt.returns.accessors.ReturnsSRAccessor(
            series, freq=pd.Timedelta(self.interval, unit="ns")
        )

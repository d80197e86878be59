"""The data of a run, and its fields by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from backtest.base import FloatArray, IntArray, ParameterError, repr_plain
from backtest.features import (
    VolatilityState,
    find_day,
    forecast_liquidation,
    forecast_volatility,
)
from backtest.measures import RunSpan

if TYPE_CHECKING:
    from backtest.account import Account
    from backtest.engine.fee_days import TradedDays
    from backtest.engine.record import Record
    from backtest.engine.run_options import RunOptions
    from backtest.market import Market, Markets
    from backtest.measures import Tally
    from backtest.policy import Policy
    from backtest.venue import Venue

T = TypeVar("T")


class Quotes(NamedTuple):
    """Prices, signals and margin multipliers at closes, of shape (n_bars, n)."""

    close: FloatArray
    mark: FloatArray
    mark_low: FloatArray
    mark_high: FloatArray
    signal: FloatArray
    multiplier: FloatArray
    initial_multiplier: FloatArray
    low: FloatArray
    high: FloatArray


class Before(NamedTuple):
    """What a run knew at the close before its first bar, by instrument, of shape (n,).

    ``stands`` of shape (n + 3,) are where the causes of a liquidation stood at the last high of the
    unit value, with what each has gained since (:mod:`backtest.engine.run_closes`).
    """

    mark: FloatArray
    signal: FloatArray
    unrealized: FloatArray
    stands: FloatArray
    trails: tuple[VolatilityState, ...]


@dataclass(frozen=True, eq=False, repr=False)
class RunData:
    """The data of a run; ``RunRecord`` adds measures and tables, ``Result`` the analyses.

    ``state`` is a :class:`backtest.account.AccountState`.
    ``record`` is what the loop wrote. ``asset_marks`` are mark closes of the collateral, of shape
    (n_bars, C).
    ``spans`` are the bars of each instrument. ``benchmark`` has the returns by bar of the one that
    was given, or of what is traded; None if it is the market. ``markets`` are None in a result that
    was loaded, and ``policies`` empty. ``setup`` is what the loop began with; ``target_cut_rows``
    are the rows of the table ``target_cuts``. ``options`` are those that were
    held, None without any.
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
    state: Any
    memory: Any
    started: int
    first_peak: float
    record: Record
    entries: FloatArray
    quotes: Quotes
    asset_marks: FloatArray
    ends_sample: FloatArray
    before: Before
    benchmark: FloatArray | None = None
    markets: Markets | None = None
    setup: Any = None
    target_cut_rows: Sequence[Mapping[str, Any]] = ()
    no_fill: str = ""
    traded: TradedDays | None = None
    options: RunOptions | None = None

    # ------------------------------------------------------------------- what it ran on

    @property
    def has_one_instrument(self) -> bool:
        """Whether it ran on one instrument, whose columns stand beside those of the account."""
        return len(self.names) == 1

    @property
    def has_one_position(self) -> bool:
        """Whether one position and money are all that the account can hold."""
        is_plain = not self.account.collateral and self.options is None
        return self.has_one_instrument and is_plain

    @property
    def time(self) -> IntArray:
        """Open times of the bars, int64 ns of shape (n_bars,)."""
        return self.span.closes - self.interval

    @property
    def last_time(self) -> int:
        """Open time of the last bar, in ns."""
        return int(self.time[-1])

    @property
    def marks(self) -> FloatArray:
        """Mark closes, of shape (n_bars, n); NaN outside the spans of the instruments."""
        return self.quotes.mark

    @property
    def policy(self) -> Policy | None:
        """The policy of the only instrument; None in a result that was loaded."""
        return self._only("policy", self.policies) if self.policies else None

    @property
    def venue(self) -> Venue:
        """The venue of the only instrument."""
        return self._only("venue", self.venues)

    @property
    def market(self) -> Market | None:
        """The market of the only instrument; None in a result that was loaded."""
        return None if self.markets is None else self._only("market", self.markets)

    @property
    def close(self) -> FloatArray:
        """Closes of the only instrument, of shape (n_bars,)."""
        return self._column("close")

    @property
    def mark(self) -> FloatArray:
        """Mark closes of the only instrument, of shape (n_bars,)."""
        return self._column("mark")

    @property
    def mark_low(self) -> FloatArray:
        """Lowest marks of the bars of the only instrument, of shape (n_bars,)."""
        return self._column("mark_low")

    @property
    def mark_high(self) -> FloatArray:
        """Highest marks of the bars of the only instrument, of shape (n_bars,)."""
        return self._column("mark_high")

    @property
    def signal(self) -> FloatArray:
        """Signal of the only instrument at closes, of shape (n_bars,) or (1,)."""
        return self._column("signal")

    @property
    def multiplier(self) -> FloatArray:
        """Multiplier of maintenance margin of the only instrument, of shape (n_bars,) or (1,)."""
        return self._column("multiplier")

    @property
    def first_mark(self) -> float:
        """Mark close before the first bar of a resumed run of the only instrument, else NaN."""
        return float(self.before.mark[0])

    def _only(self, name: str, values: Mapping[str, T]) -> T:
        if len(values) != 1:
            raise ParameterError(
                f"only a result of one instrument has a single {name}, got {len(values)} "
                "instruments; read policies, venues, markets, marks and positions"
            )
        return next(iter(values.values()))

    def _column(self, name: str) -> FloatArray:
        values: FloatArray = getattr(self.quotes, name)
        return self._only(name, dict(zip(self.names, values.T, strict=True)))

    def list_venues(self) -> list[Venue]:
        """Return the venues of the instruments, in their order."""
        return [self.venues[name] for name in self.names]

    # ------------------------------------------------------------------- fields by name

    def of_account(self, name: str) -> FloatArray:
        """Return a field of the account at each close, of shape (n_bars,)."""
        return read_field(self.record.account._asdict(), name)

    def of_positions(self, name: str) -> FloatArray:
        """Return a field of the positions at each close, of shape (n_bars, n)."""
        return read_field(self.record.positions._asdict(), name)

    # ------------------------------------------------------------------- forecasts

    @cached_property
    def volatilities(self) -> tuple[FloatArray, tuple[VolatilityState, ...]]:
        """Forecasts of shape (n_bars, n), and their states after the last bar."""
        forecasts = np.full((len(self.time), len(self.names)), np.nan)
        states = []
        for i, (first, stop) in enumerate(self.spans.tolist()):
            rows = slice(first, stop)
            close = self.quotes.close[rows, i]
            forecasts[rows, i], state = forecast_volatility(
                self.before.trails[i],
                self.time[rows],
                close,
                self.interval,
                is_session=self.is_session,
            )
            states.append(state)
        return forecasts, tuple(states)

    @property
    def volatility_forecast(self) -> FloatArray:
        """The volatility forecast at each close, NaN until it is known.

        Of shape (n_bars,), of several instruments (n_bars, n).
        """
        forecasts = self.volatilities[0]
        return forecasts[:, 0] if self.has_one_position else forecasts

    @property
    def last_trails(self) -> tuple[VolatilityState, ...]:
        """The states of the volatility forecasts after the last bar."""
        return self.volatilities[1]


def read_field(fields: Mapping[str, FloatArray], name: object) -> FloatArray:
    if not isinstance(name, str) or name not in fields:
        raise ParameterError(f"name must be one of {', '.join(fields)}, got {repr_plain(name)}")
    return fields[name]


def forecast_touches(run: RunData, prices: FloatArray) -> FloatArray:
    """Return the probabilities that the marks of a run touch prices within a day.

    ``prices``, and what is returned, are of shape (n_bars, n).
    """
    years = find_day(run.interval, is_session=run.is_session)
    columns = zip(
        run.of_positions("quantity").T, run.marks.T, prices.T, run.volatilities[0].T, strict=True
    )
    return np.stack([forecast_liquidation(*each, years) for each in columns], axis=1)

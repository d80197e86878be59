"""Attribution of an account's log growth: an exact split into terms, bar by bar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from backtest.account.events import FORCED, Event
from backtest.account.money import GROWTH_TERMS, MONEY_TERMS
from backtest.core import Choice, FloatArray, IntArray, checked, checked_only, utc_index
from backtest.core.code_names import pd
from backtest.results import tables
from backtest.results.measure_table import name_measure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backtest.core import BoolArray

Period: TypeAlias = Literal["day", "week", "month", "quarter", "year"]

CALENDAR_PERIODS = {
    "day": "D",
    "week": "W",
    "month": "M",
    "quarter": "Q",
    "year": "Y",
}
MEANINGS = {
    "price_1x": "the signal at leverage 1",
    "average_leverage": "mean leverage above or below 1",
    "leverage_timing": "more leverage when it paid, less when not",
    "volatility_drag": "variance drag beyond that at leverage 1",
    "fills": "trading at another price than the mark close",
    "forced_exits": "stops and liquidations inside a bar",
    **{term.name: term.growth for term in MONEY_TERMS if term.growth},
    "bad_debt": "the venue's loss",
    "ruin": "nothing is left to grow",
}
TERMS = tuple(MEANINGS)
ALWAYS_SHOWN = ("price_1x", "average_leverage", "leverage_timing", "volatility_drag")
"""Terms that a split shows even if they are 0."""


class AccountHistory(NamedTuple):
    """History of an account for the attribution, arrays of shape (n_bars,).

    ``before`` is the wealth (equity and reserve) before each bar, with the bar's deposits, and
    ``after`` the wealth at its close. ``money`` maps ``price_pnl``, the costs, and ``bad_debt`` to
    amounts. ``direction`` is -1, 0, or 1. ``leverage`` is the leverage held over the bar in that
    direction: the notional at the previous mark close over ``before``, negative against the
    direction. ``move`` is the return of 1x in that direction from mark close to mark close.
    ``is_cut`` marks bars with a stop or liquidation, ``is_counted`` bars with positive wealth.
    """

    before: FloatArray
    after: FloatArray
    money: Mapping[str, FloatArray]
    leverage: FloatArray
    direction: FloatArray
    move: FloatArray
    is_cut: BoolArray
    is_counted: BoolArray


@dataclass(frozen=True)
class Attribution:
    """Log growth split into the terms of ``MEANINGS``, which add up to ``growth``; costs negative.

    ``growth`` is the log of the unit value at the end over that at the start, minus infinity after
    ruin, where the other terms stay finite. ``price_1x`` is that of 1x held in the direction of the
    signal, rebalanced at every bar without costs; ``average_leverage`` (mean leverage - 1) times
    the sum of its returns; ``leverage_timing`` the covariance of leverage with the return it met,
    times the number of bars, and ``timing_error`` its standard error if the two were independent;
    ``volatility_drag`` the logarithmic less the arithmetic growth, beyond that of 1x. Money is a
    fraction of the wealth before the bar; bad debt, borne by the venue, is a gain.
    ``leverage_held`` is the mean leverage along the signal over bars with a direction. The terms,
    ``amounts`` by name, are attributes too.
    """

    growth: float
    amounts: Mapping[str, float]
    timing_error: float
    leverage_held: float
    years: float

    @property
    def terms(self) -> pd.Series:
        """The terms by name, in their order."""
        return pd.Series(dict(self.amounts), name="log growth")

    def __getattr__(self, name: str) -> float:
        amounts = self.__dict__.get("amounts", {})
        if name not in amounts:
            raise AttributeError(f"an Attribution has no {name!r}")
        amount: float = amounts[name]
        return amount

    def __str__(self) -> str:
        rows = {}
        for name, value in self.terms.items():
            if value != 0.0 or name in ALWAYS_SHOWN:
                rows[name_measure(str(name))] = value
        rows["growth"] = self.growth

        lines = [f"{'':22}{'log growth':>12}{'per year':>12}"]
        for label, value in rows.items():
            lines.append(f"  {label:20}{value:>+12.4f}{value / self.years:>+12.4f}")
        lines.append(
            f"  mean leverage {self.leverage_held:z.2f}; "
            f"standard error of timing {self.timing_error:.4f}"
        )
        return "\n".join(lines)


def split_growth(life: AccountHistory) -> dict[str, FloatArray]:
    """Return the terms of log growth bar by bar, and ``growth``, their sum.

    One array of shape (n_bars,) for each name of ``TERMS``, and ``growth``. All are 0 in bars that
    do not count.

    Notes
    -----
    With W wealth before the bar, x its change over W, l leverage and m the move of 1x:
    ``x = l m + (price_pnl / W - l m) - costs / W + bad_debt / W``, and

        ln(1 + x) = ln(1 + m) + (mean(l) - 1) m + (l - mean(l)) m + (price_pnl / W - l m)
                    - costs / W + bad_debt / W + [ln(1 + x) - x] - [ln(1 + m) - m].

    mean(l) is the mean of the whole run, so periods add up to the run. The brackets are the
    volatility drag, on a random walk about -(l^2 - 1) sigma^2 / 2. If 1x would have lost everything
    in one bar (m <= -1), its simple return replaces its logarithm. In the bar of ruin x = -1: the
    terms hold the shares of the loss, and ``ruin`` the infinite rest.
    """
    is_counted = life.is_counted
    scale = np.divide(  # money becomes a share of the wealth before the bar
        1.0,
        life.before,
        out=np.zeros_like(life.before),
        where=is_counted,
    )
    move = np.where(is_counted, life.move, 0.0)
    log_move = np.log1p(move, out=move.copy(), where=move > -1.0)

    # What the position made beside the move of the mark: other prices, or an exit in the bar.
    unseen = life.money["price_pnl"] * scale - life.leverage * move
    mean = measure_leverage(life).mean
    simple = {
        "average_leverage": (mean - 1.0) * move,
        "leverage_timing": (life.leverage - mean) * move,
        "fills": np.where(life.is_cut, 0.0, unseen),
        "forced_exits": np.where(life.is_cut, unseen, 0.0),
    }
    for name in GROWTH_TERMS:
        simple[name] = 0.0 - life.money[name] * scale
    simple["bad_debt"] = life.money["bad_debt"] * scale

    is_ruin = is_counted & ~(life.after > 0.0)
    growth = np.log(
        life.after * scale,
        out=np.zeros_like(scale),
        where=is_counted & ~is_ruin,
    )
    volatility_drag = growth - sum(simple.values()) - log_move

    # The infinite loss of a ruin is a term of its own, so that the others stay finite.
    volatility_drag[is_ruin] = (move - log_move)[is_ruin]
    growth[is_ruin] = -np.inf
    terms = {
        **simple,
        "price_1x": log_move,
        "volatility_drag": volatility_drag,
        "ruin": np.where(is_ruin, -np.inf, 0.0),
    }
    in_order = {name: terms[name] for name in TERMS}
    in_order["growth"] = growth
    return in_order


class MeanLeverage(NamedTuple):
    """Mean leverage of an account over bars with a direction, and the error of its timing."""

    mean: float
    timing_error: float


def measure_leverage(life: AccountHistory) -> MeanLeverage:
    """Return the mean leverage of a history, and the standard error of what its timing earned.

    Both are over the bars in which the signal has a direction; without any, they are 0.

    Notes
    -----
    What the timing earned is sum (l - mean l) (m - mean m); its standard error is the root of the
    sum of the squared summands (White 1980), which lets volatility differ between bars.
    """
    has_direction = life.is_counted & (life.direction != 0.0)
    if not has_direction.any():
        return MeanLeverage(0.0, 0.0)

    leverage = life.leverage[has_direction]
    move = life.move[has_direction]
    mean = float(np.mean(leverage))
    products = (leverage - mean) * (move - np.mean(move))
    error = float(np.sqrt(np.sum(np.square(products))))
    return MeanLeverage(mean, error)


@checked
def attribute(life: AccountHistory, years: float) -> Attribution:
    """Return the split of the log growth of a whole history, which covers ``years``."""
    by_bar = split_growth(life)
    sums = {name: float(np.sum(values)) for name, values in by_bar.items()}
    growth = sums.pop("growth")
    leverage = measure_leverage(life)
    return Attribution(
        growth=growth,
        amounts=sums,
        timing_error=leverage.timing_error,
        leverage_held=leverage.mean,
        years=years,
    )


@checked_only("life", "time")
def attribute_by(
    life: AccountHistory,
    time: IntArray,
    by: Period,
) -> pd.DataFrame:
    """Return the terms and ``growth`` summed over periods of UTC time, a row each.

    ``time`` (n_bars,) holds open times in ns: a bar belongs to the period in which it opens; ``by``
    is ``"day"``, ``"week"`` (from Monday), ``"month"``, ``"quarter"`` or ``"year"``. Mean leverage
    is that of the whole run. Every row adds up to its ``growth``, every column to the term of the
    whole.
    """
    Choice(*CALENDAR_PERIODS).check("by", by)
    bars = pd.DataFrame(split_growth(life), index=find_periods(time, by))
    return bars.groupby(level=0).sum()


def find_periods(time: IntArray, by: Period) -> pd.DatetimeIndex:
    """Return the start of the calendar period in which each bar opens."""
    naive = utc_index(time).tz_localize(None)  # periods have no time zone
    starts = naive.to_period(CALENDAR_PERIODS[by]).start_time
    return starts.tz_localize("UTC").rename(by)


def read_account_history(run: Any) -> AccountHistory:
    """Return the history of a run of one instrument, as the attribution reads it."""
    series = run.record.of_one()
    value = tables.value_of(run.venue.contract, run.mark)
    before = find_wealth_before(series)

    # Bars without wealth do not count, nor do those after a ruin: its bar is counted from the start
    # of the market, and is -1 without one.
    is_counted = before > 0.0
    if run.tally.ruin >= 0:
        bars = run.span.first + np.arange(len(value))
        is_counted &= bars <= run.tally.ruin

    # Without a signal, the position itself says which direction pays.
    contracts = read_contracts(run, series["quantity"])
    direction = np.sign(find_signal_before(run, len(value)))
    direction = np.where(direction == 0.0, np.sign(contracts.held), direction)

    # Leverage at the value of a contract at the close before; the first bar may have none (NaN).
    first_value = tables.value_of(run.venue.contract, run.before.mark[:1])
    value_before = np.append(first_value, value[:-1])
    notional = np.where(contracts.held == 0.0, 0.0, contracts.held * np.abs(value_before))
    leverage = np.divide(
        notional,
        before,
        out=np.zeros_like(before),
        where=is_counted,
    )

    # From an unknown value the mark has not moved.
    known_before = np.where(np.isnan(value_before), value, value_before)
    move = (value - known_before) / np.abs(known_before)
    money_terms = ("price_pnl", *GROWTH_TERMS, "bad_debt")
    return AccountHistory(
        before=before,
        after=series["equity"] + series["reserve"],
        money={name: series[name] for name in money_terms},
        leverage=direction * leverage,
        direction=direction,
        move=direction * move,
        is_cut=contracts.forced != 0.0,
        is_counted=is_counted,
    )


class BarContracts(NamedTuple):
    """Signed contracts by bar: ``held`` over it, and ``forced``.

    The forced ones were traded inside the bar by stops and liquidations.
    """

    held: FloatArray
    forced: FloatArray


def read_contracts(run: Any, quantity: FloatArray) -> BarContracts:
    """Return what a run of one instrument held over each bar, given ``quantity`` at its closes.

    A position is held from the open. So what was traded later in the bar is taken off the quantity
    at its close: by stops and liquidations, and by orders that fill at the close itself.
    """
    first_bar = run.span.first
    n_bars = len(quantity)
    forced = tables.sum_contracts(run.entries, FORCED, first_bar, n_bars)
    held = quantity - forced
    if run.account.fill == "next_close":
        held = held - tables.sum_contracts(run.entries, (Event.FILL,), first_bar, n_bars)
    return BarContracts(held, forced)


def find_signal_before(run: Any, n_bars: int) -> FloatArray:
    """Return the signal from which the position over each bar was decided, (n_bars,).

    A decision at a close is held over the next bar: the position has the signal of the close
    before. A decision that fills at the next close is held one bar later: the position has the
    signal of two closes before. Of the first bar that one is unknown, and is 0.
    """
    signal = np.broadcast_to(run.signal, n_bars)
    at_close_before = np.append(run.before.signal[:1], signal[:-1])
    if run.account.fill == "next_close":
        return np.append(0.0, at_close_before[:-1])
    return at_close_before


def find_wealth_before(series: Mapping[str, FloatArray]) -> FloatArray:
    """Return equity and reserve before each bar, with the deposits of the bar, (n_bars,)."""
    after = series["equity"] + series["reserve"]
    costs = sum(series[name] for name in GROWTH_TERMS)
    gains = series["price_pnl"] + series["bad_debt"] - costs

    # Before a bar stands the close of the one before. The first has none: there it is the wealth at
    # its own close without its gains, which has its deposits already.
    first = after[:1] - gains[:1]
    before = np.concatenate([first, after[:-1]])

    # A top-up comes from the reserve, and is no deposit into both together.
    deposits = series["flows"] - series["top_up"]
    before[1:] += deposits[1:]
    return before

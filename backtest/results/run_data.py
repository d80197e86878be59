"""What a run keeps, and what follows from it at each close."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from backtest.account.causes import OF_COLLATERAL, OF_FLOWS, OF_RULES
from backtest.account.events import Entries, Event
from backtest.account.money import OPTION_TERMS, SIGNS, TRADE_COSTS
from backtest.core import BoolArray, FloatArray, IntArray, ParameterError, repr_plain
from backtest.indicators import forecast_volatility
from backtest.results import option_profit, tables
from backtest.results.measure_table import RunSpan
from backtest.results.performance import divide
from backtest.results.record import Closes

if TYPE_CHECKING:
    from backtest.account import Account, TradedDays
    from backtest.market import Market, Markets
    from backtest.policies import Policy
    from backtest.results.record import OptionFields, Record
    from backtest.results.tally import Tally
    from backtest.venue import Option, Venue

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
    unit value, with what each has gained since (:func:`find_stands`). ``trails`` of
    shape (n, k) are those of :func:`backtest.indicators.forecast_volatility`.
    """

    mark: FloatArray
    signal: FloatArray
    unrealized: FloatArray
    stands: FloatArray
    trails: FloatArray


@dataclass(frozen=True, eq=False)
class RunOptions:
    """The options that a run held, in the order of the markets; arrays of shape (n_bars, K).

    ``legs`` name the leg of a policy that ordered each first, empty for one held by a schedule.
    ``owners`` (K,) are their numbers in the log. ``opened`` are signed contracts after the fills at
    the open, ``entries`` the average prices of what is held, ``settled`` the prices of the
    underlying at which contracts expired inside a bar, and ``ages`` the days since the surface.
    ``hedged`` are the places of the instruments that policies ordered in contracts beside options.
    """

    contracts: tuple[Option, ...]
    legs: tuple[str, ...]
    owners: IntArray
    terms: option_profit.OptionTerms
    quotes: option_profit.OptionQuotes
    record: OptionFields
    opened: FloatArray
    entries: FloatArray
    settled: FloatArray
    ages: FloatArray
    hedged: tuple[int, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the options, those of a leg behind its name."""
        names = []
        for leg, name in zip(self.legs, self.terms.names, strict=True):
            shown = name
            if leg:
                shown = f"{leg}:{name}"
            names.append(shown)
        return tuple(names)

    @property
    def named(self) -> dict[int, str]:
        """The names of the options by their numbers in the log."""
        return dict(zip(self.owners.tolist(), self.names, strict=True))

    @property
    def profits(self) -> FloatArray:
        """The unrealized profits at each close, of shape (n_bars, K)."""
        gains = self.record.value - self.entries
        return option_profit.multiply(self.record.quantity, gains)

    @property
    def carried(self) -> FloatArray:
        """The contracts held at the close before each bar, of shape (n_bars, K)."""
        held = self.record.quantity
        return np.concatenate((np.zeros_like(held[:1]), held[:-1]))

    @cached_property
    def greeks(self) -> dict[str, FloatArray]:
        """The Greeks in money at each close, of shape (n_bars, K) by name."""
        return option_profit.measure_greeks(self.terms, self.quotes, self.record.quantity)

    @cached_property
    def parts(self) -> dict[str, FloatArray]:
        """The parts of the profit of each option in each bar, by name."""
        return option_profit.explain_profit(
            self.terms,
            self.quotes,
            carried=self.carried,
            opened=self.opened,
            closed=self.record.quantity,
            profit=self.record.price_pnl,
            settled=self.settled,
        )

    def sum_by_underlying(self, values: FloatArray, n: int) -> FloatArray:
        """Return the sums of values over the options of each instrument, of shape (n_bars, n)."""
        sums = np.zeros((len(values), n))
        np.add.at(sums.T, self.terms.instruments, values.T)
        return sums


class ChartedColumn(NamedTuple):
    """A column that a policy observed, by bar of the run, and what it says."""

    text: str
    values: FloatArray


@dataclass(frozen=True, eq=False, repr=False)
class RunData:
    """The data of a run; ``RunRecord`` adds measures and tables, ``Result`` the analyses.

    ``state`` is a :class:`backtest.account.AccountState`.
    ``record`` is what the loop wrote. ``asset_marks`` are mark closes of the collateral, of shape
    (n_bars, C). ``first_unit``, the unit value at the start of the account, is 1 in tables.
    ``spans`` are the bars of each instrument. ``benchmark`` has the returns by bar of the one that
    was given, or of what is traded; None if it is the market. ``markets`` are None in a result that
    was loaded, and ``policies`` empty. ``setup`` is what the loop began with; ``target_cut_rows``
    are the rows of the table ``target_cuts``. ``options`` are those that were held, None without
    any. ``charted`` are columns that policies ask pages to draw, by name; none of a walk through
    several parameter sets.
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
    first_unit: float
    record: Record
    entries: Entries
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
    charted: Mapping[str, ChartedColumn] = field(default_factory=dict)

    @property
    def has_one_instrument(self) -> bool:
        """Whether it ran on one instrument, whose columns are in the table of the account."""
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
        if not self.policies:
            return None
        return self._only("policy", self.policies)

    @property
    def venue(self) -> Venue:
        """The venue of the only instrument."""
        return self._only("venue", self.venues)

    @property
    def market(self) -> Market | None:
        """The market of the only instrument; None in a result that was loaded."""
        if self.markets is None:
            return None
        return self._only("market", self.markets)

    @property
    def close(self) -> FloatArray:
        """Closes of the only instrument, of shape (n_bars,)."""
        return self._column("close")

    @property
    def mark(self) -> FloatArray:
        """Mark closes of the only instrument, of shape (n_bars,)."""
        return self._column("mark")

    @property
    def signal(self) -> FloatArray:
        """Signal of the only instrument at closes, of shape (n_bars,) or (1,)."""
        return self._column("signal")

    def _only(self, name: str, values: Mapping[str, T]) -> T:
        """Return the value of the only instrument; ParameterError of several."""
        if len(values) != 1:
            raise ParameterError(
                f"only a result of one instrument has a single {name}, got {len(values)} "
                "instruments; read policies, venues, markets, marks and positions"
            )
        return next(iter(values.values()))

    def _column(self, name: str) -> FloatArray:
        """Return a field of the quotes of the only instrument, of shape (n_bars,)."""
        values: FloatArray = getattr(self.quotes, name)
        by_instrument = dict(zip(self.names, values.T, strict=True))
        return self._only(name, by_instrument)

    def list_venues(self) -> list[Venue]:
        """Return the venues of the instruments, in their order."""
        return [self.venues[name] for name in self.names]

    def of_account(self, name: str) -> FloatArray:
        """Return a field of the account at each close, of shape (n_bars,)."""
        return read_field(self.record.account._asdict(), name)

    def of_positions(self, name: str) -> FloatArray:
        """Return a field of the positions at each close, of shape (n_bars, n)."""
        return read_field(self.record.positions._asdict(), name)

    @cached_property
    def volatilities(self) -> tuple[FloatArray, FloatArray]:
        """Forecasts of shape (n_bars, n), and their trails after the last bar, of shape (n, k).

        A trail is what the filter of an instrument remembers, with which a later run begins.
        """
        forecasts = np.full((len(self.time), len(self.names)), np.nan)
        trails = np.empty_like(self.before.trails)
        for i, (first, stop) in enumerate(self.spans.tolist()):
            rows = slice(first, stop)
            close = self.quotes.close[rows, i]
            forecasts[rows, i], trails[i] = forecast_volatility(
                self.before.trails[i],
                self.time[rows],
                close,
                self.interval,
                is_session=self.is_session,
            )
        return forecasts, trails

    @cached_property
    def closes(self) -> Closes:
        """What follows from account and market at each close."""
        return self.record.closes or self.setup.measure_closes(self, slice(None))

    @cached_property
    def _known_closes(self) -> dict[int, Closes]:
        return {}

    def read_close(self, bar: int) -> Closes:
        """Return what follows at one close, as arrays of one row, without a look at the others.

        It is measured once: liquidations without a new high between them go back to the same one.
        """
        if self.record.closes is not None or "closes" in vars(self):
            return Closes(*(values[bar : bar + 1] for values in self.closes))
        if bar not in self._known_closes:
            self._known_closes[bar] = self.setup.measure_closes(self, slice(bar, bar + 1))
        return self._known_closes[bar]

    @property
    def market_returns(self) -> FloatArray:
        """Returns of the benchmark by bar, of shape (n_bars,)."""
        if self.benchmark is not None:
            return self.benchmark
        marks = np.concatenate((self.before.mark, self.mark))
        value = tables.value_of(self.venue.contract, marks)
        moves = np.diff(value) / np.abs(value[:-1])
        return np.asarray(moves)

    @cached_property
    def notionals(self) -> FloatArray:
        """Signed notionals of the positions at each close, of shape (n_bars, n)."""
        quantity = self.record.held["quantity"]
        return np.where(quantity != 0.0, quantity * np.abs(self._values), 0.0)

    @property
    def _values(self) -> FloatArray:
        """The values u of the marks, of shape (n_bars, n)."""
        values = []
        for venue, marks in zip(self.list_venues(), self.marks.T, strict=True):
            values.append(tables.value_of(venue.contract, marks))
        return np.stack(values, axis=1)

    @cached_property
    def profits(self) -> FloatArray:
        """The unrealized profits at each close, of shape (n_bars, n)."""
        held = self.record.held
        quantity = held["quantity"]
        gains = self._values - held["entry"]
        return np.where(quantity != 0.0, quantity * gains, 0.0)

    @property
    def net_leverage(self) -> FloatArray:
        """Sum of the signed notionals over equity at each close, of shape (n_bars,)."""
        return divide(self.notionals.sum(axis=1), self.of_account("equity"))

    @cached_property
    def are_isolated(self) -> BoolArray:
        """Whether each position has a margin of its own, of shape (n,)."""
        modes = [self.account.for_instrument(name).margin for name in self.names]
        return np.array([mode == "isolated" for mode in modes])

    @property
    def liquidation_prices(self) -> FloatArray:
        """Marks at which the positions fail, the others frozen, of shape (n_bars, n)."""
        return self._find_prices(self.closes.failure)

    def _find_prices(self, values: FloatArray) -> FloatArray:
        """Return the prices of values u of the instruments, of shape (n_bars, n)."""
        prices = []
        for venue, column in zip(self.list_venues(), values.T, strict=True):
            prices.append(tables.price_of(venue.contract, column))
        return np.stack(prices, axis=1)

    @property
    def unrealized(self) -> FloatArray:
        """The unrealized profits at each close by position; last of all options, if any."""
        if self.options is None:
            return self.profits
        return np.column_stack((self.profits, self.options.profits.sum(axis=1)))


def label_owners(run: RunData) -> npt.NDArray[np.object_]:
    """Return the names of instruments, collateral and options by owner; the last is no one's."""
    options: Mapping[int, str] = {}
    if run.options is not None:
        options = run.options.named
    assets = [asset.name for asset in run.account.collateral]

    # Owners of options come after those of instruments and collateral; some have no name.
    n_named = len(run.names) + len(assets)
    n_unnamed = max(options, default=-1) + 1 - n_named
    unnamed = [""] * n_unnamed  # of a negative number none
    labels = np.array([*run.names, *assets, *unnamed, ""], dtype=object)
    for owner, name in options.items():
        labels[owner] = name
    return labels


def read_field(fields: Mapping[str, FloatArray], name: object) -> FloatArray:
    if not isinstance(name, str) or name not in fields:
        raise ParameterError(f"name must be one of {', '.join(fields)}, got {repr_plain(name)}")
    return fields[name]


ROUNDING = 1e-9
"""Share of a fall that is rounding, and counts as none."""


def share_causes(run: RunData) -> Entries:
    """Return the entries of a run in which each cause of a liquidation has its share of it.

    The causes are the instruments, the collateral, flows, and rules. The engine logs what each
    needs of the pool at the liquidation, less what it gained in that bar; this becomes the cause's
    share of the way from the last high of the account down to the liquidation. Causes with no share
    that also made no profit are left out.
    """
    is_cause = run.entries["kind"] == Event.CAUSED
    values = run.entries["value"].copy()

    # The causes of a liquidation follow each other in the log, all of them, the rules last.
    n_causes = len(run.names) + 3
    rows_of_causes = np.flatnonzero(is_cause)
    for rows in rows_of_causes.reshape(-1, n_causes):
        bar = int(run.entries["bar"][rows[0]]) - run.span.first
        stands_before = find_stands(run, bar)
        values[rows] = compute_cause_shares(stands_before, stands_now=values[rows])

    entries = np.array(run.entries)
    entries["value"] = values
    is_idle = is_cause & (values == 0.0) & ~(entries["amount"] > 0.0)
    return np.asarray(entries[~is_idle])


def compute_cause_shares(stands_before: FloatArray, stands_now: FloatArray) -> FloatArray:
    """Return which share of a liquidation each cause has, of shape (n + 3,) and adding up to 1.

    The causes are n instruments, the collateral, flows, and rules. Both arguments are money of
    shape (n + 3,), at the last high of the account and at the liquidation. The first n + 2 entries
    are what a cause needs of the pool, set against its gains: before, the need at the last high
    plus the gains since; now, the need at the liquidation less the gains in its bar. So a rise is
    what the cause took. The last entry is the excess of the pool: what backs it less what all
    positions require. Changed rules, as a higher margin rate, have no need of their own: they took
    what the other causes leave of the fall of the excess.
    """
    taken_by_others = stands_now[:-1] - stands_before[:-1]
    excess_fall = -(stands_now[-1] - stands_before[-1])
    taken_by_rules = excess_fall - taken_by_others.sum()

    # A cause that gave to the pool has no share.
    taken = np.maximum(np.append(taken_by_others, taken_by_rules), 0.0)
    total = taken.sum()
    if total > 0.0:
        shares = taken / total
        return np.where(shares > ROUNDING, shares, 0.0)

    # Where nothing was taken, rules alone brought the pool down.
    only_rules = np.zeros(len(taken))
    only_rules[-1] = 1.0
    return only_rules


def find_stands(run: RunData, stop: int) -> FloatArray:
    """Return where the causes stood at the last high before bar ``stop``, plus their gains since.

    Of shape (n + 3,): what n instruments, the collateral and flows needed of the pool then, with
    what each has gained since, and last the excess of the pool then, which nothing is added to.
    Flows need nothing. A run that goes on from another, and has no high of its own, begins with the
    stands of that. Where each stands is money in the settlement currency.
    """
    # The bars at which the value of a unit is as high as ever before.
    unit = run.of_account("unit")[:stop]
    highs = np.maximum.accumulate(np.concatenate(([run.first_peak], unit)))
    bars_of_highs = np.flatnonzero(unit >= highs[:-1])
    if len(bars_of_highs) == 0:
        return add_gains(run, slice(0, stop), run.before.stands)

    # What instruments and collateral need is their share of the requirement at the high.
    high = int(bars_of_highs[-1])
    closes = run.read_close(high)
    n = len(run.names)
    shares = np.append(closes.share[0], closes.collateral_share)

    # In the order of the docstring: n instruments, collateral, flows, and the excess of the pool.
    stands = np.zeros(n + 3)
    stands[: n + 1] = run.account.requirement.level * shares

    # Isolated positions have a requirement of their own, which brings down no pool.
    stands[np.flatnonzero(run.are_isolated)] = 0.0
    stands[n + OF_RULES] = closes.distance[0]
    return add_gains(run, slice(high + 1, stop), stands)


def add_gains(run: RunData, rows: slice, stands: FloatArray) -> FloatArray:
    """Return the stands of the causes after some bars: those before, plus what each gained in them.

    ``stands`` (n + 3,) are money of n instruments, the collateral, the flows, and the excess of the
    pool, which nothing is added to. Gains are net of costs; a withdrawal is a negative one. They
    are added bar by bar, so that a run in parts, which begins with the stands of the part before,
    has the bits of the whole.
    """
    n = len(run.names)
    record = run.record.take(rows)
    account = record.account

    # An option gains for its underlying.
    costs = sum(record.held[name] for name in TRADE_COSTS)
    gains = record.positions.price_pnl - costs
    if run.options is not None:
        of_options = run.options.record
        net: Any = sum(SIGNS[name] * getattr(of_options, name) for name in OPTION_TERMS)
        gains = gains + run.options.sum_by_underlying(net[rows], n)

    # An isolated position lives on its own margin: its gains are not the pool's.
    gains_of_bars = np.zeros((len(account.flows), n + 3))
    gains_of_bars[:, :n] = np.where(run.are_isolated, 0.0, gains)
    gains_of_bars[:, n + OF_COLLATERAL] = account.collateral_pnl - account.conversion
    gains_of_bars[:, n + OF_FLOWS] = account.flows - account.interest

    # The running sum adds in the order of the bars, as sum() would not.
    running_sum = np.add.accumulate(np.vstack((stands, gains_of_bars)))
    return np.asarray(running_sum[-1])


def find_causes(run: RunData) -> dict[str, Any]:
    """Return what brought down the cross pool, a row per cause of each liquidation; times in ns.

    The entry of a cause has as ``owner`` its place among instruments, collateral, flows and rules,
    as ``value`` its share of the fall, and as ``amount`` what its position had gained. Causes
    without a share stand here too, if their position was in profit and closed.
    """
    entries = np.asarray(run.entries)
    if run.has_one_position:  # which nothing else can bring down
        entries = entries[:0]
    is_cause = entries["kind"] == Event.CAUSED
    liquidations = number_liquidations(entries["owner"], is_cause)
    profits = find_closed_profits(entries, liquidations, n_instruments=len(run.names))

    is_shown = is_cause & ((entries["value"] > 0.0) | (profits > 0.0))
    causes = entries[is_shown]
    names = np.array([*run.names, "collateral", "flows", "rules"], dtype=object)
    return {
        "liquidation": liquidations[is_shown],
        "time": run.time[causes["bar"] - run.span.first],
        "cause": names[causes["owner"]],
        "share": causes["value"],
        "quantity": causes["quantity"],
        "profit": profits[is_shown],
    }


def number_liquidations(owners: IntArray, is_cause: BoolArray) -> IntArray:
    """Return the liquidation that each entry is of or comes after, from 1; 0 before the first.

    The log has the causes of a liquidation one after another, by rising owner, and what it closed
    behind them.
    """
    was_cause = np.concatenate(([False], is_cause[:-1]))
    begins = is_cause & ~was_cause

    # Two liquidations that follow each other at once: the owners begin again.
    owner_falls = np.concatenate(([False], np.diff(owners) <= 0))
    begins |= is_cause & owner_falls
    return np.asarray(np.cumsum(begins))


def find_closed_profits(
    entries: Entries,
    liquidations: IntArray,
    *,
    n_instruments: int,
) -> FloatArray:
    """Return the profit of each cause whose position its liquidation closed, (n_entries,).

    0 for all other entries, and for positions at a loss.
    """
    # Beyond the positions an owner means two things: of what was closed a collateral or an option,
    # of a cause the collateral, flows or rules.
    is_position = entries["owner"] < n_instruments
    is_closing = is_position & (entries["kind"] == Event.LIQUIDATED)
    is_cause = is_position & (entries["kind"] == Event.CAUSED)
    is_gain = is_cause & (entries["amount"] > 0.0)

    def list_positions(rows: IntArray) -> list[tuple[int, int]]:
        """Return the liquidation and the owner of each of some entries."""
        numbers = liquidations[rows].tolist()
        owners = entries["owner"][rows].tolist()
        return list(zip(numbers, owners, strict=True))

    closing_rows = np.flatnonzero(is_closing)
    closed = set(list_positions(closing_rows))

    profits = np.zeros(len(entries))
    gain_rows = np.flatnonzero(is_gain)
    for row, position in zip(gain_rows, list_positions(gain_rows), strict=True):
        if position in closed:
            profits[row] = entries["amount"][row]
    return profits

"""``shadow()``: a live account beside what its policy would have done, and where the two part.

Between the policy's account and the live one there are six more, each with one thing more of the
live account than the one before it. All are replays of tables of fills by the accounting of a run,
so a part of the difference is the equity of one account less that of the one before it:

====================  ===========================================================================
``deposits``          the policy's account, with what was paid in and out
``timing``            its orders, at the bars in which the account's fills were made
``sizes``             with the quantities of these fills
``orders``            without the orders that the account missed, and with those it made besides
``prices``            at the account's prices, in place of the modeled ones
``fees``              with the account's fees
``funding``           with the account's funding, where its ledger says it
``unexplained``       up to the snapshot
====================  ===========================================================================

Words: an *order* is a fill of the policy's account, a *fill* one of the live account. An order has
the fills of its instrument and side that were made within one decision interval of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backtest import _compile, core, engine
from backtest import account as accounts
from backtest.core import FloatArray, IntArray, ParameterError, format_money, format_time
from backtest.core.code_names import is_series, pd
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.core.units import DAY, MINUTE
from backtest.engine import AnyPolicy, Conditions, Setup
from backtest.live import decide as decisions
from backtest.live import ledger as ledgers
from backtest.live import replay as replays
from backtest.live import state as states
from backtest.live.contracts import count_fills, name_as_markets
from backtest.live.fills import (
    TOLERANCE,
    complete_fills,
    list_owners,
    name_fills,
    open_table,
)
from backtest.live.state import AccountSnapshot, start_account
from backtest.market import Markets, as_markets
from backtest.options import refuse_options
from backtest.results import Result
from backtest.results.manifest import describe_history
from backtest.results.tables import price_of, value_of

PARTS = (
    "deposits",
    "timing",
    "sizes",
    "orders",
    "prices",
    "fees",
    "funding",
    "unexplained",
)
"""The differences in the order of their accounts."""
ACCOUNTS = ("policy", *PARTS[:-1], "account")
"""The accounts from the policy's to the live one. A part is an account less the one before it."""
MEANINGS = {
    "deposits": "what was paid in, and what the policy made of it",
    "timing": "fills in other bars than the policy's orders",
    "sizes": "other quantities: lots, cuts, partial fills",
    "orders": "orders that were missed, and fills that no order asked for",
    "prices": "fills at other prices than modeled",
    "fees": "other fees than modeled",
    "funding": "other funding than modeled",
    "unexplained": "up to the equity of the snapshot",
}
ORDER_HEADS = {
    "time": Head("order"),
    "instrument": Head("instrument"),
    "quantity": Head("quantity", "contracts"),
    "price": Head("modeled price", style="price"),
    "filled": Head("filled", "contracts"),
    "fill_price": Head("mean price of fills", style="price"),
    "first_fill": Head("first fill"),
    "price_cost": Head("cost of the price", "money", "money"),
}
"""The columns of the orders of a shadow."""
LARGE = 1e-6
"""The share of the equity over which an unexplained difference is named first."""
ROUNDING = 1e-9
"""The share of the capital under which an amount is shown as 0."""
EARLY = 30 * DAY
"""An assumed start that lies longer than this before the first fill is warned of."""


class Live(NamedTuple):
    """What the live account did within the bars of a shadow: fills, transfers and snapshots.

    ``fills`` are completed, in contracts of the venue. ``deposits`` and ``funding`` are amounts by
    stamp, positive is received; funding is None where no ledger says it.
    """

    fills: pd.DataFrame
    deposits: pd.Series[float] | None
    funding: pd.Series[float] | None
    snapshots: Sequence[AccountSnapshot]


class QuantityGap(NamedTuple):
    """A quantity by the fills up to the snapshot of a time (UTC ns), and in it, in contracts."""

    stamp: int
    ours: float
    theirs: float


class Matched(NamedTuple):
    """The rows of fills that belong to each order, and the fills that belong to none."""

    by_order: list[list[int]]
    extra: list[int]


@dataclass(frozen=True, eq=False, repr=False)
class Shadow(core.Reportable):
    """A live account beside its policy.

    Attributes
    ----------
    parts : mapping of str to float
        The parts of the difference, in the settlement currency; they add up to ``account`` less
        ``policy``. ``unexplained`` is the last.
    policy, account : float
        The equity of the policy's account, without deposits, and of the last snapshot.
    bars : DataFrame
        By the close of each bar: ``policy``, the equity of each account after it by the name of its
        part, and ``account`` at snapshots, otherwise NaN.
    days : DataFrame
        By day, UTC: ``policy`` and ``account`` at its last close, and the change of each part.
    orders : DataFrame
        A row per order of the policy: its ``time``, ``instrument``, ``quantity`` in contracts
        (positive buys) and modeled ``price``; of the fills that belong to it, the quantity
        ``filled``, their mean ``fill_price``, the time of the ``first_fill``, and the
        ``price_cost``, what their prices cost beside the modeled one (positive was paid).
    missed, extra : DataFrame
        Orders of the policy that no fill belongs to, and fills that belong to no order.
    differing : mapping of str to tuple
        Quantities by instrument that differ at the last snapshot: by the fills, and in it.
    first_differing : mapping of str to QuantityGap
        By instrument, the first snapshot at which the quantities differ.
    drift : str
        From twenty days of a ledger on, a drift over two standard errors, as a sentence.
    """

    parts: Mapping[str, float]
    policy: float
    account: float
    bars: pd.DataFrame
    days: pd.DataFrame
    orders: pd.DataFrame
    missed: pd.DataFrame
    extra: pd.DataFrame
    differing: Mapping[str, tuple[float, float]]
    first_differing: Mapping[str, QuantityGap]
    name: str
    fills_hash: str
    described: Mapping[str, Any]
    drift: str = ""

    kind = "shadow"

    @property
    def title(self) -> str:
        return self.name

    @property
    def is_explained(self) -> bool:
        """Whether the parts account for the snapshot to a millionth of its equity."""
        return abs(self.parts["unexplained"]) <= LARGE * abs(self.account)

    @property
    def verdict(self) -> str:
        named = self._list_named()
        if not named:
            return f"The account is its policy's: {format_money(self.account)}."

        listed = ", ".join(f"{part} {write_money(self.parts[part])}" for part in named)
        return (
            f"The account ends at {format_money(self.account)}, "
            f"{write_money(self._find_difference())} from its policy: {listed}."
        )

    def _list_named(self) -> list[str]:
        """Return the parts that are large, the largest first; what is unexplained leads."""
        parts = sorted(self.parts, key=lambda part: -abs(self.parts[part]))
        large = [part for part in parts if abs(self.parts[part]) > LARGE * abs(self.account)]
        if self.is_explained:
            return large
        return ["unexplained", *(part for part in large if part != "unexplained")]

    def _find_difference(self) -> float:
        return float(self._clear_rounding(self.account - self.policy))

    def _clear_rounding(self, amounts: Any) -> Any:
        """Return amounts, one or a table, with 0 in place of what is rounding of the capital."""
        rounding = ROUNDING * abs(float(self.bars["policy"].iloc[0]))
        if isinstance(amounts, float):
            return 0.0 if abs(amounts) < rounding else amounts
        return amounts.mask(amounts.abs() < rounding, 0.0)

    @property
    def details(self) -> str:
        counts = (
            f"{core.count_nouns(len(self.missed), 'order')} missed, "
            f"{core.count_nouns(len(self.extra), 'fill')} without an order."
        )
        begun = self.described["data"]["start"]
        start = (
            f"The account begins {begun} UTC, and its policy may trade in the first bar, a run "
            "from there in the second."
        )
        return " ".join(filter(None, (counts, start, self.drift)))

    @property
    def notices(self) -> tuple[str, ...]:
        notices = [*self._list_gaps()]
        for name, (ours, theirs) in self.differing.items():
            notices.append(
                f"The fills leave {ours:.12g} contracts of {name}, the last snapshot has "
                f"{theirs:.12g}: fills are missing or repeated, or were not of this account"
            )

        largest = self._name_largest_day()
        if largest:
            notices.append(largest)
        return tuple(notices)

    def _list_gaps(self) -> Iterator[str]:
        """Yield the quantities that differ at a snapshot before the last one."""
        for name, gap in self.first_differing.items():
            if (gap.ours, gap.theirs) == self.differing.get(name):
                continue
            yield (
                f"The fills up to {format_time(gap.stamp)} UTC leave {gap.ours:.12g} contracts of "
                f"{name}, the snapshot of that time has {gap.theirs:.12g}: it is wrong, or fills "
                "are missing or repeated, or were not of this account"
            )

    def _name_largest_day(self) -> str:
        """Return the day on which most came to be unexplained; nothing if it is all of the last.

        What one snapshot leaves open and the next one takes back is nowhere in the parts.
        """
        changes = self.days["unexplained"]
        sizes = changes.abs().to_numpy()
        least = LARGE * max(abs(self.account), abs(self.policy))
        if not (sizes[:-1] > least).any():
            return ""

        row = int(np.argmax(sizes))
        largest = float(changes.iloc[row])
        day = f"{changes.index[row]:%Y-%m-%d}"
        at_end = write_money(self._clear_rounding(self.parts["unexplained"]))
        return (
            f"The largest unexplained change of a day is {write_money(largest)}, on {day}, and "
            f"{at_end} is unexplained at the end: check the snapshots of that day and of those "
            "after it, and the deposits between them"
        )

    @property
    def manifest(self) -> dict[str, Any]:
        """The data and the rules; a shadow is not saved, its days are in the ledger."""
        return {
            "id": self.fills_hash,
            "kind": self.kind,
            **self.described,
        }

    def list_numbers(self) -> list[Headline]:
        return [
            Headline("account", "account", self.account, "money", "the last snapshot"),
            Headline("policy", "policy", self.policy, "money", "its account, without deposits"),
            Headline("difference", "difference", self._find_difference(), "money"),
        ]

    def list_parts(self) -> list[Part]:
        return [self._show_parts(), self._show_paths(), self._show_days(), self._show_orders()]

    def _show_parts(self) -> Part:
        rows = {}
        for name, amount in self.parts.items():
            shown = self._clear_rounding(amount)
            rows[name] = {"amount": shown, "meaning": MEANINGS[name]}
        heads = {"amount": Head("amount", "money", "money"), "meaning": Head("meaning")}
        table = ShownTable(rows, labels=Head("part"), heads=heads)
        return Part(
            key="parts",
            title="Parts of the difference",
            lead="Each is one account less the one before.",
            blocks=(table,),
            shows="both",
        )

    def _show_paths(self) -> Part:
        paths = self.bars[["policy", "account"]].astype(float)
        paths["account"] = paths["account"].interpolate(method="index")
        levels = ShownChart(
            key="paths",
            title="Equity",
            caption="The live account is known at its snapshots.",
            table=paths,
            kind="points",
            y="money",
            has_legend=True,
        )
        parts = self.bars[["policy", *PARTS[:-1]]].diff(axis=1)[[*PARTS[:-1]]]
        steps = ShownChart(
            key="steps",
            title="Parts",
            caption="What each part has come to.",
            table=self._clear_rounding(parts),
            y="money",
            has_legend=True,
        )
        return Part(
            key="paths",
            title="Both accounts",
            lead="Equity at the close of each bar.",
            blocks=(levels, steps),
        )

    def _show_days(self) -> Part:
        heads = {name: Head(name, "money", "money") for name in ("policy", "account", *PARTS)}
        days = self._clear_rounding(self.days)
        table = ShownTable(days, labels=Head("day"), heads=heads)
        return Part(
            key="days",
            title="Days",
            lead="The change of each part by day.",
            blocks=(table,),
        )

    def _show_orders(self) -> Part:
        orders = ShownTable(
            self.orders.assign(price_cost=self._clear_rounding(self.orders["price_cost"])),
            heads=ORDER_HEADS,
            empty="The policy made no order.",
        )
        extra = ShownTable(
            self.extra,
            "Fills without an order",
            columns=("time", "instrument", "quantity", "price", "fee"),
            empty="No fill was without an order.",
        )
        return Part(
            key="orders",
            title="Orders and their fills",
            lead="Of the policy; what nothing was filled of, was missed.",
            blocks=(orders, extra),
            is_folded=True,
        )

    def list_assumptions(self) -> tuple[str, ...]:
        return (
            "Modeled prices are the open of the bar, worsened by the venue's slippage; modeled "
            "fees are those of the venue.",
            "The policy decides when the account begins, with its memory anew; a run from the same "
            "start decides at the first close after it.",
            "The policy is simulated without top-ups of the account's reserve.",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the shadow as data for JSON."""
        values = {
            "verdict": self.verdict,
            "policy": self.policy,
            "account": self.account,
            "parts": dict(self.parts),
            "days": core.list_records(self.days.reset_index()),
            "orders": core.list_records(self.orders),
            "missed": core.list_records(self.missed),
            "extra": core.list_records(self.extra),
            "differing": {name: list(pair) for name, pair in self.differing.items()},
            "notices": list(self.notices),
            "drift": self.drift,
        }
        return dict(core.to_json(values))

    def __repr__(self) -> str:
        return f"<Shadow: {self.verdict}>"

    def __str__(self) -> str:
        return self.summary()


def write_money(amount: float) -> str:
    """Return an amount with its sign."""
    sign = "-" if amount < 0.0 else "+"
    return f"{sign}{format_money(abs(amount))}"


@core.checked_only("fills")
def shadow(
    conditions: Conditions,
    policy: AnyPolicy,
    fills: pd.DataFrame,
    snapshots: Sequence[AccountSnapshot],
    *,
    flows: pd.Series[float] | pd.DataFrame | str | Path | None = None,
    range_tolerance: float = TOLERANCE,
    store: str | Path | None = None,
    experiment: str = "",
) -> Shadow:
    """Answer :meth:`backtest.Backtest.shadow`, which documents it."""
    core.Real(0.0, 1.0).check("range_tolerance", range_tolerance)
    test = engine.plain(conditions)
    refuse_options(as_markets(test.market), "a shadow of an account")

    first, last, ordered = find_span(test, snapshots)
    test = test.replace(market=cut_market(test, last + 1), start=None, end=None)
    live = read_live(test, fills, ordered, flows, first)
    begun = live.snapshots[0]
    if len(snapshots) == 1:
        warn_of_early_start(as_markets(test.market), live.fills, first)

    # The policy's account, without and with what was paid in.
    account_with_flows = dataclasses.replace(test.account, flows=live.deposits)
    account_without = dataclasses.replace(test.account, flows=None)
    with_flows = test.replace(account=account_with_flows)
    without = run_policy(test.replace(account=account_without), policy, begun, first)
    model = without
    if live.deposits is not None:
        model = run_policy(with_flows, policy, begun, first)

    # Each table of fills has one thing more of the live account.
    orders = model.fills.drop(columns="traded", errors="ignore")
    replayed_test = with_flows.replace(signal=None, overlay=None)
    setup = engine.set_up(replayed_test, replays.Replayed())
    interval = setup.markets.decision_interval or setup.markets.interval
    matched = match_fills(orders, live.fills, interval)

    start = dataclasses.replace(begun, time=format_stamp(setup.markets.time[first]))
    tables = {"deposits": orders, **build_tables(setup, orders, live.fills, matched)}
    replayed = {}
    for part, table in tables.items():
        replayed[part] = run_replay(replayed_test, table, start, range_tolerance)

    warn_of_missing_funding(setup, replayed["fees"], live)
    bars = compare_accounts(setup, without, replayed, live, first)
    equity_at_end = {name: float(bars[name].iloc[-1]) for name in ACCOUNTS}
    gaps = compare_quantities(setup, replayed["fees"], live, first)
    missed = [k for k, rows in enumerate(matched.by_order) if not rows]
    compared = Shadow(
        parts=difference_parts(equity_at_end),
        policy=equity_at_end["policy"],
        account=equity_at_end["account"],
        bars=bars,
        days=sum_days(bars),
        orders=list_orders(setup, orders, live.fills, matched),
        missed=orders.iloc[missed],
        extra=live.fills.iloc[matched.extra],
        differing={name: (gap.ours, gap.theirs) for name, gap in gaps[-1].items()},
        first_differing=pick_first(gaps),
        name=experiment or describe_policy(policy),
        fills_hash=hash_fills(live.fills),
        described=describe(test, policy, int(setup.markets.time[first])),
    )
    if store is None:
        return compared

    # The ledger of the store says how it has drifted so far.
    drift = ledgers.record(Path(store), compared)
    return dataclasses.replace(compared, drift=drift)


# What the live account did.


class ShadowSpan(NamedTuple):
    """The bars over which a live account is compared, and its snapshots by time.

    ``first`` is the bar after the first snapshot, ``last`` that which had closed by the last one.
    """

    first: int
    last: int
    snapshots: list[AccountSnapshot]


def find_span(test: Conditions, snapshots: Sequence[AccountSnapshot]) -> ShadowSpan:
    """Return the span of a shadow; raise ParameterError if it holds no bar of the market.

    A snapshot is of the last close up to its time. Before a single one the account was flat, with
    its capital, at the start of the test.
    """
    markets = as_markets(test.market)
    check_snapshots(snapshots)
    if len(snapshots) == 1:
        snapshots = [begin_flat(test, markets), *snapshots]

    ordered = sorted(snapshots, key=read_stamp)
    begun = read_stamp(ordered[0])
    ended = read_stamp(ordered[-1])
    closes = markets.time + markets.interval
    first = int(np.searchsorted(closes, begun, side="right"))
    last = int(np.searchsorted(closes, ended, side="right")) - 1

    data_end = int(closes[-1])
    if first < 1 or last < first:
        raise ParameterError(
            "snapshots must span a bar of the market, after its first one, from "
            f"{format_time(int(closes[0]))} to {format_time(data_end)}, got "
            f"{format_time(begun)} to {format_time(ended)}"
        )
    if ended >= data_end + markets.interval:
        raise ParameterError(
            f"the last snapshot must be within the data, which end at {format_time(data_end)}, got "
            f"{format_time(ended)}"
        )
    return ShadowSpan(first, last, ordered)


def check_snapshots(snapshots: Any) -> None:
    """Raise ParameterError unless snapshots are a list of those, each with a time."""
    is_list = isinstance(snapshots, Sequence) and not isinstance(snapshots, str)
    if not is_list or not snapshots:
        raise ParameterError(
            "snapshots must be a list, the account at the start and at the end, got "
            f"{core.repr_plain(snapshots)}"
        )
    for k, snapshot in enumerate(snapshots):
        if not isinstance(snapshot, AccountSnapshot) or snapshot.time is None:
            raise ParameterError(
                f"snapshots must have a time each, got {core.repr_plain(snapshot)} (number {k})"
            )


def read_stamp(snapshot: AccountSnapshot) -> int:
    return core.to_nanoseconds(str(snapshot.time))


def begin_flat(test: Conditions, markets: Markets) -> AccountSnapshot:
    """Return the account at the start of a test: flat, with its capital."""
    first = 1
    if test.start is not None:
        stamp = core.to_nanoseconds(test.start, "start")
        first = max(1, int(np.searchsorted(markets.time, stamp)))
    opened = markets.time[min(first, markets.n_bars - 1)]
    return AccountSnapshot(equity=test.account.capital, time=format_stamp(opened))


def warn_of_early_start(markets: Markets, fills: pd.DataFrame, first: int) -> None:
    """Warn if an assumed start, the open of bar ``first``, lies long before the first fill."""
    if len(fills) == 0:
        return
    begun = int(markets.time[first])
    filled = int(pd.Timestamp(fills["time"].iloc[0]).as_unit("ns").value)
    if filled - begun <= EARLY:
        return

    # The open of the bar of the first fill, at which the policy decides on its first order.
    bar = int(np.searchsorted(markets.time, filled, side="right")) - 1
    start = format_time(int(markets.time[bar])).replace(" ", "T")
    days = (filled - begun) // DAY
    core.warn_caller(
        f"the account is taken to begin {format_time(begun)} UTC, flat, with its capital: "
        f"{days:,} days before its first fill, {format_time(filled)}, in which its policy may have "
        f"traded; `--start {start}`, in Python start='{start}', begins it with that fill, as does "
        "a snapshot from before it"
    )


def cut_market(test: Conditions, stop: int) -> Any:
    markets = as_markets(test.market)
    cut = markets.prefix(stop)
    return cut if isinstance(test.market, Markets) else next(iter(cut.values()))


def read_live(
    test: Conditions,
    fills: pd.DataFrame,
    snapshots: Sequence[AccountSnapshot],
    flows: Any,
    first: int,
) -> Live:
    """Return what the live account did from bar ``first`` on, in contracts of the venues.

    ``fills``, ``snapshots`` and ``flows`` are those of another program, as the user gives them.
    """
    # No policy decides: what was done is replayed.
    plain = test.replace(signal=None, overlay=None)
    setup = engine.set_up(plain, replays.Replayed())
    start = int(setup.markets.time[first])
    end = int(setup.markets.time[-1]) + setup.markets.interval
    table = read_table(setup, fills, start, end)

    names = list_owners(setup)
    counted = []
    for reported in snapshots:
        snapshot = name_as_markets(setup.markets, reported)
        core.check_names(
            "a snapshot: the market",
            snapshot.positions,
            names,
            noun="instrument",
        )
        counted.append(replays.count_and_warn(setup.account, setup.venues, snapshot))

    deposits, funding = read_flows(flows, start, end)
    return Live(table, deposits, funding, counted)


def read_table(
    setup: Setup,
    fills: pd.DataFrame,
    start: int,
    end: int,
) -> pd.DataFrame:
    """Return the fills of a span, complete, by time, and in contracts of the venues."""
    settled = engine.check_settlement(setup.markets, setup.venues)
    named = name_fills(setup.markets, fills)
    table = complete_fills(named, list_owners(setup), settled)
    if "traded" in fills:
        table = count_fills(setup, table)
    table = table.drop(columns="traded")

    stamps = core.read_stamps(table["time"], name="fills", error=ParameterError)
    is_inside = (stamps >= start) & (stamps < end)
    core.warn_of_outside("fills lie outside the snapshots and are left out", stamps, start, end)
    table = table[is_inside].assign(time=core.utc_index(stamps[is_inside]))
    return table.sort_values("time", kind="stable", ignore_index=True)


def read_flows(flows: Any, start: int, end: int) -> tuple[Any, Any]:
    """Return deposits and funding by time within a span, each None where nothing says it.

    ``flows`` are deposits by time, or a ledger of ``time``, ``term`` and ``amount``.
    """
    if flows is None:
        return None, None
    if is_series(flows):
        stamps = core.read_stamps(flows.index, name="flows", error=ParameterError)
        return keep_inside(flows.to_numpy(dtype=np.float64), stamps, start, end), None

    table, is_file = open_table(flows, "flows", ("time", "term", "amount"))
    missing = [name for name in ("time", "amount") if name not in table]
    if missing:
        raise ParameterError(
            f"flows must have time, term and amount, got no {', '.join(missing)} in "
            f"{', '.join(map(str, table.columns))}"
        )

    terms = table.get("term", pd.Series("flows", index=table.index)).astype(str).to_numpy()
    replays.check_terms(terms)
    stamps = core.read_stamps(
        table["time"],
        name="flows",
        is_file=is_file,
        error=ParameterError,
    )
    amounts = replays.read_amounts(table, "amount", "flows")

    is_deposit = terms == "flows"
    is_funding = terms == "funding"
    deposits = keep_inside(amounts[is_deposit], stamps[is_deposit], start, end)
    funding = keep_inside(amounts[is_funding], stamps[is_funding], start, end)
    return deposits, funding


def keep_inside(
    amounts: FloatArray,
    stamps: IntArray,
    start: int,
    end: int,
) -> Any:
    """Return the amounts of a span, summed by stamp, None if there are none."""
    is_inside = (stamps >= start) & (stamps < end)
    if not is_inside.any():
        return None
    index = core.utc_index(stamps[is_inside])
    return pd.Series(amounts[is_inside], index=index).groupby(level=0).sum()


def hash_fills(fills: pd.DataFrame) -> str:
    text = fills[["time", "instrument", "quantity", "price", "fee"]].to_csv(index=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def describe(test: Conditions, policy: AnyPolicy, begun: int) -> dict[str, Any]:
    """Return the data and the rules of a shadow, as the manifests of other results have them.

    ``begun`` is the first open of the accounts, UTC ns; bars before it are history.
    """
    markets = as_markets(test.market)
    market: Any = markets
    venues = {name: core.pick_value(test.venue, name).to_dict() for name in markets.names}
    venue: Any = venues
    if len(markets) == 1:
        market = next(iter(markets.values()))
        venue = next(iter(venues.values()))

    return {
        "data": describe_history(market, core.utc_index(np.array([begun]))[0]),
        "settings": {
            "policy": describe_policy(policy),
            "account": test.account.to_dict(),
            "venue": venue,
        },
        "versions": core.find_versions(),
    }


def describe_policy(policy: AnyPolicy) -> str:
    names = [type(one).__name__ for one in core.list_values(policy)]
    return ", ".join(dict.fromkeys(names))


def format_stamp(stamp: Any) -> str:
    return f"{format_time(int(stamp))}Z"


# The policy's account.


def run_policy(
    test: Conditions,
    policy: AnyPolicy,
    snapshot: AccountSnapshot,
    first: int,
) -> Result:
    """Return the run of a policy from a bar on that begins with the account of a snapshot.

    It decides at the close before the bar, as it did for the live account.
    """
    markets = as_markets(test.market)
    begin = core.utc_index(markets.time)[first]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the market as a whole, which a replay gives too
        setup = engine.set_up_run(test.replace(start=begin), policy)

    before = setup._replace(markets=markets.prefix(first))
    states.check_known(before, snapshot)
    traded = states.find_traded_days(setup, snapshot, first - 1)
    terms = engine.find_terms(setup.inputs, first - 1, traded)
    started = start_account(before, snapshot, terms)
    with np.errstate(all="ignore"):
        decided = decisions.decide_at_last_close(before, started, traded)

    bound = _compile.bind_functions(engine.loop, ask=engine.ask_plain)
    room = 64 * len(setup.markets) * replays.CHUNK
    return replays.pass_bars(setup, decided, bound["simulate_account"], room)


def run_replay(
    test: Conditions,
    table: pd.DataFrame,
    start: AccountSnapshot,
    range_tolerance: float,
) -> Result:
    """Return the account of a table of fills, without the warnings of the market."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each table would say the same of the market
        return replays.replay(
            test,
            table,
            start=start,
            range_tolerance=range_tolerance,
        )


# Orders and fills.


def match_fills(orders: pd.DataFrame, fills: pd.DataFrame, interval: int) -> Matched:
    """Return which fills belong to which order: same instrument and side, within one interval.

    Greedy in time: the earliest order takes the fills of its interval, and no fill has two orders.
    Bad debt is neither an order nor a fill.
    """
    filled_at = pd.DatetimeIndex(fills["time"]).as_unit("ns").asi8
    sides = np.sign(fills["quantity"].to_numpy(dtype=np.float64))
    names = fills["instrument"].to_numpy()
    is_free = (fills["kind"] != "bad_debt").to_numpy(copy=True)
    by_order: list[list[int]] = [[] for _ in range(len(orders))]

    ordered_at = pd.DatetimeIndex(orders["time"]).as_unit("ns").asi8
    for k in np.argsort(ordered_at, kind="stable").tolist():
        order: Any = orders.iloc[k]
        if order["kind"] == "bad_debt":
            continue

        # Same instrument and side, and filled within the interval of the order.
        is_own = names == order["instrument"]
        is_same_side = sides == np.sign(order["quantity"])
        begin = ordered_at[k]
        is_in_interval = (filled_at >= begin) & (filled_at < begin + interval)
        is_matched = is_free & is_own & is_same_side & is_in_interval
        by_order[k] = np.flatnonzero(is_matched).tolist()
        is_free &= ~is_matched
    return Matched(by_order, np.flatnonzero(is_free).tolist())


def list_orders(
    setup: Setup,
    orders: pd.DataFrame,
    fills: pd.DataFrame,
    matched: Matched,
) -> pd.DataFrame:
    """Return a row for each order with what came of it, as ``Shadow.orders`` says."""
    rows = []
    for k, own_rows in enumerate(matched.by_order):
        order: Any = orders.iloc[k]
        if order["kind"] == "bad_debt":
            continue
        row = {name: order[name] for name in ("time", "instrument", "quantity", "price")}
        rows.append({**row, **sum_fills(setup, order, fills.iloc[own_rows])})

    # Where nothing was filled, a column of times has none that says its zone.
    table = pd.DataFrame(rows, columns=[*ORDER_HEADS])
    for name in ("time", "first_fill"):
        table[name] = pd.to_datetime(table[name], utc=True)
    return table


def sum_fills(setup: Setup, order: Any, fills: pd.DataFrame) -> dict[str, Any]:
    """Return what the fills of an order come to beside it; without one it was missed."""
    if fills.empty:
        return {"filled": 0.0, "fill_price": math.nan, "first_fill": pd.NaT, "price_cost": 0.0}

    quantities = fills["quantity"].to_numpy(dtype=np.float64)
    prices = fills["price"].to_numpy(dtype=np.float64)
    filled = float(quantities.sum())
    mean_price = float(prices @ quantities) / filled
    cost = filled * (mean_price - order["price"])

    # The price of an inverse contract is not in proportion to its value; that of coins is.
    if order["instrument"] in setup.markets.names:
        contract = setup.venues[order["instrument"]].contract
        mean_value = float(value_of(contract, prices) @ quantities) / filled
        mean_price = float(price_of(contract, mean_value))
        cost = filled * (mean_value - float(value_of(contract, order["price"])))
    return {
        "filled": filled,
        "fill_price": mean_price,
        "first_fill": fills["time"].iloc[0],
        "price_cost": cost,
    }


def build_tables(
    setup: Setup,
    orders: pd.DataFrame,
    fills: pd.DataFrame,
    matched: Matched,
) -> dict[str, pd.DataFrame]:
    """Return the fills of the accounts from ``timing`` to ``fees``, by part.

    Each account has one thing more of the live one: ``timing`` has the policy's orders at the times
    of their fills, ``sizes`` in the sizes of these, ``orders`` also fills that no order asked for,
    ``prices`` the prices of the fills, and ``fees`` their fees.
    """
    quantities = fills["quantity"].to_numpy(dtype=np.float64)
    timed = []
    sized = []
    unmatched = []  # orders without a fill, which the first two accounts have all the same
    chosen = []  # the rows of the fills, in the order of the tables
    for k, rows in enumerate(matched.by_order):
        order: Any = orders.iloc[k]
        if not rows:
            unmatched.append(order.to_dict())
            continue

        # An order is divided among its fills; in sizes it has theirs.
        shares = quantities[rows] / quantities[rows].sum()
        for row, share in zip(rows, shares.tolist(), strict=True):
            fill: Any = fills.iloc[row]
            moved = move_order(setup, order, fill)
            timed.append(scale_order(moved, order["quantity"] * share, order["quantity"]))
            sized.append(scale_order(moved, fill["quantity"], order["quantity"]))
            chosen.append(row)

    # Fills that no order asked for come last, as they would be modeled.
    chosen.extend(matched.extra)
    modeled_extra = [model_fill(setup, fills.iloc[row]) for row in matched.extra]
    joined = [*sized, *modeled_extra]

    priced = []
    charged = []
    for row, modeled in zip(chosen, joined, strict=True):
        fill = fills.iloc[row].to_dict()
        priced.append({**fill, "fee": modeled["fee"]})
        charged.append(fill)

    tables = {
        "timing": [*timed, *unmatched],
        "sizes": [*sized, *unmatched],
        "orders": joined,
        "prices": priced,
        "fees": charged,
    }
    return {part: collect_rows(rows, orders) for part, rows in tables.items()}


def collect_rows(rows: list[dict[str, Any]], like: pd.DataFrame) -> pd.DataFrame:
    """Return fills as a table by time, with the columns of another."""
    table = pd.DataFrame(rows, columns=[*like.columns])
    if rows:
        table["time"] = pd.DatetimeIndex(table["time"]).tz_convert("UTC")
    else:
        table["time"] = like["time"][:0]
    return table.sort_values("time", kind="stable", ignore_index=True)


def find_bar(setup: Setup, time: Any) -> int:
    """Return the bar in which a time lies."""
    stamp = int(pd.Timestamp(time).as_unit("ns").value)
    return int(np.searchsorted(setup.markets.time, stamp, side="right")) - 1


def move_order(setup: Setup, order: Any, fill: Any) -> dict[str, Any]:
    """Return an order in the bar of a fill, at its open, worsened as the order was."""
    bar = find_bar(setup, fill["time"])
    moved: dict[str, Any] = {**order.to_dict()}
    is_asset = order["instrument"] not in setup.markets.names
    if is_asset or bar == find_bar(setup, order["time"]):
        return moved

    i = setup.markets.names.index(order["instrument"])
    reference = float(setup.inputs.feed.open[bar, i])
    price = reference * (order["price"] / order["reference"])

    # The fee is in proportion to the value.
    contract = setup.venues[order["instrument"]].contract
    value = float(value_of(contract, price))
    value_ordered = float(value_of(contract, order["price"]))
    ratio = abs(value / value_ordered)
    moved["time"] = core.utc_index(setup.markets.time[bar : bar + 1])[0]
    moved["price"] = price
    moved["reference"] = reference
    moved["fee"] = order["fee"] * ratio
    moved["step"] = -1
    return moved


def scale_order(order: Mapping[str, Any], quantity: float, whole: float) -> dict[str, Any]:
    """Return an order of another quantity, with its fee in proportion."""
    return {
        **order,
        "quantity": quantity,
        "fee": order["fee"] * (quantity / whole),
    }


def model_fill(setup: Setup, fill: Any) -> dict[str, Any]:
    """Return a fill as it would be modeled: at the open of its bar, by the venue's costs."""
    modeled: dict[str, Any] = {**fill.to_dict()}
    if fill["instrument"] not in setup.markets.names:  # collateral, which is sold as it is
        return modeled

    # A cost that is a column of the market is NaN among the rules: it is modeled as 0.
    bar = find_bar(setup, fill["time"])
    i = setup.markets.names.index(fill["instrument"])
    rules = accounts.pick_instrument(setup.inputs.terms, i)
    worsening = replace_unknown(rules.slippage)
    fee_rate = replace_unknown(rules.fee)

    # A buy is filled above the open, a sale below it.
    reference = float(setup.inputs.feed.open[bar, i])
    price = reference * (1.0 + math.copysign(worsening, fill["quantity"]))
    contract = setup.venues[fill["instrument"]].contract
    value = abs(float(value_of(contract, price)))
    modeled["time"] = core.utc_index(setup.markets.time[bar : bar + 1])[0]
    modeled["price"] = price
    modeled["reference"] = reference
    modeled["fee"] = fee_rate * abs(fill["quantity"]) * value
    modeled["kind"] = "order"
    modeled["step"] = -1
    return modeled


def replace_unknown(rate: float) -> float:
    """Return a rate, 0 in place of NaN."""
    if math.isnan(rate):
        return 0.0
    return rate


# The accounts side by side.


def compare_accounts(
    setup: Setup,
    without: Result,
    replayed: Mapping[str, Result],
    live: Live,
    first: int,
) -> pd.DataFrame:
    """Return the equity of each of ``ACCOUNTS``, a column by name, at the close of each bar.

    ``without`` is the policy's account without deposits, ``replayed`` are the accounts of the parts
    from ``deposits`` to ``fees``: each has one more fact of the live account than the one before.
    The live account is known at its snapshots alone.
    """
    opens = setup.markets.time[first:]
    closes = opens + setup.markets.interval
    equities = {}
    for part, result in replayed.items():
        equities[part] = np.asarray(result.of_account("equity"))

    # Without deposits the first two are the same account. The replay stands for both, so that
    # the rounding of a replay is no part of the difference.
    if live.deposits is None:
        equities["policy"] = equities["deposits"]
    else:
        equities["policy"] = np.asarray(without.of_account("equity"))

    # The fills of a replay are given, so other funding moves its equity and nothing else.
    extra_funding = count_funding(replayed["fees"], live, opens)
    equities["funding"] = equities["fees"] + extra_funding
    equities["account"] = place_snapshots(setup, live.snapshots[1:], closes, first)
    return pd.DataFrame(
        {name: equities[name] for name in ACCOUNTS},
        index=core.utc_index(closes).rename("time"),
    )


def place_snapshots(
    setup: Setup,
    snapshots: Sequence[AccountSnapshot],
    closes: IntArray,
    first: int,
) -> FloatArray:
    """Return the equity of snapshots at the last close up to each, NaN at all other closes.

    ``closes`` (n_bars,) are those from the bar ``first`` of the market on.
    """
    equity = np.full(len(closes), np.nan)
    for snapshot in snapshots:
        row = int(np.searchsorted(closes, read_stamp(snapshot), side="right")) - 1
        equity[row] = value_snapshot(setup, snapshot, first + row)
    return equity


def difference_parts(equities: Any) -> dict[str, Any]:
    """Return each part: the equity of its account, by name, less that of the one before it."""
    parts = {}
    for part, (before, after) in zip(PARTS, itertools.pairwise(ACCOUNTS), strict=True):
        parts[part] = equities[after] - equities[before]
    return parts


def count_funding(replayed: Result, live: Live, time: IntArray) -> FloatArray:
    """Return by bar how much more funding the ledger received than was modeled; 0 without one."""
    if live.funding is None:
        return np.zeros(len(time))
    stamps = pd.DatetimeIndex(live.funding.index).as_unit("ns").asi8
    bars = np.searchsorted(time, stamps, side="right") - 1
    received = np.bincount(bars, weights=live.funding.to_numpy(), minlength=len(time))
    modeled = -np.asarray(replayed.of_account("funding"))
    return np.cumsum(received - modeled)


def find_settlements(setup: Setup, replayed: Result) -> IntArray:
    """Return the stamps (n,) at which an account paid or received funding, ns, each once.

    An event is stamped with the open of its bar. Where all settlements of a bar were paid, these
    are their own stamps, three of a daily bar.
    """
    events = replayed.events
    paid = events.loc[events["kind"] == "funding", "time"]
    opens = pd.DatetimeIndex(paid).as_unit("ns").asi8
    bars, n_paid = np.unique(np.searchsorted(setup.markets.time, opens), return_counts=True)

    panel = replays.find_panel(setup)
    n_settled = np.bincount(panel.funding_bar, minlength=setup.markets.n_bars)[bars]
    is_whole = n_paid == n_settled
    own = panel.funding_time[np.isin(panel.funding_bar, bars[is_whole])]
    return np.unique(np.concatenate([own, setup.markets.time[bars[~is_whole]]]))


def warn_of_missing_funding(setup: Setup, replayed: Result, live: Live) -> None:
    """Warn if a ledger has the funding of some settlements, and of others none.

    A settlement has the rows from a minute before it up to a minute before the next one: venues
    book it some seconds late, and stamps of two clocks differ.
    """
    if live.funding is None:
        return

    due = find_settlements(setup, replayed)
    booked = pd.DatetimeIndex(live.funding.index).as_unit("ns").asi8
    rows = np.searchsorted(due - MINUTE, booked, side="right") - 1
    is_booked = np.isin(np.arange(len(due)), rows)
    if is_booked.all():
        return

    missing = due[~is_booked]
    core.warn_caller(
        f"flows have funding, but not of {len(missing):,} of the {len(due):,} settlements at which "
        f"the account held a position, the first at {format_time(int(missing[0]))} UTC: these "
        "count as 0. Without rows of funding, all of it is modeled"
    )


def value_snapshot(setup: Setup, snapshot: AccountSnapshot, bar: int) -> float:
    """Return the equity of a snapshot; of one with a wallet, with profits at the marks of a bar."""
    if snapshot.equity is not None:
        return snapshot.equity

    up_to_bar = setup._replace(markets=setup.markets.prefix(bar + 1))
    traded = states.find_traded_days(setup, snapshot, bar)
    terms = engine.find_terms(setup.inputs, bar, traded)
    return float(start_account(up_to_bar, snapshot, terms).wallet.equity)


def compare_quantities(
    setup: Setup,
    replayed: Result,
    live: Live,
    first: int,
) -> list[dict[str, QuantityGap]]:
    """Return for each snapshot after the first which quantities differ, by instrument.

    ``replayed`` is the account of the fills from the bar ``first`` on. A snapshot between two
    closes also has the fills from the close before it to its time.
    """
    opens = setup.markets.time[first:]
    held = np.asarray(replayed.of_positions("quantity"))
    filled_at = pd.DatetimeIndex(live.fills["time"]).as_unit("ns").asi8
    instruments = live.fills["instrument"].to_numpy()
    quantities = live.fills["quantity"].to_numpy(dtype=np.float64)

    gaps = []
    for snapshot in live.snapshots[1:]:
        stamp = read_stamp(snapshot)
        row = int(np.searchsorted(opens + setup.markets.interval, stamp, side="right")) - 1
        close = int(opens[0])
        if row >= 0:
            close = int(opens[row]) + setup.markets.interval
        is_later = (filled_at >= close) & (filled_at < stamp)

        differing = {}
        for i, name in enumerate(setup.markets.names):
            at_close = find_quantity(live.snapshots[0], name)
            if row >= 0:
                at_close = float(held[row, i])
            later = quantities[is_later & (instruments == name)]
            ours = at_close + float(later.sum())
            theirs = find_quantity(snapshot, name)

            # What was traded counts too: a sum that should be 0 is a rounding of it.
            scale = max(abs(at_close), abs(theirs), float(np.abs(later).max(initial=0.0)))
            if abs(ours - theirs) > LARGE * scale:
                differing[name] = QuantityGap(stamp, ours, theirs)
        gaps.append(differing)
    return gaps


def find_quantity(snapshot: AccountSnapshot, name: str) -> float:
    position = snapshot.positions.get(name)
    if position is None:
        return 0.0
    return float(position.quantity)


def pick_first(gaps: Sequence[Mapping[str, QuantityGap]]) -> dict[str, QuantityGap]:
    """Return the first difference of each instrument; ``gaps`` are by snapshot."""
    first: dict[str, QuantityGap] = {}
    for by_name in gaps:
        first = {**by_name, **first}
    return first


def sum_days(bars: pd.DataFrame) -> pd.DataFrame:
    """Return by UTC day both accounts at its last close, and the change of each part.

    What is unexplained changes at snapshots only; a close at midnight is of the day before.
    """
    steps = pd.DataFrame(difference_parts(bars))
    steps["unexplained"] = steps["unexplained"].ffill().fillna(0.0)

    # A nanosecond less, so that midnight belongs to the day that it ends.
    closes = pd.DatetimeIndex(bars.index).as_unit("ns").asi8
    day = core.utc_index((closes - 1) // DAY * DAY).rename("day")

    # The change of the first day is from 0, where both accounts begin.
    parts_at_end = steps.groupby(day).last()
    changes = parts_at_end.diff().fillna(parts_at_end.iloc[:1])
    equities_at_end = bars[["policy", "account"]].groupby(day).last()
    return pd.concat([equities_at_end, changes], axis=1)

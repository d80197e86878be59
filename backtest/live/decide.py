"""``decide()``: the next order of a live account under a policy."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from time import time_ns
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from backtest import _compile, core, engine
from backtest import account as accounts
from backtest.account import AccountBar, AccountState, TradedDays, set_quotes
from backtest.account import bar as bar_steps
from backtest.account.cut_counts import ALL, ASKED, CAUSES, CUT, DISTANCE
from backtest.account.events import INSIDE, STOPS, Event
from backtest.account.money import FILL_COSTS
from backtest.core import ParameterError, format_percent, format_price, format_time, to_json
from backtest.core.code_names import pd
from backtest.engine import AccountInputs, AnyPolicy, Conditions, Setup
from backtest.engine.loop import DAY_NS
from backtest.engine.run import run
from backtest.engine.shown import N_SHOWN
from backtest.live import book, cautions
from backtest.live import state as snapshots
from backtest.live.book import Cut, Order, format_leverage
from backtest.live.contracts import (
    Caution,
    compare_liquidations,
    count_as_venue,
    name_as_markets,
)
from backtest.live.state import AccountSnapshot, check_known
from backtest.live.stated import Stated, find_price, look_ahead, read_stated
from backtest.margin import compute_largest_notional
from backtest.options import refuse_options
from backtest.policies import AccountView, sets_margin
from backtest.results import Result
from backtest.results.tables import price_of

ORDERS = (Event.FILL, *(event for event in STOPS if event not in INSIDE))
"""Events of a bar that are fills of its decision, or stops at its open."""
COSTS = tuple(FILL_COSTS.values())


@functools.cache
def find_functions() -> Any:
    """Return the steps of a bar and of the loop, bound to policies in plain Python."""
    bound = _compile.bind_functions(engine.loop, ask=engine.ask_plain)
    steps = {
        **vars(bar_steps),
        **bound,
        "look_at_close": engine.look_at_close,
    }
    return SimpleNamespace(**steps)


def new_bar(
    setup: Setup,
    inputs: AccountInputs,
    state: AccountState,
    traded: TradedDays | None,
    t: int,
) -> AccountBar:
    """Return the bar t of an account, which works on a copy of its state.

    Leverage settings that policies asked for are written into the terms and the state given.
    """
    terms = engine.find_terms(inputs, t, traded)
    if any(sets_margin(policy) for policy in setup.policies.values()):
        accounts.write_settings(terms, state)

    cuts = engine.new_cuts(len(state.positions))
    return engine.new_bar(terms, inputs.feed, engine.copy_state(state), cuts)


def show_account(setup: Setup, bar: AccountBar, t: int) -> tuple[AccountView, ...]:
    """Return what each instrument's policy would see of the account at the close of a bar.

    The bar must be valued at its close. The engine shows one account after another in the same
    buffer, from which each is copied.
    """
    functions = find_functions()
    deciders = engine.gather_deciders(setup, setup.observed)
    close = functions.look_at_close(bar, True)
    days = (bar.feed.time[t] + setup.markets.interval - deciders.start[0]) / DAY_NS
    functions.show_account_totals(bar, deciders, close, days)

    # Liquidation prices are shown to policies that ask for them; here all are wanted.
    deciders.wants_price[:] = 1
    views = []
    for i in range(len(setup.markets)):
        functions.show_position(bar, deciders, i)
        views.append(AccountView._make((*deciders.shown[:N_SHOWN].tolist(), None)))
    return tuple(views)


def open_last_bar(
    setup: Setup,
    state: AccountState,
    traded: TradedDays | None,
) -> AccountBar:
    """Return the last bar of the market with a copy of an account, valued at its close."""
    t = setup.markets.n_bars - 1
    bar = new_bar(setup, setup.inputs, state, traded, t)
    set_quotes(bar.terms, bar.feed, bar.quotes, t)
    accounts.value_at(bar.state, bar.quotes.mark_close, bar.quotes.asset_mark_close)
    return bar


def decide_at_last_close(
    setup: Setup,
    state: AccountState,
    traded: TradedDays | None,
) -> AccountState:
    """Return the state after the policies have decided at the last close.

    Raises ParameterError if the account has no equity: its leverage and drawdown are no numbers.
    """
    equity = float(state.wallet.equity)
    if not equity > 0.0:
        end = int(setup.markets.time[-1]) + setup.markets.interval
        raise ParameterError(
            "a snapshot that a policy decides from must have an equity over 0, with the profit of "
            f"its positions, got {core.format_money(equity)} at {format_time(end)}"
        )

    functions = find_functions()
    deciders = engine.gather_deciders(setup, setup.observed)
    deciders.memory[:] = 0.0

    bar = open_last_bar(setup, state, traded)
    functions.begin_peak(deciders, bar.state)
    close = functions.look_at_close(bar, True)
    t = setup.markets.n_bars - 1
    if not functions.decide_all(bar, deciders, close, t):
        raise engine.report_bad_decision(setup.inputs, t)
    return bar.state


class NextBar(NamedTuple):
    """What one more bar makes of an account: its orders by instrument, and what it is after it.

    ``views`` are what each instrument's policy would see at the close of the bar.
    """

    orders: dict[str, Order]
    views: tuple[AccountView, ...]
    equity: float


def fill(
    setup: Setup,
    state: AccountState,
    traded: TradedDays | None,
    stated: Stated,
) -> NextBar:
    """Return what the bar after the market makes of an account that has decided.

    The bar has the ``stated`` prices; ``state`` stays as it is.
    """
    later = look_ahead(setup, stated)
    t = setup.markets.n_bars
    bar = new_bar(setup, later.inputs, state, traded, t)
    find_functions().process_bar(bar, t)

    views = show_account(setup, bar, t)
    orders = {name: read_order(bar, i, name) for i, name in enumerate(setup.markets.names)}
    return NextBar(orders, views, float(bar.state.wallet.equity))


def read_order(bar: AccountBar, i: int, name: str) -> Order:
    """Return the order that instrument i had in a bar, read from the bar's log of events.

    The bar must have been processed. ``size`` is in signed contracts, ``value`` that of one
    contract at the last fill (NaN without one), and ``costs`` are positive money by name. What
    stops and liquidations traded inside the bar is no part of it; ``is_forced`` says whether there
    were any.
    """
    n_written = bar.log.written[0]
    entries = bar.log.entries[:n_written]
    rows = entries[entries["owner"] == i]
    is_fill = np.isin(rows["kind"], ORDERS)

    # An order that rests in the book is logged with its whole size as it is placed. Its fills come
    # later in the log, as parts of that size, and are not counted again.
    is_resting = rows["kind"] == Event.RESTED
    is_before_resting = np.cumsum(is_resting) == 0
    parts = np.concatenate([rows[is_fill & is_before_resting], rows[is_resting]])
    values = parts["value"][parts["quantity"] != 0.0]

    # Costs are paid at fills, those of the resting order among them.
    costs = {cost: float(rows[cost][is_fill].sum()) for cost in COSTS}
    return Order(
        size=float(sum(parts["quantity"].tolist())),
        value=float(values[-1]) if len(values) else math.nan,
        costs=costs,
        limit=find_limit(bar, i),
        is_forced=bool(np.isin(rows["kind"], INSIDE).any()),
        cuts=read_cuts(bar, i, name),
    )


def read_cuts(bar: AccountBar, i: int, name: str) -> tuple[Cut, ...]:
    """Return which causes moved an order in a bar, and by how much leverage."""
    counts = bar.scratch.cuts[i]
    asked = float(counts[ALL, ASKED])
    causes = np.flatnonzero(counts[:, DISTANCE])
    return tuple(Cut(name, CAUSES[k], float(counts[k, CUT]), asked) for k in causes if k > ALL)


def find_limit(bar: AccountBar, i: int) -> float:
    """Return the notional of an instrument that its table allows with the equity of the account."""
    equity = float(bar.state.wallet.equity)
    if bar.terms.rules.has_scenarios:
        equity = math.inf  # the requirement is that of the whole account

    largest = compute_largest_notional(
        accounts.pick_margin(bar.terms, i),
        equity,
        held=0.0,
        cost=0.0,
        multiplier=bar.quotes.instruments[i].initial,
        enough=math.inf,
    )
    return float(largest)


@dataclass(frozen=True, eq=False, repr=False)
class Decision:
    time: pd.Timestamp
    now: pd.Timestamp
    leverage: Mapping[str, float]
    venue_leverage: Mapping[str, float]
    target: Mapping[str, float]
    order: Mapping[str, float]
    price: Mapping[str, float]
    fill_price: Mapping[str, float]
    costs: Mapping[str, Mapping[str, float]]
    cuts: tuple[Cut, ...]
    warnings: tuple[Caution, ...]
    account: pd.DataFrame
    equity: tuple[float, float]
    margin_ratio: tuple[float, float]
    orders: pd.DataFrame

    @property
    def may_act(self) -> bool:
        return not any(warning.stops for warning in self.warnings)

    def to_dict(self) -> dict[str, Any]:
        before, after = self.equity
        ratio_before, ratio_after = self.margin_ratio
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {
            "time": self.time.isoformat(),
            "now": self.now.isoformat(),
            "may_act": self.may_act,
            "cuts": [cut._asdict() for cut in self.cuts],
            "warnings": [warning._asdict() for warning in self.warnings],
            "account": self.account.to_dict(orient="index"),
            "orders": self.orders.to_dict(orient="index"),
            "equity": {"before": before, "after": after},
            "margin_ratio": {"before": ratio_before, "after": ratio_after},
        }
        return dict(to_json(values))

    def __repr__(self) -> str:
        return f"<Decision at {self.time:%Y-%m-%d %H:%M} UTC: {describe_orders(self)}>"

    def __str__(self) -> str:
        lines = [
            f"Decision at the close of {self.time:%Y-%m-%d %H:%M} UTC: {describe_orders(self)}"
        ]
        for name in self.account.index:
            lines.extend(self._describe_instrument(name))

        before, after = map(core.format_money, self.equity)
        ratio_before, ratio_after = map(format_percent, self.margin_ratio)
        lines.append(f"  equity {before} -> {after}, margin ratio {ratio_before} -> {ratio_after}")
        lines.extend(f"  cut: {cut}" for cut in self.cuts)
        lines.extend(f"  warning: {warning}" for warning in self.warnings)

        # Of a single instrument the lines above say it all.
        if len(self.orders) > 1:
            lines.extend(["", book.write_table(self.orders), ""])
        lines.append("  no order was sent")
        return "\n".join(lines)

    def _describe_instrument(self, name: str) -> tuple[str, str]:
        """Return two lines: what was decided for an instrument, and what its position becomes."""
        decided = "leave the position"
        if not math.isnan(self.leverage[name]):
            decided = format_leverage(self.leverage[name])
        if not math.isnan(self.target[name]):
            decided += f", target {core.format_signed(self.target[name])} x equity"

        row: Any = self.account.loc[name]
        before = describe_price(row["liquidation_before"])
        after = describe_price(row["liquidation_after"])
        return (
            f"  {name}: {decided}",
            f"    position {row['position_before']:.12g} -> {row['position_after']:.12g} "
            f"contracts at {format_price(self.price[name])}, liquidation price {before} -> {after}",
        )


def describe_price(price: float) -> str:
    return "none" if math.isnan(price) else format_price(price)


def describe_orders(decision: Decision) -> str:
    orders = []
    for name, size in decision.order.items():
        if size != 0.0:
            orders.append(f"{book.name_side(size)} {abs(size):.12g} {name}")
    text = ", ".join(orders) or "no order"

    if decision.may_act:
        return text
    return f"do not act before the warnings are cleared ({text})"


@core.checked_only("state")
def decide(
    conditions: Conditions,
    policy: AnyPolicy,
    *,
    state: AccountSnapshot | Result,
    at: float | Mapping[str, float] | None = None,
    mark: float | Mapping[str, float] | None = None,
    funding: float | pd.DataFrame | Mapping[str, Any] | None = None,
    now: core.TimeLike | None = None,
    liquidation: str | None = None,
) -> Decision:
    """Answer :meth:`backtest.Backtest.decide`, which documents it."""
    test = engine.plain(conditions).replace(start=None)
    setup = engine.set_up_run(test, policy)
    refuse_options(test.market, "the next order of an account")

    if isinstance(state, Result):
        if liquidation is not None:
            raise ParameterError("liquidation must be left out, the state is a result")
        setup = setup.begin_at(state.started)
    elif state.started is not None:
        setup = setup.begin_at(core.to_nanoseconds(state.started))
    present = time_ns() if now is None else core.to_nanoseconds(now, "now")
    stated = read_stated(setup, at, mark, funding)

    # A result has decided at its last close; the account of a snapshot decides now.
    if isinstance(state, Result):
        decided = go_on(setup, state, policy, test)
    else:
        if liquidation is not None:
            state = replace(state, liquidation=liquidation)
        decided = decide_from_snapshot(setup, state, present)

    warnings = [*cautions.find_cautions(setup, stated, present), *decided.cautions]
    return answer(setup, decided, stated, warnings, now=present)


class Decided(NamedTuple):
    """An account after its decision at the last close, before the order fills."""

    state: AccountState
    traded: TradedDays | None
    cautions: list[Caution]


def go_on(
    setup: Setup,
    result: Result,
    policy: AnyPolicy,
    test: Conditions,
) -> Decided:
    """Return the account of a run that is continued to the last bar of the market.

    Raises ParameterError if the run ends after it, or if its terms are not those of ``setup``.
    """
    last = int(setup.markets.time[-1])
    if result.last_time > last:
        raise ParameterError(
            f"state must end by the last bar of the market, {format_time(last)}, got a result that "
            f"ends with {format_time(result.last_time)}"
        )
    if result.last_time < last:
        result = run(test, policy, resume=result, compile=False)

    # A run that would go on from here has the same rules: only then its account is that of now.
    earlier: Any = engine.read_resume(result, None)
    engine.check_rules(earlier, setup)
    return Decided(result.state, result.traded, cautions=[])


def decide_from_snapshot(setup: Setup, reported: AccountSnapshot, now: int) -> Decided:
    """Return the account of a snapshot after its policies have decided at the last close.

    The account that the venue reported becomes that of a run at this close, and its policies decide
    there as in a run. Cautions say where the two accounts do not fit together, or the times of the
    snapshot not to the present, ``now``, ns.
    """
    named = name_as_markets(setup.markets, reported)
    snapshot, conversion_cautions = count_as_venue(setup.account, setup.venues, named)
    check_known(setup, snapshot)

    last = setup.markets.n_bars - 1
    traded = snapshots.find_traded_days(setup, snapshot, last)
    terms = engine.find_terms(setup.inputs, last, traded)
    state_before = snapshots.start_account(setup, snapshot, terms)
    with np.errstate(all="ignore"):
        state = decide_at_last_close(setup, state_before, traded)
        liquidation_prices = find_liquidation_prices(setup, state, traded)

    # A venue whose liquidation prices are far from ours has another account, or other rules.
    return Decided(
        state,
        traded,
        cautions=[
            *conversion_cautions,
            *cautions.find_other_account(setup, snapshot),
            *cautions.find_later_times(snapshot, now),
            *compare_liquidations(setup, snapshot, liquidation_prices),
        ],
    )


def find_liquidation_prices(
    setup: Setup,
    state: AccountState,
    traded: TradedDays | None,
) -> dict[str, float]:
    """Return the liquidation price of each position at the last close, NaN where it has none."""
    bar = open_last_bar(setup, state, traded)
    views = show_account(setup, bar, setup.markets.n_bars - 1)

    prices = {}
    for name, view in zip(setup.markets.names, views, strict=True):
        prices[name] = float(view.liquidation_price)
    return prices


def answer(
    setup: Setup,
    decided: Decided,
    stated: Stated,
    warnings: list[Caution],
    *,
    now: int,
) -> Decision:
    """Return the decision: what one more bar makes of the account, and what to know before it.

    ``warnings`` are those known so far; what the orders give reason for is added.
    """
    names = setup.markets.names
    state = decided.state

    # The account before the bar, at the last close, and after its fills.
    with np.errstate(all="ignore"):
        next_bar = fill(setup, state, decided.traded, stated)
        last_bar = open_last_bar(setup, state, decided.traded)
        before = show_account(setup, last_bar, setup.markets.n_bars - 1)
    orders = next_bar.orders
    after = next_bar.views
    ratio_before = max(float(view.margin_ratio) for view in before)
    ratio_after = max(float(view.margin_ratio) for view in after)

    leverage = dict(zip(names, state.positions.column("leverage").tolist(), strict=True))
    target = find_targets(setup, state)
    warnings.extend(cautions.find_ruin(float(before[0].equity)))
    warnings.extend(cautions.find_pause(setup, state))
    warnings.extend(cautions.find_blocked(setup, orders, leverage, ratio_before))
    warnings.extend(cautions.find_excess(orders, target, after))

    # What is sent: whole lots, at the price of the market and at that of the modeled fill.
    sizes = {}
    prices = {}
    fill_prices = {}
    for name, order in orders.items():
        contract = setup.venues[name].contract
        sizes[name] = book.write_in_lots(order.size, contract.order_step)
        prices[name], _ = find_price(setup.markets[name], name, stated)
        fill_prices[name] = float(price_of(contract, order.value))

    return Decision(
        time=pd.Timestamp(int(setup.markets.time[-1]) + setup.markets.interval, tz="UTC"),
        now=pd.Timestamp(now, tz="UTC"),
        leverage=leverage,
        venue_leverage=dict(zip(names, state.positions.column("asked").tolist(), strict=True)),
        target=target,
        order=sizes,
        price=prices,
        fill_price=fill_prices,
        costs={name: order.costs for name, order in orders.items()},
        cuts=tuple(cut for order in orders.values() for cut in order.cuts),
        warnings=tuple(warnings),
        account=tabulate_account(names, before, after),
        equity=(float(before[0].equity), next_bar.equity),
        margin_ratio=(ratio_before, ratio_after),
        orders=book.tabulate_orders(
            setup,
            orders,
            sizes,
            prices,
            leverage,
            warnings,
        ),
    )


def find_targets(setup: Setup, state: AccountState) -> dict[str, float]:
    """Return by instrument the signed leverage decided, after the signal and the overlay."""
    overlay = float(state.wallet.overlay)
    leverages = state.positions.column("leverage").tolist()
    signals = state.positions.column("signal").tolist()

    targets = {}
    for name, leverage, signal in zip(setup.markets.names, leverages, signals, strict=True):
        targets[name] = 0.0 if signal == 0.0 else signal * leverage * overlay
    return targets


def tabulate_account(
    names: Sequence[str],
    before: Sequence[AccountView],
    after: Sequence[AccountView],
) -> pd.DataFrame:
    """Return by instrument what is held before and after the order."""
    columns = {}
    for field in ("position", "leverage", "liquidation_price"):
        head = field.removesuffix("_price")
        columns[f"{head}_before"] = [float(getattr(view, field)) for view in before]
        columns[f"{head}_after"] = [float(getattr(view, field)) for view in after]
    return pd.DataFrame(columns, index=list(names)).rename_axis("instrument")

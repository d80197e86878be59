"""``decide()``: the next order of a live account under a policy."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
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
from backtest.account.records import WINDOW
from backtest.core import ParameterError, Real, format_percent, format_price, format_time, to_json
from backtest.core.code_names import pd
from backtest.core.units import DAY, HOUR
from backtest.engine import AccountInputs, AnyPolicy, Conditions, Setup
from backtest.engine.loop import DAY_NS, N_SHOWN
from backtest.engine.run import run
from backtest.live import book
from backtest.live import state as snapshots
from backtest.live.contracts import Caution, compare_liquidations, count_as_venue
from backtest.live.state import AccountSnapshot, check_known
from backtest.margin import compute_largest_notional
from backtest.market import Market, Markets, find_clock, find_later_sessions, remake
from backtest.market.tables import JITTER
from backtest.options import refuse_options
from backtest.policies import AccountView, sets_margin
from backtest.results import Result
from backtest.results.tables import price_of

PRICE = Real(0.0, open_low=True)
RATE = Real(-1.0, 1.0)


class Stated(NamedTuple):
    at: dict[str, float]
    mark: dict[str, float]
    funding: dict[str, pd.DataFrame]


def read_stated(setup: Setup, at: Any, mark: Any, funding: Any) -> Stated:
    names = [*setup.markets.names, *(each.name for each in setup.account.collateral)]
    n, fill = len(setup.markets), setup.account.fill
    prices = {}
    for word, given in (("at", at), ("mark", mark)):
        by_name = isinstance(given, Mapping)
        prices[word] = {
            each: PRICE.check(f"{word} of {each}" if by_name else word, x)
            for each, x in name_given(word, given, names, n).items()
        }
    stated = Stated(prices["at"], prices["mark"], read_settlements(setup, funding))
    for name, market in setup.markets.items():
        price, mark = find_price(market, name, stated)
        last = float(market.close[-1])
        if fill == "same_close" and price != last:
            raise ParameterError(
                f"at must be the last close, {last:.12g}, with fill='same_close', got {price:.12g}"
            )
        if fill == "next_open" and not market.has_mark and mark != price:
            raise ParameterError(
                f"mark must be the price, {price:.12g}, as {name} has no mark prices, got "
                f"{mark:.12g}"
            )
    return stated


def read_settlements(setup: Setup, given: Any) -> dict[str, pd.DataFrame]:
    names, time = setup.markets.names, int(setup.markets.time[-1]) + setup.markets.interval
    by_name = {}
    for name, each in name_given("funding", given, names, len(names)).items():
        frame = core.by_dates(each)
        if not isinstance(each, pd.DataFrame):
            rate = RATE.check(f"funding of {name}", each)
            frame = pd.DataFrame({"rate": [rate]}, index=core.utc_index(np.array([time])))
        if "rate" not in frame or not isinstance(frame.index, pd.DatetimeIndex):
            raise ParameterError(
                f"funding must have a column rate by UTC time, got {list(frame.columns)}"
            )
        stamps = core.read_stamps(frame.index, name="funding", error=ParameterError)
        end = time + setup.markets.interval
        if not np.all((stamps >= time - JITTER) & (stamps < end)):
            raise ParameterError(
                f"funding must lie in the next bar, up to {format_time(end)}, "
                f"got {format_time(int(stamps[0]))} to {format_time(int(stamps[-1]))}"
            )
        known = setup.markets[name].funding_time[-1:]
        if len(known) and len(stamps) and stamps[0] - known[0] < JITTER:
            raise ParameterError(
                f"funding must leave out settlements of the market, {format_time(int(known[0]))}, "
                f"got one at {format_time(int(stamps[0]))}"
            )
        by_name[name] = frame if "mark" in frame else frame.assign(mark=np.nan)
    return by_name


def name_given(name: str, given: Any, names: Sequence[str], n: int) -> Mapping[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        if n > 1:
            raise ParameterError(
                f"{name} must be a number for each of several instruments, as {{{names[0]!r}: "
                f"...}}, got {core.repr_plain(given)}"
            )
        return {names[0]: given}
    core.check_names(f"{name}: the market", given, names, noun="instrument")
    return given


def find_price(market: Market, name: str, stated: Stated) -> tuple[float, float]:
    last, marked = float(market.close[-1]), float(market.mark_close[-1])
    price = stated.at.get(name, last)
    if name in stated.mark:
        return price, stated.mark[name]
    if not market.has_mark or price == last:
        return price, price if not market.has_mark else marked
    return price, price * (marked / last)


def extend_market(market: Market, name: str, time: int, stated: Stated) -> Market:
    price, mark = find_price(market, name, stated)
    longer, changes = engine.append_last_bar(market, time, price, mark), dict[str, Any]()
    if not market.has_mark and mark != price:
        for field, last in (("open", mark), ("high", max(mark, price)), ("low", min(mark, price))):
            changes[field] = np.append(getattr(market, field), last)
    if (due := stated.funding.get(name)) is not None:
        stamps = core.read_stamps(due.index, name="funding")
        changes["funding_time"] = np.append(longer.funding_time, stamps)
        for field in ("rate", "mark"):
            known = getattr(longer, f"funding_{field}")
            changes[f"funding_{field}"] = np.append(known, due[field].to_numpy(dtype=float))
    return replace(longer, **changes)


def look_ahead(setup: Setup, stated: Stated) -> Setup:
    markets, first, changed = setup.markets, setup.markets.n_bars, []
    time = int(markets.time[-1]) + markets.interval
    extended = remake(markets, {
        name: extend_market(market, name, time, stated) if stop == markets.n_bars else market
        for (name, market), (_, stop) in zip(markets.items(), markets.spans.tolist(), strict=True)
    })  # fmt: skip
    for each in setup.account.collateral:
        prices: Any = each.prices
        if isinstance(prices, Market) and not np.isin(time, prices.time):
            prices = extend_market(prices, each.name, time, stated)
        changed.append(replace(each, prices=prices))
    account = replace(setup.account, collateral=changed) if changed else setup.account
    signal = setup.signal  # one entry is that of all bars
    longer = signal if signal.size == 1 else np.concatenate([signal, signal[..., -1:]], axis=-1)
    later = setup.change(markets=extended, account=account, signal=longer, first=first)
    return later._replace(first=first - 1)


ORDERS = (Event.FILL, *(each for each in STOPS if each not in INSIDE))
COSTS = tuple(FILL_COSTS.values())


class Cut(NamedTuple):
    instrument: str
    cause: str
    turns: float
    asked: float

    def __str__(self) -> str:
        took = "removed" if self.turns >= 0.0 else "added"
        return (
            f"{self.instrument}: {self.cause} {took} {format_leverage(abs(self.turns))} of "
            f"{format_leverage(self.asked)}"
        )


class Order(NamedTuple):
    """What one more bar trades of an instrument: contracts, value of the last fill, costs.

    ``limit`` is the notional that the venue's table allows with the equity after it.
    """

    size: float
    value: float
    costs: dict[str, float]
    limit: float
    is_forced: bool
    cuts: tuple[Cut, ...]


@functools.cache
def find_functions() -> Any:
    bound = _compile.bind_functions(engine.loop, ask=engine.ask_plain)
    return SimpleNamespace(**{**vars(bar_steps), **bound, "look_at_close": engine.look_at_close})


def new_bar(
    setup: Setup, inputs: AccountInputs, state: AccountState, traded: TradedDays | None, t: int
) -> AccountBar:
    terms = engine.find_terms(inputs, t, traded)
    if any(sets_margin(policy) for policy in setup.policies.values()):
        accounts.write_settings(terms, state)
    cuts = engine.new_cuts(len(state.positions))
    return engine.new_bar(terms, inputs.feed, engine.copy_state(state), cuts)


def show(setup: Setup, bar: AccountBar, t: int) -> tuple[AccountView, ...]:
    functions, deciders = find_functions(), engine.gather_deciders(setup, setup.observed)
    close = functions.look_at_close(bar, True)
    days = (bar.feed.time[t] + setup.markets.interval - deciders.start[0]) / DAY_NS
    functions.show_account_totals(bar, deciders, close, days)
    deciders.wants_price[:] = 1
    views = []
    for i in range(len(setup.markets)):
        functions.show_position(bar, deciders, i)
        views.append(AccountView._make((*deciders.shown[:N_SHOWN].tolist(), None)))
    return tuple(views)


def open_last_bar(setup: Setup, state: AccountState, traded: TradedDays | None) -> AccountBar:
    t = setup.markets.n_bars - 1
    bar = new_bar(setup, setup.inputs, state, traded, t)
    set_quotes(bar.terms, bar.feed, bar.quotes, t)
    accounts.value_at(bar.state, bar.quotes.mark_close, bar.quotes.asset_mark_close)
    return bar


def ask(setup: Setup, state: AccountState, traded: TradedDays | None) -> AccountState:
    t, functions = setup.markets.n_bars - 1, find_functions()
    deciders = engine.gather_deciders(setup, setup.observed)
    deciders.memory[:] = 0.0
    bar = open_last_bar(setup, state, traded)
    functions.begin_peak(deciders, bar.state)
    close = functions.look_at_close(bar, True)
    if not functions.decide_all(bar, deciders, close, t):
        raise engine.report_bad_decision(setup.inputs, t)
    return bar.state


def fill(
    setup: Setup, state: AccountState, traded: TradedDays | None, stated: Stated
) -> tuple[dict[str, Order], tuple[AccountView, ...], float]:
    """Return the orders that one more bar fills by instrument, what it shows then, and equity."""
    later = look_ahead(setup, stated)
    t = setup.markets.n_bars
    bar = new_bar(setup, later.inputs, state, traded, t)
    find_functions().process_bar(bar, t)
    views = show(setup, bar, t)
    entries, orders = bar.log.entries[: bar.log.written[0]], {}
    for i, name in enumerate(setup.markets.names):
        rows, cut = entries[entries["owner"] == i], bar.scratch.cuts[i]
        is_filled, is_resting = np.isin(rows["kind"], ORDERS), rows["kind"] == Event.RESTED
        before = is_filled & (np.cumsum(is_resting) == 0)
        fills = np.concatenate([rows[before], rows[is_resting]])
        values = fills["value"][fills["quantity"] != 0.0]
        causes = np.flatnonzero(cut[ALL + 1 :, DISTANCE]) + ALL + 1
        orders[name] = Order(
            size=float(sum(fills["quantity"].tolist())),
            value=float(values[-1]) if len(values) else math.nan,
            costs={x: float(rows[x][is_filled].sum()) for x in COSTS},
            limit=find_limit(bar, i),
            is_forced=bool(np.isin(rows["kind"], INSIDE).any()),
            cuts=tuple(
                Cut(name, CAUSES[k], float(cut[k, CUT]), float(cut[ALL, ASKED])) for k in causes
            ),
        )
    return orders, views, float(bar.state.wallet.equity)


def find_limit(bar: AccountBar, i: int) -> float:
    """Return the notional of an instrument that its table allows with the equity of the account."""
    equity = float(bar.state.wallet.equity)
    if bar.terms.rules.has_scenarios:
        equity = math.inf  # the requirement is that of the whole account
    return float(
        compute_largest_notional(
            accounts.pick_margin(bar.terms, i),
            equity,
            held=0.0,
            cost=0.0,
            multiplier=bar.quotes.instruments[i].initial,
            enough=math.inf,
        )
    )


BY_MARGIN = ("margin_share", "initial_margin", "venue_leverage", "wallet", "max_gross_leverage")
FAR, TOO_FAR = 0.1, 0.5
"""Moves from the last price that are named, and that look like a slip of the pen."""
OVERSHOOT = 1.5
"""How many times the leverage decided an order that adds may leave."""
MAX_FUNDING = 0.05
"""A larger rate of one settlement is likely a percentage: venues cap it below."""


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
        return not any(each.stops for each in self.warnings)

    def to_dict(self) -> dict[str, Any]:
        values = {each.name: getattr(self, each.name) for each in fields(self)} | {
            "time": self.time.isoformat(),
            "now": self.now.isoformat(),
            "may_act": self.may_act,
            "cuts": [each._asdict() for each in self.cuts],
            "warnings": [each._asdict() for each in self.warnings],
            "account": self.account.to_dict(orient="index"),
            "orders": self.orders.to_dict(orient="index"),
            "equity": dict(zip(("before", "after"), self.equity, strict=True)),
            "margin_ratio": dict(zip(("before", "after"), self.margin_ratio, strict=True)),
        }
        return dict(to_json(values))

    def __repr__(self) -> str:
        return f"<Decision at {self.time:%Y-%m-%d %H:%M} UTC: {describe_orders(self)}>"

    def __str__(self) -> str:
        lines = [
            f"Decision at the close of {self.time:%Y-%m-%d %H:%M} UTC: {describe_orders(self)}"
        ]
        rows: Any = self.account.to_dict(orient="index")
        for name, row in rows.items():
            level, target = self.leverage[name], self.target[name]
            asked = "leave the position" if math.isnan(level) else format_leverage(level)
            share = "" if math.isnan(target) else f", target {core.format_signed(target)} x equity"
            ends = [row["liquidation_before"], row["liquidation_after"]]
            before, after = ("none" if math.isnan(x) else format_price(x) for x in ends)
            lines += [
                f"  {name}: {asked}{share}",
                f"    position {row['position_before']:.12g} -> {row['position_after']:.12g} "
                f"contracts at {format_price(self.price[name])}, liquidation price {before} -> "
                f"{after}",
            ]
        before, after = map(core.format_money, self.equity)
        low, high = map(format_percent, self.margin_ratio)
        lines.append(f"  equity {before} -> {after}, margin ratio {low} -> {high}")
        for title, texts in (("cut", self.cuts), ("warning", self.warnings)):
            lines += [f"  {title}: {each}" for each in texts]
        if len(self.orders) > 1:
            lines += ["", book.write_table(self.orders), ""]
        return "\n".join([*lines, "  no order was sent"])


def describe_orders(decision: Decision) -> str:
    words = [
        f"{'buy' if size > 0.0 else 'sell'} {abs(size):.12g} {name}"
        for name, size in decision.order.items()
        if size != 0.0
    ]
    orders = ", ".join(words) or "no order"
    return orders if decision.may_act else f"do not act before the warnings are cleared ({orders})"


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
    if isinstance(state, Result):
        decided, traded = go_on(setup, state, policy, test)
        of_snapshot: list[Caution] = []
    else:
        if liquidation is not None:
            state = replace(state, liquidation=liquidation)
        state, of_snapshot = count_as_venue(setup.account, setup.venues, state)
        check_known(setup, state)
        past = np.append(np.zeros(WINDOW - 1), state.traded_30d or 0.0)
        days = TradedDays(int(setup.markets.time[-1]) // DAY, 0.0, past)
        traded = None if setup.inputs.fees is None else days
        rules = engine.find_terms(setup.inputs, setup.markets.n_bars - 1, traded)
        begun = snapshots.start_account(setup, state, rules)
        with np.errstate(all="ignore"):
            decided = ask(setup, begun, traded)
        of_snapshot += find_other_account(setup, state)
        with np.errstate(all="ignore"):
            views = show(setup, open_last_bar(setup, decided, traded), setup.markets.n_bars - 1)
        prices = [float(view.liquidation_price) for view in views]
        ours = dict(zip(setup.markets.names, prices, strict=True))
        of_snapshot += compare_liquidations(setup, state, ours)
    cautions = [*find_cautions(setup, stated, present), *of_snapshot]
    return answer(setup, decided, traded, stated, cautions, present)


def go_on(
    setup: Setup, result: Result, policy: AnyPolicy, test: Conditions
) -> tuple[AccountState, TradedDays | None]:
    last = int(setup.markets.time[-1])
    if result.last_time > last:
        raise ParameterError(
            f"state must end by the last bar of the market, {format_time(last)}, got a result that "
            f"ends with {format_time(result.last_time)}"
        )
    if result.last_time < last:
        result = run(test, policy, resume=result, compile=False)
    earlier: Any = engine.read_resume(result, None)
    engine.check_rules(earlier, setup)
    return result.state, result.traded


def answer(
    setup: Setup, state: AccountState, traded: TradedDays | None, stated: Stated,
    cautions: list[Caution], now: int,
) -> Decision:  # fmt: skip
    names = setup.markets.names
    with np.errstate(all="ignore"):
        orders, after, equity = fill(setup, state, traded, stated)
        before = show(setup, open_last_bar(setup, state, traded), setup.markets.n_bars - 1)
    ratios = [max(float(each.margin_ratio) for each in views) for views in (before, after)]
    leverage = dict(zip(names, state.positions.column("leverage").tolist(), strict=True))
    overlay = float(state.wallet.overlay)
    target = {
        name: 0.0 if signal == 0.0 else signal * leverage[name] * overlay
        for name, signal in zip(names, state.positions.column("signal").tolist(), strict=True)
    }
    rows = {
        f"{field.removesuffix('_price')}_{when}": [float(getattr(each, field)) for each in views]
        for field in ("position", "leverage", "liquidation_price")
        for when, views in (("before", before), ("after", after))
    }
    warnings = (
        *cautions,
        *find_blocked(setup, orders, leverage, ratios[0]),
        *find_excess(orders, target, after),
    )
    sizes = {
        name: write_in_lots(each.size, setup.venues[name].contract.order_step)
        for name, each in orders.items()
    }
    prices = {n: find_price(m, n, stated)[0] for n, m in setup.markets.items()}
    return Decision(
        time=pd.Timestamp(int(setup.markets.time[-1]) + setup.markets.interval, tz="UTC"),
        now=pd.Timestamp(now, tz="UTC"),
        leverage=leverage,
        venue_leverage=dict(zip(names, state.positions.column("asked").tolist(), strict=True)),
        target=target,
        order=sizes,
        price=prices,
        fill_price={n: float(price_of(setup.venues[n].contract, orders[n].value)) for n in names},
        costs={name: each.costs for name, each in orders.items()},
        cuts=tuple(cut for each in orders.values() for cut in each.cuts),
        warnings=warnings,
        account=pd.DataFrame(rows, index=list(names)).rename_axis("instrument"),
        equity=(float(before[0].equity), equity),
        margin_ratio=(ratios[0], ratios[1]),
        orders=book.tabulate_orders(setup, orders, sizes, prices, leverage, warnings),
    )


def write_in_lots(size: float, lot: float) -> float:
    """Return a size in the digits of its lots: 0.007, where a difference left 0.00699999..."""
    whole = round(round(size / lot) * lot, 12) if lot > 0.0 else size
    return whole if abs(size - whole) <= 1e-6 * lot else size


FRESH = 2
"""Bars, or sessions, after whose end data are old."""


def find_age(markets: Markets, now: int) -> Iterator[Caution]:
    """Yield what the present says against the data: they are old, or their last bar is open."""
    end = int(markets.time[-1]) + markets.interval
    if now < end:
        yield Caution(f"the last bar closes at {format_time(end)}, after now, {format_time(now)}")
        return

    room, unit = FRESH * markets.interval, f"bars of {core.format_duration(markets.interval)}"
    if markets.sessions and markets.interval <= DAY:
        # As late in the session after next as the data end in theirs.
        last_day = int(markets.time[-1]) // DAY * DAY
        room = find_later_sessions(markets.time, FRESH)[-1].value - last_day
        unit = "sessions"
    if now - end > room:
        hours = (now - end) / HOUR
        age = f"{hours:.3g} h" if hours < 48.0 else f"{hours / 24.0:.4g} d"
        yield Caution(f"the data end at {format_time(end)}, {age} ago, more than {FRESH} {unit}")


def find_unknown(setup: Setup) -> Iterator[Caution]:
    """Yield what no source says of the orders that each venue accepts, with the cure."""
    for name, venue in setup.venues.items():
        unknown = venue.contract.unknown
        if not unknown:
            continue
        changes = ", ".join(f'"contract.{step}": ...' for step in unknown)
        yield Caution(
            f"no source gives {', '.join(unknown)} of {name}: the venue may round or refuse the "
            f"order; venue.override({{{changes}}}) with the figures of its listing, or --set "
            f"venue.contract.{unknown[0]}=...",
            stops=False,
            instrument=name,
        )


def find_cautions(setup: Setup, stated: Stated, now: int) -> Iterator[Caution]:
    markets = setup.markets
    yield from find_age(markets, now)
    yield from find_unknown(setup)
    if find_clock(markets).rows[-1] < 0:
        every = core.format_duration(markets.decision_interval)
        yield Caution(f"policies decide every {every}, not at the last close", stops=False)
    for name, market in setup.markets.items():
        last = (float(market.close[-1]), float(market.mark_close[-1]))
        stated_prices = find_price(market, name, stated)
        for word, price, known in zip(("price", "mark"), stated_prices, last, strict=True):
            move = price / known - 1.0
            if abs(move) > FAR and (word == "price" or name in stated.mark):
                text = (
                    f"the {word} {format_price(price)} of {name} is {format_percent(abs(move))} "
                    f"{'over' if move > 0.0 else 'under'} the last one, {format_price(known)}"
                )
                yield Caution(text, stops=abs(move) > TOO_FAR)
    for name, frame in stated.funding.items():
        largest = float(frame["rate"].abs().max()) if len(frame) else 0.0
        if largest > MAX_FUNDING:
            yield Caution(
                f"the funding of {name} is {format_percent(largest)} of the notional, as stated"
            )
    for policy in setup.observed:
        n_bars = policy.market.n_bars
        cold = [name for name, values in policy.columns.items() if np.isnan(values[n_bars - 1])]
        if cold:
            yield Caution(
                f"{type(policy.policy).__name__} has no value of {', '.join(cold)} after "
                f"{n_bars:,} bars: the warm-up is too short, or the data have a gap"
            )


def find_other_account(setup: Setup, snapshot: AccountSnapshot) -> Iterator[Caution]:
    names = setup.markets.names
    for name, held in snapshot.positions.items():
        if name not in names:
            if held.quantity != 0.0:
                known = ", ".join(names)
                yield Caution(
                    f"the snapshot has positions in {name}, which is not in the market, {known}; "
                    f"names= of from_ccxt maps its symbol to {names[0]!r}"
                )
            continue
        wanted = setup.account.for_instrument(name).margin
        if held.mode not in (None, wanted):
            yield Caution(f"{name} is held in {held.mode} margin, the account has {wanted}")
    end = int(setup.markets.time[-1]) + setup.markets.interval
    read = end if snapshot.time is None else core.to_nanoseconds(snapshot.time)
    if read < end - setup.markets.interval:
        yield Caution(f"the snapshot is of {format_time(read)}, before the last bar")


def find_pause(setup: Setup, state: AccountState) -> Iterator[Caution]:
    """Yield that an equity stop pauses the account, if it does at the next open."""
    until = state.wallet.paused_until
    if until > int(setup.markets.time[-1]) + setup.markets.interval:
        end = "for good" if math.isinf(until) else f"until {format_time(int(until))}"
        yield Caution(f"an equity stop pauses the account {end}: nothing is ordered", stops=False)


def find_blocked(setup: Setup, orders: Any, leverage: Any, ratio: float) -> Iterator[Caution]:
    call = setup.account.margin_call or 1.0
    if ratio >= call:
        said = f"{format_percent(ratio)} is over the call at {format_percent(call)}"
        yield Caution(f"the margin ratio {said}")
    for name, order in orders.items():
        if order.is_forced:
            text = f"{name} is stopped or liquidated at this price, which drops the decision"
            yield Caution(text, instrument=name)
        causes = [cut.cause for cut in order.cuts if cut.cause in BY_MARGIN]
        if causes and order.size == 0.0 and not math.isnan(leverage[name]):
            text = f"the order of {name} was cut to 0 by {', '.join(causes)}"
            yield Caution(text, instrument=name)


def find_excess(
    orders: Mapping[str, Order], target: Mapping[str, float], after: Sequence[AccountView]
) -> Iterator[Caution]:
    """Yield what an order that adds to a position leaves beyond the decision or the table."""
    for (name, order), view in zip(orders.items(), after, strict=True):
        if not order.size * view.position > 0.0:
            continue  # a reduction always passes

        leverage, decided = abs(view.leverage), abs(target[name])
        if leverage > OVERSHOOT * decided:
            yield Caution(
                f"the order leaves {format_leverage(leverage)} of {name}, over {OVERSHOOT:g} times "
                f"the {format_leverage(decided)} decided",
                instrument=name,
            )
        notional = leverage * view.equity
        if notional > order.limit * (1.0 + 1e-6):
            yield Caution(
                f"the order leaves a notional of {core.format_money(notional)} of {name}, over the "
                f"{core.format_money(order.limit)} that the margin table of the venue allows",
                instrument=name,
            )


def format_leverage(turns: float) -> str:
    return f"{turns:.2f}x" if abs(turns) >= 0.1 or turns == 0.0 else f"{turns:.2g}x"

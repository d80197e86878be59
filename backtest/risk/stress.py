"""stress(): what scenarios do to an account, which goes on from where a run ended."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from backtest import account as a
from backtest import core, engine, results
from backtest.account.account import STOPS
from backtest.account.money import COSTS, TRADE_COSTS
from backtest.core import Progress
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.core.units import DAY
from backtest.engine import find_failure_value
from backtest.margin import compute_value
from backtest.market import Market, Markets, as_markets, remake
from backtest.results import Result
from backtest.risk import scenario as shocks
from backtest.risk.paths import PRICES
from backtest.risk.scenario import Bars, Scenario
from backtest.venue import Venue, has_spread, pick_cost, scale_cost

NO_STOPS: dict[str, Any] = dict.fromkeys(STOPS)
FOREVER = 2**62
"""An age that no surface reaches, ns."""
MULTIPLIERS = ("margin_multiplier", "initial_multiplier", "maintenance_multiplier")
WARMUP = 20_000
"""Bars of history in front of a scenario, for the columns of policies and for impact."""

PAID = tuple(name for name in COSTS if name in TRADE_COSTS)


class StressedAccount:
    """The account where a run ended, at venues with the margin tables of one time.

    ``moving`` are the markets that go on after the run, with the collateral that moves by itself;
    ``bare`` is the collateral, which has neither funding nor basis, and ``resting`` that of a
    constant price. ``exposures`` are the money that moves with each market.
    """

    def __init__(self, result: Result, venues: Mapping[str, Venue]) -> None:
        markets, collateral = result.markets, result.account.collateral
        if markets is None or not result.policies:
            raise core.ParameterError(
                "a stress test needs a result of this process, got a loaded one; run it again"
            )
        first = min(markets.n_bars - WARMUP, int(markets.spans[:, 1].min()) - 1)  # none is left out
        if any(each.margin is not None for each in venues.values()):
            first = 0  # what a margin rule knows is of all days
        self.history = markets.slice(max(first, 0), markets.n_bars)
        self.result, self.venues = result, venues
        fields, held = engine.read_assets(self.history, result.account), result.state.held
        assets, interval = {}, core.format_duration(self.history.interval)
        for c, each in enumerate(collateral):
            if self.find_instrument(each.prices) is None:
                last, mark = (
                    pd.DataFrame(
                        {x: fields[f"asset_{kind}{x}"][c] for x in PRICES}, self.history.times
                    )
                    for kind in ("", "mark_")
                )
                assets[each.name] = Market.from_frames(
                    last, mark=mark, interval=interval, sessions=self.history.sessions
                )
        self.resting = {name for name, each in assets.items() if np.ptp(each.close) == 0.0}
        going = {name: each for name, each in self.history.items() if self.goes_on(name)}
        if not going:
            raise core.ParameterError(
                "a scenario begins where an instrument goes on, "
                f"{', '.join(self.history)} ended with the run"
            )
        self.moving = going | assets
        self.bare = {*self.moving} - {*self.history}
        self.exposures = dict.fromkeys(self.moving, 0.0)
        for name, quantity in zip(self.history, held.quantities.tolist(), strict=True):
            if name in self.moving:
                mark = float(self.history[name].mark_close[-1])
                self.exposures[name] += quantity * abs(self.value_one(name, mark))
        for asset, worth in zip(collateral, held.amounts * held.prices, strict=True):
            name = self.find_instrument(asset.prices) or asset.name
            if name in self.moving:
                self.exposures[name] += float(worth)

    def goes_on(self, name: str) -> bool:
        expires, end = self.venues[name].contract.expires, self.history.end
        is_open = expires is None or end < core.to_nanoseconds(expires)
        return is_open and self.history[name].end == end

    def find_instrument(self, prices: object) -> str | None:
        whole: Mapping[str, Market] = self.result.markets or {}
        return next((name for name in whole if prices is whole[name] or prices == name), None)

    def value_one(self, name: str, price: float) -> float:
        contract = self.venues[name].contract
        return float(compute_value(contract.size, contract.kind == "inverse", price))

    def make(self, scenario: Scenario) -> Bars:
        return shocks.make_all_bars(scenario, self.moving, self.resting, self.bare)

    def live(self, scenario: Scenario, bars: Bars) -> dict[str, Any]:
        before = float(sum(self.result.of_account(name)[-1] for name in ("equity", "reserve")))
        state, money, lost, last = self.result.state, None, 0.0, self.result.positions
        last = last[last["time"] == last["time"].iloc[-1]]
        price = last["liquidation_price"]
        distance = float((price / last["mark"] - 1.0).abs()[price > 0.0].min())
        if count_bars(bars):
            steps, distance = self.pass_bars(scenario, bars, is_search=False)
            state, money = steps.state, steps.tally.money
            lost = sum(
                self.find_lost_profit(scenario, name, quantity, float(bars[name].last[3, -1]))
                for name, quantity in zip(self.history, state.held.quantities.tolist(), strict=True)
                if name in bars
            )
        kept = float(state.wallet.equity) - lost
        gone = scenario.venue_default * max(kept, 0.0)
        equity = kept - gone + float(state.wallet.reserve)
        converted = state.wallet.converted_so_far - self.result.state.wallet.converted_so_far
        is_dead = money is not None and money.liquidations > 0
        row = {
            "equity": equity,
            "loss": before - equity,
            "liquidated": is_dead,
            "distance": 0.0 if is_dead else distance,
            "margin_calls": 0 if money is None else money.calls,
            **{name: float(getattr(money, name, 0.0)) for name in PAID},
            "lost_to_adl": lost,
            "lost_to_default": gone,
        }
        return row | {"slippage": row["slippage"] - float(converted)}

    def find_lost_profit(
        self, scenario: Scenario, name: str, quantity: float, rise: float
    ) -> float:
        """Return what auto-deleveraging takes: closed at the bankruptcy price of a counterparty."""
        side, start = math.copysign(1.0, quantity), float(self.history[name].close[-1])
        bankrupt, last = start * (1.0 + side / scenario.adl_leverage), start * rise
        if scenario.adl == 0.0 or quantity == 0.0 or side * (last - bankrupt) <= 0.0:
            return 0.0
        gap = self.value_one(name, last) - self.value_one(name, bankrupt)
        return float(scenario.adl * quantity * gap)

    def is_liquidated(self, scenario: Scenario, bars: Bars) -> bool:
        steps, _ = self.pass_bars(scenario, bars, is_search=True)
        return bool(steps.tally.money.liquidations > 0)

    def pass_bars(
        self, scenario: Scenario, bars: Bars, *, is_search: bool
    ) -> tuple[engine.LaterBars, float]:
        """Take the account through bars, or to a liquidation; return also the least distance."""
        result, history = self.result, self.history
        markets = {name: shocks.go_on(each, bars[name]) for name, each in self.moving.items()}
        venues = {name: scale_venue(each, scenario) for name, each in self.venues.items()}
        panel = remake(history, {name: markets.get(name, each) for name, each in history.items()})
        if panel.listing is not None:
            panel.listing = panel.listing._replace(max_age=FOREVER)
        panel = engine.end_expired(panel, venues)
        assets = [
            replace(each, prices=self.find_instrument(each.prices) or markets[each.name])
            for each in result.account.collateral
        ]
        account = replace(result.account, collateral=assets)
        setup = engine.set_up_again(
            result.setup._replace(venues=venues, account=account),
            panel,
            np.tile(result.state.positions.column("signal")[:, None], (1, panel.n_bars)),
            first=history.n_bars,
            started=result.started,
        )
        quiet, outage = setup.inputs, 0
        if scenario.outage is not None:
            outage = -(-core.parse_duration(scenario.outage) // history.interval)
            quiet = setup.change(account=replace(setup.account, **NO_STOPS)).inputs
        for inputs in (setup.inputs, quiet)[: 1 + bool(outage)]:
            options, begin = inputs.feed.options, setup.first
            if options.marks_open.shape[1]:  # grows to full size at the last bar
                n = len(options.marks_open) - begin
                scale = (1.0 + scenario.implied_volatility) ** (np.arange(1, n + 1) / n)[:, None]
                options.volatilities_open[begin:] *= scale
                options.volatilities_close[begin:] *= scale
                options.marks_open[begin:], options.marks_close[begin:] = np.nan, np.nan
        steps = engine.LaterBars(
            setup,
            engine.copy_state(result.state),
            np.asarray(result.memory),
            result.traded,
            is_compiled=bool(result.manifest["compiled"] == "yes"),
        )
        least, stop, total = math.inf, setup.first, setup.markets.n_bars
        while stop < total:
            t, is_out = stop, stop < setup.first + outage
            inputs = quiet if is_out else setup.inputs
            stop = total if is_search and not is_out else t + 1
            if is_out:  # orders that would fill while the venue is out are lost
                for position in steps.state.positions:
                    position.leverage, position.is_pending = np.nan, 0.0
            if not is_search:
                least = min(least, steps.measure(measure_distance, inputs, t))
            steps.pass_bars(inputs, t, stop)
        return steps, least if math.isfinite(least) else math.nan


def count_bars(bars: Bars) -> int:
    return int(next(iter(bars.values())).last.shape[1])


def measure_distance(bar: a.AccountBar, t: int) -> float:
    """Return how near the marks of bar t come to the liquidation prices of what is held there.

    At each waypoint of the bar (:mod:`backtest.account.price_walk`), after the orders at its open,
    the distance of a position is that of its mark from the price at which it would be liquidated,
    the others frozen; a fraction of the mark, infinite if no price liquidates. With options the
    nearer side counts. A position that is stopped counts up to its stop. A mark beyond its
    liquidation price has none: the account is liquidated, or held the position no more.
    """
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    a.open_bar(bar, t, float(state.wallet.equity))
    least = math.inf
    a.choose_turns(terms, state, quotes, scratch)
    last, mark = quotes.open.copy(), quotes.mark_open.copy()
    for leg in range(3):
        a.aim_at_leg(quotes, scratch, leg)
        end, ahead, prices = (
            each.copy() for each in (scratch.last_end, scratch.mark_end, scratch.price_end)
        )
        values, stops = ahead.copy(), list[tuple[int, int, float]]()
        for i in range(len(values)):
            kind, stop = 0, math.nan
            if a.is_held(state, i) and a.has_stops(terms, i):
                between = min(last[i], end[i]), max(last[i], end[i])
                kind, stop = a.find_stop(terms, state, quotes, i, *between, math.nan)
            if not math.isnan(stop):
                place = (stop - last[i]) / (end[i] - last[i]) if end[i] != last[i] else 0.0
                values[i] = mark[i] + min(max(place, 0.0), 1.0) * (ahead[i] - mark[i])
                stops.append((i, kind, stop))
        value_all_at(terms, state, values, prices)
        excess = a.compute_excess(terms, state)
        for i in range(len(state.positions)):
            if a.is_moved_by(terms, state, i):
                value_all_at(terms, state, values, prices)
                root = find_failure_value(terms, state, quotes, scratch, i, excess)
                gap = (values[i] - root) / abs(values[i])
                gap = gap if state.positions[i].quantity > 0.0 else -gap
                if a.is_walking(terms, state):
                    gap = abs(gap) if excess > 0.0 else 0.0
                least = min(least, gap) if gap > 0.0 else least
        for i, kind, stop in stops:
            a.stop_position(bar, t, i, kind, stop)
        last, mark = end, ahead
    return least


def value_all_at(
    terms: a.Terms, state: a.AccountState, values: core.FloatArray, prices: core.FloatArray
) -> None:
    a.value_at(state, values, prices)
    a.price_options(terms, state, values)


def scale_term(venue: Venue, name: str, factor: float, most: float) -> core.Cost:
    return scale_cost(pick_cost(venue, name), factor, most=most, name=f"venue.{name}")


def list_worsenings(venue: Venue) -> list[str]:
    return ["slippage.rate", *(["slippage.spread"] if has_spread(venue) else [])]


def scale_margin(venue: Venue, factor: float) -> dict[str, Any]:
    given = {name: getattr(venue, name) for name in MULTIPLIERS}
    return {name: value * factor for name, value in given.items() if value is not None}


def scale_venue(venue: Venue, scenario: Scenario) -> Venue:
    changes: dict[str, Any] = {}
    if scenario.margin != 1.0:
        changes = scale_margin(venue, scenario.margin)
    if scenario.spread != 1.0:
        for name in (*list_worsenings(venue), "liquidation.slippage"):
            changes[name] = scale_term(venue, name, scenario.spread, 0.99)
    if scenario.depth != 1.0:
        factor = 1.0 / math.sqrt(scenario.depth)
        changes["slippage.impact"] = venue.slippage.impact * factor
        changes["liquidation.impact"] = venue.liquidation.impact * factor
    return venue.override(changes) if changes else venue


@dataclass(frozen=True, eq=False, repr=False)
class Stress(core.SettingsResult):
    """Outcome of scenarios.

    Attributes
    ----------
    table : DataFrame
        A row per scenario: ``equity`` (wealth after it), ``loss``, ``liquidated``, ``distance``
        (the smallest of the mark from the liquidation price while a position is held, a fraction of
        the mark; 0 if and only if the account is liquidated, NaN if no price does),
        ``margin_calls``, ``fees``, ``slippage``, ``impact``, ``funding``, ``lost_to_adl``,
        ``lost_to_default``, ``break_even`` (the move of the price, all else as in the scenario, at
        which the account is liquidated, while its policy goes on trading at the closes on the way;
        NaN if none does), ``bars``, ``from``: ``figures``, ``data`` or ``history`` and whose rows,
        and ``rules``: whose margin table.
    ladder : DataFrame or None
        ``equity``, ``loss`` and ``liquidated`` for every combination of the axes of the ladder.
    """

    table: pd.DataFrame
    ladder: pd.DataFrame | None
    settings: dict[str, Any]
    market: Market | Markets | None = None

    kind = "stress"
    plural = "stress tests"
    called = "stress test"
    table_names = ("table", "ladder")

    @property
    def note(self) -> str:
        return f"{int(self.table['liquidated'].sum())} of {len(self.table)} liquidate"

    @property
    def verdict(self) -> str:
        dead, total = int(self.table["liquidated"].sum()), len(self.table)
        return (
            f"{dead} of {total} scenarios liquidate the account. The worst, "
            f"{self.table['loss'].idxmax()}, loses {self.table['loss'].max():,.2f}."
        )

    @property
    def details(self) -> str:
        before = core.format_money(float(self.table["equity"].iloc[0] + self.table["loss"].iloc[0]))
        worth = f"The account was worth {before} at the last close of the run."
        return " ".join([worth, *self.settings["tables"]])

    @property
    def notices(self) -> tuple[str, ...]:
        sources = [text for text in self.table["from"].unique() if ": rows of" in text]
        return (*self.settings["not_counted"], *(f"Bars from {text}." for text in sources))

    def list_numbers(self) -> list[Headline]:
        loss, dead = self.table["loss"], int(self.table["liquidated"].sum())
        of = f"{dead} of {len(self.table)}"
        return [
            Headline("liquidating", "scenarios that liquidate", dead, better="less", text=of),
            Headline("worst_loss", "largest loss", float(loss.max()), "money",
                     str(loss.idxmax()), "less"),
        ]  # fmt: skip

    def list_parts(self) -> list[Part]:
        heads = {
            **{name: Head(name, "money", "money")
               for name in ("loss", *PAID)},
            "distance": Head("distance to liquidation", "nearest mark", "chance"),
            "lost_to_adl": Head("ADL loss", "money", "money"),
            "lost_to_default": Head("default loss", "money", "money"),
            "margin_calls": Head("margin calls", "", "count"),
            "break_even": Head("break-even move", "policy trading", "percent"),
            "bars": Head("bars", "", "count"), "from": Head("bars from"),
            "rules": Head("margin table of"),
        }  # fmt: skip
        front = ["from", "equity", "loss", "liquidated", "break_even", "distance"]
        shown = self.table[[*front, *self.table.columns.difference(front, sort=False)]]
        sources = (f"{each['name']}: {each['source']}." for each in self.settings["scenarios"]
                   if each.get("source"))  # fmt: skip
        ladder: tuple[ShownChart | ShownTable, ...] = ()
        if self.ladder is not None:
            names = [str(name) for name in self.ladder.index.names[:2]]
            kind = "heat" if len(names) > 1 else "line"
            ladder = (
                ShownChart("ladder", "Ladder",
                           f"Loss of one-bar shocks, by {' and '.join(names)}.",
                           self.ladder["loss"], kind, {"loss": "loss"}, x="".join(names),
                           y="money" * (kind == "line"), height=340),
                ShownTable(self.ladder, "Ladder", labels=Head(names[0]),
                           heads={"loss": heads["loss"]}),
            )  # fmt: skip
        return [
            Part("scenarios", "Scenarios", "From the last close of the run on.", (
                ShownTable(shown, "Scenarios", labels=Head("scenario"), heads=heads),
                self._describe_leads(), *ladder,
            ), shows="both"),
            Part("sources", "Sources", "Where the figures of scenarios come from.",
                 tuple(sources) or ("The scenarios are the user's.",)),
        ]  # fmt: skip

    def _describe_leads(self) -> str:
        leads, told = self.settings["leads"], ""
        if leads:
            of = ", ".join(f"{name} in {scenario}" for scenario, name in leads.items())
            told = f"Break-even: the move of {of}; the others move as in the scenario. "
        told += (
            "Distance: the smallest distance of the mark from the liquidation price; a stop or an "
            "order may close the position before. On the way to the break-even move the policy "
            "continues to trade at the closes, and may have sold. "
        )
        if self.table["break_even"].isna().any():
            told += "Where the break-even is -, no price move liquidates the account."
        return told.strip()

    def list_assumptions(self) -> tuple[str, ...]:
        return (
            "Policies continue to decide at the closes of a scenario, with the last signal. Rows "
            "marked data or history replay those bars; other rows are built from their figures.",
        )


LARGEST_RISE, LARGEST_FALL = math.log(64.0), 36.7
"""The largest log moves that a search for the break-even tries."""
HEDGED = tuple(2.0**k for k in range(-6, 6))
"""Log moves that a search for the break-even of a hedge tries: it may die and live again."""


def find_break_even(
    account: StressedAccount, scenario: Scenario, replayed: Bars | None
) -> tuple[str, float]:
    """Return whose move the break-even is, and the move: of a replay, that at its worst point."""
    held = account.exposures
    if replayed is None:
        moves = shocks.find_moves(scenario, account.moving, account.resting)
        logs = {name: math.log1p(move) for name, move in moves.items()}
        logs = logs if any(logs.values()) else dict.fromkeys(logs, 1.0)
    else:
        logs = {
            name: math.log(each.last[1].max() if held[name] < 0.0 else each.last[2].min())
            for name, each in replayed.items()
        }
    lead = next((name for name, log in logs.items() if log != 0.0), "")
    if not lead:
        return next(iter(logs)), math.nan
    way = dict(logs)
    for name, each in (replayed or {}).items():
        low, high = math.log(each.last[2].min()), math.log(each.last[1].max())
        way[name] = low if -low >= high else high
    gains = [held[name] * log for name, log in way.items()]
    side = math.copysign(1.0, logs[lead])
    if replayed is None and sum(gains) > 0.0:
        side = -side

    def is_dead(size: float) -> bool:
        by = side * size / logs[lead]
        if replayed is None:
            moves = {name: shocks.shrink(by * log) for name, log in logs.items()}
            moved = scenario.override(price=0.0, prices=moves, correlation=None)
            return account.is_liquidated(moved, account.make(moved))
        scaled = {
            name: each._replace(last=each.last**by, mark=each.mark**by)
            for name, each in replayed.items()
        }
        return account.is_liquidated(scenario, scaled)

    limit = LARGEST_FALL if replayed is None and side < 0.0 else LARGEST_RISE
    is_hedged = min(gains) < 0.0 < max(gains)
    tried = [size for size in HEDGED if size <= limit] if is_hedged else [limit]
    return lead, math.expm1(side * find_edge(is_dead, tried))


def find_edge(is_dead: Callable[[float], bool], tried: Iterable[float]) -> float:
    """Return the least x from 0 on at which an account dies, of values tried in turn; or NaN."""
    from scipy.optimize import bisect  # noqa: PLC0415 - slow to load

    known = functools.cache(lambda x: 1.0 if is_dead(x) else -1.0)
    if known(0.0) > 0.0:
        return 0.0
    alive = 0.0
    for dead in tried:
        if known(dead) > 0.0:
            edge = bisect(known, alive, dead, xtol=1e-15, maxiter=60, disp=False)
            return float(edge)
        alive = dead
    return math.nan


RULES = core.Choice("run", "today", "then")


@engine.after_run
@core.checked_only("result", "scenarios", "progress", "data", "ladder")
def stress(
    result: Result,
    scenarios: Sequence[Scenario] | Scenario | None = None,
    *,
    rules: str = "run",
    data: Market | Markets | None = None,
    ladder: Mapping[str, Sequence[float]] | None = None,
    progress: Progress | None = None,
) -> Stress:
    """Return what scenarios after the last close of a run would do to its account.

    Parameters
    ----------
    result : Result
        Of :func:`backtest.run`, in this process. Its policies go on deciding at the closes of the
        scenario, with the last direction and weights of the signal.
    scenarios : sequence of Scenario, optional
        By default :func:`backtest.crashes`; those of stocks for markets with sessions alone.
    rules : str
        ``"run"``: the margin table in force at the end of the run; ``"today"``: the newest one of
        the venue; ``"then"``: the one in force at the date of a scenario, if it has one.
    data : Market or Markets, optional
        Where it covers the days of a scenario, its bars and funding are replayed. Otherwise crashes
        of history are replayed from the hours of BTC, ETH, XRP, LTC, ADA (another coin takes those
        of the coin that fell most), and in markets with sessions from the days of the S&P 500. Bars
        of other scenarios are made from their figures.
    ladder : mapping, optional
        Axes of a grid of one-bar shocks: ``{"price": (-0.5, 0.5, 41), "depth": (0.1, 0.3, 1)}``.
        A tuple ``(low, high, n)`` with a whole n over 2 is a range, anything else are values.
    progress : callable, optional
        Called with scenarios done and scenarios in all.

    Notes
    -----
    A scenario takes whole bars of the market of the run, rounded up, and policies decide at their
    closes. ``distance`` is measured at each waypoint of a bar, with all marks at the waypoint, and
    of a position that is stopped up to the stop.

    ``break_even`` is found by bisection on the move of the price in the direction that hurts the
    account, with bars made anew for each move. Of several instruments it is the move of the first
    that moves in the scenario; all log moves of the scenario, or of a replay, are multiplied by one
    factor. Everything else stays as it is.

    Options are valued by the last surface, moved by ``implied_volatility``; the crashes of history
    move prices alone. Instruments that ended in the run have no bars; one whose contract expires
    during a scenario is closed at its mark price then. Collateral moves as the instrument whose
    prices it has, else under its own name; one with a constant price only where ``prices`` name it.
    """
    if result.metrics["ruined"]:
        time = core.format_time(result.span.start + round(result.metrics["ruin_time"] * DAY))
        raise core.ParameterError(
            f"the account was ruined in the run, at {time} UTC with "
            f"{result.metrics['final_equity']:,.2f} left: no scenario can change it"
        )
    given = shocks.crashes() if scenarios is None else scenarios
    chosen = tuple(given) if isinstance(given, Sequence) else (given,)
    names = [each.name for each in chosen]
    if not names or len({*names}) < len(names):
        raise core.ParameterError(
            f"scenarios must be one or more with different names, got {', '.join(names) or 'none'}"
        )
    if scenarios is None or chosen == shocks.crashes():  # of stocks only beside stocks
        has_sessions = result.markets is not None and result.markets.sessions
        chosen = tuple(each for each in chosen if has_sessions or each.asset != "stocks")
    how = RULES.check("rules", rules)
    axes = {str(name): find_values(axis, name) for name, axis in (ladder or {}).items()}
    points = [*itertools.product(*axes.values())] if axes else []
    rows, leads, total = {}, {}, len(chosen) + len(points)
    times = {each.name: find_table_time(result, how, each) for each in chosen}

    @functools.cache
    def stand_at(time: int) -> StressedAccount:
        return StressedAccount(result, fix_margin_tables(result.venues, time))

    for done, each in enumerate(chosen, 1):
        account = stand_at(times[each.name])
        replayed, source = slice_replays(account, each, data), "data"
        if replayed is None:
            shipped = shocks.replay_crash(each, account.moving, account.resting, account.bare)
            replayed, source = (None, "figures") if shipped is None else shipped
        bars = account.make(each) if replayed is None else replayed
        leads[each.name], even = find_break_even(account, each, replayed)
        rows[each.name] = account.live(each, bars) | {
            "break_even": even,
            "bars": count_bars(bars),
            "from": source,
            "rules": "run" if how == "then" and each.date is None else how,
        }
        if progress is not None:
            progress(done, total)
    climbed: list[dict[str, Any]] = []
    for point in points:
        fields = {"name": "ladder", "shape": "bar"} | dict(zip(axes, point, strict=True))
        shock = Scenario.from_dict(fields, where="ladder")
        account = stand_at(find_table_time(result, how, shock))
        climbed.append(account.live(shock, account.make(shock)))
        if progress is not None:
            progress(len(chosen) + len(climbed), total)
    steps = None
    if climbed:
        steps = pd.DataFrame(climbed, pd.MultiIndex.from_tuples(points, names=[*axes]))
        steps = steps[["equity", "loss", "liquidated"]].astype({"liquidated": np.bool_})
    idle = results.explain_idle_options(result)
    settings = {
        "policy": result.manifest["policy"]["text"],
        "data": result.manifest["data"]["source"],
        "run": result.manifest["id"],
        "rules": how,
        "scenarios": [each.to_dict() for each in chosen],
        "ladder": None if ladder is None else {name: list(axis) for name, axis in ladder.items()},
        "leads": leads if len(account.moving) > 1 else {},
        "tables": list(describe_tables(result, times)),
        "not_counted": [core.capitalize(f"{idle}.")] if idle else [],
    }
    return Stress(
        table=pd.DataFrame(rows.values(), index=pd.Index(rows, name="scenario")),
        ladder=steps,
        settings=settings,
        market=result.markets,
    )


def describe_tables(result: Result, times: Mapping[str, int]) -> Iterator[str]:
    """Yield since when the margin tables of scenarios are in force, and which are too old."""
    days, early = set(), {}
    for name, time in times.items():
        for venue in result.venues.values():
            first = venue.days()[0]
            days.add(venue.in_use(np.array([time], dtype=np.int64))[0].since)
            if first is not None and time < core.to_nanoseconds(first):
                early[name] = first
    known = ", ".join(sorted(day for day in days if day))
    if known:
        yield f"Margin tables in force since {known}."
    if early:
        yield (
            f"{', '.join(early)} {'is' if len(early) == 1 else 'are'} older than any table known, "
            f"of {min(early.values())}, which stands in."
        )


def find_table_time(result: Result, rules: str, scenario: Scenario) -> int:
    """Return the time, in ns, whose margin tables hold in a scenario."""
    if rules == "then" and scenario.date is not None:
        return core.to_nanoseconds(scenario.date)
    return int(np.iinfo(np.int64).max) if rules == "today" else result.last_time


def fix_margin_tables(venues: Mapping[str, Venue], time: int) -> dict[str, Venue]:
    at = np.array([time], dtype=np.int64)
    return {name: each.with_table(each.in_use(at)[0]) for name, each in venues.items()}


def slice_replays(account: StressedAccount, scenario: Scenario, data: Any) -> Bars | None:
    names, moving, interval = account.history.names, account.moving, account.history.interval
    markets: Mapping[str, Market] = {} if data is None else as_markets(data)
    if data is not None and data is not markets and engine.is_same_account(tuple(markets), names):
        markets = dict(zip(names, markets.values(), strict=True))
    found = {name: shocks.slice_replay(scenario, markets.get(name), interval) for name in moving}
    cut = {name: bars for name, bars in found.items() if bars is not None}
    still = {name for name in found if name in account.resting and name not in markets}
    if not cut or {*cut, *still} != {*found}:
        return None
    flat = shocks.make_flat_bars(count_bars(cut))
    return {name: cut.get(name, flat) for name in found}


def find_values(axis: Any, name: str) -> core.FloatArray:
    is_range = isinstance(axis, tuple) and len(axis) == 3 and isinstance(axis[2], int)
    values = np.linspace(*axis) if is_range and axis[2] > 2 else np.array(axis, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise core.ParameterError(
            f"ladder: {name} must be (low, high, n) or finite values, got {core.repr_plain(axis)}"
        )
    return values

"""stress(): what scenarios do to an account, which goes on from where a run ended."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from backtest import core, engine, results
from backtest.core import Progress
from backtest.core.number_text import Head
from backtest.core.result_parts import MONEY, Headline, Part, ShownChart, ShownTable
from backtest.core.units import DAY
from backtest.market import Market, Markets, as_markets
from backtest.results import Result
from backtest.results.settings_result import SettingsResult
from backtest.risk.scenario_bars import (
    Bars,
    count_bars,
    make_flat_bars,
    measure_fall,
    replay_crash,
    slice_replay,
)
from backtest.risk.scenarios import Scenario, crashes, find_moves, fix_margin_tables, shrink
from backtest.risk.stressed_account import PAID, StressedAccount


@dataclass(frozen=True, eq=False, repr=False)
class Stress(SettingsResult):
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

    kind = "stress"
    call = "bt.stress"
    plural = "stress tests"
    called = "stress test"

    @property
    def note(self) -> str:
        return f"{int(self.table['liquidated'].sum())} of {len(self.table)} liquidate"

    @property
    def verdict(self) -> str:
        dead, total = int(self.table["liquidated"].sum()), len(self.table)
        loss = self.table["loss"]
        most = float(loss.max())
        verb = "loses" if most >= 0.0 else "gains"
        share = ""
        if self.worth > 0.0:
            share = f", {core.format_percent(abs(most) / self.worth)}"
        return (
            f"{dead} of {total} scenarios liquidate the account; the worst, {loss.idxmax()}, "
            f"{verb} {core.format_money(abs(most))} of {core.format_money(self.worth)}{share}."
        )

    @property
    def worth(self) -> float:
        """What the account was worth at the last close of the run, in money."""
        return float(self.table["equity"].iloc[0] + self.table["loss"].iloc[0])

    @property
    def details(self) -> str:
        worth = (
            f"The account was worth {core.format_money(self.worth)} at the last close of the run."
        )
        return " ".join([worth, *self.settings["tables"]])

    @property
    def notices(self) -> tuple[str, ...]:
        is_other = self.table["from"].str.contains(": rows of").any()
        other = "Bars of some scenarios are those of another coin: the column bars from names it."
        return (*self.settings["not_counted"], *[other] * bool(is_other))

    def list_numbers(self) -> list[Headline]:
        loss, dead = self.table["loss"], int(self.table["liquidated"].sum())
        of = f"{dead} of {len(self.table)}"
        return [
            Headline("liquidating", "scenarios that liquidate", dead, text=of),
            Headline("worst_loss", "largest loss", float(loss.max()), "money",
                     str(loss.idxmax())),
        ]  # fmt: skip

    def list_parts(self) -> list[Part]:
        heads = {
            **{name: Head(name, "money", "money")
               for name in ("loss", *PAID)},
            "distance": Head("distance to liquidation", "nearest mark", "chance"),
            "lost_to_adl": Head("ADL loss", "money", "money"),
            "lost_to_default": Head("default loss", "money", "money"),
            "margin_calls": Head("margin calls", "", "count"),
            "break_even": Head("break-even move", "policy trading", "signed percent"),
            "bars": Head("bars", "", "count"), "from": Head("bars from"),
            "rules": Head("margin table of"),
        }  # fmt: skip
        front = ["from", "equity", "loss", "liquidated", "break_even", "distance"]
        rest = self.table.drop(columns=front)
        shown = self.table[[*front, *rest.columns[(rest != 0).any()]]]  # not what never came
        sources = (f"{each['name']}: {each['source']}." for each in self.settings["scenarios"]
                   if each.get("source"))  # fmt: skip
        ladder: tuple[ShownChart | ShownTable | str, ...] = ()
        if self.ladder is not None:
            names = [str(name) for name in self.ladder.index.names[:2]]
            axes = [str(name) for name in self.ladder.index.names]
            units = ", ".join(f"{name} ({find_unit(name)})" for name in axes)
            kind, losses = "heat", self.ladder["loss"]
            if len(names) == 1:
                kind, losses = "line", losses.set_axis(losses.index.get_level_values(0))
            ladder = (
                ShownChart("ladder", "Ladder",
                           f"Loss of one-bar shocks, by {' and '.join(names)}.",
                           losses, kind, {"loss": "loss"}, x="".join(names),
                           y="money" * (kind == "line"), height=340),
                ShownTable(self.ladder, "Ladder", labels=Head(names[0]),
                           heads={"loss": heads["loss"]}),
                f"Units of the axes: {units}. A fall is negative.",
            )  # fmt: skip
        of = ", ".join(f"{name} in {scenario}" for scenario, name in self.settings["leads"].items())
        told = f"Break-even: the move of {of}; the others move as in the scenario. " * bool(of)
        told += f"Losses and costs are positive, gains negative. {MONEY} "
        told += (
            "Distance: the smallest distance of the mark from the liquidation price; a stop or an "
            "order may close the position before. On the way to the break-even move the policy "
            "continues to trade at the closes, and may have sold."
        )
        if self.table["break_even"].isna().any():
            told += " Where the break-even is -, no price move liquidates the account."
        return [
            Part("scenarios", "Scenarios", "From the last close of the run on.", (
                ShownTable(shown, "Scenarios", labels=Head("scenario"), heads=heads),
                told, *ladder,
            ), shows="both"),
            Part("sources", "Sources", "Where the figures of scenarios come from.",
                 tuple(sources) or ("The scenarios are the user's.",)),
        ]  # fmt: skip

    def list_assumptions(self) -> tuple[str, ...]:
        return (
            "Policies continue to decide at the closes of a scenario, with the last signal. Rows "
            "marked data or history replay those bars; other rows are built from their figures.",
        )


def find_unit(axis: str) -> str:
    """Return the unit of an axis of the ladder."""
    return "x of today" if axis in ("volatility", "spread", "depth", "margin") else "fraction"


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
        moves = find_moves(scenario, account.moving, account.resting)
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
            moves = {name: shrink(by * log) for name, log in logs.items()}
            moved = scenario.override(price=0.0, prices=moves, correlation=None)
            bars = account.make(moved)
        else:
            moved = scenario
            bars = {
                name: each._replace(last=each.last**by, mark=each.mark**by)
                for name, each in replayed.items()
            }
        steps, _ = account.pass_bars(moved, bars, is_search=True)
        return bool(steps.tally.money.liquidations > 0)

    limit = LARGEST_FALL if replayed is None and side < 0.0 else LARGEST_RISE
    is_hedged = min(gains) < 0.0 < max(gains)
    tried = [size for size in HEDGED if size <= limit] if is_hedged else [limit]
    return lead, math.expm1(side * find_edge(is_dead, tried))


def find_edge(is_dead: Callable[[float], bool], tried: Iterable[float]) -> float:
    """Return the least x from 0 on at which an account dies, of values tried in turn; or NaN."""
    known = functools.cache(lambda x: 1.0 if is_dead(x) else -1.0)
    if known(0.0) > 0.0:
        return 0.0
    for alive, dead in itertools.pairwise((0.0, *tried)):
        if known(dead) > 0.0:
            return float(
                core.sp.optimize.bisect(known, alive, dead, xtol=1e-12, maxiter=60, disp=False)
            )
    return math.nan


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
    given = crashes() if scenarios is None else scenarios
    chosen = tuple(given) if isinstance(given, Sequence) else (given,)
    names = [each.name for each in chosen]
    if not names or len({*names}) < len(names):
        raise core.ParameterError(
            f"scenarios must be one or more with different names, got {', '.join(names) or 'none'}"
        )
    if scenarios is None or chosen == crashes():  # of stocks only beside stocks
        has_sessions = result.markets is not None and result.markets.sessions
        chosen = tuple(each for each in chosen if has_sessions or each.asset != "stocks")
    how = core.Choice("run", "today", "then").check("rules", rules)
    axes = {str(name): find_values(axis, name) for name, axis in (ladder or {}).items()}
    points = [*itertools.product(*axes.values())] if axes else []
    rows, leads, falls = {}, {}, dict[str, float]()
    total = len(chosen) + len(points)
    times = {each.name: find_table_time(result, how, each) for each in chosen}

    @functools.cache
    def stand_at(time: int) -> StressedAccount:
        return StressedAccount(result, fix_margin_tables(result.venues, time))

    for done, each in enumerate(chosen, 1):
        account = stand_at(times[each.name])
        replayed, source = slice_replays(account, each, data), "data"
        if replayed is None:
            shipped = replay_crash(each, account.moving, account.resting, account.bare)
            replayed, source = (None, "figures") if shipped is None else shipped
        bars = account.make(each) if replayed is None else replayed
        falls[each.name] = measure_fall(bars)
        leads[each.name], even = find_break_even(account, each, replayed)
        rows[each.name] = account.live(each, bars) | {
            "break_even": even,
            "bars": count_bars(bars),
            "from": source,
            "rules": "run" if how == "then" and each.date is None else how,
        }
        core.report_progress(progress, done, total)
    climbed: list[dict[str, Any]] = []
    for point in points:
        fields = {"name": "ladder", "shape": "bar"} | dict(zip(axes, point, strict=True))
        shock = Scenario.from_dict(fields, where="ladder")
        account = stand_at(find_table_time(result, how, shock))
        climbed.append(account.live(shock, account.make(shock)))
        core.report_progress(progress, len(chosen) + len(climbed), total)
    steps = None
    if climbed:
        index = pd.MultiIndex.from_tuples(points, names=[*axes])
        steps = pd.DataFrame(climbed, index, ["equity", "loss", "liquidated"])
    idle = results.explain_idle_options(result)
    settings = {
        "policy": result.manifest["policy"]["text"],
        "data": result.manifest["data"]["source"],
        "run": result.manifest["id"],
        "rules": how,
        "scenarios": [each.to_dict() for each in chosen],
        "ladder": None if ladder is None else {name: list(axis) for name, axis in ladder.items()},
        "leads": leads if len(account.moving) > 1 else {},
        "falls": falls,
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


def slice_replays(account: StressedAccount, scenario: Scenario, data: Any) -> Bars | None:
    names, moving, interval = account.history.names, account.moving, account.history.interval
    markets: Mapping[str, Market] = {} if data is None else as_markets(data)
    if data is not None and data is not markets and engine.is_same_account(tuple(markets), names):
        markets = dict(zip(names, markets.values(), strict=True))
    found = {name: slice_replay(scenario, markets.get(name), interval) for name in moving}
    cut = {name: bars for name, bars in found.items() if bars is not None}
    still = {name for name in found if name in account.resting and name not in markets}
    if not cut or {*cut, *still} != {*found}:
        return None
    flat = make_flat_bars(count_bars(cut))
    return {name: cut.get(name, flat) for name in found}


def find_values(axis: Any, name: str) -> core.FloatArray:
    is_range = isinstance(axis, tuple) and len(axis) == 3 and isinstance(axis[2], int)
    values = np.linspace(*axis) if is_range and axis[2] > 2 else np.array(axis, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise core.ParameterError(
            f"ladder: {name} must be (low, high, n) or finite values, got {core.repr_plain(axis)}"
        )
    return values

"""stress(): what scenarios do to an account from where a run ended."""

from __future__ import annotations

import functools
import itertools
import math
import tomllib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from backtest import base
from backtest.base.units import DAY
from backtest.engine import Progress, Result, explain_idle_options, is_same_account
from backtest.market import Market, Markets, as_markets
from backtest.risk.scenario import (
    OTHERS,
    STANDS_IN,
    Bars,
    Scenario,
    ShockBars,
    make_flat_bars,
    move_all,
    replay_crash,
    slice_replay,
)
from backtest.risk.stress_account import StressedAccount, StressOutcome
from backtest.venue import Venue

FILE = Path(__file__).with_name("crashes.toml")


@functools.cache
def crashes() -> tuple[Scenario, ...]:
    """Return historical crashes of bitcoin and of stocks, with their dates and sources.

    Figures that no source gives are at their defaults: they change nothing.

    Examples
    --------
    >>> [each.name for each in crashes()][2:4]
    ['2020-03-12', '2021-05-19']
    """
    with FILE.open("rb") as file:
        found = tomllib.load(file)["episode"]
    return tuple(Scenario.from_dict(each, where=FILE.name) for each in found)


@dataclass(frozen=True, eq=False)
class Stress(base.SettingsResult):
    """Outcome of scenarios.

    Attributes
    ----------
    table : DataFrame
        A row per scenario: ``equity`` (wealth after it), ``loss``, ``liquidated``, ``distance``
        (the smallest of the mark from the liquidation price, a fraction; 0 once liquidated),
        ``margin_calls``, ``fees``, ``slippage``, ``impact``, ``funding``, ``lost_to_adl``,
        ``lost_to_default``, ``break_even`` (the move of the price, all else as in the scenario, at
        which the account is liquidated; NaN if none does), ``bars``, ``from``: ``figures``,
        ``data`` or ``history``, and ``rules``: whose margin table.
    ladder : DataFrame or None
        ``equity``, ``loss`` and ``liquidated`` for every combination of the axes of the ladder.
    settings : dict
        What the numbers come from.
    market : Market, Markets or None
        The market, or the markets, of the run; None if loaded.
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
    def lost(self) -> str:
        """When the account was ruined in the run; empty if it was not."""
        return str(self.settings.get("lost", ""))

    @property
    def note(self) -> str:
        if self.lost:
            return "account lost before"
        return f"{int(self.table['liquidated'].sum())} of {len(self.table)} liquidate"

    @property
    def verdict(self) -> str:
        if self.lost:
            return f"The account was ruined in the run, at {self.lost}: no scenario can change it."
        dead, total = int(self.table["liquidated"].sum()), len(self.table)
        return (
            f"{dead} of {total} scenarios liquidate the account. The worst, "
            f"{self.table['loss'].idxmax()}, loses {self.table['loss'].max():,.2f}."
        )

    @property
    def details(self) -> str:
        if self.lost:
            return ""
        before = base.format_money(float(self.table["equity"].iloc[0] + self.table["loss"].iloc[0]))
        worth = f"The account was worth {before} at the last close of the run."
        return " ".join([worth, *self.settings["tables"]])

    @property
    def notices(self) -> tuple[str, ...]:
        return tuple(self.settings["not_counted"])

    def list_numbers(self) -> list[base.Headline]:
        if self.lost:
            return []
        loss, dead = self.table["loss"], int(self.table["liquidated"].sum())
        of = f"{dead} of {len(self.table)}"
        return [
            base.Headline("liquidating", "scenarios that liquidate", dead, better="less", text=of),
            base.Headline("worst_loss", "largest loss", float(loss.max()), "money",
                     str(loss.idxmax()), "less"),
        ]  # fmt: skip

    def list_parts(self) -> list[base.Part]:
        heads = {
            **{name: base.Head(name, "money", "money")
               for name in ("loss", "fees", "slippage", "impact", "funding")},
            "distance": base.Head("distance of the liquidation", "", "percent"),
            "lost_to_adl": base.Head("lost to deleveraging", "money", "money"),
            "lost_to_default": base.Head("lost to default", "money", "money"),
            "margin_calls": base.Head("margin calls", "", "count"),
            "break_even": base.Head("break-even move", "", "percent"),
            "bars": base.Head("bars", "", "count"), "from": base.Head("bars from"),
            "rules": base.Head("margin table of"),
        }  # fmt: skip
        front = ["equity", "loss", "liquidated", "break_even", "distance"]
        shown = self.table[[*front, *self.table.columns.difference(front, sort=False)]]
        sources = (f"{each['name']}: {each['source']}." for each in self.settings["scenarios"]
                   if each.get("source"))  # fmt: skip
        ladder: tuple[base.ShownChart | base.ShownTable, ...] = ()
        if self.ladder is not None:
            names = [str(name) for name in self.ladder.index.names[:2]]
            kind = "heat" if len(names) > 1 else "line"
            ladder = (
                base.ShownChart("ladder", "Ladder",
                           f"Loss of one-bar shocks, by {' and '.join(names)}.",
                           self.ladder["loss"], kind, {"loss": "loss"}, x="".join(names),
                           y="money" * (kind == "line"), height=340),
                base.ShownTable(self.ladder, "Ladder", labels=base.Head(names[0]),
                           heads={"loss": heads["loss"]}),
            )  # fmt: skip
        return [
            base.Part("scenarios", "Scenarios", "From the last close of the run on.", (
                base.ShownTable(shown, "Scenarios", labels=base.Head("scenario"), heads=heads),
                self._describe_leads(), *ladder,
            ), shows="page" if self.lost else "both"),
            base.Part("sources", "Sources", "Where the figures of scenarios come from.",
                 tuple(sources) or ("The scenarios are the user's.",)),
        ]  # fmt: skip

    def _describe_leads(self) -> str:
        leads = self.settings["leads"]
        names = [*dict.fromkeys(leads.values())]
        told = []
        if names:
            of = ", ".join(f"{v} in {k}" for k, v in leads.items()) if names[1:] else names[0]
            told = [f"Break-even: the move of {of}; the others move as the scenario says."]
        if not self.lost and self.table["break_even"].isna().any():
            told.append(
                "Where it is -, no move of the price was found that liquidates the account."
            )
        return " ".join(told)

    def list_assumptions(self) -> tuple[str, ...]:
        return (
            "Policies go on deciding at the closes of a scenario, with the last signal. Bars are "
            "replayed from data or from history where the row says so, and are made of the figures "
            "otherwise.",
        )

    def __repr__(self) -> str:
        return f"<Stress of {len(self.table)} scenarios: {self.note}>"


# ------------------------------------------------------------------------------------- break-even

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
        moves = account.find_moves(scenario)
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
    way = logs if replayed is None else {k: find_farthest(each) for k, each in replayed.items()}
    gains = [held[name] * log for name, log in way.items()]
    side = math.copysign(1.0, logs[lead])
    if replayed is None and sum(gains) > 0.0:
        side = -side

    def is_dead(size: float) -> bool:
        by = side * size / logs[lead]
        if replayed is None:
            moved = move_all(scenario, {name: by * log for name, log in logs.items()})
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


def find_farthest(bars: ShockBars) -> float:
    low, high = math.log(bars.last[2].min()), math.log(bars.last[1].max())
    return low if -low >= high else high


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


# ----------------------------------------------------------------------------------------- stress

RULES = base.Choice("run", "today", "then")
AXES = (
    "price", "implied_volatility", "volatility", "funding", "spread", "depth", "margin", "adl",
    "basis",
)  # fmt: skip


@base.checked_only("result", "progress", "data")
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
        By default :func:`backtest.crashes`.
    rules : str
        ``"run"``: the margin table in force at the end of the run; ``"today"``: the newest one of
        the venue; ``"then"``: the one in force at the date of a scenario, if it has one.
    data : Market or Markets, optional
        Where it covers the days of a scenario, its bars and funding are replayed. Otherwise crashes
        of history are replayed from the hours of BTC, ETH, XRP, LTC, ADA (another coin takes the
        median of ADA, LTC and XRP), and in markets with sessions from the days of the S&P 500. Bars
        of other scenarios are made from their figures.
    ladder : mapping, optional
        Axes of a grid of one-bar shocks: ``{"price": (-0.5, 0.5, 41), "depth": (0.1, 0.3, 1)}``.
        ``(low, high, n)`` with a whole n over 2 is a range, anything else a list of values.
    progress : callable, optional
        Called with scenarios done and scenarios in all.

    Notes
    -----
    A scenario takes whole bars of the market of the run, rounded up, and policies decide at their
    closes. ``distance`` is measured at the marks inside the bars: of several positions, at each
    waypoint of a bar for each position, with all marks at the waypoint.

    ``break_even`` is found by bisection on the move of the price in the direction that hurts the
    account, with bars made anew for each move. Of several instruments it is the move of the first
    that moves in the scenario. The others move with it: where all move alike, by the same;
    otherwise all log moves of the scenario, or of a replay, are multiplied by one factor. Funding,
    basis, noise of a bridge and everything else stay as they are.

    Options are valued by the last surface, moved by ``implied_volatility``; the crashes of history
    move prices alone. Instruments that ended in the run have no bars; one whose contract expires
    during a scenario is closed at its mark price then. Collateral moves as the instrument whose
    prices it has, else under its own name; one with a constant price only where ``prices`` name it.
    """
    chosen = read_scenarios(scenarios)
    how = RULES.check("rules", rules)
    grid = list_shocks(ladder)
    rows, leads, total = {}, {}, len(chosen) + len(grid)
    times = {each.name: find_table_time(result, how, each) for each in chosen}

    @functools.cache
    def stand_at(time: int) -> StressedAccount:
        return StressedAccount(result, fix_margin_tables(result, time))

    for done, each in enumerate(chosen, 1):
        account = stand_at(times[each.name])
        row, leads[each.name] = run_scenario(account, each, data)
        rows[each.name] = row | {"rules": "run" if how == "then" and each.date is None else how}
        if progress is not None:
            progress(done, total)
    climbed: list[StressOutcome] = []
    for point in grid:
        shock = Scenario("ladder", shape="bar", **point)  # type: ignore[arg-type] # fields by name
        account = stand_at(find_table_time(result, how, shock))
        climbed.append(account.live(shock, account.make(shock)))
        if progress is not None:
            progress(len(chosen) + len(climbed), total)
    shocks = None
    if grid:
        points = pd.MultiIndex.from_frame(pd.DataFrame(grid))
        shocks = pd.DataFrame(climbed, index=points)[["equity", "loss", "liquidated"]]
        shocks = shocks.astype({"liquidated": np.bool_})
    settings = {
        "lost": find_loss(result),
        "policy": result.manifest["policy"]["text"],
        "data": result.manifest["data"]["source"],
        "run": result.manifest["id"],
        "rules": how,
        "scenarios": [each.to_dict() for each in chosen],
        "ladder": None if ladder is None else {name: list(axis) for name, axis in ladder.items()},
        "leads": leads if len(account.moving) > 1 else {},
        "tables": list(describe_tables(result, times)),
        "not_counted": list(find_not_counted(result, [row["from"] for row in rows.values()])),
    }
    return Stress(
        table=pd.DataFrame(rows.values(), index=pd.Index(rows, name="scenario")),
        ladder=shocks,
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
            if first is not None and time < base.to_nanoseconds(first):
                early[name] = first
    known = ", ".join(sorted(day for day in days if day))
    if known:
        yield f"Margin tables in force since {known}."
    if early:
        yield (
            f"{', '.join(early)} {'is' if len(early) == 1 else 'are'} older than any table known, "
            f"of {min(early.values())}, which stands in."
        )


def find_not_counted(result: Result, sources: Sequence[str]) -> Iterator[str]:
    if idle := explain_idle_options(result):
        yield f"{base.capitalize(idle)}."
    taken = [text for text in dict.fromkeys(sources) if STANDS_IN in text]
    names = dict.fromkeys(text.partition("; ")[2].partition(STANDS_IN)[0] for text in taken)
    if names:
        coins = f"the median of {', '.join(OTHERS)}"
        yield f"{', '.join(names)}: no hours of their own in crashes, so {coins} stands in."


def find_loss(result: Result) -> str:
    if not result.metrics["ruined"]:
        return ""
    time = base.format_time(result.span.start + round(result.metrics["ruin_time"] * DAY))
    return f"{time} UTC with {result.metrics['final_equity']:,.2f} left"


def find_table_time(result: Result, rules: str, scenario: Scenario) -> int:
    """Return the time, in ns, whose margin tables hold in a scenario."""
    if rules == "then" and scenario.date is not None:
        return base.to_nanoseconds(scenario.date)
    return int(np.iinfo(np.int64).max) if rules == "today" else result.last_time


def fix_margin_tables(result: Result, time: int) -> dict[str, Venue]:
    at = np.array([time], dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: each.with_table(each.in_use(at)[0]) for name, each in result.venues.items()}


def read_scenarios(scenarios: Sequence[Scenario] | Scenario | None) -> tuple[Scenario, ...]:
    given = crashes() if scenarios is None else scenarios
    chosen = tuple(given) if isinstance(given, Sequence) else (given,)
    if not chosen or not all(isinstance(each, Scenario) for each in chosen):
        raise base.ParameterError(
            f"scenarios must be a list of bt.Scenario, got {base.repr_plain(given):.60}"
        )
    names = [each.name for each in chosen]
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise base.ParameterError(
            f"scenarios must have different names, {sorted(doubled)} occur more than once"
        )
    return chosen


def run_scenario(
    account: StressedAccount, scenario: Scenario, data: Any
) -> tuple[dict[str, Any], str]:
    replayed, source = slice_replays(account, scenario, data), "data"
    if replayed is None:
        bare = {*account.moving} - {*account.history}
        known = {each.name: each for each in crashes()}
        shipped = replay_crash(scenario, known, account.moving, account.resting, bare)
        replayed, source = (None, "figures") if shipped is None else shipped
    bars = account.make(scenario) if replayed is None else replayed
    outcome = account.live(scenario, bars)
    lead, even = find_break_even(account, scenario, replayed)
    length = next(iter(bars.values())).last.shape[1]
    return {**outcome._asdict(), "break_even": even, "bars": length, "from": source}, lead


def slice_replays(account: StressedAccount, scenario: Scenario, data: Any) -> Bars | None:
    names, moving, interval = account.history.names, account.moving, account.history.interval
    markets: Mapping[str, Market] = {} if data is None else as_markets(data)
    if data is not None and data is not markets and is_same_account(tuple(markets), names):
        markets = dict(zip(names, markets.values(), strict=True))
    found = {name: slice_replay(scenario, markets.get(name), interval) for name in moving}
    cut = {name: bars for name, bars in found.items() if bars is not None}
    still = {name for name in found if name in account.resting and name not in markets}
    if not cut or {*cut, *still} != {*found}:
        return None
    flat = make_flat_bars(next(iter(cut.values())).last.shape[1])
    return {name: cut.get(name, flat) for name in found}


def list_shocks(ladder: Mapping[str, Sequence[float]] | None) -> list[dict[str, float]]:
    for name in ladder or ():
        if name not in AXES:
            raise base.ParameterError(
                f"an axis of ladder must be one of {', '.join(AXES)}, got {name!r}"
                + base.did_you_mean(name, AXES)
            )
    values = [find_values(axis, name) for name, axis in (ladder or {}).items()]
    points = itertools.product(*values) if values else ()
    return [dict(zip(ladder or {}, map(float, point), strict=True)) for point in points]


def find_values(axis: Any, name: str) -> base.FloatArray:
    try:
        given = [float(x) for x in axis]
        is_range = len(given) == 3 and isinstance(axis[2], int) and axis[2] > 2
    except (TypeError, ValueError):
        given, is_range = [], False
    values = np.linspace(given[0], given[1], int(given[2])) if is_range else np.array(given)
    if not len(values) or not np.isfinite(values).all():
        raise base.ParameterError(
            f"ladder: {name} must be (low, high, n) or finite values, got {base.repr_plain(axis)}"
        )
    return values

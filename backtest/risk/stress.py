"""stress(): what scenarios do to an account, which goes on from where a run ended."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core, engine, results
from backtest.core import Progress
from backtest.core.number_text import Head
from backtest.core.result_parts import MONEY, Headline, Part, ShownChart, ShownTable
from backtest.core.units import DAY
from backtest.market import Market, Markets, as_markets
from backtest.results import Result
from backtest.results.run_record import find_currency
from backtest.results.settings_result import SettingsResult
from backtest.risk.scenario_bars import (
    Bars,
    ShockBars,
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
    moves : DataFrame
        The move of the price at the close of each bar of each scenario (column), a fraction of the
        last close of the run, 0 before the first bar, NaN after the last; of the instrument with
        the largest exposure.
    """

    table: pd.DataFrame
    ladder: pd.DataFrame | None
    moves: pd.DataFrame

    kind = "stress"
    call = "bt.stress"
    long_tables = ("moves",)
    plural = "stress tests"
    called = "stress test"

    @property
    def note(self) -> str:
        return f"{int(self.table['liquidated'].sum())} of {len(self.table)} liquidate"

    @property
    def verdict(self) -> str:
        n_liquidated = int(self.table["liquidated"].sum())
        loss = self.table["loss"]
        worst = float(loss.max())

        verb = "loses" if worst >= 0.0 else "gains"
        where = f"in the worst, {loss.idxmax()},"
        if len(self.table) == 1:
            where = f"in {loss.idxmax()}"

        text = (
            f"{n_liquidated} of {len(self.table)} scenarios liquidate the account; {where} it "
            f"{verb} {core.format_money(abs(worst))} of {core.format_money(self.worth)}"
        )
        if self.worth > 0.0:
            text += f", {core.format_percent(abs(worst) / self.worth)}"
        return f"{text}."

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
        notices = list(self.settings["not_counted"])
        if self.table["from"].str.contains(": rows of").any():
            notices.append(
                "Bars of some scenarios are those of another coin: the column bars from names it."
            )
        return tuple(notices)

    def list_numbers(self) -> list[Headline]:
        loss = self.table["loss"]
        worst = float(loss.max())
        n_liquidated = int(self.table["liquidated"].sum())
        return [
            Headline(
                "liquidating",
                "scenarios that liquidate",
                n_liquidated,
                text=f"{n_liquidated} of {len(self.table)}",
            ),
            Headline(
                name="worst_loss",
                title="largest loss" if worst >= 0.0 else "smallest gain",
                value=worst,
                style="money",
                note=str(loss.idxmax()),
                text=core.format_money(abs(worst)),
            ),
        ]

    def list_parts(self) -> list[Part]:
        scenarios = Part(
            key="scenarios",
            title="Scenarios",
            lead="From the last close of the run on.",
            blocks=(
                *self._draw_scenarios(),
                self._show_table(),
                self._explain_table(),
                *self._show_ladder(),
            ),
            shows="both",
        )
        described = [scenario for scenario in self.settings["scenarios"] if scenario.get("source")]
        sources = [f"{scenario['name']}: {scenario['source']}." for scenario in described]
        return [
            scenarios,
            Part(
                key="sources",
                title="Sources",
                lead="Where the figures of scenarios come from.",
                blocks=tuple(sources) or ("The scenarios are the user's.",),
            ),
        ]

    def _show_table(self) -> ShownTable:
        heads = {name: Head(name, "money", "money") for name in ("loss", *PAID)}
        heads |= {
            "distance": Head("distance to liquidation", "nearest mark", "chance"),
            "lost_to_adl": Head("ADL loss", "money", "money"),
            "lost_to_default": Head("default loss", "money", "money"),
            "margin_calls": Head("margin calls", "", "count"),
            "break_even": Head("break-even move", "policy trading", "signed percent"),
            "bars": Head("bars", "", "count"),
            "from": Head("bars from"),
            "rules": Head("margin table of"),
        }
        front = ["from", "equity", "loss", "liquidated", "break_even", "distance"]

        # Costs that no scenario has are not shown.
        others = self.table.drop(columns=front)
        columns = [*front, *others.columns[(others != 0).any()]]
        return ShownTable(self.table[columns], "Scenarios", labels=Head("scenario"), heads=heads)

    def _explain_table(self) -> str:
        sentences = []
        leads = self.settings["leads"]
        if leads and self.table["break_even"].notna().any():
            moves = ", ".join(f"{name} in {scenario}" for scenario, name in leads.items())
            sentences.append(
                f"Break-even: the move of {moves}; the others move as in the scenario."
            )

        sentences.append(f"Losses and costs are positive, gains negative. {MONEY}")
        sentences.append(
            "Distance: the smallest distance of the mark from the liquidation price; a stop or an "
            "order may close the position before. On the way to the break-even move the policy "
            "continues to trade at the closes, and may have sold."
        )

        if self.table["break_even"].isna().any():
            sentences.append("Without a break-even (-), no price move liquidates the account.")
        return " ".join(sentences)

    def _show_ladder(self) -> tuple[ShownChart | ShownTable | str, ...]:
        if self.ladder is None:
            return ()

        axes = [str(name) for name in self.ladder.index.names]
        units = ", ".join(f"{name} ({find_unit(name)})" for name in axes)
        table = ShownTable(
            self.ladder,
            "Ladder",
            labels=Head(axes[0]),
            heads={"loss": Head("loss", "money", "money")},
        )
        chart = self._draw_ladder(self.ladder["loss"], axes[:2])
        return (chart, table, f"Units of the axes: {units}. A fall is negative.")

    def _draw_ladder(self, losses: pd.Series, names: Sequence[str]) -> ShownChart:
        """Draw the losses by one shock as a line, by two as a heat map."""
        unit = "money"
        caption = f"Loss of one-bar shocks, by {' and '.join(names)}."
        if self.worth > 0.0:
            losses = (100.0 * losses / self.worth).round(2) + 0.0  # no -0
            unit = "%"
            caption += " In % of what the account was worth at the last close of the run."

        if len(names) == 1:
            return ShownChart(
                key="ladder",
                title="Ladder",
                caption=caption,
                table=losses.set_axis(losses.index.get_level_values(0)),
                kind="line",
                colors={"loss": "loss"},
                x=names[0],
                y=unit,
                height=340,
            )
        largest = float(losses.abs().max())
        return ShownChart(
            key="ladder",
            title="Ladder",
            caption=caption,
            table=losses,
            kind="heat",
            colors={"loss": "loss"},
            height=340,
            limits=(-largest, largest),
        )

    def _draw_moves(self) -> ShownChart:
        """Return the price in each scenario by bar, on a log scale where one is far longer."""
        n_bars = self.moves.count()
        kind = "points" if n_bars.max() <= FEW_BARS else "line"
        log = "x" if n_bars.max() > FAR_LONGER * n_bars.median() else ""
        return ShownChart(
            key="moves",
            title="The price on the way",
            caption="% of the last close of the run, at the close of each bar, of the instrument "
            "with the largest exposure.",
            table=100.0 * self.moves,
            kind=kind,
            x="bar",
            y="%",
            log=log,
            has_legend=True,
            size="half",
            height=380,
        )

    def _draw_scenarios(self) -> Iterator[ShownChart]:
        """Yield what each scenario makes of the account, and the path of its price."""
        if self.worth > 0.0:
            change = -100.0 * self.table["loss"] / self.worth
            yield ShownChart(
                key="outcomes",
                title="Change of the account",
                caption="% of what the account was worth at the last close of the run: a bar for "
                "each scenario.",
                table=change.rename("change, %").to_frame(),
                kind="ranked",
                x="%",
                size="half",
            )
        yield self._draw_moves()

    def list_assumptions(self) -> tuple[str, ...]:
        return (
            "Policies continue to decide at the closes of a scenario, with the last signal. Rows "
            "marked data or history replay those bars; other rows are built from their figures.",
        )


FEW_BARS = 60
"""Bars up to which the points of all scenarios are marked."""
FAR_LONGER = 5.0
"""Times the median length of the scenarios from which on their bars are on a log scale."""
LARGEST_RISE = math.log(64.0)
LARGEST_FALL = 36.7
"""The largest log moves that a search for the break-even tries."""


def list_moves(account: StressedAccount, bars: Bars) -> core.FloatArray:
    """Return the moves at closes, 0 at first, of the instrument with the largest exposure."""
    lead = max(bars, key=lambda name: abs(account.exposures.get(name, 0.0)))
    return np.append(0.0, bars[lead].last[3] - 1.0)


def find_unit(axis: str) -> str:
    """Return the unit of an axis of the ladder."""
    return "x of today" if axis in ("volatility", "spread", "depth", "margin") else "fraction"


HEDGED = tuple(2.0**k for k in range(-6, 6))
"""Log moves that a search for the break-even of a hedge tries: it may die and live again."""


def find_break_even(
    account: StressedAccount,
    scenario: Scenario,
    replayed: Bars | None,
) -> tuple[str, float]:
    """Return the market whose move the break-even is, and that move, a fraction of its price.

    The break-even is the least move of this market, the lead, that liquidates the account when the
    others move with it as in the scenario. It goes in the direction that hurts. Of a replay, whose
    bars are ``replayed``, it is the move at its worst point. NaN: no move liquidates.
    """
    logs = find_log_moves(account, scenario, replayed)
    lead = next((name for name, log in logs.items() if log != 0.0), "")
    if not lead:
        return next(iter(logs)), math.nan

    # The search is in the direction that hurts: a scenario from which the account gains is turned
    # around. A replay goes its own way.
    gains = list_gains(account, logs, replayed)
    side = math.copysign(1.0, logs[lead])
    if replayed is None and sum(gains) > 0.0:
        side = -side

    def is_liquidated(size: float) -> bool:
        """Return whether the account is liquidated where the lead moves by ``size``, a log move.

        All log moves of the scenario are multiplied by the same factor.
        """
        factor = side * size / logs[lead]
        if replayed is None:
            moved = scale_scenario(scenario, logs, factor)
            bars = account.make(moved)
        else:
            moved = scenario
            bars = scale_replay(replayed, factor)
        steps, _ = account.pass_bars(moved, bars, is_search=True)
        return bool(steps.tally.money.liquidations > 0)

    limit = LARGEST_RISE
    if replayed is None and side < 0.0:
        limit = LARGEST_FALL

    # Where some positions gain what others lose, a larger move may hurt less than a smaller one.
    # Then the sizes of a grid are tried in turn, not the largest alone.
    sizes: Sequence[float] = [limit]
    if min(gains) < 0.0 < max(gains):
        sizes = [size for size in HEDGED if size <= limit]
    return lead, math.expm1(side * find_edge(is_liquidated, sizes))


def list_gains(
    account: StressedAccount,
    logs: Mapping[str, float],
    replayed: Bars | None,
) -> list[float]:
    """Return about what each market brings the account at its farthest point, in money.

    That is the exposure times the log move: of ``logs``, or in a replay to the farther extreme.
    """
    farthest = dict(logs)
    for name, bars in (replayed or {}).items():
        low, high = find_log_extremes(bars)
        farthest[name] = low if -low >= high else high
    return [account.exposures[name] * log for name, log in farthest.items()]


def scale_scenario(
    scenario: Scenario,
    logs: Mapping[str, float],
    factor: float,
) -> Scenario:
    """Return a scenario in which each market moves by its log move times a factor."""
    moves = {name: shrink(factor * log) for name, log in logs.items()}
    return scenario.override(price=0.0, prices=moves, correlation=None)


def scale_replay(replayed: Bars, factor: float) -> Bars:
    """Return bars whose log moves from the close before them are multiplied by a factor."""
    scaled = {}
    for name, bars in replayed.items():
        scaled[name] = bars._replace(last=bars.last**factor, mark=bars.mark**factor)
    return scaled


def find_log_moves(
    account: StressedAccount,
    scenario: Scenario,
    replayed: Bars | None,
) -> dict[str, float]:
    """Return the log move of each market: in a replay, to the extreme that hurts what is held.

    Where a scenario moves no price, all have the same.
    """
    logs = {}
    if replayed is not None:
        for name, bars in replayed.items():
            low, high = find_log_extremes(bars)
            logs[name] = high if account.exposures[name] < 0.0 else low
        return logs

    moves = find_moves(scenario, account.moving, account.resting)
    for name, move in moves.items():
        logs[name] = math.log1p(move)
    if not any(logs.values()):
        return dict.fromkeys(logs, 1.0)
    return logs


def find_log_extremes(bars: ShockBars) -> tuple[float, float]:
    """Return the logs of the lowest and the highest last price of bars."""
    _, high, low, _ = bars.last
    return math.log(low.min()), math.log(high.max())


def find_edge(is_liquidated: Callable[[float], bool], sizes: Iterable[float]) -> float:
    """Return the least size of a move, from 0 on, at which an account is liquidated; NaN if none.

    Sizes are tried in turn; between the first that liquidates and the one before it, it is
    bisected. No size is tried twice, as each is a run of the account.
    """

    @functools.cache
    def sign_of(size: float) -> float:
        """Return 1 where the account is liquidated, else -1: a root lies between the two."""
        return 1.0 if is_liquidated(size) else -1.0

    if sign_of(0.0) > 0.0:
        return 0.0
    for before, size in itertools.pairwise((0.0, *sizes)):
        if sign_of(size) > 0.0:
            bisect = core.sp.optimize.bisect
            edge = bisect(sign_of, before, size, xtol=1e-12, maxiter=60, disp=False)
            return float(edge)
    return math.nan


@core.record_making
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
        By default :func:`backtest.crashes`: for markets with sessions those of stocks, for others
        those of coins.
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
    check_not_ruined(result)
    chosen = choose_scenarios(result, scenarios)
    how = core.Choice("run", "today", "then").check("rules", rules)
    axes = {str(name): find_values(axis, name) for name, axis in (ladder or {}).items()}
    points = list_points(axes)
    shocks = [make_shock(axes, point) for point in points]
    total = len(chosen) + len(shocks)

    stressed = StressedRun(result, how)
    outcomes: dict[str, ScenarioOutcome] = {}
    for done, scenario in enumerate(chosen, 1):
        outcomes[scenario.name] = stressed.simulate(scenario, data)
        core.report_progress(progress, done, total)

    ladder_rows = []
    for done, shock in enumerate(shocks, len(chosen) + 1):
        ladder_rows.append(stressed.shock(shock))
        core.report_progress(progress, done, total)

    ladder_table = None
    if points:
        index = pd.MultiIndex.from_tuples(points, names=[*axes])
        ladder_table = pd.DataFrame(ladder_rows, index, ["equity", "loss", "liquidated"])

    # The data of one market are described as those of its run.
    market: Any = result.markets
    if len(market) == 1:
        market = next(iter(market.values()))

    # As series, for scenarios have different numbers of bars.
    rows = [outcome.row for outcome in outcomes.values()]
    moves = {name: pd.Series(outcome.moves) for name, outcome in outcomes.items()}
    return Stress(
        table=pd.DataFrame(rows, index=pd.Index(outcomes, name="scenario")),
        ladder=ladder_table,
        moves=pd.DataFrame(moves).rename_axis("bar"),
        settings=stressed.describe(chosen, outcomes, ladder),
        market=market,
    )


class ScenarioOutcome(NamedTuple):
    """What a scenario does to an account: its row of the table, and how prices move.

    ``lead`` is the market whose move the break-even is, ``fall`` the deepest fall, and ``moves``
    the price at the close of each bar.
    """

    row: dict[str, Any]
    lead: str
    fall: float
    moves: core.FloatArray


class StressedRun:
    """The account of a run in scenarios, each under the margin tables of its time.

    ``rules`` are those of :func:`stress`: ``"run"``, ``"today"`` or ``"then"``.
    """

    def __init__(self, result: Result, rules: str) -> None:
        self.result = result
        self.rules = rules
        self._accounts: dict[int, StressedAccount] = {}

    def find_account(self, scenario: Scenario) -> StressedAccount:
        """Return the account under the margin tables of a scenario, the same for equal times."""
        time = self.find_table_time(scenario)
        if time not in self._accounts:
            venues = fix_margin_tables(self.result.venues, time)
            self._accounts[time] = StressedAccount(self.result, venues)
        return self._accounts[time]

    def find_table_time(self, scenario: Scenario) -> int:
        """Return the time, in ns, whose margin tables hold in a scenario."""
        if self.rules == "then" and scenario.date is not None:
            return core.to_nanoseconds(scenario.date)
        if self.rules == "today":
            return int(np.iinfo(np.int64).max)
        return self.result.last_time

    def simulate(
        self,
        scenario: Scenario,
        data: Market | Markets | None,
        *,
        seeks_break_even: bool = True,
    ) -> ScenarioOutcome:
        """Take the account through a scenario: bars that are replayed if there are any, or made.

        The search for the break-even takes the account through some forty more; without it, the
        break-even is NaN, of no market.
        """
        account = self.find_account(scenario)
        replayed, source = find_bars(account, scenario, data)
        bars = replayed
        if bars is None:
            bars = account.make(scenario)

        lead = ""
        break_even = math.nan
        if seeks_break_even:
            lead, break_even = find_break_even(account, scenario, replayed)

        row = account.simulate(scenario, bars)
        row["break_even"] = break_even
        row["bars"] = count_bars(bars)
        row["from"] = source
        row["rules"] = self.rules
        if self.rules == "then" and scenario.date is None:  # a time that a scenario lacks
            row["rules"] = "run"
        return ScenarioOutcome(
            row=row,
            lead=lead,
            fall=measure_fall(bars),
            moves=list_moves(account, bars),
        )

    def shock(self, shock: Scenario) -> dict[str, Any]:
        """Return the row of a shock of one bar, whose bars are made."""
        account = self.find_account(shock)
        return account.simulate(shock, account.make(shock))

    def describe(
        self,
        scenarios: Sequence[Scenario],
        outcomes: Mapping[str, ScenarioOutcome],
        ladder: Mapping[str, Sequence[float]] | None,
    ) -> dict[str, Any]:
        """Return the settings of a stress test, by name."""
        result = self.result
        times = {scenario.name: self.find_table_time(scenario) for scenario in scenarios}

        # Where one market moves, the break-even is its move.
        leads = {}
        if len(self.find_account(scenarios[0]).moving) > 1:
            leads = {name: outcome.lead for name, outcome in outcomes.items()}

        axes = None
        if ladder is not None:
            axes = {name: list(axis) for name, axis in ladder.items()}

        not_counted = []
        idle_options = results.explain_idle_options(result)
        if idle_options:
            not_counted.append(core.capitalize(f"{idle_options}."))
        return {
            "policy": result.manifest["policy"]["text"],
            "data": result.manifest["data"]["source"],
            "run": result.manifest["id"],
            "start": core.format_time(result.span.start),
            "rules": self.rules,
            "scenarios": [scenario.to_dict() for scenario in scenarios],
            "ladder": axes,
            "settlement": find_currency(result),
            "leads": leads,
            "falls": {name: outcome.fall for name, outcome in outcomes.items()},
            "tables": list(describe_tables(result, times)),
            "not_counted": not_counted,
        }


def replay_crashes(result: Result) -> dict[str, ScenarioOutcome]:
    """Return what each of the default crashes would do to the account of a run, by its name.

    It is what :func:`stress` says of them, without their break-evens. Raises
    :class:`ParameterError` if the account was ruined in the run.
    """
    check_not_ruined(result)
    stressed = StressedRun(result, "run")
    outcomes = {}
    for scenario in choose_scenarios(result, None):
        outcomes[scenario.name] = stressed.simulate(scenario, None, seeks_break_even=False)
    return outcomes


def check_not_ruined(result: Result) -> None:
    if not result.metrics["ruined"]:
        return
    time = core.format_time(result.span.start + round(result.metrics["ruin_time"] * DAY))
    raise core.ParameterError(
        f"the account was ruined in the run, at {time} UTC with "
        f"{result.metrics['final_equity']:z,.2f} left: no scenario can change it"
    )


def list_points(axes: Mapping[str, Iterable[float]]) -> list[tuple[float, ...]]:
    """Return the points of the grid of a ladder; none without axes."""
    if not axes:  # whose product has one point, the empty one
        return []
    return list(itertools.product(*axes.values()))


def make_shock(axes: Iterable[str], point: tuple[float, ...]) -> Scenario:
    """Return the shock of one bar at a point of a ladder; the axes are fields of a scenario."""
    fields = dict(zip(axes, point, strict=True))
    return Scenario.from_dict({"name": "ladder", "shape": "bar", **fields}, where="ladder")


def choose_scenarios(
    result: Result, scenarios: Sequence[Scenario] | Scenario | None
) -> tuple[Scenario, ...]:
    """Return the scenarios of a test, by default the crashes of the kind of its markets."""
    if scenarios is None:
        chosen = crashes()
    elif isinstance(scenarios, Sequence):
        chosen = tuple(scenarios)
    else:
        chosen = (scenarios,)

    names = [scenario.name for scenario in chosen]
    if not names or len({*names}) < len(names):
        raise core.ParameterError(
            f"scenarios must be one or more with different names, got {', '.join(names) or 'none'}"
        )

    if chosen != crashes():
        return chosen

    # Of the crashes of history those of the kind count: coins fall by more than stocks ever did.
    has_sessions = result.markets is not None and result.markets.sessions
    other_kind = "crypto" if has_sessions else "stocks"
    return tuple(scenario for scenario in chosen if scenario.asset != other_kind)


def find_bars(
    account: StressedAccount,
    scenario: Scenario,
    data: Any,
) -> tuple[Bars | None, str]:
    """Return the bars that a scenario replays, None if it has none, and where they are from."""
    replayed = slice_replays(account, scenario, data)
    if replayed is not None:
        return replayed, "data"
    shipped = replay_crash(scenario, account.moving, account.resting, account.bare)
    return (None, "figures") if shipped is None else shipped


def describe_tables(result: Result, times: Mapping[str, int]) -> Iterator[str]:
    """Yield since when the margin tables of scenarios are in force, and which are too old."""
    days = set()
    early = {}
    for name, time in times.items():
        stamp = np.array([time], dtype=np.int64)
        for venue in result.venues.values():
            days.add(venue.in_use(stamp)[0].since)
            first = venue.days()[0]
            if first is not None and time < core.to_nanoseconds(first):
                early[name] = first

    known = ", ".join(sorted(day for day in days if day))
    if known:
        yield f"Margin tables in force since {known}."
    if early:
        verb = "is" if len(early) == 1 else "are"
        yield (
            f"{', '.join(early)} {verb} older than any table known, of {min(early.values())}, "
            "which stands in."
        )


def slice_replays(
    account: StressedAccount,
    scenario: Scenario,
    data: Any,
) -> Bars | None:
    """Return the bars of data in the days of a scenario, None unless all that move have them.

    Collateral of a constant price needs none: it rests at its last close.
    """
    markets: Mapping[str, Market] = {}
    if data is not None:
        markets = as_markets(data)

        # A single market may be that of the account under another name.
        names = account.history.names
        if data is not markets and engine.is_same_account(tuple(markets), names):
            markets = dict(zip(names, markets.values(), strict=True))

    bars = {}
    still = []
    for name in account.moving:
        part = slice_replay(scenario, markets.get(name), account.history.interval)
        if part is not None:
            bars[name] = part
        elif name in account.resting and name not in markets:
            still.append(name)
    if not bars or len(bars) + len(still) < len(account.moving):
        return None

    flat = make_flat_bars(count_bars(bars))
    return {name: bars.get(name, flat) for name in account.moving}


def find_values(axis: Any, name: str) -> core.FloatArray:
    """Return the values of an axis of the ladder."""
    is_triple = isinstance(axis, tuple) and len(axis) == 3
    is_range = is_triple and isinstance(axis[2], int) and axis[2] > 2
    values = np.linspace(*axis) if is_range else np.array(axis, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise core.ParameterError(
            f"ladder: {name} must be (low, high, n) or finite values, got {core.repr_plain(axis)}"
        )
    return values

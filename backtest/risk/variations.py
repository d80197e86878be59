"""sensitivity(), capacity() and bounds(): tables of runs with one thing changed."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core, engine, signals
from backtest.account.events import INSIDE
from backtest.account.money import FILL_COSTS
from backtest.core import Progress
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.core.units import DAY, YEAR_DAYS
from backtest.engine import AnyPolicy, Compile, Conditions, plain
from backtest.engine.run import run
from backtest.market import Market, Markets, as_given, as_markets
from backtest.policies import split_name
from backtest.results import Result, find_cost_rates
from backtest.results.differences import choose_block, resampling_error
from backtest.results.run_record import shows_growth
from backtest.results.settings_result import SettingsResult
from backtest.risk.liquidations import describe_terms
from backtest.risk.path_bars import MARKS, PRICES
from backtest.risk.scenarios import scale_margin, scale_slippage
from backtest.search import equal_risk
from backtest.sweep import VariedTest, check_sets, read_runs
from backtest.sweep.sets import SIGNAL, find_condition
from backtest.venue import Venue, scale_cost

LEAST_CHANGE = 0.00005
"""Change of growth that is not 0.00 %."""


def change_venue(venue: Venue, name: str, x: float) -> dict[str, Any]:
    if name == "rates":
        names = ["borrow_rate", "cash_rate"] if venue.interest_on else []
        names += ["short_rate"] if venue.interest_on == "loan" else []
        return {each: getattr(venue, each) + x for each in names}
    if name == "fees":
        return {each: scale_cost(venue, each, x, math.inf) for each in ("fees.taker", "fees.maker")}
    if name == "slippage":
        return scale_slippage(venue, x) | {"slippage.impact": venue.slippage.impact * x}
    return {} if venue.contract.is_spot else scale_margin(venue, x)


def scale_moves(market: Market, factor: float) -> Market:
    logs = np.log(market.close)
    moves = np.diff(logs)
    mean = float(np.mean(moves))
    close = logs[0] + np.concatenate([[0.0], np.cumsum(factor * moves + (1.0 - factor) * mean)])
    before = np.concatenate([[logs[0]], logs[:-1]])
    start = np.concatenate([[close[0]], close[:-1]])
    fields = market.fields()
    for name in (*PRICES, *MARKS):
        away = np.log(getattr(market, name)) - before
        away[1:] = factor * away[1:] + (1.0 - factor) * mean
        fields[name] = np.exp(start + away)
    return Market(**fields, source=f"{market.source}, volatility")


def change_funding(market: Market, rates: core.FloatArray) -> Market:
    return Market(**market.fields() | {"funding_rate": rates}, source=f"{market.source}, funding")


OF_MARKET: dict[str, Callable[[Market, float], Market]] = {
    "funding": lambda own, x: change_funding(own, own.funding_rate * x),
    "funding shift": lambda own, x: change_funding(own, own.funding_rate + x),
    "volatility": scale_moves,
}
FACTORS = ("rates", "funding", "funding shift", "fees", "slippage", "margin", "volatility")
STEPS = {"rates": (-0.01, 0.01), "funding shift": (-1e-4, 1e-4), "volatility": (0.75, 1.25)}
"""Of the other factors, half and double."""


class ShownGrowth(NamedTuple):
    """How people see growth: per year, or of the whole time where that is under 90 days.

    Tables and JSON have growth per year in any case. ``years`` is None where people see it too.
    """

    years: float | None
    when: str

    @property
    def is_yearly(self) -> bool:
        return self.years is None

    def compound(self, growth: Any) -> Any:
        """Return compound growth per year as it is shown."""
        return growth if self.years is None else (1.0 + growth) ** self.years - 1.0

    def logarithmic(self, growth: Any) -> Any:
        """Return log growth per year, or its error, as it is shown."""
        return growth if self.years is None else growth * self.years


def choose_shown_growth(days: float) -> ShownGrowth:
    if shows_growth(days):
        return ShownGrowth(None, "per year")
    return ShownGrowth(days / YEAR_DAYS, f"in {core.count_nouns(round(days), 'day')}")


def count_account_days(test: Conditions) -> float:
    """Return the days from the first bar of the account to the last of the market."""
    first = engine.find_first_bar(test.market, test.start)
    return float(test.market.end - int(test.market.time[first])) / DAY


@dataclass(frozen=True, eq=False, repr=False)
class Sensitivity(SettingsResult):
    """Results under single changed assumptions.

    ``table`` has a row per ``factor`` and ``step``: ``growth`` (the CAGR), and ``change_of_growth``
    against ``base``, that of the unchanged run. ``days`` is how long the account ran.
    """

    table: pd.DataFrame
    base: float
    days: float

    kind = "sensitivity"
    is_yearly = True

    @property
    def details(self) -> str:
        text = "One assumption is changed at a time; the others stay as they are."
        if spot := self.settings.get("unmargined"):
            text += f" Margin stays that of {', '.join(spot)}: a spot leg has none."
        return text

    @property
    def note(self) -> str:
        shown = choose_shown_growth(self.days)
        return f"growth {core.format_percent(shown.compound(self.base))} {shown.when}"

    @property
    def verdict(self) -> str:
        shown = choose_shown_growth(self.days)
        change = self._show_table(shown)["change_of_growth"].dropna()
        base = core.format_percent(shown.compound(self.base))
        text = f"Growth is {base} {shown.when} as run"
        if not len(change) or not change.abs().max() >= LEAST_CHANGE:
            return f"{text}, and no factor changes it."
        most: Any = change.abs().idxmax()
        moved = core.format_percent(float(change.loc[most]), is_signed=True)
        step = format_step(*most)
        return f"{text}. It depends most on {most[0]}: {step} changes it by {moved}."

    def list_numbers(self) -> list[Headline]:
        shown = choose_shown_growth(self.days)
        growth = shown.compound(self.base)
        name = "growth" if shown.is_yearly else "total_return"
        return [Headline(name, "growth as run", growth, "percent", shown.when)]

    def list_parts(self) -> list[Part]:
        shown = choose_shown_growth(self.days)
        table = self._show_table(shown)
        down, up = "\N{BLACK DOWN-POINTING TRIANGLE}", "\N{BLACK UP-POINTING TRIANGLE}"
        steps = f"for the lowest step ({down}) and the highest ({up})"
        caption = f"Change of growth, % {shown.when}, {steps}."
        heads = {
            "step": Head("step"),
            "growth": Head("growth", shown.when, "percent"),
            "change_of_growth": Head("change of growth", shown.when, "signed percent"),
        }
        written = table.reset_index(level=1)
        written["step"] = [format_step(str(name), x) for name, x in written["step"].items()]
        return [
            Part("factors", "By factor", "Steps are multiples (x), or shifts.", (
                ShownChart("tornado", "Tornado", caption, 100.0 * table["change_of_growth"],
                           "tornado"),
                ShownTable(written, labels=Head("factor"), heads=heads),
                "A change of growth is growth with the step less growth as run.",
            ), shows="both")
        ]  # fmt: skip

    def _show_table(self, shown: ShownGrowth) -> pd.DataFrame:
        growth = shown.compound(self.table["growth"])
        change = growth - shown.compound(self.base)
        return self.table.assign(growth=growth, change_of_growth=change)


def format_step(factor: str, step: float) -> str:
    """Write a step of a factor with its unit: a multiple, or a shift in basis points."""
    if factor == "rates":
        return f"{1e4 * step:+g} bp a year"
    if factor == "funding shift":
        return f"{1e4 * step:+g} bp a settlement"
    return f"{step:g}x"


@core.checked_only("progress", "factors")
def sensitivity(
    conditions: Conditions,
    policy: AnyPolicy,
    *,
    factors: Sequence[str] | None = None,
    parameters: bool = False,
    compile: Compile = True,  # noqa: A002 - the word of bt.run
    progress: Progress | None = None,
) -> Sensitivity | ParameterSensitivity:
    """Answer :meth:`backtest.Backtest.sensitivity`, which documents it."""
    if parameters:
        if factors is not None:
            raise core.ParameterError(f"parameters=True allows no factors, got {factors!r:.60}")
        return step_parameters(conditions, policy, compile, progress)
    test = plain(conditions)
    markets = as_markets(test.market)
    venues = engine.read_venues(test.venue, markets)
    chosen = choose_factors(factors, markets, venues)
    signal = signals.read_named(test.signal, test.market)
    signal = signals.resolve_signal(signal, test.market)  # of the market as it is

    def grow(changed: Markets, theirs: Mapping[str, Venue]) -> float:
        is_first = changed is markets and theirs is venues
        venue: Any = theirs if isinstance(test.market, Markets) else next(iter(theirs.values()))
        with engine.warn_once(is_first=is_first):
            own = test.replace(market=as_given(changed, test.market), venue=venue, signal=signal)
            result = run(own, policy, compile=compile)
        return float(result.metrics["cagr"])

    first, rows = grow(markets, venues), []
    for done, name in enumerate(chosen, 1):
        for step in STEPS.get(name, (0.5, 2.0)):
            if name in OF_MARKET:
                changed = {k: OF_MARKET[name](each, step) for k, each in markets.items()}
                growth = grow(markets.with_markets(changed), venues)
            else:
                terms = {
                    k: own.override(change_venue(own, name, step)) for k, own in venues.items()
                }
                growth = grow(markets, terms)
            rows.append((name, step, growth, growth - first))
        core.report_progress(progress, done, len(chosen))
    described = describe_terms(policy, test) | {"factors": list(chosen)}
    if spot := [name for name, each in venues.items() if each.contract.is_spot]:
        described["unmargined"] = spot
    table = pd.DataFrame(rows, columns=["factor", "step", "growth", "change_of_growth"])
    table = table.set_index(["factor", "step"])
    days = count_account_days(test)
    return Sensitivity(table, first, days, settings=described, market=test.market)


def choose_factors(
    factors: Sequence[str] | None, markets: Markets, venues: Mapping[str, Venue]
) -> tuple[str, ...]:
    idle = set() if any(each.interest_on for each in venues.values()) else {"rates"}
    if not any(each.funding_time.size for each in markets.values()):
        idle |= {"funding", "funding shift"}
    if all(each.contract.is_spot for each in venues.values()):
        idle.add("margin")
    known = [name for name in FACTORS if name not in idle]
    if factors is None:
        return tuple(known)
    if not factors:
        raise core.ParameterError("factors must be a list of names, got none")
    choice = core.Choice(*known)  # of those with an effect on venue and market
    return tuple(dict.fromkeys(choice.check("a factor", name) for name in factors))


SMALL = 0.1
ALIKE = 1e-4
"""Deviation of the returns from those of constant leverage, over their own, up to which they are
the same."""
LOST_EDGE = 0.5
"""Share of the edge on constant leverage whose loss in a small step is a cliff."""


@dataclass(frozen=True, eq=False, repr=False)
class ParameterSensitivity(SettingsResult):
    """Results with one parameter changed at a time.

    Attributes
    ----------
    table : DataFrame
        By ``parameter`` and ``value``: ``step`` (a share of the value, or of the range where that
        is 0; NaN of an option), ``is_clipped`` at a bound, where the value is nearer than the step,
        ``growth`` (log growth per year; minus infinity at ruin), ``sharpe``, ``max_drawdown``,
        ``change`` of growth, ``error``, the standard error of that change in a paired stationary
        bootstrap, ``ruined``, and ``fault``, why a run failed, whose figures are NaN.
    verdicts : DataFrame
        By ``parameter``: ``value`` as run, and ``verdict``: ``"cliff"`` where a step of a tenth
        ruins the account or loses over half of its edge on constant leverage at equal risk, else
        ``"failed"`` where a run failed, else ``"flat"`` where no change is over its error, else
        ``"sloped"``.
    base, edge : float
        Log growth per year as run, and less that of constant leverage at equal risk: 0 where the
        returns are those of constant leverage.
    days : float
        How long the account ran.
    """

    table: pd.DataFrame
    verdicts: pd.DataFrame
    base: float
    edge: float
    days: float

    kind = "parameter-sensitivity"
    called = "parameter sensitivity"
    is_yearly = True
    call = "Backtest.sensitivity"
    details = (
        "One parameter is changed at a time. Flat: no change of growth is over its standard error. "
        "Cliff: a step of a tenth ruins the account, or loses over half of its edge on constant "
        "leverage at equal risk."
    )

    @property
    def note(self) -> str:
        counts = self.verdicts["verdict"].value_counts()
        names = ("flat", "sloped", "cliff", *["failed"] * ("failed" in counts))
        return ", ".join(f"{counts.get(name, 0)} {name}" for name in names)

    @property
    def verdict(self) -> str:
        cliffs = self.verdicts.index[self.verdicts["verdict"] == "cliff"]
        text = f"Of {core.count_nouns(len(self.verdicts), 'parameter')}: {self.note}."
        return f"{text} Cliff: {', '.join(cliffs)}." if len(cliffs) else text

    @property
    def notices(self) -> tuple[str, ...]:
        """Which steps end at a bound, and which runs failed, and why."""
        names = [f"{name} {value}" for name, value in self.table.index]
        rows = [*zip(names, self.table.to_dict("records"), strict=True)]
        clipped = [name for name, row in rows if row["is_clipped"]]
        bound = [f"Steps that end at a bound, before their size: {', '.join(clipped)}."]
        failed = [f"{name} failed: {row['fault']}" for name, row in rows if row["fault"]]
        return (*(bound if clipped else ()), *failed)

    def list_numbers(self) -> list[Headline]:
        shown = choose_shown_growth(self.days)
        base, edge = (shown.logarithmic(each) for each in (self.base, self.edge))
        of = "" if shown.is_yearly else "_of_days"
        return [
            Headline(f"base{of}", "log growth as run", base, "growth", shown.when),
            Headline(f"edge{of}", "edge on constant leverage", edge, "growth",
                     f"log growth {shown.when}, at equal risk"),
        ]  # fmt: skip

    def list_parts(self) -> list[Part]:
        shown = choose_shown_growth(self.days)
        yearly = {name: self.table[name] for name in ("growth", "change", "error")}
        table = self.table.assign(**{name: shown.logarithmic(x) for name, x in yearly.items()})
        change = 100.0 * table["change"].replace(-np.inf, np.nan)
        heads = {
            "step": Head("step", "of the value", "signed percent"),
            "is_clipped": Head("at its bound", "", "claim"),
            "growth": Head("log growth", shown.when, "growth"),
            "change": Head("change", "of log growth", "growth"),
            "error": Head("its error", "of log growth, paired bootstrap", "percent"),
            "max_drawdown": Head("max drawdown", "", "percent"),
            "ruined": Head("ruined", "", "claim"),
        }
        caption = f"Change of log growth, % {shown.when}, for the lowest value and the highest."
        return [Part("parameters", "By parameter", "", (
            ShownTable(self.verdicts, labels=Head("parameter"), heads={"value": Head("value")}),
            ShownChart("tornado", "Tornado", caption, change, "tornado"),
            ShownTable(table.drop(columns="fault"), "Steps", labels=Head("parameter"),
                       heads=heads),
        ), shows="both")]  # fmt: skip


def step_parameters(
    test: Conditions, policy: AnyPolicy, is_compiled: Compile, progress: Progress | None
) -> ParameterSensitivity:
    if isinstance(policy, Mapping):
        raise core.ParameterError("parameters=True needs one policy, got policies by instrument")
    runs = read_runs(test, policy, compile=bool(is_compiled))
    own = {
        name: each for name, each in runs.varied.settings.items()
        if name.startswith(SIGNAL) or not split_name(name)[0]
    }  # fmt: skip
    used = {name: each for name, each in own.items() if is_in_use(runs.varied, name)}
    steps = [(name, *step) for name, each in used.items() for step in list_steps(each)]
    if not steps:
        raise core.ParameterError(f"parameters=True needs a parameter, {policy!r:.60} has none")
    today = {name: each.value for name, each in own.items()}
    if all(name.startswith(SIGNAL) for name in own):
        runs = runs.fit_to(own)
    tried = [today, *({**today, name: value} for name, value, *_ in steps)]
    sets = check_sets(runs.varied, {name: [row[name] for row in tried] for name in today})
    evaluator = runs.make(runs.market, runs.test.signal, "core")
    found = evaluator.evaluate(sets, returns=True, progress=progress)
    if found.errors[0] or not found.done.all() or found.returns is None:
        raise core.PolicyError(f"the policy as given failed: {found.errors[0]}")
    years = (runs.market.end - int(runs.market.time[runs.first])) / (YEAR_DAYS * DAY)
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.log1p(found.metrics["total_return"]) / years
        growth[found.metrics["ruined"] > 0.0] = -np.inf
        logs = np.log1p(found.returns.T)
    gaps = logs[1:] - logs[0]
    errors = np.full(len(steps), np.nan)
    known = np.isfinite(gaps).all(axis=1)
    if known.any() and gaps.shape[1] > 1:
        block = choose_block(gaps[known])
        errors[known] = resampling_error(gaps[known], block) * gaps.shape[1] / years
    result = evaluator.replay(today)
    held = equal_risk.hold_at_equal_risk(result)
    edge = math.nan
    if isinstance(held, equal_risk.ScaledAccount):
        away = result.returns - held.rest * held.result.returns
        is_own = bool(np.std(away) > ALIKE * np.std(result.returns))
        edge = is_own * (float(growth[0]) - math.log1p(held.result.metrics["total_return"]) / years)
    rows = [(name, write_value(value), *step) for name, value, *step in steps]
    table = pd.DataFrame(rows, columns=["parameter", "value", "step", "is_clipped"]).assign(
        growth=growth[1:],
        **{name: found.metrics[name][1:] for name in ("sharpe", "max_drawdown")},
        change=growth[1:] - growth[0],
        error=errors,
        ruined=found.metrics["ruined"][1:] > 0.0,
        fault=found.errors[1:],
    ).set_index(["parameter", "value"])  # fmt: skip
    judged = pd.DataFrame.from_dict(
        {
            name: [write_value(today[str(name)]), judge_steps(rows, edge)]
            for name, rows in table.groupby(level=0, sort=False)
        },
        orient="index",
        columns=["value", "verdict"],
    ).rename_axis("parameter")
    return ParameterSensitivity(
        table, judged, float(growth[0]), edge, years * YEAR_DAYS,
        settings=describe_terms(policy, test), market=test.market,
    )  # fmt: skip


def write_value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def is_in_use(varied: VariedTest, name: str) -> bool:
    """Return whether a parameter has an effect, and is not one that is off until it is set."""
    parameter = varied.policy_class.parameters().get(name)
    if parameter is None:
        return True
    is_off = varied.settings[name].value == parameter.default
    if is_off and not getattr(parameter.space, "searched", True):
        return False
    return not find_condition(name, {}, varied.settings, {})[1]


def list_steps(setting: Any) -> Iterator[tuple[Any, float, bool]]:
    """Yield the values of a setting that are tried, with their step and whether it is clipped."""
    value, space = setting.value, setting.space
    if not isinstance(value, int | float) or isinstance(value, bool):
        options = (True, False) if setting.kind is bool else getattr(space, "options", ())
        yield from ((each, math.nan, False) for each in options if each != value)
        return
    reach = abs(value) or (space.high - space.low if math.isfinite(space.high - space.low) else 1.0)
    found: dict[Any, tuple[float, bool]] = {}
    for step in (-0.1, 0.1, -0.25, 0.25):  # of two that end at one value, the smaller counts
        wanted = value + step * reach
        if setting.kind is int:
            least = value + (1 if step > 0.0 else -1)
            wanted = (max if step > 0.0 else min)(round(wanted), least)
        new = min(max(wanted, space.low), space.high)
        if new != value:
            found.setdefault(new, (step, new != wanted))
    yield from ((new, *found[new]) for new in sorted(found))


def judge_steps(rows: pd.DataFrame, edge: float) -> str:
    small = rows[rows["step"].abs() == SMALL]
    loses = (edge > 0.0) & (small["change"] < -LOST_EDGE * edge)
    if bool(small["ruined"].any() or loses.any()):
        return "cliff"
    if (rows["fault"] != "").any():
        return "failed"
    return "flat" if bool((rows["change"].abs() <= rows["error"]).all()) else "sloped"


MONEY = core.Real(0, open_low=True)
TOLERANCE = 0.01
"""Relative error of the capitals at which a measure is half."""
HALVED = {"growth": "growth", "sharpe": "the Sharpe ratio"}


@dataclass(frozen=True, eq=False, repr=False)
class Capacity(SettingsResult):
    """Growth and Sharpe ratio of a policy at different capitals.

    Attributes
    ----------
    table : DataFrame
        By ``capital``: ``growth`` per year and ``sharpe``; ``mean_leverage``, which falls where
        orders are cut by participation or by the venue's largest notional; ``impact`` and
        ``costs`` (fees, slippage and impact), per year of the mean equity; ``final_equity`` as a
        multiple of the capital; ``ruined``, 1 where the account was.
    half_growth, half_sharpe : float
        The capital at which the growth, or the Sharpe ratio, is half of that at the smallest
        capital; NaN if it is not halved at the largest, or is not over 0 at the smallest.
    days : float
        How long the accounts ran.
    """

    table: pd.DataFrame
    half_growth: float
    half_sharpe: float
    days: float

    kind = "capacity"
    is_yearly = True
    details = "One run for each capital; only the costs of size and the limits on it differ."

    @property
    def note(self) -> str:
        return f"growth halves at {core.format_round_money(self.half_growth)}"

    @property
    def verdict(self) -> str:
        texts = []
        for name, measure in HALVED.items():
            capital, first = getattr(self, f"half_{name}"), self.table.iloc[0]
            if not math.isnan(capital):
                texts.append(f"{measure} halves at {core.format_round_money(capital)}")
            elif first["ruined"] or not first[name] > 0.0:
                texts.append(f"{measure} is not above 0 at the smallest capital, so it has no half")
            else:
                texts.append(f"{measure} is not halved at any capital tried")
        return f"{core.capitalize('; '.join(texts))}."

    def list_numbers(self) -> list[Headline]:
        first, at = self.table.iloc[0], core.format_round_money(float(self.table.index[0]))
        shown, money = choose_shown_growth(self.days), "round money"
        growth, sharpe = shown.compound(float(first["growth"])), float(first["sharpe"])
        return [
            Headline("half_growth", "growth halves at", self.half_growth, money),
            Headline("half_sharpe", "Sharpe ratio halves at", self.half_sharpe, money),
            Headline(
                "growth" if shown.is_yearly else "total_return",
                "growth",
                growth,
                "percent",
                f"{shown.when}, at {at}",
            ),
            Headline("sharpe", "Sharpe ratio", sharpe, "decimals", f"at {at}"),
        ]

    def list_parts(self) -> list[Part]:
        lead = "A dotted line marks the capital at which a measure is half of the first."
        of_equity = "of equity per year"
        shown = choose_shown_growth(self.days)
        table = self.table.assign(growth=shown.compound(self.table["growth"]))
        heads = {
            "growth": Head("growth", shown.when, "percent"),
            "impact": Head("impact", of_equity, "percent"),
            "costs": Head("costs", of_equity, "percent"),
            "final_equity": Head("final equity", "of the capital", "multiple"),
        }
        return [
            Part("capitals", "By capital", lead, (
                ShownChart("capacity-growth", "Growth", f"% {shown.when}.", 100.0 * table["growth"],
                           "points", x="capital", log="x", marks=(self.half_growth,)),
                ShownChart("capacity-sharpe", "Sharpe ratio", "", self.table["sharpe"], "points",
                           x="capital", log="x", marks=(self.half_sharpe,)),
                ShownTable(table, labels=Head("capital", "money", "count"), heads=heads),
            ), shows="both")
        ]  # fmt: skip


@core.checked_only("progress", "capitals")
def capacity(
    conditions: Conditions,
    policy: AnyPolicy,
    *,
    capitals: Sequence[float] | None = None,
    compile: Compile = True,  # noqa: A002 - the word of bt.run
    progress: Progress | None = None,
) -> Capacity:
    """Answer :meth:`backtest.Backtest.capacity`, which documents it."""
    test = plain(conditions)
    account = test.account
    if account.flows is not None:
        raise core.ParameterError("account.flows must be left out: the capital varies")
    venues = engine.read_venues(test.venue, as_markets(test.market))
    slips = [each.slippage for each in venues.values()]
    if not any(each.impact > 0.0 or each.max_participation is not None for each in slips):
        raise core.ParameterError(
            "capacity needs costs or limits that depend on size, slippage.impact is 0 and "
            "slippage.max_participation is None"
        )
    if capitals is None:
        capitals = [float(account.capital) * 10.0 ** (k / 2) for k in range(15)]
    grid = [MONEY.check("capital", each) for each in capitals]
    if len(grid) < 2 or any(b <= a for a, b in pairwise(grid)):
        raise core.ParameterError(
            f"capitals must be two or more increasing numbers, got {core.repr_plain(capitals):.60}"
        )

    @functools.cache
    def measure(capital: float) -> dict[str, float]:
        with engine.warn_once(is_first=capital == grid[0]):
            own = test.replace(account=account.override({"capital": capital}))
            result = run(own, policy, compile=compile)
        metrics, rates = result.metrics, find_cost_rates(result.tally, result.span)
        return {
            "growth": float(metrics["cagr"]),
            "sharpe": float(metrics["sharpe"]),
            "mean_leverage": float(metrics["mean_leverage"]),
            "impact": rates["impact"],
            "costs": sum(rates[name] for name in FILL_COSTS),
            "final_equity": float(metrics["final_equity"]) / capital,
            "ruined": float(metrics["ruined"]),
        }

    for k, capital in enumerate(grid):
        measure(capital)
        core.report_progress(progress, k + 1, len(grid))
    growth, sharpe = (find_half(name, grid, measure) for name in HALVED)
    table = pd.DataFrame(map(measure, grid), index=pd.Index(grid, name="capital"))
    settings = describe_terms(policy, test)
    days = count_account_days(test)
    return Capacity(table, growth, sharpe, days, settings=settings, market=test.market)


def find_half(
    name: str, grid: Sequence[float], measure: Callable[[float], Mapping[str, float]]
) -> float:
    first = measure(grid[0])
    half = 0.5 * first[name]
    if first.get("ruined") or not half > 0.0:
        return math.nan

    def gap(log: float) -> float:
        row = measure(math.exp(log))
        return -half if row.get("ruined") else row[name] - half

    for low, high in pairwise(grid):
        if not gap(math.log(high)) > 0.0:
            return math.exp(
                core.sp.optimize.brentq(gap, math.log(low), math.log(high), xtol=0.5 * TOLERANCE)
            )
    return math.nan


WAYS = "path", "worst"
SHOWN = ("final_equity", "cagr", "max_drawdown", "liquidations")


@dataclass(frozen=True, eq=False, repr=False)
class Bounds(SettingsResult):
    """A run under ``intrabar="path"`` and under ``"worst"``, and the bars in which they part.

    ``table`` has final equity, growth, deepest fall and liquidations of both ``runs``. ``bars``
    has a row for each bar, of ``n_bars``, in which they part: ``instruments``, and the equity after
    it under ``path`` and under ``worst``.
    """

    table: pd.DataFrame
    bars: pd.DataFrame
    n_bars: int
    runs: Mapping[str, Result] | None = None

    kind = "bounds"
    call = "bt.bounds"
    is_yearly = True
    plural = "bounds"
    details = (
        "The only position of a bar reaches its adverse extreme first under both, so that "
        "they do not part. Other intrabar orders are possible; pass detail= to simulate "
        "on shorter bars."
    )

    @property
    def note(self) -> str:
        return f"the runs part in {len(self.bars):,} of {self.n_bars:,} bars"

    @property
    def verdict(self) -> str:
        path, worst = (float(self.table[way]["final_equity"]) for way in WAYS)
        if not len(self.bars):
            return f"The runs agree in all {self.n_bars:,} bars: final equity {path:,.2f}."
        return (
            f"The runs part in {len(self.bars):,} of {self.n_bars:,} bars, first at "
            f"{self.bars.index[0]:%Y-%m-%d %H:%M} UTC: final equity is {path:,.2f} under path and "
            f"{worst:,.2f} under worst."
        )

    def list_numbers(self) -> list[Headline]:
        of = f"of {self.n_bars:,}"
        return [
            Headline("parted", "bars that part", len(self.bars), "count", of),
            *(
                Headline(f"final_equity_{way}", "final equity",
                         float(self.table[way]["final_equity"]), "money", f"under {way}")
                for way in WAYS
            ),
        ]  # fmt: skip

    def list_parts(self) -> list[Part]:
        lead = (
            "Under worst, each position moves to its own adverse extreme at once, which removes "
            "hedges between markets."
        )
        heads = {way: Head(f"equity under {way}", "", "money") for way in WAYS}
        return [
            Part("measures", "Measures", lead,
                 (ShownTable(self.table, labels=Head("metric"), has_measures=True),),
                 shows="both"),
            Part("bars", "Bars that part", "Equity after the bar.",
                 (ShownTable(self.bars, labels=Head("bar", "UTC"), heads=heads),)),
        ]  # fmt: skip


@core.checked_only("progress", "result")
def bounds(result: Result, *, progress: Progress | None = None) -> Bounds:
    """Return a run under ``Account(intrabar="path")`` and under ``"worst"``, and where they part.

    Parameters
    ----------
    result : Result
        A whole run of this process. It is one of the two; the other is run with the same terms.

    Notes
    -----
    The runs part in a bar if a liquidation, a stop or a take-profit happens in one of them alone,
    or at another price, or if their equity was equal before the bar and is not after it, each by
    more than 1e-9. After the first such bar they may also part because they hold other positions.
    """
    markets = result.markets
    problems = {
        "an account with limit orders: pass detail= to bt.run":
            result.account.fill == "limit",
        "a loaded result: run the experiment again": markets is None,
        "a resumed run: run the whole span at once": result.manifest["resumed_from"] is not None,
        "a re-optimized run: run one policy": "switches" in result.manifest["policy"],
        "a market with decision_interval=: leave it out":
            markets is not None and markets.decision_interval > 0,
    }  # fmt: skip
    for problem, is_true in problems.items():
        if is_true:
            raise core.ParameterError(
                f"bounds run one account from its start under both ways, got {problem}"
            )
    runs = dict.fromkeys(WAYS, result)
    for way in set(WAYS) - {result.account.intrabar}:
        setup = result.setup.change(account=replace(result.account, intrabar=way))
        runs[way] = engine.run_again(result, setup, progress)
    table = pd.DataFrame(
        {way: [float(each.metrics[name]) for name in SHOWN] for way, each in runs.items()},
        index=pd.Index(SHOWN, name="metric"),
    )
    equity = pd.DataFrame({way: each.bars["equity"] for way, each in runs.items()})
    is_same = np.isclose(equity["path"], equity["worst"], rtol=1e-9, atol=0.0)
    is_parted = ~is_same & np.concatenate(([True], is_same[:-1]))
    places = defaultdict[tuple[Any, str], list[tuple[str, str]]]
    one, other = places(list), places(list)  # kind and price, to nine digits
    inside = [each.kind.name for each in INSIDE]
    for found, each in zip((one, other), runs.values(), strict=True):
        for row in each.events[each.events["kind"].isin(inside)].itertuples():
            name = str(getattr(row, "instrument", each.names[0]))
            found[row.time, name].append((str(row.kind), f"{row.price:.9g}"))
    names = pd.Series("", index=equity.index.rename("time"), dtype=object)
    for time, name in {**one, **other}:
        if one.get((time, name)) != other.get((time, name)):
            names[time] = f"{names[time]}, {name}".removeprefix(", ")
            is_parted[equity.index.get_loc(time)] = True
    equity.insert(0, "instruments", names)
    bars = pd.DataFrame(equity.rename_axis("time")[is_parted])
    settings = {"policy": result.manifest["policy"]["text"], "run": result.manifest["id"]}
    return Bounds(table, bars, len(result.time), runs, settings=settings, market=result.markets)

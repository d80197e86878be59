"""sensitivity(): a run under one changed assumption at a time."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from backtest import core, engine, signals
from backtest.core import Progress
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.engine import AnyPolicy, Compile, Conditions, plain
from backtest.engine.run import run
from backtest.market import Market, Markets, as_given, as_markets
from backtest.results import Result
from backtest.results.settings_result import SettingsResult
from backtest.risk.liquidations import describe_terms
from backtest.risk.parameter_steps import ParameterSensitivity, step_parameters
from backtest.risk.path_bars import MARKS, PRICES
from backtest.risk.scenarios import scale_margin, scale_slippage
from backtest.risk.shown_growth import (
    ShownGrowth,
    choose_shown_growth,
    count_account_days,
    describe_start,
)
from backtest.venue import Venue, scale_cost

LEAST_CHANGE = 0.00005
"""Change of growth that is not 0.00 %."""


def change_venue(
    venue: Venue,
    name: str,
    x: float,
) -> dict[str, Any]:
    """Return the terms of a venue that a factor changes by a step x, for ``override``.

    x is added to ``"rates"``, a fraction per year; the other factors are multiplied by it.
    """
    if name == "rates":
        names = []
        if venue.interest_on:
            names = ["borrow_rate", "cash_rate"]
        if venue.interest_on == "loan":
            names.append("short_rate")
        changes = {}
        for rate in names:
            changes[rate] = getattr(venue, rate) + x
        return changes

    if name == "fees":
        changes = {}
        for fee in ("fees.taker", "fees.maker"):
            changes[fee] = scale_cost(venue, fee, x, math.inf)
        return changes

    if name == "slippage":
        impact = venue.slippage.impact * x
        return scale_slippage(venue, x) | {"slippage.impact": impact}

    # The last factor is margin, which a spot market has not.
    if venue.contract.is_spot:
        return {}
    return scale_margin(venue, x)


def scale_moves(market: Market, factor: float) -> Market:
    """Return a market whose volatility is multiplied by a factor.

    Each log move from close to close goes to factor * move + (1 - factor) * mean, so that the mean
    move stays. The first bar has no close before it, and stays.
    """
    logs = np.log(market.close)
    moves = np.diff(logs)
    mean = float(np.mean(moves))

    def scale(move: core.FloatArray) -> core.FloatArray:
        return factor * move + (1.0 - factor) * mean

    # The log closes with scaled moves.
    scaled_path = np.cumsum(scale(moves))
    scaled_logs = logs[0] + np.concatenate([[0.0], scaled_path])

    # All prices of a bar move away from the close before it as its close does.
    close_before = np.concatenate([logs[:1], logs[:-1]])
    scaled_before = np.concatenate([scaled_logs[:1], scaled_logs[:-1]])
    fields = market.fields()
    for name in (*PRICES, *MARKS):
        move = np.log(getattr(market, name)) - close_before
        move[1:] = scale(move[1:])
        fields[name] = np.exp(scaled_before + move)

    # The price of a settlement moves like those of its bar.
    settled = market.funding_time
    bar = np.searchsorted(market.time, settled, side="right") - 1
    bar = np.clip(bar, 0, market.n_bars - 1)
    move = np.log(market.funding_mark) - close_before[bar]
    move = np.where(bar > 0, scale(move), move)
    fields["funding_mark"] = np.exp(scaled_before[bar] + move)
    return Market(**fields, source=f"{market.source}, volatility")


def change_funding(market: Market, rates: core.FloatArray) -> Market:
    """Return a market with other rates of funding, (n_settlements,)."""
    fields = market.fields()
    fields["funding_rate"] = rates
    return Market(**fields, source=f"{market.source}, funding")


OF_MARKET: dict[str, Callable[[Market, float], Market]] = {
    "funding": lambda own, x: change_funding(own, own.funding_rate * x),
    "funding shift": lambda own, x: change_funding(own, own.funding_rate + x),
    "volatility": scale_moves,
}
FACTORS = (
    "rates",
    "funding",
    "funding shift",
    "fees",
    "slippage",
    "margin",
    "volatility",
)
STEPS = {
    "rates": (-0.01, 0.01),
    "funding shift": (-1e-4, 1e-4),
    "volatility": (0.75, 1.25),
}
"""Of the other factors, half and double."""


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
    def names(self) -> dict[str, str]:
        """What factors are called where they are shown: the funding of stocks is dividends."""
        if self.settings.get("has_dividends"):
            return {"funding": "dividends", "funding shift": "dividend shift"}
        return {}

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

        is_changed = len(change) > 0 and bool(change.abs().max() >= LEAST_CHANGE)
        if not is_changed:
            return f"{text}, and no factor changes it."

        most: Any = change.abs().idxmax()
        moved = f"{100.0 * float(change.loc[most]):+z.2f} points"
        factor, size = most
        name = self.names.get(factor, factor)
        step = format_step(factor, size)
        return f"{text}. It depends most on {name}: {step} changes it by {moved}."

    def list_numbers(self) -> list[Headline]:
        shown = choose_shown_growth(self.days)
        name = "total_return"
        if shown.is_yearly:
            name = "growth"
        growth = shown.compound(self.base)
        return [Headline(name, "growth as run", growth, "percent", shown.when)]

    def list_parts(self) -> list[Part]:
        shown = choose_shown_growth(self.days)
        table = self._show_table(shown)
        steps_shown = [format_step(str(name), step) for name, step in table.index]
        table = table.rename(index=self.names, level="factor")
        down, up = "\N{BLACK DOWN-POINTING TRIANGLE}", "\N{BLACK UP-POINTING TRIANGLE}"
        steps = f"for the lowest step ({down}) and the highest ({up})"
        tornado = ShownChart(
            key="tornado",
            title="Tornado",
            caption=f"Change of growth in points, {shown.when}, {steps}.",
            table=100.0 * table["change_of_growth"],
            kind="tornado",
        )

        heads = {
            "step": Head("step"),
            "growth": Head("growth", shown.when, "percent"),
            "change_of_growth": Head("change of growth", shown.when, "signed percent"),
        }
        written = table.reset_index(level="step").assign(step=steps_shown)
        return [
            Part(
                key="factors",
                title="By factor",
                lead="Steps are multiples (x), or shifts.",
                blocks=(
                    tornado,
                    ShownTable(written, labels=Head("factor"), heads=heads),
                    "A change of growth is growth with the step less growth as run.",
                ),
                shows="both",
            )
        ]

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


@core.record_making
@core.checked_only("progress", "factors")
def sensitivity(
    conditions: Conditions,
    policy: AnyPolicy,
    *,
    factors: Sequence[str] | None = None,
    parameters: bool = False,
    compile: Compile = True,  # noqa: A002 - the word of bt.run
    progress: Progress | None = None,
    run_account: Callable[[Conditions], Result] | None = None,
    steps: Mapping[str, Sequence[float]] | None = None,
    as_run: Result | None = None,
) -> Sensitivity | ParameterSensitivity:
    """Answer :meth:`backtest.Backtest.sensitivity`, which documents it.

    ``run_account`` runs the account under changed conditions: that of the policy, unless given.
    ``steps`` are those of some factors, instead of the usual ones, and ``as_run`` is the result
    under unchanged conditions, where it is known.
    """
    if run_account is None:
        run_account = functools.partial(run, policy=policy, compile=compile)
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

    def run_on(markets_then: Markets, venues_then: Mapping[str, Venue]) -> Result:
        """Return the result of the account on other markets or venues."""
        is_first = markets_then is markets and venues_then is venues
        venue: Any = venues_then
        if not isinstance(test.market, Markets):
            venue = next(iter(venues_then.values()))

        with engine.warn_once(is_first=is_first):
            market = as_given(markets_then, test.market)
            changed = test.replace(market=market, venue=venue, signal=signal)
            return run_account(changed)

    if as_run is None:
        as_run = run_on(markets, venues)
    base = float(as_run.metrics["cagr"])

    of_factor = {**STEPS, **(steps or {})}
    rows = []
    for done, name in enumerate(chosen, 1):
        for step in of_factor.get(name, (0.5, 2.0)):
            if name in OF_MARKET:
                changed = run_on(change_markets(markets, name, step), venues)
            else:
                changed = run_on(markets, change_venues(venues, name, step))
            growth = float(changed.metrics["cagr"])
            rows.append((name, step, growth, growth - base))
        core.report_progress(progress, done, len(chosen))

    settings = describe_terms(policy, test) | describe_start(test)
    settings["factors"] = list(chosen)
    spot = [name for name, venue in venues.items() if venue.contract.is_spot]
    if spot:
        settings["unmargined"] = spot
    if markets.sessions:
        settings["has_dividends"] = True
    columns = ["factor", "step", "growth", "change_of_growth"]
    table = pd.DataFrame(rows, columns=columns)
    return Sensitivity(
        table=table.set_index(["factor", "step"]),
        base=base,
        days=count_account_days(test),
        settings=settings,
        market=test.market,
    )


def change_markets(markets: Markets, name: str, step: float) -> Markets:
    """Return the markets under a factor of theirs."""
    change = OF_MARKET[name]
    changed = {instrument: change(market, step) for instrument, market in markets.items()}
    return markets.with_markets(changed)


def change_venues(
    venues: Mapping[str, Venue],
    name: str,
    step: float,
) -> dict[str, Venue]:
    """Return the venues under a factor of theirs."""
    changed = {}
    for instrument, venue in venues.items():
        terms = change_venue(venue, name, step)
        changed[instrument] = venue.override(terms)
    return changed


def choose_factors(
    factors: Sequence[str] | None,
    markets: Markets,
    venues: Mapping[str, Venue],
) -> tuple[str, ...]:
    """Return the factors that are changed: those given, or all with an effect."""
    idle = set()
    if not any(venue.interest_on for venue in venues.values()):
        idle.add("rates")
    if not any(market.funding_time.size for market in markets.values()):
        idle |= {"funding", "funding shift"}
    if all(venue.contract.is_spot for venue in venues.values()):
        idle.add("margin")

    known = [name for name in FACTORS if name not in idle]
    if factors is None:
        return tuple(known)
    if not factors:
        raise core.ParameterError("factors must be a list of names, got none")
    choice = core.Choice(*known)  # of those with an effect on venue and market
    checked = [choice.check("a factor", name) for name in factors]
    return tuple(dict.fromkeys(checked))

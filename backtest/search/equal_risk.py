"""Equal risk: an account, or a constant leverage on its terms, scaled to a given volatility."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

import numpy as np

from backtest import core
from backtest.engine import run_again
from backtest.engine.policies import observe_policies
from backtest.market import Market, find_clock, read_weights
from backtest.policies import AccountView, Bar, Columns, Policy
from backtest.results import compound_growth
from backtest.results.performance import LEAST_DEVIATION
from backtest.results.result import EqualRisk, Lack, Result
from backtest.results.run_record import measure_holding, shows_growth

BUY_AND_HOLD = "buy and hold"
CONSTANT = "constant leverage at equal risk"
"""The benchmark lines of an account."""
MOST_RUNS = 6
"""The most runs of one account in the search for its scale."""
MOST_PLAIN = 2_000
"""Bars times instruments up to which an account in plain Python gets its line at equal risk."""
EXACT = 1e-6
"""The relative distance from the target volatility at which the search ends."""
NEAR = 0.01
"""The relative distance up to which the risk of two accounts counts as equal."""
ELASTICITY = (0.25, 4.0)
"""Bounds on the elasticity of volatility to scale, for the next step of the search."""
SCAN_STEP = 0.005
"""The relative step between scales that are tried where the secant search fails."""
SCAN_STEPS = 8
"""The steps to each side that are tried then: up to 4 % of the scale."""
SCAN_BANDS = (1.0, 0.95, 1.05)
"""The factors on the no-trade band of a constant leverage that are tried at each of them."""
SCAN_WITHIN = 0.25
"""The relative distance from the target volatility beyond which no scan is made."""


class ScaledAccount(NamedTuple):
    """An account at a scale of its positions, and the annual volatility that it should have.

    ``volatility`` is that at scale 1.
    """

    result: Result
    scale: float
    volatility: float
    target: float

    @property
    def distance(self) -> float:
        return abs(self.result.metrics["volatility"] / self.target - 1.0)

    @property
    def rest(self) -> float:
        """Return by what returns are still to be multiplied; 1 where they cannot be."""
        if not self.distance <= NEAR:
            return 1.0
        rest = self.target / self.result.metrics["volatility"]
        is_survived = rest * float(self.result.returns.min()) > -1.0
        return rest if is_survived else 1.0


def scale_to_volatility(
    result: Result,
    target: float,
    most: float = 1.0,
    exact: float = EXACT,
    run_at: Callable[[float, ScaledAccount, float], Result] | None = None,
    band_factors: Sequence[float] = (1.0,),
) -> ScaledAccount:
    """Scale all positions of an account, and run it again, until it has an annual volatility.

    ``most`` is the largest scale; ``run_at`` returns the account at a scale, given the nearest one
    so far and a factor on its no-trade band. Secant steps in logarithms: ln c <- ln c +
    ln(target / sigma) / e, with the elasticity e = 1 at first, and then d ln sigma / d ln c of the
    last two runs. The nearest of at most 6 runs is returned; ``distance`` says how near, ``exact``
    how near suffices. Where none of them is within 1 %, :func:`scan_scales` looks around the
    nearest, with each of ``band_factors``.
    """

    def run_scaled(scale: float, nearest: ScaledAccount, band_factor: float) -> ScaledAccount:
        if run_at is None:
            run = run_again(result, result.setup.scale(scale))
        else:
            run = run_at(scale, nearest, band_factor)
        return nearest._replace(result=run, scale=scale)

    volatility = result.metrics["volatility"]
    best = ScaledAccount(result, 1.0, volatility, target)
    scale = 1.0
    elasticity = 1.0
    for _ in range(MOST_RUNS):
        if best.distance <= exact or not volatility > LEAST_DEVIATION:
            break

        step = math.exp(math.log(target / volatility) / elasticity)
        scale_before = scale
        scale = min(most, scale * step)
        scaled = run_scaled(scale, best, 1.0)
        if scaled.distance < best.distance:
            best = scaled

        # The elasticity between the last two runs is that of the next step.
        volatility_before = volatility
        volatility = scaled.result.metrics["volatility"]
        if not volatility > LEAST_DEVIATION or scale == scale_before:
            break
        change = math.log(volatility / volatility_before)
        elasticity = float(np.clip(change / math.log(scale / scale_before), *ELASTICITY))

    if not is_worth_a_scan(best):
        return best
    return scan_scales(best, most, band_factors, run_scaled)


def is_worth_a_scan(nearest: ScaledAccount) -> bool:
    """Return whether other scales beside that of an account may have the volatility it lacks.

    Far from the target, and after a liquidation, it is not the search that failed.
    """
    metrics = nearest.result.metrics
    if metrics["ruined"] or metrics["liquidations"]:
        return False
    return NEAR < nearest.distance <= SCAN_WITHIN


def scan_scales(
    nearest: ScaledAccount,
    most: float,
    band_factors: Sequence[float],
    run_scaled: Callable[[float, ScaledAccount, float], ScaledAccount],
) -> ScaledAccount:
    """Return the first account within 1 % of its volatility, outward from a scale.

    A no-trade band makes volatility jump as the scale or the band changes, as other bars trade: it
    neither rises throughout nor reaches each value, and secant steps miss it. What is tried is a
    fixed grid of scales to both sides, at most ``most``, each with some factors on the band;
    without one within 1 %, the nearest is returned.
    """
    best = nearest
    for place in range(2 * SCAN_STEPS):
        side = -1.0 if place % 2 else 1.0
        steps = 1 + place // 2
        scale = nearest.scale * math.exp(side * steps * SCAN_STEP)
        if scale > most:
            continue

        for band_factor in band_factors:
            scaled = run_scaled(scale, nearest, band_factor)
            if scaled.distance < best.distance:
                best = scaled
            if best.distance <= NEAR:
                return best
    return best


class ConstantLeverage(Policy):
    """Hold what the signal asks for, and trade only where the position is over a band away from it.

    ``asked`` is signed leverage, NaN before the account begins to decide. Without a band it trades
    at each bar. The account that holds this policy has no band of its own: a flat one opens however
    little is asked, and a signal that turns is followed.
    """

    band: Annotated[float, core.Range(0.0, math.inf, "x of equity")] = 0.0

    def observe(self, market: Market) -> Columns:
        """Return that nothing is asked; :func:`set_up_constant` gives what is."""
        return {"asked": np.full(market.n_bars, np.nan)}

    def leverage(self, bar: Bar, account: AccountView) -> float:
        """Return 1, which the engine multiplies by the signal, or NaN inside the band."""
        held = account.leverage
        if math.isnan(bar.asked):
            return math.nan
        if held == 0.0 or held * bar.asked < 0.0 or abs(bar.asked - held) > self.band:
            return 1.0
        return math.nan


class Decisions(NamedTuple):
    """When an account decided first, and what it held from then on.

    ``first`` are closes in ns, of shape (n_instruments,), after the last bar where there is none.
    ``gross`` is the mean gross leverage from the earliest of them on.
    """

    first: core.IntArray
    gross: float


def read_decisions(result: Any) -> Decisions:
    """Return when the policies of an account first decided, and its gross leverage from then on."""
    is_decided = ~np.isnan(result.of_positions("target"))
    closes = result.span.closes
    earliest = closes[np.argmax(is_decided, axis=0)]
    first = np.where(is_decided.any(axis=0), earliest, closes[-1] + 1)
    return Decisions(first, measure_gross(result, int(first.min())))


def measure_gross(result: Any, since: int) -> float:
    """Return the mean gross leverage of an account at the closes from a time (ns) on; 0 if none."""
    equity = result.of_account("equity")
    is_counted = (result.span.closes >= since) & (equity > 0.0)
    if not is_counted.any():
        return 0.0
    gross = np.abs(result.notionals[is_counted]).sum(axis=1)
    return float(np.mean(gross / equity[is_counted]))


def set_up_constant(
    setup: Any,
    scale: float,
    decided: Decisions,
    band_share: float,
) -> Any:
    """Return the setup of a constant leverage, on the terms of the account of another setup.

    It holds the signal times ``scale``, and nothing before the close at which the policy of the
    account first decided (``decided``). ``band_share`` is what the account's no-trade bands, by
    instrument, are multiplied by. Each band is kept either by the policy or by the account, never
    by both.
    """
    account, policies = place_bands(setup, band_share)
    clock = find_clock(setup.markets)

    # Columns are observed on the bars at which policies decide. An overlay sees the index of the
    # account's own weights, whatever they are scaled by.
    observed = observe_policies(
        policies,
        setup.overlay,
        clock.seen,
        setup.venues,
        clock.pick(setup.signal),
        is_checked=False,
    )

    # What is asked of each instrument, over the bars that it has.
    signal = setup.signal * scale
    asked_of_all = clock.pick(signal)
    closes = clock.seen.time + clock.seen.interval
    for place, (first, stop) in enumerate(clock.seen.spans.tolist()):
        is_too_early = closes < decided.first[place]
        asked = np.where(is_too_early, np.nan, asked_of_all[place])
        observed[place] = observed[place]._replace(columns={"asked": asked[first:stop]})

    given = float(signal[0]) if signal.size == 1 else signal
    return setup.change(
        policies=policies,
        observed=observed,
        account=account,
        signal=signal,
        given=given,
    )


def place_bands(setup: Any, band_share: float) -> tuple[Any, dict[str, ConstantLeverage]]:
    """Return the account and the policies of a constant leverage, by instrument.

    No-trade bands, times ``band_share``, are kept by the policies, as :class:`ConstantLeverage`
    says, and the account has none. An overlay moves targets after the policies, which do not see
    it: with one, the account keeps the bands and its limits of leverage.
    """
    names = setup.markets.names
    bands = {name: band_share * core.pick_value(setup.account.band, name) for name in names}
    if setup.overlay is not None:
        account = replace(setup.account, band=bands)
        return account, dict.fromkeys(names, ConstantLeverage())

    # The limits were those of another policy, and would cut this one.
    account = replace(
        setup.account,
        band=0.0,
        min_leverage=0.0,
        max_leverage=math.inf,
    )
    return account, {name: ConstantLeverage(band=band) for name, band in bands.items()}


def hold_market(setup: Any) -> Any:
    """Return the setup of an account that is long in all of its market, without its signal."""
    clock = find_clock(setup.markets)
    weights = clock.hold(read_weights(None, clock.seen))
    return setup.change(signal=weights, given=None)


def explain_lack(result: Any) -> str:
    """Return why constant leverage cannot have the risk of an account; empty if it can."""
    if result.options is not None:
        return "options have no leverage of their own"
    if result.metrics["ruined"]:
        return "the account was ruined"
    if not result.metrics["volatility"] > LEAST_DEVIATION:
        return "the account held nothing"
    return ""


def hold_at_equal_risk(
    result: Any,
    like: Any = None,
    *,
    volatility: float | None = None,
    exact: float = EXACT,
    is_unsignalled: bool = False,
) -> ScaledAccount | Lack:
    """Return a constant leverage on the terms of an account, at its annual volatility or another.

    It trades the same bars and signal, under the same overlay, at the same costs and margin, from
    the bar at which the policy first decided. Its band is that of the account, times its own mean
    gross leverage over that of the policy. The scale is known only afterwards: to compare, not to
    trade. Where there is none, a ``Lack`` says why.

    Parameters
    ----------
    result : Result
        The account whose terms it has, run and not loaded.
    like : Result, optional
        The account whose volatility and decisions it has, where that is another: a walk, whose
        parameters changed on the way, cannot be run again. Default: ``result``.
    volatility : float, optional
        Annual volatility to reach. Default: that of ``like``.
    exact : float
        The distance to it, as a share, at which the search ends.
    is_unsignalled : bool
        Hold every instrument long with equal weights, whatever the signal is.
    """
    if like is None:
        like = result
    if result.setup is None:
        return Lack("a loaded result cannot be run again")
    why = explain_lack(like)
    if why:
        return Lack(why)

    setup = hold_market(result.setup) if is_unsignalled else result.setup
    decided = read_decisions(like)

    def run_constant(scale: float, band_share: float) -> Result:
        return run_again(result, set_up_constant(setup, scale, decided, band_share))

    def run_at(scale: float, nearest: ScaledAccount, band_factor: float) -> Result:
        """Run the constant leverage at a scale, with the band that is proportional to it.

        Its gross leverage is that of the nearest run so far, times the change of scale: but for
        costs the two are proportional.
        """
        if not decided.gross > 0.0:
            return run_constant(scale, band_share=band_factor)
        gross_of_nearest = measure_gross(nearest.result, int(decided.first.min()))
        gross = gross_of_nearest * scale / nearest.scale
        return run_constant(scale, band_share=band_factor * gross / decided.gross)

    # Before the first run no gross leverage is known: it has the bands of the account.
    target = like.metrics["volatility"] if volatility is None else volatility
    has_band = any(core.list_values(setup.account.band))
    return scale_to_volatility(
        run_constant(1.0, band_share=1.0),
        target,
        most=math.inf,
        exact=exact,
        run_at=run_at,
        band_factors=SCAN_BANDS if has_band else (1.0,),
    )


def explain_distance(held: ScaledAccount) -> str:
    """Return why a constant leverage has not the volatility of an account; empty within 1 %."""
    if held.distance <= NEAR:
        return ""
    metrics = held.result.metrics
    if metrics["ruined"] or metrics["liquidations"]:
        return "constant leverage is liquidated on the way"
    return f"no constant leverage was found within {100.0 * NEAR:.0f} % of its volatility"


@core.checked
def equal_risk(result: Result) -> EqualRisk:
    """Return the constant leverage on the terms of an account that had its volatility, within 1 %.

    Costs are included, and it holds from the bar at which the policy first decided. It is chosen in
    hindsight: to compare, not to trade. It takes a few runs, and is saved with the result.

    Parameters
    ----------
    result : Result
        An account, run or loaded.

    Raises
    ------
    ParameterError
        If there is none, saying why: a ruined account, one that held nothing or options, and one
        whose volatility no constant leverage reaches without a liquidation.
    """
    held = result._constant
    if isinstance(held, Lack):
        raise core.ParameterError(f"no constant leverage has the risk of this account: {held.why}")
    return held


def find_equal_risk(result: Any) -> EqualRisk | Lack:
    """Return the constant leverage with the account's volatility, within 1 %, or why there is none.

    A long account in plain Python has none, as it takes some runs.
    """
    is_long = len(result.time) * len(result.names) > MOST_PLAIN
    if is_long and result.manifest["compiled"] != "yes":
        return Lack(f"runs in plain Python of over {MOST_PLAIN:,} bars are not repeated")

    held = hold_at_equal_risk(result, exact=NEAR)
    if isinstance(held, Lack):
        return held
    why = explain_distance(held)
    if why:
        return Lack(why)
    unit = held.result.of_account("unit") / held.result.tally.first_unit
    return EqualRisk(held.scale, unit, float(held.result.metrics["final_equity"]))


def measure_market(result: Result) -> dict[str, float]:
    """Return the measures of buying and holding the market, or its index, without costs."""
    held = measure_holding(result)
    return {
        "total_return": float(held.total_return),
        "volatility": float(held.volatility),
        "sharpe": float(held.sharpe),
        "max_drawdown": float(held.max_drawdown),
        "cagr": float(compound_growth(1.0 + held.total_return, result.span.years)),
    }


def name_better(
    lines: Mapping[str, Mapping[str, float]],
    metrics: Mapping[str, float],
    whose: str = "its",
    *,
    days: float,
) -> str:
    """Return the benchmark lines that grew more than an account, as a clause; empty if none did.

    Of ``days`` too few for growth per year, growth is that of the whole time.
    """
    better = []
    for name, line in lines.items():
        if line["cagr"] > metrics["cagr"]:
            better.append(f"{name} grew by {describe_growth(line, days)}")
    if not better:
        return ""
    return f"{' and '.join(better)}, more than {whose} {describe_growth(metrics, days)}"


def describe_growth(metrics: Mapping[str, float], days: float) -> str:
    """Return the growth of an account and its volatility, as a clause."""
    growth = f"{core.format_percent(metrics['total_return'])} in {days:,.0f} days"
    if shows_growth(days):
        growth = f"{core.format_percent(metrics['cagr'])} a year"
    return f"{growth} at a volatility of {core.format_percent(metrics['volatility'])}"


def find_growth(result: Result) -> float:
    """Return the log growth of the unit value per year; -inf after ruin."""
    if result.metrics["ruined"]:
        return -math.inf
    return float(np.sum(np.log1p(result.returns.to_numpy()))) / result.span.years

"""crowding(): what a policy earns as more of the market runs it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.account import Account
from backtest.base import (
    ParameterError,
    Place,
    Range,
    check_range,
    checked_only,
    parse_duration,
    record_making,
    to_plain,
)
from backtest.base.units import DAY, YEAR_DAYS
from backtest.crowd.crowding_record import Crowding, build_crowding_manifest
from backtest.crowd.impact import Impact, ImpactCurve, check_impact
from backtest.crowd.impacted_market import Crowded, Solved, move_prices, solve_market
from backtest.engine import check_kinds, run, value_of
from backtest.engine.run_warnings import OF_EACH_RUN
from backtest.market import Market, Markets, unwrap_market
from backtest.policy import Policy
from backtest.venue import Venue

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray
    from backtest.engine import Result

WHERE = "bt.crowding"
PROBES = 8
"""How many bars the answer of the policy to a move is measured at."""


class SharedTerms(NamedTuple):
    """What all shares have in common; ``open_interest`` is money, ``decay`` is per bar."""

    market: Market
    policy: Policy
    open_interest: float
    curve: ImpactCurve
    decay: float
    terms: dict[str, Any]
    starts: IntArray
    horizon: int


@record_making
@checked_only("progress", "market")
def crowding(  # noqa: PLR0913 - keywords, each with a default that is said
    policy: Policy,
    market: Market | Markets,
    *,
    venue: Venue,
    account: Account,
    open_interest: float,
    impact: Impact,
    recovery: str | None = None,
    shares: Sequence[float] = (0.0, 0.01, 0.05, 0.2),
    volume: float | None = None,
    signal: pd.Series | FloatArray | float | None = None,
    shock: float = 0.01,
    starts: int = 12,
    horizon: str = "30d",
    sampling: str = "1d",
    calendar: str = "365",
    compile: bool = True,  # noqa: A002 - the word users know
    progress: Callable[[int, int], None] | None = None,
) -> Crowding:
    """Run a policy while a share of the open interest runs it too.

    Parameters
    ----------
    policy : Policy
        The policy that the crowd runs.
    market, venue, account, signal, sampling, calendar, compile
        As in :func:`backtest.run`.
    open_interest : float
        The notional of all leveraged positions, in the settlement currency. The crowd's mean
        notional without impact is ``share`` times that.
    impact : SquareRoot or Linear
        How the crowd's flow of each bar moves that bar's open.
    recovery : str, optional
        The half-life of the impact; None: it stays.
    shares : sequence of float
        The shares of the open interest that run the policy, from 0 to 1.
    volume : float, optional
        The money traded per day; that of the last 30 days of the market by default.
    shock : float
        The fall at which the reproduction number is measured, a fraction.
    starts, horizon : int, str
        The probability of liquidation is the share of accounts liquidated within ``horizon``, of
        ``starts`` accounts that begin at equal distances. 0 for none.
    progress : callable, optional
        Called with shares done and shares in all.

    Returns
    -------
    Crowding

    Raises
    ------
    ParameterError
        If an argument is out of its range, or the policy never holds a position.
    PolicyError
        As :func:`backtest.run`.

    Notes
    -----
    A share of 0 is :func:`backtest.run`. The reproduction number is the fall that the crowd's
    sales after a fall of ``shock`` make, over ``shock``; from 1 on it is unstable. For a constant
    leverage L and linear impact it is ``k W L (L - 1)``. A row that does not clear (``clears`` is
    False) has no price that its own flow makes; its measures are NaN.
    """
    alone = unwrap_market(market)
    check_kinds(alone, policy, venue, account, None)
    known = read_shares(shares)
    setting = read_setting(
        policy, alone, venue, account, open_interest, impact, recovery, volume,
        {"signal": signal, "sampling": sampling, "calendar": calendar, "compile": compile},
        starts, horizon,
    )  # fmt: skip
    check_range("shock", shock, where=Place("shock", of=WHERE), low=0.0, high=0.5, open_low=True)
    with warnings.catch_warnings():
        for category in OF_EACH_RUN:
            warnings.simplefilter("ignore", category)
        base = solve_market(alone, [Crowded(policy, 0.0)], setting.curve, 1.0, setting.terms)
        unit = find_accounts(base.results[0], setting.open_interest)
        answer = measure_answer(setting, base.results[0], shock) * unit
        rows, results = [], {}
        for number, share in enumerate(known, start=1):
            solved = base if share == 0.0 else solve_market(
                alone, [Crowded(policy, share * unit)], setting.curve, setting.decay, setting.terms
            )  # fmt: skip
            reproduction = find_reproduction(setting.curve, share * answer, shock)
            rows.append(measure_share(setting, share, solved, reproduction))
            results[share] = solved.results[0]
            if progress is not None:
                progress(number, len(known))
    facts = {
        "critical_share": find_critical_share(setting.curve, answer, shock),
        "answer": answer / setting.open_interest / shock,
    }
    arguments = {
        "open_interest": setting.open_interest,
        "impact": impact.to_dict() | {"law": type(impact).__name__},
        "curve": setting.curve._asdict(),
        "recovery": recovery,
        "shares": known,
        "shock": float(shock),
        "starts": len(setting.starts),
        "horizon": horizon,
    }
    manifest = build_crowding_manifest(base.results[0], to_plain(facts), to_plain(arguments))
    return Crowding({"table": pd.DataFrame(rows)}, manifest, results)


def read_shares(shares: Sequence[float]) -> list[float]:
    if isinstance(shares, str) or not isinstance(shares, Sequence) or not len(shares):
        raise ParameterError(
            f"shares must be numbers from 0 to 1, got {shares!r:.60}",
            where=Place("shares", of=WHERE),
            cure="pass shares=(0, .01, .05, .2), for example",
        )
    where = Place("shares", of=WHERE)
    return [check_range("share", each, where=where, low=0.0, high=1.0) for each in shares]


def read_setting(
    policy: Policy, market: Market, venue: Venue, account: Account, open_interest: float,
    impact: Impact, recovery: str | None, volume: float | None, terms: dict[str, Any],
    starts: int, horizon: str,
) -> SharedTerms:  # fmt: skip
    check_range("open_interest", open_interest, where=Place("open_interest", of=WHERE), low=0.0,
                high=1e300, open_low=True)  # fmt: skip
    n = int(Range(0, 10_000).check("starts", starts, where=Place("starts", of=WHERE), whole=True))
    length = parse_duration(horizon, where=Place("horizon", of=WHERE)) // market.interval
    latest = market.n_bars - length - 1
    if n and latest < 1:
        raise ParameterError(
            f"the market must be longer than the horizon {horizon}, got {market.n_bars} bars",
            where=Place("horizon", of=WHERE),
            cure="give a shorter horizon, or starts=0 for no probability of liquidation",
        )
    curve = check_impact(impact, where=WHERE).curve(
        volume=volume, market=market, contract=venue.contract
    )
    return SharedTerms(
        market=market,
        policy=policy,
        open_interest=float(open_interest),
        curve=curve,
        decay=find_decay(recovery, market.interval),
        terms={"venue": venue, "account": account, **terms},
        starts=np.unique(np.linspace(0, latest, n).astype(np.int64))
        if n
        else np.zeros(0, np.int64),
        horizon=int(length),
    )


def find_decay(recovery: str | None, interval: int) -> float:
    if recovery is None:
        return 1.0
    return float(0.5 ** (interval / parse_duration(recovery, where=Place("recovery", of=WHERE))))


def find_accounts(result: Result, money: float) -> float:
    position = result.of_positions("quantity")[:, 0]
    notional = np.abs(position * value_of(result.venue, result.close))
    held = notional[notional > 0.0]
    if not len(held):
        raise ParameterError(
            "the policy must hold a position, it never did",
            where=f"{WHERE}, {type(result.policy).__name__}",
            cure="give a longer market, or a policy that trades in it",
        )
    return money / float(np.mean(held))


# ------------------------------------------------------------------------------------ measurement


def measure_share(
    setting: SharedTerms, share: float, solved: Solved, reproduction: float
) -> dict[str, Any]:
    known = {"share": share, "reproduction": reproduction, "clears": solved.found.clears,
             "rounds": solved.found.rounds}  # fmt: skip
    nothing = dict.fromkeys(
        ("growth", "liquidation_probability", "cagr", "volatility", "sharpe", "max_drawdown",
         "liquidations", "largest_move"), math.nan,
    )  # fmt: skip
    if not solved.found.clears:
        return {**nothing, **known}
    result = solved.results[0]
    metrics = result.metrics
    return {
        "share": share,
        "growth": measure_growth(result),
        "liquidation_probability": measure_liquidations(setting, solved.market),
        **{name: float(metrics[name])
           for name in ("cagr", "volatility", "sharpe", "max_drawdown", "liquidations")},
        "largest_move": float(np.max(np.abs(solved.found.values))),
        **known,
    }  # fmt: skip


def measure_growth(result: Result) -> float:
    """Return the log growth per year; -inf after ruin."""
    total = 1.0 + float(result.metrics["total_return"])
    years = (result.last_time - result.span.start) / (YEAR_DAYS * DAY)
    return math.log(total) / years if total > 0.0 else -math.inf


def measure_liquidations(setting: SharedTerms, market: Market) -> float:
    if not len(setting.starts):
        return math.nan
    hit = 0
    for first in setting.starts.tolist():
        part = market.prefix(first + setting.horizon + 1)
        result = run(part, setting.policy, start=pd.Timestamp(int(part.time[first]), tz="UTC"),
                     **slice_signal(setting.terms, part))  # fmt: skip
        hit += result.metrics["liquidations"] > 0
    return hit / len(setting.starts)


def slice_signal(terms: dict[str, Any], part: Market) -> dict[str, Any]:
    signal = terms["signal"]
    if isinstance(signal, pd.Series):
        times = pd.DatetimeIndex(signal.index)
        last = pd.Timestamp(int(part.time[-1]), tz="UTC")
        return {**terms, "signal": signal[times <= (last if times.tz else last.tz_localize(None))]}
    return {**terms, "signal": signal[: len(part)]} if np.ndim(signal) == 1 else terms


def measure_answer(setting: SharedTerms, base: Result, shock: float) -> float:
    market = setting.market
    position = base.of_positions("quantity")[:, 0]
    held = np.flatnonzero(position[:-2] != 0.0)
    bars = np.unique(held[np.linspace(0, len(held) - 1, PROBES).astype(np.int64)])
    answers = []
    for bar in bars[bars > 0].tolist():
        fall = np.zeros(market.n_bars)
        fall[bar + 1 :] = shock
        part = move_prices(market, fall).prefix(bar + 3)
        moved = run(part, setting.policy, **slice_signal(setting.terms, part))
        after = moved.of_positions("quantity")[:, 0][-1]
        value = abs(float(value_of(moved.venue, np.asarray(part.open[-1]))))
        answers.append((position[bar + 2] - after) * value)
    return float(np.mean(answers)) if answers else 0.0


def find_reproduction(curve: ImpactCurve, sold: float, shock: float) -> float:
    return float(curve.fall(sold)) / shock


def find_critical_share(curve: ImpactCurve, answer: float, shock: float) -> float:
    if answer <= 0.0 or curve.factor == 0.0:
        return math.inf
    return curve.flow_of(shock) / answer

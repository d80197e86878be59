"""Whether a policy survives: probabilities of loss, its largest scale, and crashes replayed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest.core.number_text import NOT_AVAILABLE
from backtest.engine import plain
from backtest.judgement.accounts import JudgedAccount, fix_direction
from backtest.judgement.growth import measure_growth
from backtest.results import Result
from backtest.risk.largest_leverage import search_paths
from backtest.risk.leverage_sizes import find_binding_factor, find_cap
from backtest.risk.liquidations import (
    BY_MODEL,
    LiquidationRisk,
    RiskTerms,
    measure_risk,
    name_interval,
)
from backtest.risk.path_runner import PathsRunner
from backtest.risk.paths import Paths, choose_funding, simulate_paths
from backtest.risk.stress import replay_crashes

MODEL = "filtered"
MONTH = "30d"
YEAR = "365d"
HORIZONS = {MONTH: ("7d", MONTH), YEAR: (YEAR,)}
"""Horizons by the length of the paths that answer them: a year of hours takes fewer paths."""
YEAR_SHARE = 8
"""Paths of a month to one of a year."""
LEAST_PATHS = 2_000
"""Paths of a month, so that 20 are liquidated at the limit."""
SAFE = 0.01
"""The largest probability of losing the account in 30 days that is safe."""
DISASTER = 0.5
"""The drawdown on history from which a largest scale is shown as no size to trade."""
EVALUATIONS = 7
"""Scales of a policy that are tried."""
LOW, HIGH = name_interval(BY_MODEL)
RISKS = {
    "probability": "probability",
    BY_MODEL: "paths",
    LOW: "low",
    HIGH: "high",
    "history": "history",
    "history_high": "history_high",
    "history_starts": "starts",
    "history_apart": "starts_apart",
}
"""Columns of a risk, and what they are called here."""


def draw_paths(
    account: JudgedAccount,
    horizon: str,
    count: int,
    seed: int,
    model: Any = MODEL,
) -> Paths:
    test = plain(account.test)
    funding: Any = choose_funding(test.venue)
    return simulate_paths(
        test.market,
        model,
        paths=count,
        horizon=horizon,
        seed=seed,
        funding=funding,
    )


def choose_model(drawn: Paths) -> Any:
    """Return the model that paths of one instrument were drawn by, so that it is fitted once."""
    if len(drawn.models) > 1:
        return MODEL
    (model,) = drawn.models.values()
    return model


def open_account(
    account: JudgedAccount,
    drawn: Paths,
    *,
    compile: bool,  # noqa: A002 - the word of bt.run
    is_trusted: bool = False,
) -> PathsRunner:
    """Return a new account of the policy on paths; its first decision is that of the last close."""
    test = fix_direction(account)
    return PathsRunner(drawn, account.policy, test, compile=compile, is_trusted=is_trusted)


def read_first_leverage(opened: PathsRunner) -> float:
    """Return the gross leverage that a new account decides at the last close; NaN if it does not.

    It is that before the limits of the account and of margin, and the same on all paths.
    """
    path = opened.run_path(0)
    target = path.of_positions("target")[0]  # (n_instruments,), of the first close
    signal = path.quotes.signal[0]
    return float(np.abs(signal * target).sum())


def measure_risks(
    account: JudgedAccount,
    opened: PathsRunner,
    seed: int,
    *,
    threads: int,
    compile: bool,  # noqa: A002 - the word of bt.run
) -> Iterator[LiquidationRisk]:
    """Yield how likely a new account of the policy is lost within a month, and within a year.

    ``opened`` is that account on the paths of a month. What the policy observes was checked for
    look-ahead on them, and is not again on those of a year.
    """
    yield measure_risk(opened, RiskTerms(HORIZONS[MONTH]), threads=threads)

    month = opened.paths
    count = max(month.count // YEAR_SHARE, 1)
    year = draw_paths(account, YEAR, count, seed, model=choose_model(month))
    opened_for_a_year = open_account(account, year, compile=compile, is_trusted=True)
    yield measure_risk(opened_for_a_year, RiskTerms(HORIZONS[YEAR]), threads=threads)


def list_horizons(risk: LiquidationRisk) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the horizons of a risk, and what a judgement says of each."""
    n_paths = risk.settings["paths"]["paths"]
    for horizon, row in risk.table.iterrows():
        chances: dict[str, Any] = {name: float(row[column]) for column, name in RISKS.items()}
        chances["n"] = n_paths
        chances["why"] = ""
        yield str(horizon), chances


def judge_scale(
    account: JudgedAccount,
    risk: LiquidationRisk,
    *,
    score: bool,
    threads: int,
    compile: bool,  # noqa: A002 - the word of bt.run
) -> tuple[dict[str, Any], pd.DataFrame | None]:
    """Return the largest factor on a policy that is lost in 30 days with 1 % at most.

    ``risk`` is that of a month, whose paths and history all factors see. The row also has
    what the policy times the factor grew by on history, as one account. With it come the scores of
    that factor, held at past dates, if they are asked for.
    """
    drawn: Any = risk.paths
    largest = search_paths(
        fix_direction(account),
        account.policy,
        [drawn],
        probability=SAFE,
        horizon=MONTH,
        evaluations=EVALUATIONS,
        score=score,
        risk=risk,
        threads=threads,
        compile=compile,
    )

    scaled = account.run_scaled(largest.leverage, compile=compile)
    limits = {
        "largest_scale": largest.leverage,
        "is_limited": largest.is_limited,
        "evaluations": len(largest.grid),
        "growth_at_scale": measure_growth(scaled),
        "drawdown_at_scale": float(scaled.metrics["max_drawdown"]),
        **describe_cap(account.result, scaled, largest.leverage),
    }
    return limits, largest.scores


def describe_cap(result: Result, scaled: Result, scale: float) -> dict[str, Any]:
    """Return which limit of venue or account cuts a policy times a scale, and from which scale on.

    That is about the leverage which the limit leaves over the largest one that the policy decides.
    """
    cap = find_cap(scaled)
    if cap is None:
        return {
            "cap": "",
            "cap_share": 0.0,
            "cap_leverage": math.nan,
            "cap_from": math.nan,
        }

    cap_from = find_binding_factor(cap, result)
    return {
        "cap": cap.cause,
        "cap_share": cap.share,
        "cap_leverage": cap.leverage,
        "cap_from": min(cap_from, scale),
    }


def judge_crashes(account: JudgedAccount) -> dict[str, Any]:
    """Return the worst crash of history that the account survives, and the first that it does not.

    Crashes are ordered by how far the mark falls in them.
    """
    outcomes = replay_crashes(account.result)
    falls = {name: outcome.fall for name, outcome in outcomes.items()}
    survived = [name for name in falls if not outcomes[name].row["liquidated"]]
    fatal = [name for name in falls if outcomes[name].row["liquidated"]]

    worst_survived = max(survived, key=falls.__getitem__, default="")
    first_fatal = min(fatal, key=falls.__getitem__, default="")
    return {
        "n_crashes": len(falls),
        "n_survived": len(survived),
        "survived": worst_survived,
        "survived_fall": falls.get(worst_survived, math.nan),
        "fatal": first_fatal,
        "fatal_fall": falls.get(first_fatal, math.nan),
    }


class Danger(NamedTuple):
    """The highest probability of a loss in 30 days, NaN if none is known, and whose it is.

    ``source`` is ``"paths"`` or ``"history"``.
    """

    market: str
    source: str
    chance: float


def find_worst(rows: dict[tuple[str, str], dict[str, Any]]) -> Danger:
    """Return the worst danger of ``rows``, which are by market and horizon.

    Of every market the larger of paths and history counts.
    """
    worst = Danger("", "", math.nan)
    for (market, horizon), row in rows.items():
        if horizon != MONTH:
            continue

        for source in ("paths", "history"):
            chance = float(row.get(source, math.nan))
            if chance > worst.chance or math.isnan(worst.chance):
                worst = Danger(market, source, chance)
    return worst


def write_chance(row: dict[str, Any]) -> str:
    """Return one horizon as a clause: by paths, and by history."""
    if row["why"]:
        return f"not tested: {row['why']}"

    chance = core.format_chance(row["paths"])
    low = core.format_chance(row["low"])
    high = core.format_chance(row["high"])
    by_paths = f"paths {chance} ({low} to {high}, n {row['n']:,})"
    if math.isnan(row["history"]):
        return f"{by_paths}; history too short"

    share = core.format_chance(row["history"])
    most = core.format_chance(row["history_high"])
    starts = f"n {row['starts']:,.0f}, {row['starts_apart']:,.0f} apart"
    return f"{by_paths}; history {share} (at most {most}, {starts})"


def write_first_leverage(limits: dict[str, Any]) -> str:
    """Return whose leverage counts: that of a new account for risks, of the run for crashes."""
    return (
        f"a new account decides {write_leverage(limits['first_leverage'])} at the last close; "
        f"the account of the run, which the crashes meet, has "
        f"{write_leverage(limits['leverage_today'])}"
    )


def write_leverage(leverage: float) -> str:
    if math.isnan(leverage):
        return "nothing"
    return f"{leverage:z.2f}x"


def write_scale(limits: dict[str, Any], paths: int, *, is_walk: bool = False) -> str:
    """Return the largest scale as a row of the progress; first what makes it no size to trade."""
    scale = f"{limits['largest_scale']:.3g}"
    bound = f"{core.format_chance(SAFE)} in {MONTH}"
    tried = f"n {paths:,} paths, {limits['evaluations']} scales tried"
    answer = f"largest scale {scale} at {bound}"
    if limits["is_limited"]:
        answer = f"no scale up to {scale}, the end of the search, is lost with over {bound}"

    if is_walk:
        answer = f"{answer}, by the last fold's set"

    clauses = [f"{answer} ({tried})"]
    there = write_history_at_scale(limits, is_walk=is_walk)
    if name_disaster(limits):
        clauses.insert(0, f"no size to trade: at scale {scale}, {there.removeprefix('there ')}")
    else:
        clauses.append(there)
    if limits["cap"]:
        clauses.append(write_cap(limits))
    return "; ".join(clauses)


def write_cap(limits: Mapping[str, Any]) -> str:
    """Return which limit holds the policy back at its largest scale, and from which scale on."""
    share = core.format_percent(limits["cap_share"])
    text = (
        f"{limits['cap']} cuts {share} of the decisions there, to {limits['cap_leverage']:.2f}x on "
        "average"
    )
    if math.isnan(limits["cap_from"]):
        return text
    return f"{text}, and binds from a scale of about {limits['cap_from']:.2g} on"


def name_scale(scale: float, *, is_limited: bool) -> str:
    """Return a largest scale as a cell: where no scale tried was over, what it is over."""
    if math.isnan(scale):
        return NOT_AVAILABLE
    if is_limited:
        return f"over {math.floor(scale)}"
    return f"{scale:.3g}"


def name_disaster(limits: Mapping[str, Any]) -> str:
    """Return what history did at the largest scale, if it ruined or more than halved the account.

    Empty if it did not.
    """
    if limits["growth_at_scale"] == -math.inf:
        return "ruined on history"
    if limits["drawdown_at_scale"] > DISASTER:
        return f"fell {core.format_percent(limits['drawdown_at_scale'])} on history"
    return ""


def write_history_at_scale(limits: Mapping[str, Any], *, is_walk: bool) -> str:
    """Return what history did to an account at the largest scale, as a clause.

    ``is_walk`` says that this is the account of a whole walk, and the scale that of its last set.
    """
    subject = "the whole walk" if is_walk else "it"
    growth = limits["growth_at_scale"]
    if growth == -math.inf:
        return f"there {subject} is ruined on history"

    made = core.format_percent(growth, is_signed=True)
    text = f"there {subject} made {made} of log growth a year on history"
    if limits["drawdown_at_scale"] > DISASTER:
        return f"{text}, and fell {core.format_percent(limits['drawdown_at_scale'])}"
    return text

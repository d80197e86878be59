"""liquidation_risk(): how likely an account is liquidated from where it stands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.account import Account
from backtest.base.errors import ParameterError
from backtest.base.number_text import format_percent
from backtest.base.phrases import Place
from backtest.base.ranges import Choice, Number
from backtest.base.units import IntArray, format_duration, parse_duration
from backtest.engine import Result
from backtest.market import Market
from backtest.paths.path_events import PathEvents, reduce_lives
from backtest.paths.path_set import Paths
from backtest.paths.paths_runner import PathsRunner, Progress, make_runner
from backtest.paths.rare_events import (
    Tilted,
    check_sample,
    estimate_tilted,
    find_force,
    run_tilted,
    split_paths,
)
from backtest.paths.risk_intervals import (
    LEAST_SAMPLE,
    UNKNOWN,
    Estimate,
    estimate_pairs,
    estimate_plain,
)
from backtest.paths.risk_record import RiskRecord
from backtest.paths.risk_tables import (
    find_days,
    find_typical,
    tabulate_fan,
    tabulate_hazard,
    weighted_median,
)
from backtest.policy import Policy
from backtest.venue import Venue

WHERE = "bt.liquidation_risk"
USUAL = ("1d", "7d", "30d")
METHODS = Choice("auto", "plain", "tilt", "split")
PILOT = 2000
"""Paths that say whether a liquidation is rare."""
RARE = 0.01
"""Below this probability, ``method="auto"`` pushes paths towards liquidation."""
KINDS = ("p_liquidation", "p_ruin", "p_margin_call")
QUANTILES = (0.05, 0.5, 0.95)
COLUMNS = (
    *(f"{kind}{end}" for kind in KINDS for end in ("", "_low", "_high")),
    "bad_debt", "equity_05", "equity_50", "equity_95", "days_to_liquidation", "method",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class LiquidationRisk(RiskRecord):
    """Risk of liquidation on many paths.

    Attributes
    ----------
    table : DataFrame
        A row per horizon: ``p_liquidation``, ``p_ruin``, ``p_margin_call`` (NaN without margin
        calls), each with ``_low`` and ``_high``, the ends of its interval; ``bad_debt``, the
        expected loss of the venue; ``equity_05``, ``equity_50``, ``equity_95``, quantiles of wealth
        at the horizon; ``days_to_liquidation``, the median over the paths that are liquidated (NaN
        without any); ``method``.
    fan : DataFrame
        Quantiles of wealth by time, of the first 2,000 paths.
    hazard : DataFrame
        By day: paths liquidated in it for the first time, over those not liquidated before.
    settings : dict
        What the numbers come from: model, seed, policy, venue, account, confidence.
    paths : Paths
        The paths that the account was taken through.
    """

    table: pd.DataFrame
    fan: pd.DataFrame
    hazard: pd.DataFrame
    typical: pd.DataFrame | None
    settings: dict[str, Any]
    paths: Paths | None = None
    runner: PathsRunner | None = None

    kind = "liquidation-risk"
    names = ("table", "fan", "hazard", "typical")

    def find_history(self) -> Market | None:
        """Return the history of the paths."""
        return None if self.paths is None else self.paths.history

    @property
    def note(self) -> str:
        """The probability of liquidation within the longest horizon."""
        chance = float(self.table["p_liquidation"].iloc[-1])
        return f"{format_percent(chance)} liquidated in {self.table.index[-1]}"

    def path(self) -> pd.DataFrame:
        """Return the typical way to die: the mean path, given that it is liquidated.

        Returns
        -------
        DataFrame
            By time: ``price``, the mean close of the liquidated paths over the last close of
            history, and ``equity``, their mean wealth.

        Raises
        ------
        ParameterError
            If no path was liquidated.
        """
        if self.typical is None:
            raise ParameterError(
                "a typical path needs one that is liquidated, there is none",
                where="LiquidationRisk.path",
                cure="simulate more paths, a longer horizon, or a higher leverage",
            )
        return self.typical

    def run(self, i: int) -> Result:
        """Return the whole result of path i, bit for bit what its line in the risk is made of.

        Raises
        ------
        ParameterError
            If the risk was loaded from files, which hold no paths.
        """
        if self.runner is None:
            raise ParameterError(
                "a path can be run again where it was simulated, this risk was loaded from files",
                where="LiquidationRisk.run",
                cure="run bt.liquidation_risk again",
            )
        return self.runner.run_path(i)

    def __repr__(self) -> str:
        last = self.table.iloc[-1]
        return (
            f"<LiquidationRisk of {self.settings['policy']}: p_liquidation "
            f"{last['p_liquidation']:.3g} in {self.table.index[-1]}>"
        )

    def summary(self) -> str:
        """Return the table as text for a terminal."""
        lines = [f"{self.settings['policy']} on {self.settings['paths']['paths']} paths"]
        for horizon, row in self.table.iterrows():
            lines.append(
                f"{horizon:>6}  liquidation {row['p_liquidation']:.3g} "
                f"({row['p_liquidation_low']:.2g} to {row['p_liquidation_high']:.2g}), "
                f"ruin {row['p_ruin']:.3g}, median equity {row['equity_50']:.6g}, "
                f"by {row['method']}"
            )
        return "\n".join(lines)


class Question(NamedTuple):
    """Checked arguments: horizons by name with their last bars, confidence, method, threads."""

    names: tuple[str, ...]
    bars: IntArray
    confidence: float
    method: str
    threads: int
    progress: Progress | None


def liquidation_risk(
    paths: Paths,
    policy: Policy,
    *,
    venue: Venue,
    account: Account | Result,
    horizons: Sequence[str] | None = None,
    confidence: float = 0.95,
    method: str = "auto",
    signal: float = 1.0,
    threads: int = 1,
    compile: bool = True,  # noqa: A002 - the word of bt.run
    progress: Progress | None = None,
) -> LiquidationRisk:
    """Return how likely an account is liquidated, ruined or called from where it stands.

    Parameters
    ----------
    paths : Paths
        From :func:`backtest.simulate_paths`.
    policy : Policy
        Decides at each close, first at the last one of history.
    venue : Venue
        Of dated margin tables, the one in force at the start holds for all bars.
    account : Account or Result
        A new account, or a result that ended where the paths begin: position, pending decision and
        memory go on.
    horizons : sequence of str, optional
        Not longer than the paths; by default those of 1, 7 and 30 days that fit, and the whole.
    confidence : float
        Of the intervals, in (0, 1).
    method : str
        ``"plain"``: the paths as they are. ``"tilt"``: paths of a tilted model (GBM, Merton, Kou),
        weighted back. ``"split"``: multilevel splitting. ``"auto"``: plain, with mirrored pairs
        where the model has them; where fewer than 1 % of 2,000 paths are liquidated, by tilting or
        splitting.
    signal : float
        Direction and scale in [-1, 1].
    threads : int
        The result does not depend on it.
    compile : bool
        False runs the policy in plain Python; the numbers are the same bits.
    progress : callable, optional
        Called with paths done and paths in all.

    Returns
    -------
    LiquidationRisk

    Raises
    ------
    ParameterError
        If an argument is not allowed, or a weighted estimate rests on fewer than 100 paths.
    DataError
        If the paths do not begin where the result ended.

    Notes
    -----
    Intervals: Clopper-Pearson for independent paths; the same with the effective number of paths
    for mirrored pairs; normal for weighted paths; Student's t over 20 repetitions for splitting.
    Where a policy has columns and paths a bridge of one step, bars get four steps, so that ranges
    are right: ``risk.paths`` are the paths used. With splitting, only ``p_liquidation`` is that of
    splitting, the rest of the row that of plain paths.
    """
    runner = make_runner(
        paths, policy, venue=venue, account=account, signal=signal, compile=compile, where=WHERE
    )
    question = read_question(paths, horizons, confidence, method, threads, progress)
    runner = refine_runner(runner, question.method)
    lives = runner.run_chunks(threads=threads, progress=progress)
    events = reduce_lives(lives, question.bars, float(paths.history.close[-1]))
    rows, tilted = [], None
    for k, bars in enumerate(question.bars + 1):
        row = describe_plain(runner, question, events, k)
        way = choose_way(runner, question, events, int(bars))
        if way == "tilt":
            row, last = add_tilted(runner, question, row, int(bars))
            tilted = last or tilted
        elif way == "split":
            row = add_split(runner, question, row, int(bars))
        rows.append(row)
    table = pd.DataFrame(
        rows, columns=list(COLUMNS), index=pd.Index(question.names, name="horizon")
    )
    return LiquidationRisk(
        table=table,
        fan=tabulate_fan(runner.paths, events),
        hazard=tabulate_hazard(runner.paths, events),
        typical=find_typical(runner.paths, events, tilted),
        settings=describe_settings(runner, question),
        paths=runner.paths,
        runner=runner,
    )


def read_question(
    paths: Paths,
    horizons: Sequence[str] | None,
    confidence: float,
    method: str,
    threads: int,
    progress: Progress | None,
) -> Question:
    """Return the arguments that say what to estimate, checked."""
    chosen = METHODS.check("method", method, where=f"{WHERE}, method")
    if chosen == "tilt" and paths.model.tilt(1e-9, 1.0) is None:
        raise ParameterError(
            f"method='tilt' needs GBM, Merton or Kou, was {type(paths.model).__name__}",
            where=f"{WHERE}, method",
            cure="use method='auto' or 'split'",
        )
    level = Number(0.0, 1.0, open_low=True, open_high=True)
    sure = level.check("confidence", confidence, where=f"{WHERE}, confidence")
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ParameterError(
            f"threads must be a whole number of at least 1, was {threads!r}",
            where=f"{WHERE}, threads",
            cure="give threads=2",
        )
    names = read_horizons(paths, horizons)
    bars = np.array([count_bars(paths, name) for name in names], dtype=np.int64)
    return Question(names, bars - 1, sure, chosen, threads, progress)


def read_horizons(paths: Paths, horizons: Sequence[str] | None) -> tuple[str, ...]:
    """Return the horizons given, or the usual ones that fit into the paths and the whole."""
    if horizons is None:
        fit = tuple(x for x in USUAL if parse_duration(x, where=WHERE) <= paths.horizon)
        usable = tuple(x for x in fit if count_bars(paths, x, is_strict=False) > 0)
        whole = format_duration(paths.horizon)
        return usable if whole in usable else (*usable, whole)
    given = (horizons,) if isinstance(horizons, str) else tuple(horizons)
    if not given:
        text, cure = "horizons must name at least one, was empty", "give ('1d', '7d')"
        raise ParameterError(text, where=Place("horizons", of=WHERE), cure=cure)
    return given


def count_bars(paths: Paths, horizon: str, *, is_strict: bool = True) -> int:
    """Return the bars of a path that close within a horizon, checked to be one or more."""
    span = parse_duration(horizon, where=Place("horizons", of=WHERE))
    calendar = paths.calendar
    closes = calendar.time[1:] + paths.history.interval
    start = int(calendar.time[0]) + paths.history.interval
    bars = int(np.sum(closes <= start + span))
    if is_strict and (span > paths.horizon or bars < 1):
        raise ParameterError(
            f"horizons must lie between a bar and the length of the paths, "
            f"{format_duration(paths.horizon)}, was {horizon}",
            where=Place("horizons", of=WHERE),
            cure="simulate longer paths, or give shorter horizons",
        )
    return bars


def refine_runner(runner: PathsRunner, method: str) -> PathsRunner:
    """Return a runner on mirrored pairs where they help, with four steps where ranges are read."""
    paths = runner.paths
    changes: dict[str, Any] = {}
    if method == "auto" and paths.model.is_symmetric and paths.count >= 2:
        changes["antithetic"] = True
    if paths.bridge == 1 and not paths.model.is_resampled and runner.prepared.columns:
        changes["bridge"] = 4
    if not changes:
        return runner
    return PathsRunner(
        paths=paths.with_settings(**changes),
        policy=runner.policy,
        venue=runner.venue,
        account=runner.account,
        signal=runner.signal,
        compile=runner.compile,
    )


def choose_way(runner: PathsRunner, question: Question, events: PathEvents, bars: int) -> str:
    """Return how the probability within some bars is estimated: plain, tilt or split."""
    if question.method != "auto":
        return question.method
    if float(np.mean(events.liquidated[:PILOT] < bars)) >= RARE:
        return "plain"
    return "split" if runner.paths.model.tilt(1e-9, 1.0) is None else "tilt"


def describe_plain(
    runner: PathsRunner, question: Question, events: PathEvents, k: int
) -> dict[str, Any]:
    """Return the row of a horizon from the paths as they are."""
    bars, paths = int(question.bars[k]) + 1, runner.paths
    estimate = estimate_pairs if paths.antithetic else estimate_plain
    has_calls = runner.terms.margin_call is not None
    row: dict[str, Any] = {}
    for kind, first in zip(KINDS, (events.liquidated, events.ruined, events.called), strict=True):
        is_known = kind != "p_margin_call" or has_calls
        found = estimate((first < bars).astype(np.float64), question.confidence)
        row |= name_estimate(kind, found if is_known else UNKNOWN)
    quantiles = np.quantile(events.wealth[k], QUANTILES)
    died = events.liquidated[events.liquidated < bars]
    row["bad_debt"] = float(np.mean(events.bad_debt[k]))
    row |= dict(zip(("equity_05", "equity_50", "equity_95"), map(float, quantiles), strict=True))
    days = find_days(paths)
    row["days_to_liquidation"] = float(np.median(days[died])) if died.size else math.nan
    row["method"] = "antithetic" if paths.antithetic else "plain"
    return row


def name_estimate(kind: str, found: Estimate) -> dict[str, float]:
    """Return an estimate as columns of the table."""
    return {kind: found.value, f"{kind}_low": found.low, f"{kind}_high": found.high}


def add_tilted(
    runner: PathsRunner, question: Question, row: dict[str, Any], bars: int
) -> tuple[dict[str, Any], Tilted | None]:
    """Return a row with the probabilities of tilted paths; as it was if they do not help."""
    force = find_force(runner, bars)
    last, count = np.array([bars - 1]), runner.paths.count
    tilted = None
    if force is not None:
        tilted = run_tilted(runner, last, force, count, question.threads, question.progress)
    if tilted is None:
        return row, None
    found = estimate_tilted(tilted, 0, bars, question.confidence)
    if question.method == "tilt":
        check_sample(found)
    if not found.sample >= LEAST_SAMPLE:
        return row, None
    row = {**row, "method": "tilt"}
    for k, kind in enumerate(KINDS):
        own = found if k == 0 else estimate_tilted(tilted, k, bars, question.confidence)
        if own.sample >= LEAST_SAMPLE and not math.isnan(row[kind]):
            row |= name_estimate(kind, own)
    weights = tilted.weigh(0, bars)
    row["bad_debt"] = float(np.mean(weights * tilted.events.bad_debt[0]))
    died = tilted.events.liquidated < bars
    row["days_to_liquidation"] = weighted_median(
        find_days(runner.paths)[tilted.events.liquidated[died]], weights[died]
    )
    return row, tilted


def add_split(
    runner: PathsRunner, question: Question, row: dict[str, Any], bars: int
) -> dict[str, Any]:
    """Return a row with the probability of liquidation by splitting; as it was if that is 0."""
    paths = runner.paths.with_settings(antithetic=False)
    own = PathsRunner(
        paths=paths,
        policy=runner.policy,
        venue=runner.venue,
        account=runner.account,
        signal=runner.signal,
        compile=runner.compile,
    )
    found = split_paths(own, bars, paths.count, question.confidence)
    if found.value == 0.0:
        return row
    return {**row, **name_estimate("p_liquidation", found), "method": "split"}


def describe_settings(runner: PathsRunner, question: Question) -> dict[str, Any]:
    """Return what the numbers come from, as plain data."""
    resume = runner.resume
    return {
        "policy": repr(runner.policy),
        "venue": runner.venue.to_dict(),
        "account": runner.terms.to_dict(),
        "resumed": None if resume is None else resume.manifest["id"],
        "signal": runner.signal,
        "confidence": question.confidence,
        "method": question.method,
        "paths": runner.paths.describe(),
    }

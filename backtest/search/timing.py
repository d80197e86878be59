"""timing_test(): whether the timing of the leverage earned the result, by shifting it in time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest.account import without_flows_before
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.core.units import DAY
from backtest.engine import Conditions, plain
from backtest.market import Market, Markets, as_given, find_clock
from backtest.policies import AccountView, Bar, Columns, Policy
from backtest.results import Result
from backtest.results.settings_result import SettingsResult
from backtest.search.study import Study
from backtest.search.walk_forward import WalkForward
from backtest.signals import SignalRule
from backtest.sweep.set_runs import read_runs

LEAST_SHIFTS = 99
"""Shifts below which p is not computed: it could not be below 1 %."""
LEAST_DISTANCE = 30 * DAY
NEGLIGIBLE = 0.05
"""Autocorrelation of the targets that is taken as none."""
BINS = 40
TIE = 1e-12

Rows = Annotated[int, core.Range(0, 100_000_000, "decisions")]


class Decided(NamedTuple):
    """Targets of a run at the ``closes`` (n,), in ns, at which its policies decided.

    ``leverage`` (with the overlay; NaN keeps the position) and ``signal`` have shape
    (n, n_instruments). ``unit`` are the decisions in a day, or in a week if there are sessions.
    """

    closes: core.IntArray
    leverage: core.FloatArray
    signal: core.FloatArray
    unit: int
    names: tuple[str, ...]

    @property
    def target(self) -> core.FloatArray:
        return np.where(self.signal == 0.0, 0.0, self.signal * self.leverage)

    def find_rows(self, market: Market | Markets, shift: int) -> core.IntArray:
        """Return the shifted rows of a market's bars; the last, of nothing, where it has none."""
        closes, n = market.time + market.interval, len(self.closes)
        rows = np.searchsorted(self.closes, closes)
        is_known = self.closes[np.minimum(rows, n - 1)] == closes
        return np.where(is_known, (rows - shift) % n, n)


def make_replayed(decided: Decided) -> tuple[type[Policy], type[SignalRule]]:
    """Return a policy and a signal that play recorded targets, ``shift`` decisions later."""
    nothing = np.full((1, len(decided.names)), np.nan)
    leverage, signal = (np.vstack([each, nothing]) for each in (decided.leverage, decided.signal))

    class Replayed(Policy):
        """Targets of a run that are given as data."""

        shift: Rows = 0
        instrument: Rows = 0

        def observe(self, market: Market) -> Columns:
            return {"target": leverage[decided.find_rows(market, self.shift), self.instrument]}

        def leverage(self, bar: Bar, account: AccountView) -> float:  # noqa: ARG002
            return bar.target

    class Shifted(SignalRule):
        """Directions of a run that are given as data."""

        shift: Rows = 0

        def direction(self, market: Market) -> core.FloatArray:
            return np.asarray(signal[decided.find_rows(market, self.shift), 0])

        def _find_weights(self, markets: Markets) -> pd.DataFrame:
            rows = signal[decided.find_rows(markets, self.shift)]
            found = pd.DataFrame(rows, index=markets.times, columns=[*decided.names])
            return found[[*markets.names]].fillna(0.0)

    return Replayed, Shifted


def read_decided(result: Result, market: Market | Markets) -> Decided:
    clock = find_clock(market)
    closes = clock.seen.time + clock.seen.interval
    rows = np.searchsorted(result.span.closes, closes)
    is_lived = result.span.closes[np.minimum(rows, len(result.time) - 1)] == closes
    rows, closes = rows[is_lived], closes[is_lived]
    leverage = result.of_positions("target")[rows]
    if "overlay" in result.manifest:  # it scales leverage within the limits of the account
        feed, account = result.setup.inputs.feed, result.account
        least = [account.for_instrument(name).min_leverage for name in result.names]
        filled = np.searchsorted(feed.time, closes)  # the bars that open at the closes
        most = feed.limit[np.minimum(filled, len(feed.limit) - 1)]
        leverage = np.minimum(np.maximum(leverage, least), most)
        above = result.of_account("overlay")[rows, None]
        with np.errstate(invalid="ignore"):
            leverage = np.where(above == 0.0, 0.0, leverage * above)
    signal = np.broadcast_to(result.quotes.signal, (len(result.time), len(result.names)))[rows]
    unit = max(DAY // clock.seen.interval, 1)
    if market.sessions:
        weeks = max((closes[-1] - closes[0]) / (7 * DAY), 1.0)
        unit = max(round(len(closes) / weeks), 1)
    return Decided(closes, leverage, signal, int(unit), result.names)


def find_memory(target: core.FloatArray) -> int:
    """Return the first lag with an |autocorrelation| below .05, the largest over instruments."""
    lags = [0]
    for column in pd.DataFrame(target).ffill().bfill().fillna(0.0).to_numpy().T:
        away = np.clip(column, -1e6, 1e6)
        away = away - away.mean()
        if np.ptp(column) == 0.0:
            continue
        padded = np.fft.rfft(away, 2 * len(away))
        products = np.fft.irfft(padded * padded.conj())[: len(away)]
        lags.append(int(np.argmax(np.abs(products) < NEGLIGIBLE * products[0])) or len(away))
    return max(lags)


def find_shifts(decided: Decided, most: int) -> core.IntArray:
    n, unit = len(decided.closes), decided.unit
    days = (decided.closes[-1] - decided.closes[0]) / max(n - 1, 1)
    least = max(math.ceil(LEAST_DISTANCE / days), find_memory(decided.target))
    first, last = math.ceil(least / unit), (n - least) // unit
    count = max(last - first + 1, 0)
    chosen = np.rint(np.linspace(first, last, min(count, most))).astype(np.int64)
    return np.unique(chosen) * unit


@dataclass(frozen=True, eq=False, repr=False)
class TimingTest(SettingsResult):
    """What shifted copies of the decided targets earned, beside those at their own time.

    Attributes
    ----------
    table : DataFrame
        By ``shift`` in days, 0 first: ``log_growth`` (minus infinity at ruin) and ``sharpe``.
    p_growth, p_sharpe : float
        (1 + number of shifts that reach the unshifted one) / (shifts + 1); NaN if not computed.
    leverage_timing, timing_error : float
        That term of the attribution of the run, in log growth, and its standard error; NaN of
        several instruments.
    why : str
        Why nothing was computed, or empty.
    """

    table: pd.DataFrame
    p_growth: float
    p_sharpe: float
    leverage_timing: float
    timing_error: float
    why: str = ""

    kind = "timing"
    call = "bt.timing_test"
    is_yearly = True
    plural = "timing tests"
    details = (
        "Each shift plays the decided targets at another time, from fresh capital, with all costs. "
        "Under the null the targets are independent of returns and of volatility; the attribution "
        "measures only the timing of returns, so a small p with a leverage timing within its "
        "error is timing of volatility."
    )

    @property
    def note(self) -> str:
        return self.why or f"p {self.p_growth:.3f} of {len(self.table) - 1} shifts"

    @property
    def verdict(self) -> str:
        if self.why:
            return core.capitalize(f"{self.why}.")
        n = len(self.table) - 1
        return (
            f"The same leverage at another time did as well with p = {self.p_growth:.2g} in growth "
            f"and {self.p_sharpe:.2g} in the Sharpe ratio, of {n} shifts."
        )

    def list_numbers(self) -> list[Headline]:
        error = f"log growth, error {self.timing_error:.3f}"
        shifts = float(max(len(self.table) - 1, 0))
        return [
            Headline("p_growth", "p of growth", self.p_growth, "decimals", "one-sided"),
            Headline("p_sharpe", "p of the Sharpe ratio", self.p_sharpe, "decimals"),
            Headline("leverage_timing", "leverage timing", self.leverage_timing, "decimals", error),
            Headline("shifts", "shifts", shifts, "count"),
        ]

    def list_parts(self) -> list[Part]:
        own, titles = self.table.iloc[:1], {"log_growth": "Log growth", "sharpe": "Sharpe ratio"}
        titles = titles if len(self.table) > 1 else {}
        charts = (draw_histogram(self.table, name, title) for name, title in titles.items())
        return [
            Part("shifts", "Shifts in time", "The dotted line is the unshifted replay.", (
                *charts,
                ShownTable(own, caption="The unshifted replay", labels=Head("shift", "days"),
                           heads={"log_growth": Head("log growth"), "sharpe": Head("Sharpe")}),
            ), shows="both")
        ]  # fmt: skip


def draw_histogram(table: pd.DataFrame, name: str, title: str) -> ShownChart:
    values = table[name].to_numpy()
    known = values[np.isfinite(values)]
    counts, edges = np.histogram(known[1:], BINS, (known.min(), known.max()))
    middle = pd.Index((edges[:-1] + edges[1:]) / 2.0, name=title)
    found = pd.DataFrame({"shifts": counts}, index=middle)
    mark = (float(values[0]),) if np.isfinite(values[0]) else ()
    return ShownChart(
        f"timing-{name}", title, "Shifts by what they earned.", found, "bars", x=title, y="shifts",
        marks=mark, mark_names=("unshifted",), size="half",
    )  # fmt: skip


@core.checked_only("progress", "result", "shifts")
def timing_test(
    result: Result | Study | WalkForward,
    *,
    shifts: int = 999,
    threads: int | None = None,
    progress: core.Progress | None = None,
) -> TimingTest:
    """Return whether the timing of the leverage earned a result, by a test of shifts in time.

    Parameters
    ----------
    result : Result, Study or WalkForward
        A run; of a study the best set on its holdout, of a walk the account through its test
        spans. The span on which a set was chosen is never tested.
    shifts : int
        Most shifts, at least 99.
    threads : int, optional
        Number of threads (all cores).
    progress : callable, optional
        Called with the replays that are done, and their number.

    Raises
    ------
    ParameterError
        If the result was loaded or traded options, or the study has no holdout.

    Notes
    -----
    g is the decided signed target: leverage times signal times overlay; NaN keeps the position.
    Shifts k are whole days (weeks, in a market with sessions), equally spaced, and further from 0
    and from n than 30 days and the first lag at which the autocorrelation of g is
    within 0.05 of 0. Each g[(t - k) mod n],
    k = 0 too, is replayed from fresh capital through the account, open-loop: what the policy saw
    of its account, and margin settings that it decided, do not come again.
    p = (1 + #{T_k >= T_0}) / (B + 1), for log growth and for the Sharpe ratio. Below 99 shifts
    nothing is computed.
    """
    core.Whole(LEAST_SHIFTS).check("shifts", shifts)
    found = result.result if isinstance(result, WalkForward) else result
    found = found.replay_holdout() if isinstance(found, Study) else found
    if found.options is not None or found.setup is None:
        what = "a loaded one: run it again" if found.setup is None else "one that traded options"
        raise core.ParameterError(f"a timing test replays the targets of a run, got {what}")
    test = cut_test(found)
    decided = read_decided(found, test.market)
    rows, why = find_shifts(decided, shifts), ""
    target = pd.DataFrame(decided.target).ffill().bfill()
    if bool((target.nunique() <= 1).all()):
        why = "the leverage is constant: it has no timing"
    elif len(rows) < LEAST_SHIFTS:
        why = (
            f"not computed: {(decided.closes[-1] - decided.closes[0]) / DAY:,.0f} days allow "
            f"{len(rows)} shifts that are far enough, and {LEAST_SHIFTS} are needed; test a longer "
            "span"
        )
    settings = {
        "policy": found.manifest["policy"]["text"], "run": found.manifest["id"], "shifts": shifts,
    }  # fmt: skip
    terms: dict[str, Any] = {"settings": settings, "market": test.market}
    timing = math.nan, math.nan
    if found.has_one_position:
        split = found.attribution()
        timing = float(split.leverage_timing), float(split.timing_error)
    if why:
        empty = pd.DataFrame({"log_growth": [], "sharpe": []}, index=pd.Index([], name="shift"))
        return TimingTest(empty, math.nan, math.nan, *timing, why, **terms)
    runs = {"compile": found.manifest["compiled"] == "yes", "threads": threads}
    table = replay_shifts(test, decided, np.append(0, rows), progress, **runs)
    growth_p, sharpe_p = (find_p(table[name].to_numpy()) for name in ("log_growth", "sharpe"))
    return TimingTest(table, growth_p, sharpe_p, *timing, **terms)


def cut_test(result: Result) -> Conditions:
    test: Conditions = plain(result.setup.test)
    whole: Any = result.markets
    markets = whole.slice(core.utc_index(result.time)[0], None)
    account = without_flows_before(test.account, int(result.time[0]))
    if test.overlay is not None:  # the limits of leverage are in the targets
        account = replace(account, min_leverage=0.0, max_leverage=math.inf)
    market = as_given(markets, test.market)
    return test.replace(market=market, account=account, signal=None, overlay=None, start=None)


def replay_shifts(
    test: Conditions,
    decided: Decided,
    rows: core.IntArray,
    progress: core.Progress | None = None,
    **how: Any,
) -> pd.DataFrame:
    policy, rule = make_replayed(decided)
    sets: dict[str, Any] = {"shift": rows}
    signal: Any = dict(zip(decided.names, decided.signal[0].tolist(), strict=True))
    if np.any(decided.signal != decided.signal[0]):
        sets["signal.shift"], signal = rows, rule()
    elif not isinstance(test.market, Markets):
        signal = signal[decided.names[0]]
    if len(decided.names) > 1:
        whole = enumerate(decided.names)
        sets |= {f"{name}.instrument": np.full(len(rows), i) for i, name in whole}
    runs = read_runs(test.replace(signal=signal), policy, **how)
    evaluator = runs.make(runs.market, runs.test.signal, "core")
    found = evaluator.evaluate(sets, progress=progress).finish()
    if failed := [each for each in found.errors if each]:
        raise core.PolicyError(f"a replay of the targets failed: {failed[0]}")
    metrics, days = found.metrics, (decided.closes[rows] - decided.closes[0]) / DAY
    is_ruined = metrics["ruined"] > 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.where(is_ruined, -np.inf, np.log1p(metrics["total_return"]))
    sharpe = np.where(is_ruined | np.isnan(metrics["sharpe"]), -np.inf, metrics["sharpe"])
    index = pd.Index(days, name="shift")
    return pd.DataFrame({"log_growth": growth, "sharpe": sharpe}, index=index)


def find_p(values: core.FloatArray) -> float:
    least = values[0] - TIE * max(abs(values[0]), 1.0) if np.isfinite(values[0]) else -np.inf
    return float((1 + np.count_nonzero(values[1:] >= least)) / len(values))

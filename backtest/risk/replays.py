"""Forecasts made again at past dates from the bars before each, and what came after them.

The account is that of today: its policy, terms of the venue and direction are held at every date.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from backtest import core, engine
from backtest.core import Progress
from backtest.core.units import DAY
from backtest.indicators import tail_losses
from backtest.indicators.tails import held_returns
from backtest.market import Market, as_markets
from backtest.risk import liquidations as r
from backtest.risk import scores as sc
from backtest.risk.past_starts import CALM, PastStarts, measure_calm
from backtest.risk.path_draws import KeptNumbers
from backtest.risk.path_models import LEAST_RETURNS
from backtest.risk.path_runner import PathsRunner
from backtest.risk.paths import Paths

BAND = (0.05, 0.5, 0.95)
"""Quantiles of the mean funding of paths: the ends of its band, and the median."""
BAND_SHARE = 0.9
UNKNOWN_BAND = np.full(len(BAND), np.nan)
FUNDING_DAYS = 30
"""Days whose mean funding has a band."""
YEAR = 365 * DAY
TAIL_PARAMETERS = ("measure", "model", "level", "horizon", "window", "half_life")
"""What a policy of the tail has: ``measure``, and the arguments of ``tail_losses``."""


class Replayed(NamedTuple):
    """Records of probabilities, by forecast, with what is told today, and those of intervals."""

    records: dict[str, tuple[sc.Record, float]]
    intervals: dict[str, sc.IntervalRecord]

    def tabulate(self) -> sc.Scored:
        """Return the tables of the scores."""
        return sc.tabulate_scores(self.records, self.intervals)


def name_loss(horizon: str) -> str:
    return f"lost within {horizon}"


def replay_risk(
    runner: PathsRunner,
    told_today: Mapping[str, float],
    past: PastStarts,
    *,
    threads: int,
    progress: Progress | None = None,
) -> Replayed:
    """Return how often the forecasts of an account's loss came true in history, by horizon.

    ``told_today`` are the probabilities of loss that are forecast today, by the name of the
    horizon, and ``past`` is what became of the accounts that were new at each day of history. At
    each of some past dates a model is fitted to the bars until then, and draws 2,000 paths, for all
    horizons that are forecast there. Nothing is drawn for horizons with under ten dates.

    Returns a record for each probability, with the one of today, and one for each interval.
    """
    check_replayed(runner)
    bars = {horizon: count_bars(runner, horizon) for horizon in told_today}
    dates_of = plan_dates(runner, bars)

    # First a record without forecasts for each, which stays where there are too few dates.
    records: dict[str, tuple[sc.Record, float]] = {}
    for horizon, probability in told_today.items():
        empty = leave_untold(runner, dates_of[horizon])
        records[name_loss(horizon)] = empty, probability

    # What would have been forecast at the dates.
    has_enough = {horizon: len(dates) >= sc.LEAST_DATES for horizon, dates in dates_of.items()}
    scored = {horizon: dates for horizon, dates in dates_of.items() if has_enough[horizon]}
    forecasts = forecast_again(runner, past, scored, threads, progress)

    # Beside it what came.
    intervals: dict[str, sc.IntervalRecord] = {}
    for horizon, dates in scored.items():
        told = np.array([forecast.probability for forecast in forecasts[horizon]])
        came = find_lost(runner, dates, bars[horizon])
        record = make_record(runner, dates, told, came)
        records[name_loss(horizon)] = record, told_today[horizon]
        if is_of_band(horizon):
            bands = [forecast.funding for forecast in forecasts[horizon]]
            intervals |= score_funding(runner, dates, horizon, bands)

    intervals |= score_tails(runner)
    return Replayed(records, intervals)


def forecast_again(
    runner: PathsRunner,
    past: PastStarts,
    plans: Mapping[str, core.IntArray],
    threads: int,
    progress: Progress | None,
) -> dict[str, list[Forecast]]:
    """Return what would have been forecast at the dates of each horizon, in their order.

    ``plans`` are the dates by horizon, as bars of history. Horizons that share a date share its
    paths, and all dates share random numbers.
    """
    # The horizons that are forecast at each date.
    due: dict[int, list[str]] = {}
    for horizon, dates in plans.items():
        for bar in dates.tolist():
            due.setdefault(bar, []).append(horizon)

    # Dates rise, so that the forecasts of a horizon come in the order of its dates.
    forecasts: dict[str, list[Forecast]] = {horizon: [] for horizon in plans}
    numbers: KeptNumbers = {}
    for n_done, bar in enumerate(sorted(due), 1):
        forecasts_at_date = forecast_at(
            runner,
            past,
            bar,
            due[bar],
            numbers=numbers,
            threads=threads,
        )
        for horizon, forecast in forecasts_at_date.items():
            forecasts[horizon].append(forecast)
        core.report_progress(progress, n_done, len(due))
    return forecasts


def plan_dates(runner: PathsRunner, bars: Mapping[str, int]) -> dict[str, core.IntArray]:
    """Return the dates of each horizon, given its bars.

    Those of shorter horizons are planned beside those of the longest one that has ten.
    """
    plans: dict[str, core.IntArray] = {}
    longer = 0
    for name in sorted(bars, key=bars.__getitem__, reverse=True):
        plans[name] = find_dates(runner, bars[name], longer)
        if longer == 0 and len(plans[name]) >= sc.LEAST_DATES:
            longer = int(plans[name][1] - plans[name][0])
    return plans


def replay_held(
    runner: PathsRunner,
    name: str,
    bars: int,
    told: float,
) -> Replayed:
    """Return the record of one size, held at each past date: was it liquidated within some bars.

    Nothing is searched in the past. ``told`` is the probability that the size has today.
    """
    dates = find_dates(runner, bars)
    if len(dates) < sc.LEAST_DATES:
        return Replayed({name: (leave_untold(runner, dates), told)}, {})
    came = find_lost(runner, dates, bars, is_ruin_counted=False)
    record = make_record(runner, dates, np.full(len(dates), told), came)
    return Replayed({name: (record, told)}, {})


def check_replayed(runner: PathsRunner) -> None:
    """Refuse the scores of an account that goes on."""
    if runner.resume is not None:
        raise core.ParameterError(
            "score must be of a new account, got resume: at past dates nothing was held"
        )


def count_bars(runner: PathsRunner, horizon: str) -> int:
    """Return the bars of history that a horizon has at most: markets with sessions have fewer."""
    markets = as_markets(runner.paths.history)
    span = core.parse_duration(horizon)
    if span > runner.paths.horizon:
        return max(span // markets.interval, 1)
    return r.read_horizons(runner.paths, horizon)[horizon]


def find_dates(
    runner: PathsRunner,
    bars: int,
    longer: int = 0,
) -> core.IntArray:
    """Return the dates of a horizon, as bars of history, from when a forecast could be made on.

    Columns are known there, a model has returns to be fitted to, and one horizon lies before. The
    dates of a longer horizon lie ``longer`` bars apart.
    """
    markets = as_markets(runner.paths.history)
    first = max(runner.warm_up.known, LEAST_RETURNS + 1, bars)
    return sc.choose_dates(first, markets.n_bars - 1, bars, longer)


class Forecast(NamedTuple):
    """What was told at a date: a probability, and a band of the mean funding rate, (3,)."""

    probability: float
    funding: core.FloatArray


def forecast_at(
    runner: PathsRunner,
    past: PastStarts,
    bar: int,
    horizons: Sequence[str],
    *,
    numbers: KeptNumbers | None = None,
    threads: int,
) -> dict[str, Forecast]:
    """Return what ``backtest risk`` would have forecast at the close of a bar, by horizon.

    It is that of a new account, from paths that know the history up to that bar alone. As there,
    paths are as long as the longest of the horizons, and serve all of them. Random ``numbers`` of
    rows are kept for the other dates.
    """
    markets = as_markets(runner.paths.history)
    close = int(markets.time[bar]) + markets.interval
    longest = max(horizons, key=core.parse_duration)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dated = move_to_date(runner, close, longest, numbers)
        paths = dated.paths
        bars = r.read_horizons(paths, horizons)
        lost = count_lost(dated, bars, threads)

    # The probability is that of paths, joined with how often it came before that bar.
    is_calm = any(ratio < CALM for ratio in dated.measure_calm().values())
    age = close - int(markets.time[0])
    known = know_past(past, ahead=markets.n_bars - 1 - bar, age=age)
    forecasts = {}
    for name, n_bars in bars.items():
        row = known.summarize(n_bars, core.parse_duration(name))
        row[r.BY_MODEL] = lost[name] / paths.count
        told = r.choose_probability(row, 0.0, is_calm=is_calm)

        band = UNKNOWN_BAND
        if is_of_band(name):
            band = measure_band(paths)
        forecasts[name] = Forecast(told, band)
    return forecasts


def move_to_date(
    runner: PathsRunner,
    close: int,
    horizon: str,
    numbers: KeptNumbers | None,
) -> PathsRunner:
    """Return the runner of a new account at a past close, ns, whose paths know nothing later."""
    paths = runner.paths.draw_again(close, horizon, sc.SCORED_PATHS, numbers)
    paths.keep_rates()
    test = runner.test.replace(market=paths.history, venue=runner.venues, start=None)
    return replace(runner, paths=paths, test=test, resume=None, is_trusted=True)


def count_lost(
    runner: PathsRunner,
    bars: Mapping[str, int],
    threads: int,
) -> dict[str, int]:
    """Return how many paths lose the account within some bars, by liquidation or ruin."""
    lost = dict.fromkeys(bars, 0)
    for lives in runner.run_chunks(threads=threads):
        first = np.minimum(r.find_first(lives.liquidations), r.find_first(lives.is_ruined))
        for name, n_bars in bars.items():
            lost[name] += int(np.sum(first < n_bars))
    return lost


def know_past(past: PastStarts, ahead: int, age: int) -> PastStarts:
    """Return what was known of past accounts ``ahead`` bars before the end of the data.

    A history of ``age`` ns, under a year, knows none.
    """
    room = past.room - ahead
    chosen = (room > 0) & (age >= YEAR)
    return past._replace(
        times=past.times[chosen],
        firsts=past.firsts[chosen],
        losses=past.losses[chosen],
        room=room[chosen],
    )


def find_lost(
    runner: PathsRunner,
    dates: core.IntArray,
    bars: int,
    *,
    is_ruin_counted: bool = True,
) -> core.BoolArray:
    """Return whether an account that was new at each date was lost within some bars, (n,)."""
    came = np.zeros(len(dates), np.bool_)
    for k, lives in runner.simulate_starts(dates, bars + 1):
        lost = lives[engine.LIQUIDATED, 1:] != 0.0
        if is_ruin_counted:
            lost = lost | (lives[engine.RUINED, 1:] != 0.0)
        came[k] = bool(lost.any())
    return came


def leave_untold(runner: PathsRunner, dates: core.IntArray) -> sc.Record:
    """Return the record of dates, as bars of history, at which nothing was told."""
    markets = as_markets(runner.paths.history)
    return sc.leave_untold(markets.time[dates] + markets.interval)


def make_record(
    runner: PathsRunner,
    dates: core.IntArray,
    told: core.FloatArray,
    came: core.BoolArray,
) -> sc.Record:
    """Return the record of dates, bars of history: forecasts, what came, and which were calm.

    ``told`` (n_dates,) are the probabilities of a loss that were forecast, and ``came`` whether it
    came. A date is calm if the market of an instrument that is held is.
    """
    markets = as_markets(runner.paths.history)
    closes = markets.time[dates] + markets.interval

    # The weight of each instrument today: those without one do not count.
    weights = runner.list_weights(runner.paths.markets)[:, -1].tolist()
    is_calm = np.zeros(len(dates), np.bool_)
    for name, weight in zip(runner.paths.names, weights, strict=True):
        if weight == 0.0:
            continue

        history = runner.paths.pasts[name]
        for k, close in enumerate(closes.tolist()):
            ratio = measure_calm(cut_past(history, close))
            is_calm[k] |= ratio < CALM
    return sc.Record(closes, told, came, is_calm)


def cut_past(market: Market, close: int) -> Market:
    """Return the bars that have closed by a time, ns."""
    return market.prefix(int((market.time + market.interval <= close).sum()))


def is_of_band(horizon: str) -> bool:
    """Return whether the mean funding of a horizon has a band."""
    return core.parse_duration(horizon) == FUNDING_DAYS * DAY


def measure_band(paths: Paths) -> core.FloatArray:
    """Return the band of the mean funding rate of paths of one instrument, (3,).

    The mean of a path is over its first ``FUNDING_DAYS`` days. NaN without funding in them, and of
    several instruments.
    """
    grid = paths.leader.process.grid
    if grid is None or len(paths.names) > 1:
        return UNKNOWN_BAND

    # The settlements of those days. Bar 0 of a path is the last of history: a path begins at its
    # close.
    rates = paths.draw_rates(min(paths.count, sc.SCORED_PATHS))
    begin = int(paths.calendar.time[0]) + paths.markets.interval
    end = begin + FUNDING_DAYS * DAY
    stamps = grid.find(int(paths.calendar.time[1]), end)
    n_settlements = min(len(stamps), rates.shape[1])
    if n_settlements == 0:
        return UNKNOWN_BAND

    mean_rates = rates[:, :n_settlements].mean(axis=1)
    return np.asarray(np.quantile(mean_rates, BAND))


def score_funding(
    runner: PathsRunner,
    dates: core.IntArray,
    horizon: str,
    bands: Sequence[core.FloatArray],
) -> dict[str, sc.IntervalRecord]:
    """Return the record of the band of mean funding rates, per year, of one instrument.

    ``bands`` (3,) were told at the ``dates``, bars of history. A date counts if funding was settled
    in the days after it. Empty without funding, and of several instruments.
    """
    grid = runner.paths.leader.process.grid
    today = measure_band(runner.paths)
    if grid is None or np.isnan(today).any():
        return {}

    # Where the mean rate that came stands in the band of its date.
    market = as_markets(runner.paths.history)[runner.paths.names[0]]
    closes = market.time[dates] + market.interval
    ratios: list[float] = []
    times: list[int] = []
    for close, band in zip(closes.tolist(), bands, strict=True):
        end = close + FUNDING_DAYS * DAY
        is_due = (market.funding_time >= close) & (market.funding_time < end)
        is_told = not math.isnan(band[1])
        if is_due.any() and is_told:
            rate = float(market.funding_rate[is_due].mean())
            times.append(close)
            ratios.append(measure_ratio(rate, band))

    # From a rate per settlement to one per year.
    settlements_per_year = YEAR / grid.every
    low, middle, high = (settlements_per_year * today).tolist()
    record = sc.IntervalRecord(
        time=np.array(times),
        ratios=np.array(ratios),
        promised=BAND_SHARE,
        today=(low, high),
        center=middle,
    )
    return {f"mean funding of {horizon}, per year": record}


def measure_ratio(rate: float, band: core.FloatArray) -> float:
    """Return how far a rate is from the middle of a band, over the end of the band on its side."""
    low, middle, high = band
    away = rate - middle
    side = middle - low
    if away > 0.0:
        side = high - middle

    # Any move towards a side of no width is beyond it.
    if side > 0.0:
        return float(abs(away) / side)
    if away:
        return math.inf
    return 0.0


def score_tails(runner: PathsRunner) -> dict[str, sc.IntervalRecord]:
    """Return the records of the value at risk and expected shortfall of a policy of the tail.

    Both are fractions at 1x over the policy's horizon, for the direction held now. Empty if the
    account has another policy, or history never gives it a value.
    """
    policy = find_tail_policy(runner)
    if policy is None:
        return {}

    # What the policy was told at every close, on its signal.
    (history,) = as_markets(runner.paths.history).values()
    signal = runner.list_weights(as_markets(history))[0]
    market = Market(**history.fields() | {"signal": signal, "source": history.source})
    arguments = {name: getattr(policy, name) for name in TAIL_PARAMETERS}
    del arguments["measure"]
    tail = tail_losses(market, **arguments)

    known = np.flatnonzero(tail.value_at_risk > 0.0)
    if not len(known):
        return {}

    # What came over the horizon after each date: losses of the side that is held now.
    bars = int(policy.horizon)
    dates = sc.choose_dates(int(known[0]), market.n_bars - 1, bars)
    dates = dates[tail.value_at_risk[dates] > 0.0]
    losses = -held_returns(market, bars)[dates + bars]
    if signal[-1] < 0.0:
        losses = -losses

    # Losses beyond the value at risk, over the shortfall that was expected of them.
    value_at_risk = tail.value_at_risk[dates]
    shortfall = tail.expected_shortfall[dates]
    is_beyond = losses > value_at_risk
    beyond = math.nan
    if is_beyond.any():
        beyond = float(losses[is_beyond].mean() / shortfall[is_beyond].mean())

    value_record = sc.IntervalRecord(
        time=market.time[dates] + market.interval,
        ratios=losses / value_at_risk,
        promised=float(policy.level),
        today=(-math.inf, float(tail.value_at_risk[-1])),
    )
    shortfall_record = value_record._replace(
        is_mean=True,
        today=(-math.inf, float(tail.expected_shortfall[-1])),
        beyond=beyond,
        beyond_n=int(is_beyond.sum()),
    )
    words = f"{100.0 * policy.level:g} % of {core.count_nouns(bars, 'bar')}, 1x"
    return {f"VaR {words}": value_record, f"ES {words}": shortfall_record}


def find_tail_policy(runner: PathsRunner) -> Any:
    """Return the policy of the tail of an account of one instrument, or None."""
    if len(runner.paths.names) > 1:
        return None
    (policy,) = runner.setup.policies.values()
    if all(hasattr(policy, name) for name in TAIL_PARAMETERS):
        return policy
    return None

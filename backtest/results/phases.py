"""Phases of a run: its bars named by a column or by the market, and what the account did in each.

A bar belongs to the phase that was known at its open. ``bull_bear`` is the exception: it names the
months between turning points of the price, which are known only afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from backtest import core
from backtest.core.code_names import is_series, pd
from backtest.core.units import DAY, YEAR_DAYS
from backtest.market import BY_BARS, read_dates
from backtest.results import performance
from backtest.results.differences import choose_block
from backtest.results.luck import effective_observations, sharpe_error
from backtest.results.promises import count_liquidations
from backtest.results.run_record import RunRecord, accumulate_risk_free

VOLATILITY = "volatility"
TREND = "trend"
DRAWDOWN = "drawdown"
BULL_BEAR = "bull_bear"
BUILT_IN = (VOLATILITY, TREND, DRAWDOWN, BULL_BEAR)

VOLATILITY_WINDOW = 30 * DAY
TREND_WINDOW = 90 * DAY
HIGH_WINDOW = 365 * DAY
"""Time over which the volatility, the trend and the high of the price are measured, ns."""

MOST_LABELS = 12
"""Different whole numbers up to which a column has labels."""
BINS = 3
"""Phases of a column of other numbers, unless the caller says how many."""
NOT_YET = "not yet known"


class Phases(NamedTuple):
    """The phase of each bar.

    ``places`` (n_bars,) are rows of ``names``, -1 where no value was known. ``edges`` are those of
    the quantiles, of shape (n_phases + 1,), None of labels. ``is_hindsight`` says that the phases
    are named by prices that came later.
    """

    places: core.IntArray
    names: list[Any]
    edges: core.FloatArray | None = None
    is_hindsight: bool = False


def find_phases(run: RunRecord, column: object, bins: int | None) -> Phases:
    """Return the phases of a run by what is built in, a column of its market, or a Series."""
    if is_series(column):
        return group_values(read_labels(run, column), bins, str(column.name or "the Series"))

    columns = list_columns(run)
    known = [*BUILT_IN, *columns]
    if column not in known:
        lost = ""
        if run.markets is None:
            lost = "; columns need a run, not a loaded result"
        raise core.ParameterError(
            f"column must be one of {', '.join(known)}, or a Series by the opens of the bars, got "
            f"{column!r}{core.did_you_mean(str(column), known)}{lost}"
        )
    if column in columns and column in BUILT_IN:
        raise core.ParameterError(
            f"column {column!r} is built in, and the market has a column of this name too; pass "
            f"that one as a Series: market.bars()[{column!r}]"
        )

    if column in columns:
        return group_values(columns[str(column)], bins, str(column))
    if column == BULL_BEAR:
        check_no_bins(bins, BULL_BEAR)
        return name_bulls_and_bears(run)

    # What is measured at a close is known at the next open.
    values = measure_market(run.span.closes, follow_price(run), str(column))
    known_at_open = np.append(np.nan, values[:-1])
    return group_values(known_at_open, bins, str(column))


def list_columns(run: RunRecord) -> dict[str, Any]:
    """Return the columns of the markets as they were known at the opens of the bars, by name.

    Of several instruments a name is ``INSTRUMENT.column``.
    """
    columns = {}
    for name, market in (run.markets or {}).items():
        prefix = "" if run.has_one_instrument else f"{name}."

        # The last bar that had closed; -1 where none had.
        closes = market.time + market.interval
        rows = np.searchsorted(closes, run.time, side="right") - 1
        for title, values in market.columns.items():
            latest = values[np.maximum(rows, 0)]
            columns[f"{prefix}{title}"] = np.where(rows >= 0, latest, np.nan)
    return columns


def read_labels(run: RunRecord, labels: Any) -> Any:
    """Return the values of a Series by bar that were known at the opens of the bars, as objects."""
    stamps = read_dates(labels.index, "column", BY_BARS)
    order = np.argsort(stamps)
    stamps = stamps[order]
    values = labels.to_numpy(dtype=object)[order]
    missing = np.setdiff1d(run.time, stamps)
    if len(missing):
        raise core.ParameterError(
            f"column must have a value, or NaN, at the open of each bar of the run, lacks "
            f"{len(missing):,} of {len(run.time):,}, the first at "
            f"{core.format_time(int(missing[0]))} UTC; values of longer bars, each from the stamp "
            "of the next: column.shift(1).reindex(result.bars.index, method='ffill')"
        )

    # A value is known at the close of its bar: at the open of the next it is the one before.
    rows = np.searchsorted(stamps, run.time) - 1
    has_row = rows >= 0
    known = np.full(len(run.time), None, dtype=object)
    known[has_row] = values[rows[has_row]]
    return known


def follow_price(run: RunRecord) -> core.FloatArray:
    """Return the mark of the only instrument, or the unit value of the benchmark, by bar."""
    if run.has_one_instrument:
        return run.mark
    return np.asarray(np.cumprod(1.0 + run.market_returns))


class Label(NamedTuple):
    """A value with its kind: by it True, 1 and "1" are three labels, and can be sorted."""

    kind: str
    value: Any


BOOLEAN = "boolean"
NUMBER = "number"
TEXT = "text"


def group_values(values: Any, bins: int | None, title: str) -> Phases:
    """Return the phases of values known at opens: by label, or by quantiles of other numbers.

    Labels are texts, booleans, or at most :data:`MOST_LABELS` different whole numbers. Two labels
    are never merged, so ``bins`` is an error where there are any.
    """
    labels = [read_label(value, title) for value in values]
    different = sorted({label for label in labels if label is not None})

    # Numbers that are no labels: NaN where one is not known.
    if not are_labels(different):
        numbers = np.full(len(labels), np.nan)
        for k, label in enumerate(labels):
            if label is not None:
                numbers[k] = label.value
        return cut_into_quantiles(numbers, bins or BINS)

    # A bar whose value is not known is in no phase, -1.
    check_no_bins(bins, title, len(different))
    row_of: dict[Label | None, int] = {label: row for row, label in enumerate(different)}
    row_of[None] = -1
    places = [row_of[label] for label in labels]
    names = [shorten_label(label) for label in different]
    return Phases(np.array(places, dtype=np.int64), names)


def has_labels(values: core.FloatArray, title: str) -> bool:
    """Return whether the values of a column of numbers are labels."""
    different = [read_label(value, title) for value in np.unique(values).tolist()]
    return are_labels([label for label in different if label is not None])


def are_labels(different: list[Label]) -> bool:
    """Return whether different values are labels: not numbers alone, or few whole ones."""
    if any(label.kind != NUMBER for label in different):
        return True
    if len(different) > MOST_LABELS:
        return False
    return all(label.value.is_integer() for label in different)


def shorten_label(label: Label) -> Any:
    """Return the value of a label, a whole number without its decimals."""
    if label.kind == NUMBER and label.value.is_integer():
        return int(label.value)
    return label.value


def read_label(value: Any, title: str) -> Label | None:
    """Return a value as a label, None where it is not known: None, NaN or infinite."""
    if isinstance(value, str):
        return Label(TEXT, value)
    if value is None or value is pd.NA or value is pd.NaT:
        return None

    if isinstance(value, bool | np.bool_):
        return Label(BOOLEAN, bool(value))
    if isinstance(value, int | float | np.number):
        if not math.isfinite(value):
            return None
        return Label(NUMBER, float(value))

    raise core.ParameterError(
        f"{title} must have texts, booleans or numbers, got {value!r}; .astype(str) makes texts"
    )


def check_no_bins(bins: int | None, title: str, count: int = 2) -> None:
    if bins is not None:
        raise core.ParameterError(
            f"bins is for columns of other numbers, {title} has "
            f"{core.count_nouns(count, 'label')}, which are never merged; leave bins out"
        )


def cut_into_quantiles(values: core.FloatArray, bins: int) -> Phases:
    """Return phases of equal counts of known values, from the lowest on."""
    is_known = np.isfinite(values)
    n_edges = bins + 1
    edges = np.full(n_edges, np.nan)
    if is_known.any():
        steps = np.linspace(0.0, 1.0, n_edges)
        edges = np.quantile(values[is_known], steps)

    # A value at an inner edge is in the phase above it; one that is not known is in none, -1.
    inner_edges = edges[1:-1]
    places = np.searchsorted(inner_edges, values, side="right")
    places = np.where(is_known, places, -1)
    names = [f"{k + 1} of {bins}" for k in range(bins)]
    if bins == BINS:
        names = ["low", "middle", "high"]
    return Phases(places, names, edges)


def measure_market(
    closes: core.IntArray,
    price: core.FloatArray,
    column: str,
) -> core.FloatArray:
    """Return what a built-in phase is measured by, known at each close, of shape (n_bars,).

    ``closes`` (n_bars,) are in ns, ``price`` (n_bars,) is positive. ``"volatility"``: standard
    deviation of the close-to-close log returns of 30 days, per sqrt(year). ``"trend"``: log return
    of 90 days over sigma sqrt(90), sigma the same volatility per sqrt(day). ``"drawdown"``: fall
    from the high of 365 days, or of those there are. NaN before the window is full.
    """
    values = pd.Series(price, core.utc_index(closes))
    if column == DRAWDOWN:
        window = pd.Timedelta(HIGH_WINDOW, "ns")
        highs = values.rolling(window).max()
        return np.asarray(1.0 - values / highs)

    # Sigma of a bar, over the closes of a window.
    log_price = np.log(price)
    log_returns = np.diff(log_price, prepend=np.nan)
    returns = pd.Series(log_returns, values.index)
    window = pd.Timedelta(VOLATILITY_WINDOW, "ns")
    sigma_of_bar = returns.rolling(window).std().to_numpy()

    # Sigma per sqrt(day), known once the window is full.
    length = max(int(closes[-1] - closes[0]), 1)
    bars_per_day = (len(closes) - 1) * DAY / length
    is_full = closes - closes[0] >= VOLATILITY_WINDOW
    sigma = np.where(is_full, sigma_of_bar * bars_per_day**0.5, np.nan)
    if column == VOLATILITY:
        return np.asarray(sigma * YEAR_DAYS**0.5)

    # The last close that is a window or more ago. It is -1 where there is none: no move is known.
    past = np.searchsorted(closes, closes - TREND_WINDOW, side="right") - 1
    log_past_price = log_price[np.maximum(past, 0)]
    moves = np.where(past >= 0, log_price - log_past_price, np.nan)
    sigma_of_window = sigma * (TREND_WINDOW / DAY) ** 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(moves / sigma_of_window)


# Turning points of Pagan and Sossounov, in months.
WINDOW = 8
LEAST_PHASE = 4
LEAST_CYCLE = 16
ENDS = 6
LARGE_MOVE = 0.2
"""A shorter phase stays if the price moved by more than this."""
LEAST_MONTHS = 48


class Turn(NamedTuple):
    """A turning point: its month, and its side, 1 for a peak and -1 for a trough."""

    month: int
    side: int


@core.checked
def turning_points(time: core.IntArray, price: core.FloatArray) -> pd.DataFrame:
    """Return the peaks and troughs of month-end prices, between which a market is bull or bear.

    ``time`` (n,) are the opens of bars in ns, in order, ``price`` (n,) their closes, positive; a
    month ends with its last bar, and 48 are needed. Indexed by ``month`` (its first day, UTC), with
    ``kind`` (``"peak"`` or ``"trough"``) and ``price``. Known only afterwards: a turning point is
    one because of the months that follow.

    Notes
    -----
    A peak is the highest price of the 8 months on either side, a trough the lowest; of several
    peaks in a row the highest stays. Points within 6 months of either end go, and the first and
    last ones that the price passes before or after them; then cycles (peak to peak, trough to
    trough) under 16 months, by their lower peak or higher trough; then phases under 4 months in
    which the price moved by 20 % or less. Source: Pagan and Sossounov (2003), A Simple Framework
    for Analysing Bull and Bear Markets, J. Applied Econometrics 18(1), appendix B.

    Examples
    --------
    >>> months = np.arange(np.datetime64("2000-01"), np.datetime64("2006-01"))
    >>> time = months.astype("datetime64[ns]").astype(np.int64)
    >>> steps = np.concatenate((np.arange(24), np.arange(24, 8, -1), np.arange(8, 40)))
    >>> turning_points(time, np.exp(0.02 * steps))["kind"].tolist()
    ['peak', 'trough']
    """
    core.check_shape("time", time, (-1,))
    performance.check_lengths(time=time, price=price)
    core.check_range(
        "price",
        float(np.min(price, initial=np.inf)),
        low=0.0,
        open_low=True,
    )
    months, ends = find_month_ends(time)
    if not has_months(time):
        raise core.ParameterError(
            f"bull and bear markets need {LEAST_MONTHS} month ends (four years), got {len(ends)}"
        )

    turns = find_turns(price[ends])
    rows = []
    kinds = []
    for turn in turns:
        rows.append(turn.month)
        kinds.append("peak" if turn.side > 0 else "trough")

    begins = months[rows].astype("datetime64[ns]")
    index = pd.DatetimeIndex(begins, tz="UTC", name="month")
    return pd.DataFrame({"kind": kinds, "price": price[ends][rows]}, index=index)


def has_months(time: core.IntArray) -> bool:
    """Return whether bars, by their opens, have the months that turning points need."""
    _, ends = find_month_ends(time)
    return len(ends) >= LEAST_MONTHS


def find_month_ends(time: core.IntArray) -> tuple[Any, core.IntArray]:
    """Return the months from the first to the last bar, and the row of the last bar in each.

    A month without a bar ends with the bar before it.
    """
    first, last = find_months(time[[0, -1]])
    months = np.arange(first, last + 1)
    following = (months + 1).astype("datetime64[ns]").astype(np.int64)
    ends = np.searchsorted(time, following) - 1
    return months, ends


def find_turns(price: core.FloatArray) -> list[Turn]:
    """Return the turning points of month-end prices, in order, by the steps of the paper."""
    turns = keep_alternating(find_extremes(price), price)
    turns = censor_ends(turns, price)
    while True:
        fewer = drop_short_cycle(turns, price)
        fewer = drop_short_phase(fewer, price)
        if len(fewer) == len(turns):
            return turns
        turns = fewer


def find_extremes(price: core.FloatArray) -> list[Turn]:
    """Return the months that are the first highest or lowest of the window around them."""
    turns = []
    for month in range(len(price)):
        start = max(0, month - WINDOW)
        around = price[start : month + WINDOW + 1]
        if around.min() == around.max():
            continue

        if start + int(np.argmax(around)) == month:
            turns.append(Turn(month, 1))
        if start + int(np.argmin(around)) == month:
            turns.append(Turn(month, -1))
    return turns


def is_beyond(price: core.FloatArray, turn: Turn, other: int) -> bool:
    """Return whether the price of another month is beyond a peak or trough."""
    return bool(turn.side * price[other] > turn.side * price[turn.month])


def keep_alternating(turns: list[Turn], price: core.FloatArray) -> list[Turn]:
    """Return the turning points, of several peaks or troughs in a row the most extreme."""
    kept: list[Turn] = []
    for turn in turns:
        if not kept or kept[-1].side != turn.side:
            kept.append(turn)
        elif is_beyond(price, kept[-1], turn.month):
            kept[-1] = turn
    return kept


def censor_ends(turns: list[Turn], price: core.FloatArray) -> list[Turn]:
    """Drop turning points near an end, then those at the ends that the price there passes."""
    n_months = len(price)
    last = n_months - 1
    inner = [turn for turn in turns if ENDS <= turn.month <= last - ENDS]

    while inner:
        earlier = range(inner[0].month)
        if not is_passed(price, inner[0], earlier):
            break
        inner = inner[1:]
    while inner:
        later = range(inner[-1].month + 1, n_months)
        if not is_passed(price, inner[-1], later):
            break
        inner = inner[:-1]
    return inner


def is_passed(price: core.FloatArray, turn: Turn, months: range) -> bool:
    """Return whether the price of any of some months is beyond a peak or trough."""
    return any(is_beyond(price, turn, month) for month in months)


def drop_short_cycle(turns: list[Turn], price: core.FloatArray) -> list[Turn]:
    """Drop the less extreme end of the first cycle that is too short, and what it leaves alone."""
    for k in range(len(turns) - 2):
        first, _, last = turns[k : k + 3]
        if last.month - first.month < LEAST_CYCLE:
            loser = first if is_beyond(price, first, last.month) else last
            return keep_alternating([turn for turn in turns if turn != loser], price)
    return turns


def drop_short_phase(turns: list[Turn], price: core.FloatArray) -> list[Turn]:
    """Drop both ends of the first phase that is too short for how little the price moved."""
    for k in range(len(turns) - 1):
        first, last = turns[k : k + 2]
        move = abs(price[last.month] / price[first.month] - 1.0)
        if last.month - first.month < LEAST_PHASE and move <= LARGE_MOVE:
            return keep_alternating(turns[:k] + turns[k + 2 :], price)
    return turns


def name_bulls_and_bears(run: RunRecord) -> Phases:
    """Return the phases between turning points; a month of a peak is the last of its bull market.

    Without a turning point all is one phase, named by whether the price rose.
    """
    price = follow_price(run)
    points = turning_points(run.time, price)
    begins_as_bull = bool(price[-1] > price[0])
    if len(points):
        begins_as_bull = points["kind"].iloc[0] == "peak"

    # Each turning point that a bar has passed changes bull to bear, or back.
    turns = find_months(pd.DatetimeIndex(points.index).as_unit("ns").asi8)
    n_passed = np.searchsorted(turns, find_months(run.time))
    has_changed = n_passed % 2 == 1
    is_bear = has_changed == begins_as_bull
    return Phases(is_bear.astype(np.int64), ["bull", "bear"], is_hindsight=True)


def find_months(times: core.IntArray) -> Any:
    """Return the calendar month of each time in ns."""
    return times.astype("datetime64[ns]").astype("datetime64[M]")


def measure_phases(run: RunRecord, phases: Phases) -> pd.DataFrame:
    """Return the measures of each phase, a row each; :meth:`Result.measures_by` lists them."""
    # One row more, the last, has the bars at which no phase is known yet.
    n_phases = len(phases.names)
    n_rows = n_phases + 1
    places = np.where(phases.places < 0, n_phases, phases.places)
    counts = np.bincount(places, minlength=n_rows)

    def sum_by_phase(values: core.FloatArray) -> core.FloatArray:
        """Return the sums of values (n_bars,) over the bars of each phase, (n_rows,)."""
        return np.bincount(places, weights=values, minlength=n_rows).astype(np.float64)

    # Log growth of each bar: minus infinity where the account is ruined, 0 after that.
    fields = run.record.account._asdict()
    unit = run.of_account("unit")
    unit_before = np.append(run.tally.first_unit, unit[:-1])
    with np.errstate(divide="ignore"):
        growth = np.log(performance.divide(unit, unit_before, empty=1.0))

    # A phase without bars has no mean.
    gross = np.abs(run.notionals).sum(axis=1)
    leverage = performance.divide(gross, fields["equity"])
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_leverage = sum_by_phase(leverage) / counts

    columns: dict[str, Any] = {}
    if phases.edges is not None:
        columns["from"] = np.append(phases.edges[:-1], np.nan)
        columns["to"] = np.append(phases.edges[1:], np.nan)
    columns["bars"] = counts
    columns["share"] = counts / len(places)

    columns["log_growth"] = sum_by_phase(growth)
    columns |= measure_spreads(run, places, n_rows)
    columns["max_drawdown"] = measure_falls(places, unit, unit_before, n_rows)
    columns["mean_leverage"] = mean_leverage
    columns["funding"] = sum_by_phase(fields["funding"])
    columns["fees"] = sum_by_phase(fields["fees"])
    liquidations = sum_by_phase(count_liquidations(run))
    columns["liquidations"] = liquidations.astype(np.int64)

    p_values = find_p_values(run, places, growth, n_phases)
    columns["p_value"] = np.append(p_values, np.nan)  # none for bars without a phase

    index = pd.Index([*phases.names, NOT_YET], name="phase", dtype=object)
    table = pd.DataFrame(columns, index=index)
    return table[counts > 0]


def measure_spreads(
    run: RunRecord,
    places: core.IntArray,
    n_phases: int,
) -> dict[str, core.FloatArray]:
    """Return volatility, Sharpe ratio and its error by phase, arrays of shape (n_phases,).

    ``places`` (n_bars,) are the phases of the bars. A sampling period in which the phase changes is
    cut into pieces, each with a return of its own. A piece counts as its share of the bars of its
    period, so a single phase has the measures of the run. NaN for fewer than two pieces.
    """
    is_end = run.ends_sample != 0.0
    period = np.cumsum(is_end) - is_end  # the number of the period of each bar
    bars_of_period = np.bincount(period)
    ends_phase = np.append(np.diff(places) != 0, True)
    is_cut = is_end | ends_phase
    rows = np.flatnonzero(is_cut)  # the last bar of each piece

    # The return of each piece, over the risk-free one, and its share of its period.
    returns = performance.sampled_returns(
        run.of_account("unit"),
        is_cut.astype(np.float64),
        run.tally.first_unit,
    )
    risk_free = np.diff(accumulate_risk_free(run)[rows], prepend=0.0)
    excess = returns - risk_free
    bars_of_piece = np.diff(rows, prepend=-1)
    shares = bars_of_piece / bars_of_period[period[rows]]
    is_whole = period[rows] < np.count_nonzero(is_end)  # the last period may be unfinished

    names = ("volatility", "sharpe", "sharpe_error")
    spreads = {name: np.full(n_phases, np.nan) for name in names}
    for place in range(n_phases):
        is_inside = (places[rows] == place) & is_whole
        count = int(np.count_nonzero(is_inside))
        if count < 2:
            continue
        gains = excess[is_inside]

        # Pieces are shorter than sampling periods, so a year has more of them.
        periods = run.span.periods * count / float(shares[is_inside].sum())
        deviation = float(np.std(returns[is_inside], ddof=1))
        excess_deviation = float(np.std(gains, ddof=1))
        sharpe = performance.annualize_ratios(np.mean(gains), excess_deviation, periods)
        error = sharpe_error(gains, periods, n=effective_observations(gains))
        spreads["volatility"][place] = deviation * math.sqrt(periods)
        spreads["sharpe"][place] = sharpe
        spreads["sharpe_error"][place] = error
    return spreads


def measure_falls(
    places: core.IntArray,
    unit: core.FloatArray,
    before: core.FloatArray,
    n_phases: int,
) -> core.FloatArray:
    """Return the worst drawdown at closes within one stretch of each phase, from its first open."""
    # A stretch is a number of bars in a row of one phase; they are numbered from 0.
    begins = np.append(True, np.diff(places) != 0)
    stretch = np.cumsum(begins) - 1

    # A stretch has peaks of its own; the first is what it began with.
    peaks = pd.Series(unit).groupby(stretch).cummax().to_numpy()
    peaks = np.maximum(peaks, before[begins][stretch])
    falls = 1.0 - performance.divide(unit, peaks, 1.0)

    deepest = pd.Series(falls).groupby(places).max()
    return np.array(deepest.reindex(pd.RangeIndex(n_phases)), dtype=np.float64)


DRAWS = 1999
AT_ONCE = 200_000
"""Samples that are drawn at once, so that memory is bounded."""
LEAST_SAMPLES = 10
"""Sampling periods that a phase, and the other phases, must have for a test of their growth."""


def sum_samples(
    run: RunRecord,
    places: core.IntArray,
    growth: core.FloatArray,
    n_phases: int,
) -> tuple[core.FloatArray, core.FloatArray]:
    """Return the bars and the growth of each phase in each sampling period, (n_samples, n_phases).

    ``places`` are the phases of the bars; ``n_phases`` is that of a bar whose phase is unknown.
    """
    is_end = run.ends_sample != 0.0
    sample = np.cumsum(is_end) - is_end
    n_samples = int(sample[-1]) + 1

    # A cell is a phase in a period; cells are numbered row by row of the result.
    shape = (n_samples, n_phases)
    n_cells = n_samples * n_phases
    is_known = places < n_phases
    cells = sample[is_known] * n_phases + places[is_known]

    bars = np.bincount(cells, minlength=n_cells)
    grown = np.bincount(cells, weights=growth[is_known], minlength=n_cells)
    return (
        bars.astype(np.float64).reshape(shape),
        grown.astype(np.float64).reshape(shape),
    )


def find_p_values(
    run: RunRecord,
    places: core.IntArray,
    growth: core.FloatArray,
    n_phases: int,
) -> core.FloatArray:
    """Return a p-value by phase: that its growth per time is that of the other phases.

    NaN where a phase or the others have fewer than :data:`LEAST_SAMPLES` sampling periods, growth
    never differed, or the account was ruined.

    Notes
    -----
    Stationary bootstrap (Politis and Romano 1994) of sampling periods, each with its growth and
    time in every phase, so that what follows what stays. d is the growth per bar of a phase less
    that of the others, s its deviation over the draws; the p-value is the share of draws in which
    the largest |d* - d| / s of all phases is at or over |d| / s: it allows for their number.
    """
    bars, grown = sum_samples(run, places, growth, n_phases)
    n_samples_in = np.count_nonzero(bars, axis=0)
    has_others = bars.sum(axis=1, keepdims=True) > bars
    n_samples_outside = np.count_nonzero(has_others, axis=0)
    can_test = (n_samples_in >= LEAST_SAMPLES) & (n_samples_outside >= LEAST_SAMPLES)
    if not can_test.any() or not np.isfinite(grown).all():
        return np.full(n_phases, np.nan)

    # d of each phase. Blocks are as long as growth beyond the mean of a phase lasts.
    total_growth = grown.sum(axis=0)
    total_bars = bars.sum(axis=0)
    gap = compare_growth(total_growth, total_bars)
    mean_growth = total_growth / np.maximum(total_bars, 1.0)
    influence = (grown - bars * mean_growth).T
    block = choose_block(influence[can_test])

    # d* - d of each draw, (n_draws, n_phases).
    rng = np.random.default_rng(0)
    sums = resample_sums(np.hstack((grown, bars)), block, rng)
    grown_in_draw = sums[:, :n_phases]
    bars_in_draw = sums[:, n_phases:]
    moves = compare_growth(grown_in_draw, bars_in_draw) - gap

    # s. Where it is rounding alone, growth never differed.
    error = np.full(n_phases, 0.0)
    error[can_test] = np.nanstd(moves[:, can_test], axis=0)
    can_test &= error > performance.LEAST_DEVIATION * np.abs(growth).max()
    if not can_test.any():
        return np.full(n_phases, np.nan)

    # A history without a phase has no difference, and counts as beyond every one.
    ratios = np.abs(moves[:, can_test]) / error[can_test]
    ratios[np.isnan(ratios)] = np.inf
    largest = ratios.max(axis=1)
    ratio_of_gap = np.abs(gap[can_test]) / error[can_test]
    beyond = np.count_nonzero(largest[:, None] >= ratio_of_gap, axis=0)
    p_values: core.FloatArray = np.full(n_phases, np.nan)
    p_values[can_test] = (1.0 + beyond) / (DRAWS + 1.0)
    return p_values


def compare_growth(grown: core.FloatArray, bars: core.FloatArray) -> core.FloatArray:
    """Return the growth per bar of each phase, in the last axis, less that of the others."""
    of_others = grown.sum(axis=-1, keepdims=True) - grown
    bars_of_others = bars.sum(axis=-1, keepdims=True) - bars
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(grown / bars - of_others / bars_of_others)


def resample_sums(
    values: core.FloatArray,
    block: int,
    rng: np.random.Generator,
) -> core.FloatArray:
    """Return the sums of the columns of (n, m) values in each bootstrap history, (DRAWS, m).

    A history has n samples in blocks of a mean length of ``block``. Some histories are drawn at
    once, to bound the memory that they take.
    """
    n = len(values)
    sums = np.empty((DRAWS, values.shape[1]))
    step = max(1, AT_ONCE // n)
    for row in range(0, DRAWS, step):
        count = min(step, DRAWS - row)
        # A block ends after each sample with the same chance, so that lengths are geometric.
        begins = rng.random((count, n)) < 1.0 / block
        begins[:, 0] = True

        # Histories stand one after another: as the first sample of each begins a block, no block
        # goes on into the next history. A block goes on from a drawn sample, around the end.
        starts = np.flatnonzero(begins)
        lengths = np.diff(np.append(starts, begins.size))
        drawn = rng.integers(0, n, len(starts))
        shift = np.repeat(drawn - starts, lengths)
        chosen = (np.arange(begins.size) + shift) % n
        histories = values[chosen].reshape(count, n, -1)
        sums[row : row + count] = histories.sum(axis=1)
    return sums


LARGE_SHARE = 2.0 / 3.0
SIGNIFICANT = 0.05


def describe_largest(known: pd.DataFrame, total: float) -> Iterator[str]:
    """Yield which phase made most of the growth, or of the loss, if one did."""
    shares = known["log_growth"].to_numpy() / total
    place = int(np.argmax(shares))
    if shares[place] <= LARGE_SHARE:
        return

    noun = "growth"
    verb = "lost"
    if total < 0.0:
        noun = "loss"
        verb = "gained"
    name = known.index[place]
    time = core.format_percent(float(known["share"].iloc[place]), 0)
    if shares[place] > 1.0:
        yield (
            f"All of the {noun} came from one phase, {name}, in {time} of the time; the others "
            f"{verb} together."
        )
        return

    share = core.format_percent(float(shares[place]), 0)
    yield f"{share} of the {noun} came from one phase, {name}, in {time} of the time."


def describe_phases(table: pd.DataFrame, *, is_hindsight: bool) -> list[str]:
    """Return what a table of phases says, in sentences."""
    texts: list[str] = []
    known = table.drop(index=NOT_YET, errors="ignore")
    total = float(table["log_growth"].sum())
    if len(known) > 1 and math.isfinite(total) and total != 0.0:
        texts += describe_largest(known, total)

    p_values = known["p_value"].dropna()
    if len(p_values):
        lowest = float(p_values.min())
        p_value = core.format_p_value(lowest)
        test = f"p-value {p_value}, block bootstrap, corrected for the number of phases"
        if lowest < SIGNIFICANT:
            texts.append(f"Growth in {p_values.idxmin()} differs from the rest ({test}).")
        else:
            texts.append(f"No phase's growth differs from the rest by more than chance ({test}).")
    if is_hindsight:
        texts.append(
            "Known only afterwards: bull and bear markets are named by the months that follow, so "
            "growth differs by construction, and no policy could have used them."
        )
    return texts

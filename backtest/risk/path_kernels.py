"""The kernels that draw paths: rows of history and shares of them, prices, and rates of funding."""

from __future__ import annotations

import math

from backtest.core import FloatArray, IntArray
from backtest.core.elementary import exp, log
from backtest.core.kernels import inlined, kernel

LOG_STEP = 0.02
"""The distance of the log variances at which log means are tabulated: the mean of exp(move) over
rows is 1 to 1e-7, where bars are usual to 1e-9."""
FARTHEST = 230.0
"""The largest distance of a log price from today's: prices stay within 1e-100 to 1e100 of it."""
LEAST_DIVISOR = 1e-300
"""Below it a share of paths is none; it keeps a division by 0 out of vector instructions."""


@kernel
def repeat_rows(
    uniforms: FloatArray,
    phases: IntArray,
    row_phases: IntArray,
    order: IntArray,
    counts: IntArray,
    starts: IntArray,
    weights: FloatArray,
    numbers: FloatArray,
    rows: IntArray,
    variance: FloatArray,
) -> None:
    """Write the row that each bar repeats, and its variance, into arrays (paths, bars).

    The arguments are those of :class:`backtest.risk.path_rows.RowTable`: ``phases`` of the bars,
    ``row_phases`` of the rows and -1, and ``weights`` of the variance after each row. ``numbers``
    are the mean length of a block, the first variance, omega and the largest variance.
    """
    block = numbers[0]
    first_variance = numbers[1]
    omega = numbers[2]
    most = numbers[3]
    for path in range(len(rows)):
        row = -1
        ahead = first_variance
        for t in range(len(phases)):
            phase = phases[t]

            # A new block begins at any row of the phase. In a block, the next row follows; where
            # it is of another phase or of none, the block goes on at the first row of its own.
            if t == 0 or uniforms[t, path, 0] * block < 1.0:
                rank = min(int(uniforms[t, path, 1] * counts[phase]), counts[phase] - 1)
                row = order[starts[phase] + rank]
            elif row_phases[row + 1] == phase:
                row += 1
            else:
                row = order[starts[phase]]

            rows[path, t] = row
            variance[path, t] = ahead
            ahead = min(omega + weights[row] * ahead, most)


@kernel
def tabulate_log_means(
    moves: FloatArray,
    places: IntArray,
    deviations: FloatArray,
    scratch: FloatArray,
    values: FloatArray,
    slopes: FloatArray,
) -> None:
    """Write log means of exp(deviation * move) over the rows of each phase, and their slopes.

    ``moves`` and ``places`` are those of :func:`follow_blocks`, ``deviations`` (nodes,) the roots
    of the variances. ``values`` and ``slopes``, by the log of the deviation, have shape (phases,
    nodes). ``scratch`` is space of (2, rows of a phase).
    """
    weights = scratch[0]
    weighted = scratch[1]
    for phase in range(len(places) - 1):
        first = places[phase]
        n = places[phase + 1] - first
        largest_move = -math.inf
        for k in range(n):
            largest_move = max(largest_move, moves[first + k])

        for j in range(len(deviations)):
            # The largest move of a phase is taken out, so that no exponential overflows.
            deviation = deviations[j]
            largest = deviation * largest_move
            for k in range(n):
                move = deviation * moves[first + k]
                weights[k] = exp(move - largest)
                weighted[k] = weights[k] * move

            total = sum_first(weights, n)
            values[phase, j] = largest + log(total / n)
            slopes[phase, j] = sum_first(weighted, n) / total


@inlined
def sum_first(numbers: FloatArray, n: int) -> float:
    """Return the sum of the first n numbers, in four sums that do not wait for each other."""
    first = 0.0
    second = 0.0
    third = 0.0
    fourth = 0.0
    n_in_fours = n - n % 4
    for k in range(0, n_in_fours, 4):
        first += numbers[k]
        second += numbers[k + 1]
        third += numbers[k + 2]
        fourth += numbers[k + 3]
    for k in range(n_in_fours, n):
        first += numbers[k]
    return (first + second) + (third + fourth)


@kernel
def sum_products(
    factor: FloatArray, total: FloatArray, spare: FloatArray, doublings: int, negligible: float
) -> None:
    """Add the products of ever more factors before each one, on a circle, to ``total`` (n,).

    A doubling joins two runs of ``factor`` (n,), which becomes the products of runs. There are no
    more of them once the largest product is ``negligible``, or infinite. ``spare`` is space of
    (2, n).
    """
    n = len(factor)
    joined = spare[0]
    summed = spare[1]
    shift = 1
    for _ in range(doublings):
        largest = factor[0]
        for k in range(n):
            largest = max(largest, factor[k])
        if not negligible < largest < math.inf:
            break

        shift %= n
        join_runs(factor[:shift], factor[n - shift :], joined[:shift])
        join_runs(factor[shift:], factor[: n - shift], joined[shift:])
        add_runs(total[:shift], factor[:shift], total[n - shift :], summed[:shift])
        add_runs(total[shift:], factor[shift:], total[: n - shift], summed[shift:])
        for k in range(n):
            factor[k] = joined[k]
        for k in range(n):
            total[k] = summed[k]
        shift *= 2


@inlined
def join_runs(factor: FloatArray, before: FloatArray, joined: FloatArray) -> None:
    """Write the products of two runs of factors, the later and the one before it, to ``joined``."""
    for k in range(len(joined)):
        joined[k] = factor[k] * before[k]


@inlined
def add_runs(total: FloatArray, factor: FloatArray, before: FloatArray, summed: FloatArray) -> None:
    """Write the sums of two runs to ``summed``: the one before counts by the later's factor."""
    for k in range(len(summed)):
        summed[k] = total[k] + factor[k] * before[k]


@kernel
def follow_blocks(
    phases: IntArray,
    moves: FloatArray,
    places: IntArray,
    next_phases: IntArray,
    next_places: IntArray,
    cubics: FloatArray,
    numbers: FloatArray,
    scratch: FloatArray,
    growth: FloatArray,
) -> None:
    """Write the log growth per bar that blocks of rows add to that of single rows.

    It follows the share of the paths that are at each row, weighted by price, and their mean
    variance, as if all of them had it; those that begin a block apart from the others. Each loop
    has one thought, so that it compiles to vector instructions.

    Rows are in their order by phase: ``moves`` are their log closes over the last close,
    ``next_phases`` and ``next_places`` the phase, and the place in the order, of the row after
    each. ``places`` (n_phases + 1,) are the first places of phases, and the end of the last one.
    ``cubics`` (4, phases, nodes) are log means, see ``RowTable.log_means``. ``numbers`` are the
    mean length of a block, the first variance, omega, alpha, beta, the largest variance, and the
    first node. ``scratch`` is space of (6, rows of a phase). ``growth`` has a number for each of
    ``phases``, the first of them the last bar of history.
    """
    block, mean = numbers[0], numbers[1]
    omega, alpha, beta, most = numbers[2], numbers[3], numbers[4], numbers[5]
    share, summed, older = scratch[0], scratch[1], scratch[2]
    log_means, mass, variance = scratch[3], scratch[4], scratch[5]
    for t in range(1, len(phases)):
        phase = phases[t]
        first = places[phase]
        n = places[phase + 1] - first
        share[:n] = 0.0
        summed[:n] = 0.0

        # Those that go on in their block are at the row after theirs. None is before the first bar.
        fresh = 1.0
        if t > 1:
            fresh = 1.0 / block
            last = places[phases[t - 1]]
            for k in range(places[phases[t - 1] + 1] - last):
                rank = 0  # of the first row, where the next one is of another phase
                if next_phases[last + k] == phase:
                    rank = next_places[last + k] - first
                stays = (1.0 - fresh) * mass[k]
                share[rank] += stays
                summed[rank] += stays * variance[k]

        divide(summed, share, n, mean, older)
        for k in range(n):
            log_means[k] = log(older[k])
        for k in range(n):
            log_means[k] = read_log_mean(cubics, phase, log_means[k], numbers[6])

        # Those that begin a block are all of one variance.
        begins = fresh / n
        root = math.sqrt(mean)
        log_mean = read_log_mean(cubics, phase, log(mean), numbers[6])
        for k in range(n):
            move = math.sqrt(older[k]) * moves[first + k]
            stayed = share[k] * exp(move - log_means[k])
            stayed_ahead = min(alpha * (move * move) + omega + beta * older[k], most)

            move = root * moves[first + k]
            begun = begins * exp(move - log_mean)
            begun_ahead = min(alpha * (move * move) + omega + beta * mean, most)

            mass[k] = stayed + begun
            summed[k] = stayed * stayed_ahead + begun * begun_ahead

        divide(summed, mass, n, mean, variance)
        whole = 0.0
        total = 0.0
        for k in range(n):
            whole += mass[k]
            total += summed[k]
        for k in range(n):
            mass[k] /= whole
        growth[t] = log(whole)
        mean = total / whole


@inlined
def divide(above: FloatArray, below: FloatArray, n: int, otherwise: float, out: FloatArray) -> None:
    """Write the first n quotients into ``out``, and ``otherwise`` where the divisor is 0."""
    for k in range(n):
        quotient = above[k] / max(below[k], LEAST_DIVISOR)
        out[k] = quotient if below[k] > 0.0 else otherwise


@inlined
def read_log_mean(cubics: FloatArray, phase: int, log_variance: float, first_node: float) -> float:
    """Return the log of the mean of exp(move) over the rows of a phase, given the log variance."""
    place = log_variance * (1.0 / LOG_STEP) - first_node
    node = min(max(int(place), 0), cubics.shape[2] - 1)
    x = place - node
    curve = cubics[2, phase, node] + x * cubics[3, phase, node]
    return float(cubics[0, phase, node] + x * (cubics[1, phase, node] + x * curve))


@kernel
def draw_rows(
    rows: IntArray,
    variance: FloatArray,
    moves: FloatArray,
    ratios: FloatArray,
    phases: IntArray,
    shifts: FloatArray,
    cubics: FloatArray,
    first_node: float,
    last: FloatArray,
    prices: FloatArray,
    marks: FloatArray,
    scratch: FloatArray,
) -> None:
    """Write the prices of bars that repeat rows, and their marks, behind the last bar of history.

    ``rows`` and ``variance`` (paths, bars) are those of each bar, ``moves`` and ``ratios`` (4,
    n_rows) and ``cubics`` those of :class:`backtest.risk.path_rows.RowTable`. ``shifts`` (bars,)
    are added to the log moves, less the log mean over the rows of a bar's phase. ``last`` (2, 4)
    are the prices and marks of the last bar. ``prices`` and ``marks`` (4, paths, bars + 1) are
    written; ``marks`` are empty where they are the prices. ``scratch`` is space of (10, bars).
    """
    n_bars = rows.shape[1]
    logs = scratch[:4]
    ratios_of_path = scratch[4:8]
    roots = scratch[8]
    added = scratch[9]
    for path in range(len(rows)):
        for t in range(n_bars):
            roots[t] = math.sqrt(variance[path, t])
        for t in range(n_bars):
            added[t] = log(variance[path, t])
        for t in range(n_bars):
            added[t] = shifts[t] - read_log_mean(cubics, phases[t], added[t], first_node)

        for j in range(4):
            for t in range(n_bars):
                logs[j, t] = moves[j, rows[path, t]] * roots[t] + added[t]
        if marks.shape[1] > 0:
            for j in range(4):
                for t in range(n_bars):
                    ratios_of_path[j, t] = ratios[j, rows[path, t]]
        write_prices(logs, ratios_of_path, last, prices, marks, path)


@kernel
def draw_moves(
    logs: FloatArray,
    ratios: FloatArray,
    last: FloatArray,
    prices: FloatArray,
    marks: FloatArray,
    scratch: FloatArray,
) -> None:
    """Write the prices of a parametric model, and their marks, as :func:`draw_rows` does.

    ``logs`` of open, high, low and close over the last close, and ``ratios`` of mark over last,
    have shape (4, paths, bars); ``ratios`` are empty as ``marks`` are.
    """
    of_path = scratch[:4]
    ratios_of_path = scratch[4:8]
    for path in range(logs.shape[1]):
        for j in range(4):
            for t in range(logs.shape[2]):
                of_path[j, t] = logs[j, path, t]
        if marks.shape[1] > 0:
            for j in range(4):
                for t in range(logs.shape[2]):
                    ratios_of_path[j, t] = ratios[j, path, t]
        write_prices(of_path, ratios_of_path, last, prices, marks, path)


@inlined
def write_prices(
    logs: FloatArray,
    ratios: FloatArray,
    last: FloatArray,
    prices: FloatArray,
    marks: FloatArray,
    path: int,
) -> None:
    """Write prices and marks of a path; ``logs`` (4, bars) over the last close are changed."""
    # The log moves of each bar over its last close become log prices over the first one.
    n_bars = logs.shape[1]
    close = 0.0
    for t in range(n_bars):
        step = logs[3, t]
        logs[0, t] += close
        logs[1, t] += close
        logs[2, t] += close
        close += step
        logs[3, t] = close

    for j in range(4):
        prices[j, path, 0] = last[0, j]
        for t in range(n_bars):
            far = min(max(logs[j, t], -FARTHEST), FARTHEST)
            prices[j, path, t + 1] = exp(far) * last[0, 3]

    if marks.shape[1] > 0:
        for j in range(4):
            marks[j, path, 0] = last[1, j]
            for t in range(n_bars):
                marks[j, path, t + 1] = prices[j, path, t + 1] * ratios[j, t]
        bound_extremes(marks, path)
    bound_extremes(prices, path)


@inlined
def bound_extremes(prices: FloatArray, path: int) -> None:
    """Put the highs and lows of a path beyond its opens and closes."""
    for t in range(prices.shape[2]):
        first = prices[0, path, t]
        close = prices[3, path, t]
        prices[1, path, t] = max(prices[1, path, t], first, close)
        prices[2, path, t] = min(prices[2, path, t], first, close)


@kernel
def walk_rates(
    shocks: FloatArray,
    lag_weights: FloatArray,
    constants: FloatArray,
    cap: float,
    rates: FloatArray,
) -> None:
    """Write the funding rates of paths into ``rates`` (lags + settlements, paths).

    The first ``lags`` are known. ``shocks`` (settlements, paths) are residuals, ``lag_weights``
    (lags, paths) the weights of the rates before, the oldest first, and ``constants`` (paths,).
    """
    lags = len(lag_weights)
    for k in range(len(shocks)):
        rate = rates[k + lags]
        rate[:] = 0.0
        for lag in range(lags):
            for path in range(len(rate)):
                rate[path] += lag_weights[lag, path] * rates[k + lag, path]
        for path in range(len(rate)):
            level = constants[path] + shocks[k, path] + rate[path]
            rate[path] = min(max(level, -cap), cap)

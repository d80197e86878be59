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
    """Write the row that each bar repeats, and its variance, into ``rows`` and ``variance``.

    Both have shape (paths, bars). ``uniforms`` (bars, paths, 2) decide whether a block begins, and
    at which row. ``phases`` (bars,) are those of the bars, ``row_phases`` those of all rows, with
    -1 behind the last one. ``order`` lists the rows by phase, of which there are ``counts`` from
    ``starts`` on. The variance after row r is ``omega + weights[r] variance``. ``numbers`` are the
    mean length of a block, the first variance, omega and the largest variance.
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
    of the variances. Writes ``values`` and ``slopes``, the derivatives by the log of the deviation,
    both (phases, nodes). ``scratch`` is space of (2, rows of a phase).
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

            # d log(mean) / d log(deviation) is the mean of deviation * move, weighted by exp of it.
            total = sum_first(weights, n)
            values[phase, j] = largest + log(total / n)
            slopes[phase, j] = sum_first(weighted, n) / total


@inlined
def sum_first(numbers: FloatArray, n: int) -> float:
    """Return the sum of the first n numbers.

    Four sums are made side by side: an addition need not wait for the one before it, and compiled
    code makes vector instructions of them.
    """
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
    factor: FloatArray,
    total: FloatArray,
    spare: FloatArray,
    doublings: int,
    negligible: float,
) -> None:
    """Write S_k = 1 + f_k + f_k f_{k-1} + f_k f_{k-1} f_{k-2} + ... on a circle to ``total`` (n,).

    ``factor`` (n,) are the f, ``total`` is 1 everywhere at first, and ``spare`` is space of (2, n).
    A run is some factors in a row. After j doublings ``factor[k]`` is the product of the run of 2^j
    that ends at k, and ``total[k]`` has 2^j terms: a doubling joins each run with the one before
    it. There are no more doublings once the largest product is ``negligible``, or infinite. Both
    arrays are overwritten.
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

        # The run before one that ends at k ends at k - shift. Places before 0 are those at the end
        # of the circle, so each join is made in two parts.
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

    A single row, drawn by chance, moves the mean price by nothing: its log mean is taken off. Rows
    of a block are neighbors, so the mean of their product is another. It is followed bar by bar for
    all paths together. Each row has the share of the paths that repeat it, weighted by price, and
    their mean variance stands for that of each of them. Two groups are kept apart: paths that go on
    in a block, and those that begin one. The sum of the shares after a bar is the growth of the
    mean price in it; it is written, and the shares are divided by it.

    Rows are in their order by phase: ``moves`` are their log closes over the last close,
    ``next_phases`` and ``next_places`` the phase, and the place in the order, of the row after
    each. ``places`` (n_phases + 1,) are the first places of phases, and the end of the last one.
    ``cubics`` (4, phases, nodes) are log means, see ``RowTable.log_means``. ``numbers`` are the
    mean length of a block, the first variance, omega, alpha, beta, the largest variance, and the
    first node. ``scratch`` is space of (6, rows of a phase). ``growth`` has a number for each of
    ``phases``, the first of them the last bar of history, whose number stays.
    """
    block = numbers[0]
    mean_variance = numbers[1]
    omega = numbers[2]
    alpha = numbers[3]
    beta = numbers[4]
    most = numbers[5]
    first_node = numbers[6]

    # By row of a bar's phase. Those that go on: their share before the bar, and their variance.
    share_going_on = scratch[0]
    weighted_variance = scratch[1]
    variance_going_on = scratch[2]
    log_means = scratch[3]

    # All of them after the bar: their share, and the variance of the next bar.
    share_after = scratch[4]
    variance_after = scratch[5]

    # Each loop over rows does one thing, so that it compiles to vector instructions.
    for t in range(1, len(phases)):
        phase = phases[t]
        first = places[phase]
        n = places[phase + 1] - first

        # Before the first bar there is no block to go on in.
        share_beginning = 1.0
        share_going_on[:n] = 0.0
        weighted_variance[:n] = 0.0
        if t > 1:
            share_beginning = 1.0 / block
            last = places[phases[t - 1]]
            for k in range(places[phases[t - 1] + 1] - last):
                # On to the next row; where that is of another phase, to the first of this one.
                rank = 0
                if next_phases[last + k] == phase:
                    rank = next_places[last + k] - first
                share = (1.0 - share_beginning) * share_after[k]
                share_going_on[rank] += share
                weighted_variance[rank] += share * variance_after[k]

        divide(weighted_variance, share_going_on, n, mean_variance, variance_going_on)
        read_log_means(cubics, phase, variance_going_on, n, first_node, log_means)

        # Those that begin a block are at all rows alike, with the mean variance of all paths.
        share_of_row = share_beginning / n
        root = math.sqrt(mean_variance)
        log_mean = read_log_mean(cubics, phase, log(mean_variance), first_node)

        # Shares grow with the price, and the move of a row decides the variance after it.
        for k in range(n):
            move = math.sqrt(variance_going_on[k]) * moves[first + k]
            gone_on = share_going_on[k] * exp(move - log_means[k])
            next_gone_on = min(alpha * (move * move) + omega + beta * variance_going_on[k], most)

            move = root * moves[first + k]
            begun = share_of_row * exp(move - log_mean)
            next_begun = min(alpha * (move * move) + omega + beta * mean_variance, most)

            share_after[k] = gone_on + begun
            weighted_variance[k] = gone_on * next_gone_on + begun * next_begun

        divide(weighted_variance, share_after, n, mean_variance, variance_after)
        whole = 0.0
        total = 0.0
        for k in range(n):
            whole += share_after[k]
            total += weighted_variance[k]
        for k in range(n):
            share_after[k] /= whole
        growth[t] = log(whole)
        mean_variance = total / whole


@inlined
def divide(above: FloatArray, below: FloatArray, n: int, otherwise: float, out: FloatArray) -> None:
    """Write the first n quotients into ``out``, and ``otherwise`` where the divisor is 0."""
    for k in range(n):
        quotient = above[k] / max(below[k], LEAST_DIVISOR)
        out[k] = quotient if below[k] > 0.0 else otherwise


@inlined
def read_log_mean(cubics: FloatArray, phase: int, log_variance: float, first_node: float) -> float:
    """Return the log of the mean of exp(move) over the rows of a phase, given the log variance.

    ``cubics`` (4, phases, nodes) have the coefficients of 1, x, x^2 and x^3, with x the way from a
    node to the next one. Nodes are :data:`LOG_STEP` apart; ``first_node`` numbers the first.
    """
    place = log_variance * (1.0 / LOG_STEP) - first_node
    node = min(max(int(place), 0), cubics.shape[2] - 1)
    x = place - node
    curve = cubics[2, phase, node] + x * cubics[3, phase, node]
    return float(cubics[0, phase, node] + x * (cubics[1, phase, node] + x * curve))


@inlined
def read_log_means(
    cubics: FloatArray,
    phase: int,
    variance: FloatArray,
    n: int,
    first_node: float,
    log_means: FloatArray,
) -> None:
    """Write the log means of a phase at the first n variances to ``log_means``."""
    for k in range(n):
        log_means[k] = log(variance[k])
    for k in range(n):
        log_means[k] = read_log_mean(cubics, phase, log_means[k], first_node)


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

    # Each loop over bars does one thing, so that it compiles to vector instructions.
    for path in range(len(rows)):
        for t in range(n_bars):
            roots[t] = math.sqrt(variance[path, t])

        # What is added to the moves of a bar: its shift, less the log mean at its variance.
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
    have shape (4, paths, bars); ``ratios`` are empty as ``marks`` are. ``scratch`` is overwritten,
    in eight rows of bars: it holds both of them of one path, which then lie together in memory.
    """
    n_paths = logs.shape[1]
    n_bars = logs.shape[2]
    has_marks = marks.shape[1] > 0
    logs_of_path = scratch[:4]
    ratios_of_path = scratch[4:8]
    for path in range(n_paths):
        for j in range(4):
            for t in range(n_bars):
                logs_of_path[j, t] = logs[j, path, t]

        if has_marks:
            for j in range(4):
                for t in range(n_bars):
                    ratios_of_path[j, t] = ratios[j, path, t]

        write_prices(logs_of_path, ratios_of_path, last, prices, marks, path)


@inlined
def write_prices(
    logs: FloatArray,
    ratios: FloatArray,
    last: FloatArray,
    prices: FloatArray,
    marks: FloatArray,
    path: int,
) -> None:
    """Write prices and marks of a path into ``prices`` and ``marks`` (4, paths, bars + 1).

    ``logs`` (4, bars) are over the last close, ``ratios`` (4, bars) mark over last price. Marks are
    left alone if they have no paths. Overwrites ``logs``.
    """
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
    n_paths = len(constants)
    for k in range(len(shocks)):
        # The sum of the rates before, kept where the new rate will stand.
        rate = rates[k + lags]
        rate[:] = 0.0
        for lag in range(lags):
            weights = lag_weights[lag]
            before = rates[k + lag]
            for path in range(n_paths):
                rate[path] += weights[path] * before[path]

        for path in range(n_paths):
            level = constants[path] + shocks[k, path] + rate[path]
            rate[path] = min(max(level, -cap), cap)

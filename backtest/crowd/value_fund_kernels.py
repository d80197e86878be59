"""Kernel of the market of value funds with leverage; see :class:`backtest.crowd.agents.Thurner`."""

from __future__ import annotations

import math

from backtest.base import FloatArray, IntArray

KERNELS = ("trade_funds",)

VALUE, SHARES, RHO, SIGMA, WEALTH, SMOOTHING, FLOW, BENCHMARK, DEATH, AWAY = range(10)
HELD, CASH, PERFORMANCE, TIMER, LAST_FLOW = range(5)
SEVERAL, CALLS, DEATHS, FAILED = range(4)


def trade_funds(
    noise: FloatArray,
    beta: FloatArray,
    cap: float,
    terms: FloatArray,
    state: FloatArray,
    edges: FloatArray,
    counts: IntArray,
    volume: FloatArray,
    leverage: FloatArray,
    price: FloatArray,
    outside: FloatArray,
) -> None:
    """Write the clearing price of each step to ``price`` (n_steps,).

    ``noise`` (n_steps,) is standard normal, ``beta`` (k,) the aggression of each fund, ``cap`` the
    largest leverage. ``state`` (5, k) and ``edges`` (2 k + 1,) are scratch space; ``counts`` (4,)
    counts steps with several clearing prices, margin calls and deaths, and is the step plus 1 at
    which no price cleared. ``volume`` (n_steps,) is in shares, ``leverage`` (n_steps, k) that of
    each fund, NaN while it is away. ``outside`` (n_steps,) are the shares that another account
    holds at the end of each step.
    """
    k = len(beta)
    worth, shares = terms[VALUE], terms[SHARES]
    for h in range(k):
        state[HELD, h], state[CASH, h] = 0.0, terms[WEALTH]
        state[PERFORMANCE, h], state[TIMER, h], state[LAST_FLOW, h] = 0.0, 0.0, 0.0
    mean = math.log(worth * shares)
    spent, last, held_by_noise, held_outside = mean, worth, shares, 0.0
    for t in range(len(noise)):
        spent = terms[RHO] * spent + terms[SIGMA] * noise[t] + (1.0 - terms[RHO]) * mean
        money = math.exp(spent)
        n_edges = sort_edges(beta, cap, worth, state, edges)
        now, roots = find_clearing_price(
            money, last, beta, cap, worth, shares - outside[t], state, edges, n_edges
        )
        if roots == 0:
            counts[FAILED] = t + 1
            return
        counts[SEVERAL] += roots > 1
        traded = abs(money / now - held_by_noise) + abs(outside[t] - held_outside)
        held_outside = outside[t]
        held_by_noise = money / now
        for h in range(k):
            traded += settle_fund(h, now, last, beta[h], cap, terms, state, counts)
            leverage[t, h] = measure_leverage(h, now, state)
        volume[t] = 0.5 * traded
        price[t] = now
        last = now


def sort_edges(
    beta: FloatArray, cap: float, worth: float, state: FloatArray, edges: FloatArray
) -> int:
    edges[0] = worth
    n = 1
    for h in range(len(beta)):
        if state[TIMER, h] > 0.0:
            continue
        capped = worth - cap / beta[h]
        if capped > 0.0:
            n = insert_edge(edges, n, capped)
        if state[CASH, h] < 0.0 and state[HELD, h] > 0.0:
            n = insert_edge(edges, n, -state[CASH, h] / state[HELD, h])
    return n


def insert_edge(edges: FloatArray, n: int, value: float) -> int:
    row = n
    while row > 0 and edges[row - 1] > value:
        edges[row] = edges[row - 1]
        row -= 1
    edges[row] = value
    return n + 1


def find_clearing_price(
    money: float,
    last: float,
    beta: FloatArray,
    cap: float,
    worth: float,
    shares: float,
    state: FloatArray,
    edges: FloatArray,
    n_edges: int,
) -> tuple[float, int]:
    best, roots, before = -1.0, 0, -1.0
    for segment in range(n_edges + 1):
        low = edges[segment - 1] if segment > 0 else 0.0
        high = edges[segment] if segment < n_edges else math.inf
        middle = 0.5 * (low + high) if segment < n_edges else 2.0 * low
        a, b, c = add_demand(middle, beta, cap, worth, state)
        b -= shares
        c += money
        slack = 1e-12 * (low + 1e-300)
        for which in range(2):
            root = solve_quadratic(a, b, c, which)
            if low - slack <= root <= high * (1.0 + 1e-12) and root > 0.0:
                if abs(root - before) > 1e-9 * root:
                    roots += 1
                before = root
                if best < 0.0 or abs(root - last) < abs(best - last):
                    best = root
    return best, roots


def add_demand(
    middle: float, beta: FloatArray, cap: float, worth: float, state: FloatArray
) -> tuple[float, float, float]:
    a, b, c = 0.0, 0.0, 0.0
    for h in range(len(beta)):
        held, cash = state[HELD, h], state[CASH, h]
        if state[TIMER, h] > 0.0 or middle >= worth or cash + held * middle <= 0.0:
            continue
        if beta[h] * (worth - middle) >= cap:
            b += cap * held
            c += cap * cash
        else:
            a -= beta[h] * held
            b += beta[h] * (worth * held - cash)
            c += beta[h] * worth * cash
    return a, b, c


def solve_quadratic(a: float, b: float, c: float, which: int) -> float:
    if abs(a) < 1e-14 * (abs(b) + abs(c)):
        return -c / b if which == 0 and b != 0.0 else -1.0
    inner = b * b - 4.0 * a * c
    if inner < 0.0:
        return -1.0
    q = -0.5 * (b + math.copysign(math.sqrt(inner), b))
    one = q / a
    other = c / q if q != 0.0 else one
    return min(one, other) if which == 0 else max(one, other)


def settle_fund(
    h: int,
    now: float,
    last: float,
    beta: float,
    cap: float,
    terms: FloatArray,
    state: FloatArray,
    counts: IntArray,
) -> float:
    if state[TIMER, h] > 0.0:
        state[TIMER, h] -= 1.0
        return 0.0
    held, cash = float(state[HELD, h]), float(state[CASH, h])
    wealth, before = cash + held * now, cash + held * last
    wanted = min(beta * max(terms[VALUE] - now, 0.0), cap) * max(wealth, 0.0) / now
    unmoved = wealth - state[LAST_FLOW, h]  # only the price makes a margin call
    if held * now > cap * unmoved * (1.0 + 1e-9) and held > 0.0 and now < last:
        counts[CALLS] += 1
    traded = float(abs(wanted - held))
    if wealth < terms[DEATH] * terms[WEALTH]:
        counts[DEATHS] += 1
        state[HELD, h], state[CASH, h] = 0.0, terms[WEALTH]
        state[PERFORMANCE, h], state[TIMER, h] = 0.0, terms[AWAY]
        state[LAST_FLOW, h] = 0.0
        return traded
    gain = held * (now - last) / before
    smoothing = terms[SMOOTHING]
    state[PERFORMANCE, h] = (1.0 - smoothing) * state[PERFORMANCE, h] + smoothing * gain
    flow = max(terms[FLOW] * (state[PERFORMANCE, h] - terms[BENCHMARK]), -1.0) * wealth
    state[HELD, h] = wanted
    state[CASH, h] = wealth - wanted * now + flow
    state[LAST_FLOW, h] = flow
    return traded


def measure_leverage(h: int, now: float, state: FloatArray) -> float:
    if state[TIMER, h] > 0.0:
        return math.nan
    held = float(state[HELD, h])
    wealth = float(state[CASH, h]) + held * now
    return held * now / wealth if wealth > 0.0 else math.nan

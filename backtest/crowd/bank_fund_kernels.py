"""Kernel of the leverage cycle of a bank and a fund; see :class:`agents.LeverageCycle`."""

from __future__ import annotations

import math

from backtest.base import FloatArray, IntArray

KERNELS = ("cycle_steps",)

(TAU, DELTA, T_VAR, THETA, ETA, RHO, MU, W_BANK, ALPHA, POWER, SIGMA_0, EQUITY, A_0, A_1,
 B_1, OUTSIDE_BEFORE, OUTSIDE) = range(17)  # fmt: skip
RISK, W_FUND, PRICE, SHARE, DEBT, PRICE_BEFORE = range(6)


def cycle_steps(
    noise: FloatArray,
    terms: FloatArray,
    state: FloatArray,
    failed: IntArray,
    leverage: FloatArray,
    target: FloatArray,
    price: FloatArray,
    outside: FloatArray,
) -> None:
    """Write price, leverage of the bank and its target of each step.

    ``noise`` (n_steps,) is standard normal, zero for no noise. ``state`` (6,) is the start and
    becomes the end. ``failed`` (1,) becomes the step plus 1 at which the bank or the price broke
    down; later steps are not written. ``outside`` (n_steps,) are the shares that another account
    holds at the end of each step.
    """
    a_0, a_1, b_1 = terms[A_0], terms[A_1], terms[B_1]
    is_noisy = a_0 > 0.0
    variance = a_0 / (1.0 - a_1 - b_1)
    shock = 0.0
    for t in range(len(noise)):
        if is_noisy:
            variance = a_0 + a_1 * shock * shock + b_1 * variance
            shock = math.sqrt(variance) * noise[t]
        terms[OUTSIDE_BEFORE], terms[OUTSIDE] = terms[OUTSIDE], outside[t]
        target[t] = find_target(terms, state)
        if not step_cycle(terms, state, shock):
            failed[0] = t + 1
            return
        assets = state[SHARE] * state[PRICE] / terms[W_BANK]
        leverage[t] = assets / (assets - state[DEBT])
        price[t] = state[PRICE]


def find_target(terms: FloatArray, state: FloatArray) -> float:
    return float(terms[ALPHA] * (state[RISK] + terms[SIGMA_0]) ** terms[POWER])


def step_cycle(terms: FloatArray, state: FloatArray, shock: float) -> bool:
    tau, w_bank = terms[TAU], terms[W_BANK]
    price, share, debt, w_fund = state[PRICE], state[SHARE], state[DEBT], state[W_FUND]
    assets = share * price / w_bank
    equity = assets - debt
    borrowed = tau * terms[THETA] * (find_target(terms, state) * equity - assets)
    moved = tau * terms[ETA] * (terms[EQUITY] - equity)
    bank_cash = (1.0 - w_bank) * share * price / w_bank + moved
    of_fund = 1.0 - share - terms[OUTSIDE_BEFORE]
    fund_cash = (1.0 - w_fund) * of_fund * price / w_fund - moved
    change = math.log(price / state[PRICE_BEFORE]) * terms[T_VAR] / tau
    risk = (1.0 - tau * terms[DELTA]) * state[RISK] + tau * terms[DELTA] * change * change
    pull = tau * terms[RHO] * (terms[MU] - price) + math.sqrt(tau) * shock
    weight = w_fund + w_fund / price * pull
    supply = 1.0 - terms[OUTSIDE] - w_bank * share - of_fund * weight
    if not 0.0 < weight < 1.0 or supply <= 0.0:
        return False
    after = (w_bank * (bank_cash + borrowed) + weight * fund_cash) / supply
    if not after > 0.0:
        return False
    held = w_bank * (share * after + bank_cash + borrowed) / after
    state[RISK], state[W_FUND], state[PRICE] = risk, weight, after
    state[SHARE], state[DEBT], state[PRICE_BEFORE] = held, debt + borrowed, price
    return bool((0.0 < held < 1.0 - terms[OUTSIDE]) & (held * after / w_bank > state[DEBT]))

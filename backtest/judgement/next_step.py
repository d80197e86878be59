"""What to do after a judgement: a sentence for each outcome, with a command where one helps."""

from __future__ import annotations

import math

import pandas as pd

from backtest.judgement import rule


def write_next_step(outcome: str, growth: pd.DataFrame, limits: pd.DataFrame) -> str:
    """Return the step that follows from an outcome.

    ``growth`` has a row for each market, with the constant leverage at equal risk; ``limits`` have
    the largest scale of the policy at 1 % in 30 days, NaN where it could not be tested.
    """
    if outcome == rule.UNSAFE:
        return f"Next: {write_reduction(limits)}, and judge it again."
    if outcome == rule.NOT_TIMED:
        return (
            "Next: only its size matters; `backtest risk --find-leverage 0.01`, on the --data of a "
            "market, finds the highest leverage at a risk of 1 %."
        )
    if outcome == rule.NOT_TESTED:
        return "Next: compare it with other policies, by `backtest compare`."

    if outcome == rule.BETTER:
        return (
            "Next: `backtest decide` prints its next order, `backtest shadow` compares a live "
            "account with it."
        )
    return write_constant(outcome, growth)


def write_reduction(limits: pd.DataFrame) -> str:
    """Return how far the leverage must fall: to the smallest of the largest scales under 1."""
    scale = limits["largest_scale"].astype(float)
    smallest = float(scale.min())
    if math.isnan(smallest) or smallest >= 1.0:
        return "lower its leverage"
    return f"lower its leverage to {smallest:.2g} times what it is, as on {scale.idxmin()}"


def write_constant(outcome: str, growth: pd.DataFrame) -> str:
    """Return the constant leverage of each market that has one, and the command for the first."""
    leverage = growth["constant_leverage"].astype(float).dropna()
    by_market = [f"{value:.3g} on {name}" for name, value in leverage.items()]
    first = f"{leverage.iloc[0]:.3g}"
    market = leverage.index[0]

    why = "constant leverage is simpler"
    if outcome == rule.WORSE:
        why = "constant leverage grew more"
    return (
        f"Next: {why}, {', '.join(by_market)}; "
        f"`backtest risk --policy constant --set leverage={first}`, on the --data of {market}, "
        "shows its risk."
    )

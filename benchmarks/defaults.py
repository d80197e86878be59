"""How the defaults of the policies stand among others on 2020 and 2021. Prints text and JSON.

    python benchmarks/defaults.py FOLDER [--draws 512] [--only NAME ...] [--from DAY] [--to DAY]

FOLDER holds hourly bars, mark prices and funding of BTCUSDT. Only 2020 and 2021 are read: defaults
were chosen on these years, later ones are for judging them. What sets the risk (targets, budgets,
priors, levels) is held at its default; what estimates (windows, half-lives, bands) is drawn from
the declared ranges. For each policy: the Sharpe ratio of the default after costs, the share of
draws that it beats, the best draw, and the middle of the best tenth by parameter. A default wants
to be in the upper part on round numbers, not at the top: the best of many draws is luck.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
import pandas as pd

import backtest as bt
from backtest import strategies
from backtest.base import Choice
from backtest.policy import find_policies

RISK = frozenset(
    {
        "at_peak", "break_even", "budget", "calm", "cap", "constant_leverage", "floor", "fraction",
        "growth", "horizon", "level", "level_1", "level_2", "level_3", "leverage", "ltv",
        "multiplier", "power", "prior", "probability", "ratchet", "reference", "since", "stress",
        "target", "vol_target_power", "vol_target_target",
    }
)  # fmt: skip
"""What is a matter of taste, and not chosen on any data."""

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
ACCOUNT = bt.Account(band=0.05, max_leverage=5.0)


def build(cls: type[bt.Policy]) -> bt.Policy:
    """Return a policy with its defaults; combinators over a volatility target."""
    if issubclass(cls, bt.Combinator):
        return cls(*[strategies.Constant(), strategies.VolTarget()][-cls.takes[0] :])
    return cls()


def find_space(policy: bt.Policy) -> dict[str, object]:
    """Return the declared ranges of what estimates, those that are infinite cut."""
    space: dict[str, object] = {}
    for name, parameter in type(policy).parameters().items():
        declared = parameter.space
        if name in RISK or declared is None or isinstance(declared, Choice):
            continue
        if declared.when is not None:
            other, values = declared.when
            values = values if isinstance(values, tuple) else (values,)
            if policy.settings()[other] not in values:
                continue
        high = declared.high if np.isfinite(declared.high) else 20.0
        space[name] = (declared.low, min(high, 5000.0))
    return space


def judge(market: bt.Market, policy: bt.Policy, n: int) -> list[str]:
    """Return the lines on one policy."""
    terms = {"venue": VENUE, "account": ACCOUNT}
    own = bt.run(market, policy, **terms).metrics
    name = type(policy).__name__
    lines = [f"{name:28} Sharpe {own['sharpe']:6.2f}  drawdown {own['max_drawdown']:6.1%}"]
    space = find_space(policy)
    if not space:
        return lines
    table = bt.sweep(market, policy, n, space=space, **terms).table
    table = table[~table["ruined"].astype(bool)]
    if table.empty:
        return [f"{lines[0]}  every one of {n} draws is ruined"]
    lines[0] += f"  beats {(table['sharpe'] < own['sharpe']).mean():4.0%} of {len(table)}"
    lines[0] += f", the best has {table['sharpe'].max():.2f}"
    top = table.nlargest(max(len(table) // 10, 1), "sharpe")
    for each in space:
        middle, low, high = (float(np.quantile(top[each], q)) for q in (0.5, 0.1, 0.9))
        held = policy.settings()[each]
        lines.append(
            f"    {each:24} {held!s:>8}   best tenth {middle:9.3g} ({low:.3g} to {high:.3g})"
        )
    return lines


def main() -> None:
    """Judge every policy and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder")
    parser.add_argument("--draws", type=int, default=512)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--from", dest="start", default="2020-01-01")
    parser.add_argument("--to", dest="end", default="2022-01-01")
    wanted = parser.parse_args()
    market = bt.Market.load(wanted.folder, between=(wanted.start, wanted.end))
    years = pd.Timedelta(market.end - market.start, unit="ns") / pd.Timedelta("365D")
    sys.stdout.write(
        f"{market}: buy and hold {np.log(market.close[-1] / market.close[0]) / years:.2f} a year\n"
    )
    report = {}
    for cls in find_policies(strategies):
        if not wanted.only or cls.__name__ in wanted.only:
            try:
                lines = judge(market, build(cls), wanted.draws)
            except bt.DataError as error:
                lines = [f"{cls.__name__:28} left out: {error.problem}"]
            sys.stdout.write("\n".join(lines) + "\n")
            report[cls.__name__] = lines
    sys.stdout.write(json.dumps({"draws": wanted.draws, "policies": report}) + "\n")


if __name__ == "__main__":
    main()

"""One search over several markets beside a search of each, scored on later years. Writes JSON.

    python benchmarks/pooled.py FOLDER... [--tune START END] [--score START END] [--trials 1000]

FOLDER holds bars, mark prices and funding of one or several instruments, as for real_walks.py. A
volatility target is tuned for the Sharpe ratio on the first years: once on all markets in separate
accounts, by each pool, and once on each market alone. Every winner is then run in every market over
the later years. A row of the table is a search; its columns are the Sharpe ratios of its winner
there, their mean, and the lowest of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from typing import Any

import numpy as np
from real_walks import RULES_OF, load_markets

import backtest as bt
from backtest.strategies import VolTarget

TUNED = ("2020-01-10", "2022-01-01")
SCORED = ("2022-01-01", "2024-01-01")
POOLS = ("mean", "median", "worst")
ACCOUNT = bt.Account(capital=10_000, band=0.05, max_leverage=5.0)
SEARCHED = ("target", "half_life", "power")


def main() -> None:
    """Run the searches, and print what their winners earned later."""
    given = read_arguments()
    known = load_markets(given.folders, *given.tune)
    later = load_markets(given.folders, given.tune[0], given.score[1])
    venues = {name: bt.Venue.preset("binance-usdm", RULES_OF.get(name, name)) for name in known}
    rows = []
    for pool in POOLS:
        study = search(known, venues, given, accounts="separate", pool=pool)
        rows.append(score(f"all, {pool}", study, later, venues, given.score[0]))
    for name, market in known.items():
        study = search(market, venues[name], given)
        rows.append(score(f"{name} alone", study, later, venues, given.score[0]))
    default = dict.fromkeys(SEARCHED)
    for name in SEARCHED:
        default[name] = getattr(VolTarget(), name)
    rows.append(measure("defaults", default, later, venues, given.score[0]))
    facts = {"tuned": given.tune, "scored": given.score, "trials": given.trials, "rows": rows}
    sys.stdout.write(json.dumps(facts, indent=1) + "\n")


def read_arguments() -> argparse.Namespace:
    """Return the arguments of the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--tune", nargs=2, default=TUNED, metavar=("START", "END"))
    parser.add_argument("--score", nargs=2, default=SCORED, metavar=("START", "END"))
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def search(market: Any, venue: Any, given: argparse.Namespace, **accounts: Any) -> bt.Study:
    """Return the search of one market, or of several in separate accounts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bt.tune(
            market, VolTarget, venue=venue, account=ACCOUNT, fix={"estimator": "ewma"},
            trials=given.trials, seed=given.seed, **accounts,
        )  # fmt: skip


def score(
    name: str, study: bt.Study, later: dict[str, bt.Market], venues: dict[str, bt.Venue], start: str
) -> dict[str, Any]:
    """Return what the winner of a search earned in every market in the later years."""
    values = {each: float(study.best[each]) for each in SEARCHED}
    row = measure(name, values, later, venues, start)
    return {
        **row,
        "in_sample": float(study.best["sharpe"]),
        "verdict": study.verdict.deflated_sharpe,
    }


def measure(
    name: str,
    values: dict[str, Any],
    later: dict[str, bt.Market],
    venues: dict[str, bt.Venue],
    start: str,
) -> dict[str, Any]:
    """Return the Sharpe ratios of one set in every market from a day on."""
    found = {}
    for each, market in later.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = bt.run(
                market, VolTarget(**values), venue=venues[each], account=ACCOUNT, start=start
            )
        found[each] = float(result.metrics["sharpe"])
    sharpe = [*found.values()]
    return {"search": name, **values, "sharpe": found, "mean": float(np.mean(sharpe)),
            "lowest": min(sharpe)}  # fmt: skip


if __name__ == "__main__":
    main()

"""Run a levered account on simulated paths without a hedge, with one, and with less leverage.

    python benchmarks/simulated_hedge.py [FOLDER] [--paths 10000] [--ratios 1.1] [--sweep | --walk]

FOLDER has btc-usdm-1h (hourly bars of BTCUSDT). A model is fitted to bars of four hours and drawn
for 90 days; options are priced at the variance of each path times a stated ratio, and traded 1.4
points apart (8 % of the middle price of a put of 30 to 45 days with a delta of -0.1). The account
is linear, with Deribit's fees, brackets and margin; there is no funding: the drift is net of it.
It is ruined when its wealth is under --ruin of the start.

Three arms on the same paths: the leverage; the leverage with puts by `TailHedge`; and less leverage
for the same cost. The cost of protection c is what the options lost (premiums less proceeds, and
fees) over the mean equity, per year, over all paths; a turn of leverage has an expected profit of
the drift a year, so that the third arm has c / drift turns less: to first order both give up the
same expected profit. Prints JSON: a row per ratio and arm, differences in ruin and in mean log
growth on the same paths with intervals, the best arm of each ratio, and the ratio at which that
turns.

``--walk`` walks the hedge forward on --paths paths of two years, in bars of 8 hours: delta and
budget are chosen by growth on a year, and traded on the quarter after it, in one account.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import backtest as bt
from backtest import paths as models
from backtest.risk import estimate_difference
from backtest.strategies import Constant, TailHedge

RATIOS = (0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5)
COSTS = bt.OptionCosts(
    fee=0.0003, fee_cap=0.125, delivery_fee=0.00015, delivery_cap=0.125, tick=5.0
)
HORIZON, YEARS = "90d", 90.0 / 365.0
CAPITAL = 100_000.0
SURFACES = {"one": models.SimulatedSurface, "two": models.TwoFactorSurface}
DELTAS, TENORS, BUDGETS = (-0.05, -0.1, -0.25), (14.0, 30.0, 60.0), (0.0025, 0.005, 0.01)
AXES = {"tenor": TENORS, "delta": DELTAS, "budget": BUDGETS}
WALKED = {"delta": [-0.1, -0.25], "budget": [0.0025, 0.01]}


def load_history(folder: Path | None) -> bt.Markets:
    """Return bars of four hours, real or made up, one USDT as one USDC."""
    if folder is None:
        market = bt.Market.sample(bars=24 * 120)
    else:
        market = bt.Market.load(folder / "btc-usdm-1h", between=("2019-12-24", "2024-01-01"))
    return bt.Markets({"BTC": market.resample("4h")}, currency="USDC")


def make_venue() -> bt.Venue:
    """Return Deribit's linear contract with the fees of its options."""
    return bt.Venue.preset("deribit", "BTC_USDC-PERPETUAL").override(option_costs=COSTS)


class Study:
    """The arms of one leverage on the same paths."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        history = load_history(given.folder)
        self.draw = {
            "market": history, "model": given.model, "paths": given.paths, "horizon": HORIZON,
            "seed": 1, "funding": None, "drift": given.drift,
        }  # fmt: skip
        self.account = bt.Account(
            capital=CAPITAL, requirement=given.margin, max_leverage=50.0, band=0.05,
            ruin_at=given.ruin,
        )  # fmt: skip
        self.plain = bt.simulate_paths(**self.draw)

    def live(self, policy: bt.Policy, ratio: float | None = None) -> bt.LiquidationRisk:
        """Return the risk of an account; with a ratio it may trade options."""
        paths = self.plain
        if ratio is not None:
            paths = paths.with_settings(
                surfaces={paths.names[0]: SURFACES[self.given.factors](ratio=ratio)}
            )
        return bt.liquidation_risk(
            paths, policy, venue=make_venue(), account=self.account, horizons=[HORIZON],
            method="plain", threads=self.given.threads,
        )  # fmt: skip

    def hedge(self, **terms: float) -> bt.Policy:
        """Return the leverage with puts."""
        given = {"delta": -0.1, "tenor": 30.0, "roll": 7.0, "budget": self.given.budget}
        return TailHedge(Constant(self.given.leverage), **(given | terms))

    def compare(self, none: pd.DataFrame, ratio: float) -> dict[str, Any]:
        """Return the arms at one ratio and their differences."""
        start = time.process_time()
        hedged = self.live(self.hedge(), ratio)
        seconds = time.process_time() - start
        cost = find_cost(hedged.outcomes, "option_cost")
        lower = max(self.given.leverage - cost / self.given.drift, 0.0)
        less = self.live(Constant(lower)).outcomes
        arms = {"no_hedge": none, "hedge": hedged.outcomes, "less_leverage": less}
        found = {name: describe(each) for name, each in arms.items()}
        found["less_leverage"]["leverage"] = lower
        best = {
            "ruin": min(found, key=lambda name: found[name]["ruin"]),
            "mean_log_growth": max(found, key=lambda name: found[name]["mean_log_growth"]),
        }
        bars = hedged.paths.n_bars * hedged.paths.count
        return {
            "ratio": ratio,
            "cost_a_year": cost,
            "spread_a_year": find_cost(hedged.outcomes, "option_spread"),
            "arms": found,
            "hedge_less_no_hedge": subtract(arms["hedge"], none),
            "hedge_less_less_leverage": subtract(arms["hedge"], less),
            "best": best,
            "microseconds_per_path_bar": 1e6 * seconds / bars,
        }

    def sweep(self, ratio: float) -> dict[str, Any]:
        """Return growth and ruin by tenor, delta and budget, and how far neighbors differ."""
        rows, cells = [], {}
        for tenor, delta, budget in product(TENORS, DELTAS, BUDGETS):
            policy = self.hedge(tenor=tenor, delta=delta, budget=budget)
            outcomes = self.live(policy, ratio).outcomes
            row = {"tenor": tenor, "delta": delta, "budget": budget, **describe(outcomes)}
            rows.append({**row, "cost_a_year": find_cost(outcomes, "option_cost")})
            cells[tenor, delta, budget] = outcomes
            tell(row)
        return {"sweep": rows, "neighbors": compare_neighbors(cells)}

    def walk(self, ratio: float) -> list[dict[str, Any]]:
        """Return growth out of sample by path: of a hedge chosen again and again, and of none."""
        history = bt.Markets({"BTC": self.draw["market"]["BTC"].resample("8h")}, currency="USDC")
        surface = SURFACES[self.given.factors](ratio=ratio, expiries="monthly")
        paths = bt.simulate_paths(
            **(self.draw | {"market": history, "horizon": "730d"}), surfaces=surface
        )
        policy, rows = self.hedge(tenor=45.0, roll=14.0), []
        given = {"venue": make_venue(), "account": self.account}
        for i in range(len(paths)):
            markets = paths.with_options(i, deltas=WALKED["delta"], tenors=[45.0])
            start = time.process_time()
            walk = bt.walk_forward(
                markets, policy, space=WALKED, objective="cagr", constraints={}, robust=False,
                train="365d", test="91d", **given,
            )  # fmt: skip
            seconds, first = time.process_time() - start, walk.folds["test_start"][0]
            none = bt.run(markets, Constant(self.given.leverage), start=first, **given)
            row = {"path": i, "contracts": len(markets.options), "seconds": seconds}
            for name, result in (("walked", walk.result), ("no_hedge", none)):
                row[name] = {each: result.metrics[each] for each in ("total_return", "ruined")}
            row["cost_a_year"] = float(walk.result.rolls("leg").loc["total", "cost"])
            row["chosen"] = walk.folds[[*WALKED]].to_numpy().tolist()
            rows.append(row)
            tell(row)
        return rows


def find_cost(outcomes: pd.DataFrame, name: str) -> float:
    """Return what options cost over the mean equity, per year, over all paths."""
    return float(outcomes[name].sum() / outcomes["mean_wealth"].sum() / YEARS)


def log_growth(outcomes: pd.DataFrame) -> np.ndarray:
    """Return log growth by path; wealth under a thousandth of the start counts as that."""
    return np.log(np.maximum(outcomes["wealth"] / CAPITAL, 1e-3))


def describe(outcomes: pd.DataFrame) -> dict[str, float]:
    """Return growth, ruin and liquidation of an arm."""
    wealth = outcomes["wealth"] / CAPITAL
    return {
        "growth_median": float(wealth.median() - 1.0),
        "growth_mean": float(wealth.mean() - 1.0),
        "growth_05": float(wealth.quantile(0.05) - 1.0),
        "mean_log_growth": float(log_growth(outcomes).mean()),
        "ruin": float(outcomes["is_ruined"].mean()),
        "liquidation": float(outcomes["is_liquidated"].mean()),
    }


def subtract(one: pd.DataFrame, other: pd.DataFrame) -> dict[str, list[float]]:
    """Return differences of two arms on the same paths, with 95 % intervals."""
    pairs = {
        "ruin": (one["is_ruined"], other["is_ruined"]),
        "mean_log_growth": (log_growth(one), log_growth(other)),
    }
    return {name: list(estimate_difference(*each, 0.95)[:3]) for name, each in pairs.items()}


def compare_neighbors(cells: dict[tuple[float, ...], pd.DataFrame]) -> dict[str, Any]:
    """Return, by parameter, of how many neighboring cells the 95 % interval leaves 0 out."""
    found: dict[str, Any] = {}
    for k, (name, values) in enumerate(AXES.items()):
        later = dict(pairwise(values))
        pairs = [(a, (*a[:k], later[a[k]], *a[k + 1 :])) for a in cells if a[k] in later]
        moved = [subtract(cells[b], cells[a]) for a, b in pairs]
        apart = {each: sum(not x[each][1] <= 0.0 <= x[each][2] for x in moved) for each in moved[0]}
        found[name] = {"pairs": len(pairs), **apart}
    return found


def find_turn(rows: list[dict[str, Any]], name: str) -> float | None:
    """Return the ratio at which hedge and less leverage are equal, between two that were run."""
    points = [(row["ratio"], row["hedge_less_less_leverage"][name][0]) for row in rows]
    for (x, a), (y, b) in pairwise(points):
        if a * b <= 0.0 and a != b:
            return float(x + (y - x) * a / (a - b))
    return None


def tell(row: Any) -> None:
    """Print a line of progress."""
    sys.stderr.write(json.dumps(row) + "\n")
    sys.stderr.flush()


def main() -> int:
    """Print the table as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="default: a made-up market")
    parser.add_argument("--paths", type=int, default=200)
    parser.add_argument("--ratios", type=float, nargs="+", default=list(RATIOS))
    parser.add_argument("--model", default="filtered")
    parser.add_argument("--factors", choices=tuple(SURFACES), default="one")
    parser.add_argument("--margin", default="deribit-standard")
    parser.add_argument("--leverage", type=float, default=3.0)
    parser.add_argument("--budget", type=float, default=0.005, help="of equity per roll")
    parser.add_argument("--drift", type=float, default=0.25, help="of the price, per year")
    parser.add_argument("--ruin", type=float, default=0.3, help="of the capital")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sweep", action="store_true", help="tenor, delta and budget instead")
    parser.add_argument("--walk", action="store_true", help="walk forward on two years instead")
    given = parser.parse_args()
    if not given.drift > 0.0:
        parser.error(
            f"--drift must be above 0, got {given.drift}: it is what less leverage gives up"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = Study(given)
        found: dict[str, Any] = {
            name: getattr(given, name)
            for name in ("paths", "model", "factors", "margin", "leverage", "drift", "ruin")
        }
        found["paths_drawn"] = repr(study.plain)
        if given.walk:
            found["ratio"] = given.ratios[0]
            found["walk"] = study.walk(given.ratios[0])
        elif given.sweep:
            found["ratio"] = given.ratios[0]
            found["no_hedge"] = describe(study.live(Constant(given.leverage)).outcomes)
            found |= study.sweep(given.ratios[0])
        else:
            none = study.live(Constant(given.leverage)).outcomes
            rows = []
            for ratio in given.ratios:
                rows.append(study.compare(none, ratio))
                tell(rows[-1])
            found["rows"] = rows
            names = ("ruin", "mean_log_growth")
            found["turns_at"] = {name: find_turn(rows, name) for name in names}
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

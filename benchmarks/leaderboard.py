"""Every policy on every market of a folder, walked forward, at several risks. Prints Markdown.

    python benchmarks/leaderboard.py FOLDER... [--risks 1 3 10] [--from DAY] [--to DAY]

FOLDER holds bars, mark prices and funding of one or several instruments, in freqtrade's layout or
the project's own. At risk r a policy holds r times what it asks for with its defaults. Windows,
half-lives and estimators are tuned for the Sharpe ratio on each train span, and one account trades
all test spans. At equal risk its positions are scaled, and it is run again, until its volatility is
that of constant leverage r; the scale is known only afterwards. All tries count in the deflated
Sharpe ratio of the best. Policies of columns, options, spot legs and isolated margin are left out.
One with nothing to tune, or only ruined sets in the first span, keeps its defaults and has a star.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
from timing import read_flags

import backtest as bt
from backtest import strategies
from backtest.core import Choice
from backtest.engine import Segment, run_switched
from backtest.experiments.policy_names import built_in_policies
from backtest.policies import sets_margin, trades_options
from backtest.results import deflated_sharpe_of_returns, expected_max_sharpe, simulate_luck

RULES_OF = {"LTCUSDT": "ETHUSDT"}
"""Instruments without a table of their own, and the one whose venue rules they take."""
RISKS = (1.0, 3.0, 10.0)
BASELINE = "Constant"
CONFIDENCE = 0.95
YEAR = 365.0
NEAR = 0.01
"""Relative distance from the volatility of the baseline at which the search for a scale ends."""
EVIDENCE = 0.95
"""The least deflated Sharpe ratio that counts as evidence."""


class Times(bt.Combinator):
    """Hold a multiple of what a policy asks for."""

    turns: Annotated[float, bt.Range(1e-6, 1e6, "times", log=True)] = 1.0

    def combine(self, bar: bt.Bar, account: bt.AccountView, asked: tuple[float, ...]) -> float:
        """Return the multiple; NaN, which keeps the position, stays NaN."""
        return self.turns * asked[0]


class Terms(NamedTuple):
    """What all accounts of a market share."""

    backtest: bt.Backtest
    train: str
    test: str
    trials: int

    def add_stop(self) -> Terms:
        """Return the terms with a stop of two average true ranges, as they were at the entry."""
        market = self.backtest.market.with_columns(atr=bt.indicators.atr(self.backtest.market))
        account = replace(self.backtest.account, stop_loss=bt.Multiple(2.0, "atr", fixed=True))
        return self._replace(backtest=self.backtest.replace(market=market, account=account))


def instances() -> dict[str, bt.Policy]:
    """Return every policy of the library with its defaults; combinators over the plainest ones."""
    inner = (strategies.Constant(2.0), strategies.VolTarget())
    found: dict[str, bt.Policy] = {}
    for cls in built_in_policies():
        if trades_options(cls) or sets_margin(cls) or cls is strategies.Carry:
            continue
        parts = inner[-cls.takes[0] :] if issubclass(cls, bt.Combinator) else ()
        found[cls.__name__] = cls(*parts)
    return found


def load_markets(folders: list[Path], start: str, end: str) -> dict[str, bt.Market]:
    """Return the markets of all folders, by instrument; a folder may have several."""
    found = {}
    for folder in folders:
        coins = sorted({path.name.partition("_")[0] for path in folder.glob("*-futures.*")})
        for name in [f"{coin}USDT" for coin in coins] or [None]:
            market = bt.Market.load(folder, instrument=name, since=start, until=end)
            found[market.instrument] = market
    return found


class Walked(NamedTuple):
    """An account, the policies that it had in each test span, and whether they were tuned."""

    result: bt.Result
    segments: list[Segment]
    is_tuned: bool


def find_tuned(policy: bt.Policy) -> dict[str, Any]:
    """Return what is tuned: options, and what is counted in bars."""
    spaces = {name: each.space for name, each in type(policy).parameters().items()}
    return {
        name: space
        for name, space in spaces.items()
        if isinstance(space, Choice) or (space is not None and space.unit == "bars")
    }


def walk(terms: Terms, policy: bt.Policy) -> Walked:
    """Tune a policy on each train span, and take one account through all test spans."""
    spans = bt.folds(terms.backtest.market, train=terms.train, test=terms.test)
    chosen = tune(terms, policy)
    index = terms.backtest.market.times
    firsts = index.searchsorted(pd.DatetimeIndex(spans["test_start"])).tolist()
    ends = [*firsts[1:], int(index.searchsorted(spans["test_end"].iloc[-1]))]
    segments = [
        Segment(first, end, set_to(policy, values))
        for first, end, values in zip(firsts, ends, chosen or [{}] * len(spans), strict=True)
    ]
    return Walked(live(terms, segments), segments, bool(chosen))


def tune(terms: Terms, policy: bt.Policy) -> list[dict[str, Any]]:
    """Return the parameters for each test span; none if every set is ruined in the first year."""
    space = find_tuned(policy)
    if not space:
        return []
    try:
        done = terms.backtest.walk_forward(
            policy, space=space, train=terms.train, test=terms.test, trials=terms.trials,
            robust=False,
        )  # fmt: skip
    except bt.ParameterError as error:
        if "none of" not in str(error):
            raise
        return []
    found: list[dict[str, Any]] = done.folds[list(space)].to_dict("records")
    return found


def set_to(policy: bt.Policy, values: dict[str, Any]) -> bt.Policy:
    """Return a policy with other parameters."""
    declared = type(policy).parameters()
    return type(policy)(**policy.settings() | {k: declared[k].kind(v) for k, v in values.items()})


def live(terms: Terms, segments: list[Segment]) -> bt.Result:
    """Take one account through segments."""
    market = terms.backtest.market.prefix(segments[-1].stop)
    return run_switched(terms.backtest.replace(market=market), segments)


def equalize(terms: Terms, walked: Walked, volatility: float) -> bt.Result:
    """Scale positions, and run again, until the account has this volatility."""
    best, scale = walked.result, 1.0
    for _ in range(4):
        found = best.metrics["volatility"]
        if not found > 0.0 or abs(found / volatility - 1.0) < NEAR:
            break
        scale *= volatility / found
        best = live(terms, [
            each._replace(policy=set_to(each.policy, {"turns": each.policy.turns * scale}))  # type: ignore[attr-defined]
            for each in walked.segments
        ])  # fmt: skip
    return best


def read_measures(result: bt.Result) -> dict[str, float]:
    """Return the measures of a row."""
    total = result.metrics["total_return"]
    growth = math.log1p(total) / (len(result.returns) / YEAR) if total > -1.0 else -math.inf
    kept = {name: result.metrics[name] for name in ("sharpe", "sharpe_error", "ruined")}
    return {"growth": growth, **kept}


def list_rows(
    terms: Terms, risks: list[float], only: list[str]
) -> Iterator[tuple[dict[str, Any], bt.Result, bt.Result]]:
    """Yield a row for each policy and risk on a market, with its accounts: own and equal risk."""
    found = instances()
    policies = {BASELINE: found.pop(BASELINE)}  # first: the others are scaled to its volatility
    policies |= {name: each for name, each in found.items() if not only or name in only}
    for risk in risks:
        volatility = math.nan
        for name, policy in policies.items():
            own = terms.add_stop() if name == "FixedRisk" else terms
            try:
                walked = walk(own, Times(policy, turns=risk))
            except bt.DataError as error:
                sys.stderr.write(f"{name} is left out: {error}\n")
                continue
            if name == BASELINE:
                volatility = walked.result.metrics["volatility"]
            equal = equalize(own, walked, volatility)
            market = own.backtest.market.instrument
            row: dict[str, Any] = {"market": market, "policy": name, "risk": risk}
            row["p"] = bt.timing_test(walked.result).p_growth
            row["tuned"] = walked.is_tuned
            row |= {"own": read_measures(walked.result), "equal": read_measures(equal)}
            sys.stderr.write(f"{row['market']} {risk:g} {name} {row['own']['growth']:.3f}\n")
            yield row, walked.result, equal


def judge_best(rows: list[dict[str, Any]], accounts: list[bt.Result]) -> dict[str, Any]:
    """Return the deflated Sharpe ratio of the best of all accounts, own and at equal risk."""
    table = pd.concat([each.returns for each in accounts], axis=1).dropna().to_numpy()
    sharpes = np.array([row[kind]["sharpe"] for row in rows for kind in ("own", "equal")])
    best = int(np.nanargmax(sharpes))
    luck = simulate_luck(table)
    deviation = luck.find_deviation(len(table))
    return {
        "tries": len(accounts),
        "row": rows[best // 2],
        "sharpe": float(sharpes[best]),
        "lucky_sharpe": expected_max_sharpe(luck.n, deviation) * math.sqrt(YEAR),
        "deflated_sharpe": deflated_sharpe_of_returns(
            accounts[best].returns.to_numpy(), n_trials=luck.n, std=deviation
        ),
    }


def compare_with_constant(accounts: dict[str, bt.Result]) -> pd.DataFrame:
    """Return the differences of growth from constant leverage, at equal risk, with intervals."""
    found = bt.compare(accounts, baseline=BASELINE, confidence=CONFIDENCE).differences
    return found[found["measure"] == "log_growth"]


def count_clear(low: np.ndarray, high: np.ndarray) -> dict[str, float]:
    """Count the intervals that leave zero out, and how many do by chance alone."""
    known = np.isfinite(low) & np.isfinite(high)
    n = int(np.count_nonzero(known))
    above, below = int(np.sum(low[known] > 0.0)), int(np.sum(high[known] < 0.0))
    return {"above": above, "below": below, "n": n, "expected": (1.0 - CONFIDENCE) * n}


def write_timing(rows: list[dict[str, Any]]) -> str:
    """Return how many tests of timing are small, by chance and by Holm."""
    found = sorted(row["p"] for row in rows if math.isfinite(row["p"]))
    level, n = 1.0 - CONFIDENCE, len(found)
    small = sum(p <= level for p in found)
    left = next((k for k, p in enumerate(found) if p * (n - k) > level), n)
    return (
        f"Of {n} tests whether the timing of the leverage earned the growth, {small} have a p of "
        f"{level:.2g} or less, where chance alone gives {level * n:.3g}; {left} after Holm.\n"
    )


def write_headline(found: dict[str, Any]) -> str:
    """Return what all rows say together."""
    best, gaps, name = found["best"], found["gaps"], found["best"]["row"]
    is_beaten = best["deflated_sharpe"] >= EVIDENCE or gaps["above"] > gaps["expected"]
    fates: dict[float, list[float]] = {}
    for row in found["rows"]:
        fates.setdefault(row["risk"], []).append(row["own"]["ruined"])
    ruined = ", ".join(f"{sum(f):g} of {len(f)} at risk {risk:g}" for risk, f in fates.items())
    return (
        f"**{'Some policies beat' if is_beaten else 'Nothing beats'} constant leverage after "
        f"costs.** At equal risk, {gaps['n']} differences of growth from it were tested: "
        f"{gaps['above']} are above zero and {gaps['below']} below by more than noise; chance "
        f"alone gives {gaps['expected']:.3g}. The best Sharpe ratio of {best['tries']} accounts is "
        f"{best['sharpe']:.2f} (`{name['policy']}` on {name['market']} at risk {name['risk']:g}); "
        f"the best of so many without skill has {best['lucky_sharpe']:.2f}. The deflated Sharpe "
        f"ratio is {best['deflated_sharpe']:.2f}, and {EVIDENCE} would be evidence. Ruined were "
        f"{ruined}.\n"
    )


def write_table(rows: list[dict[str, Any]]) -> str:
    """Return growth and Sharpe ratio at equal risk: a line a policy, columns by market and risk."""
    places = [*dict.fromkeys((row["market"], row["risk"]) for row in rows)]
    cells: dict[str, dict[tuple[str, float], str]] = {}
    for row in rows:
        cell = write_cell(row["equal"]) + ("" if row["tuned"] else " *")
        cells.setdefault(f"`{row['policy']}`", {})[row["market"], row["risk"]] = cell
    head = ["policy", *(f"{market} {risk:g}" for market, risk in places)]
    lines = [head, ["---"] * len(head)]
    lines += [[name, *(found.get(each, "") for each in places)] for name, found in cells.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_cell(measures: dict[str, float]) -> str:
    """Return growth a year and the Sharpe ratio, or that the account was ruined."""
    if measures["ruined"] or not math.isfinite(measures["growth"]):
        return "ruined"
    return f"{measures['growth']:+.1%}, {measures['sharpe']:.2f}"


def run_all(wanted: argparse.Namespace) -> dict[str, Any]:
    """Return the rows of all markets, and what they say together."""
    rows, accounts, gaps = [], [], []
    for name, market in load_markets(wanted.folders, wanted.start, wanted.end).items():
        venue = bt.Venue.preset("binance-usdm", RULES_OF.get(name, name))
        test = bt.Backtest(market, venue=venue, account=bt.Account(capital=10_000, band=0.05))
        terms = Terms(test, wanted.train, wanted.test, wanted.trials)
        equal: dict[float, dict[str, bt.Result]] = {}
        for row, own, scaled in list_rows(terms, wanted.risks, wanted.only):
            rows.append(row)
            accounts += [own, scaled]
            if row["policy"] != "FixedRisk":  # its account has a stop: comparisons refuse that
                equal.setdefault(row["risk"], {})[row["policy"]] = scaled
        gaps += [compare_with_constant(each) for each in equal.values()]
    low, high = (np.concatenate([each[end] for each in gaps]) for end in ("low", "high"))
    counted = count_clear(low.astype(float), high.astype(float))
    return {"rows": rows, "best": judge_best(rows, accounts), "gaps": counted}


def main() -> None:
    """Run all, and print the headline and the table of docs/found.md."""
    wanted = read_flags(
        __doc__, "folders", risks=[*RISKS], only=["all"], start="2020-01-10", end="2024-01-01",
        train="365d", test="180d", trials=8,
    )  # fmt: skip
    wanted.folders = [Path(each) for each in wanted.folders]
    wanted.only = [] if wanted.only == ["all"] else [*dict.fromkeys([*wanted.only, BASELINE])]
    warnings.simplefilter("ignore")
    found = run_all(wanted)
    texts = (write_headline(found), write_timing(found["rows"]), write_table(found["rows"]))
    sys.stdout.write("\n".join(texts))


if __name__ == "__main__":
    main()

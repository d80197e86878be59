"""The judgement of each shipped policy, with its defaults, on the markets of some folders.

    python benchmarks/judgements.py FOLDER... [--only POLICY...] [--from DAY] [--to DAY]

FOLDER holds bars, mark prices and funding of one or several instruments, in freqtrade's layout or
the project's own. It prints JSON with a row for each policy, and the table of docs/found.md. A line
for each policy goes to standard error as it is known, and Ctrl-C prints the rows so far.
Combinators hold a volatility target, and constant leverage if they take two policies. Policies of
options, spot legs, isolated margin and stops are left out: their judgement needs another account.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from timing import print_json, read_flags

import backtest as bt
from backtest import strategies
from backtest.core import format_chance, format_p_value
from backtest.experiments.policy_names import built_in_policies
from backtest.policies import sets_margin, trades_options

LEFT_OUT = (strategies.Carry, strategies.FixedRisk)
"""A policy of a spot leg, and one that sizes by the stop of its account."""
CAPITAL = 10_000.0
BAND = 0.05


def list_policies(only: list[str]) -> list[bt.Policy]:
    """Return the policies with their defaults; combinators over the plainest ones."""
    inner = (strategies.Constant(2.0), strategies.VolTarget())
    policies: list[bt.Policy] = []
    for kind in built_in_policies():
        if trades_options(kind) or sets_margin(kind) or kind in LEFT_OUT:
            continue
        if only and kind.__name__ not in only:
            continue
        parts = inner[-kind.takes[0] :] if issubclass(kind, bt.Combinator) else ()
        policies.append(kind(*parts))
    return policies


def load_markets(folders: list[Path], start: str, end: str) -> dict[str, bt.Market]:
    """Return the markets of all folders, by instrument; a folder may have several."""
    markets = {}
    for folder in folders:
        coins = sorted({path.name.partition("_")[0] for path in folder.glob("*-futures.*")})
        for name in [f"{coin}USDT" for coin in coins] or [None]:
            market = bt.Market.load(folder, instrument=name, since=start, until=end)
            markets[market.instrument] = market
    return markets


def judge_policies(
    policies: list[bt.Policy], markets: dict[str, bt.Market]
) -> list[dict[str, Any]]:
    """Return a row for each policy; Ctrl-C ends the list early."""
    rows: list[dict[str, Any]] = []
    try:
        for policy in policies:
            row = judge_policy(policy, markets)
            rows.append(row)
            sentence = row.get("sentence", row.get("why"))
            sys.stderr.write(f"{row['policy']} ({len(rows)} of {len(policies)}): {sentence}\n")
    except KeyboardInterrupt:
        sys.stderr.write(f"stopped after {len(rows)} of {len(policies)} policies\n")

    return rows


def judge_policy(policy: bt.Policy, markets: dict[str, bt.Market]) -> dict[str, Any]:
    """Return the row of one policy; one that fails on all markets has its cause alone."""
    test = bt.Backtest(
        next(iter(markets.values())),
        venue=bt.Venue.preset("binance-usdm", "BTCUSDT"),
        account=bt.Account(capital=CAPITAL, band=BAND),
    )
    began = time.process_time()
    try:
        judged = test.judge(policy, markets=markets)
    except bt.BacktestError as error:
        return {"policy": type(policy).__name__, "why": str(error).partition("\n")[0]}

    findings = judged.findings
    return {
        "policy": judged.policy_name,
        "settings": judged.title,
        "outcome": judged.outcome,
        "sentence": judged.verdict,
        "difference": findings.difference,
        "low": findings.low,
        "high": findings.high,
        "n": findings.n,
        "by_market": judged.growth["difference"].dropna().to_dict(),
        "chance": findings.chance,
        "chance_market": findings.chance_market,
        "largest_scale": judged.limits["largest_scale"].to_dict(),
        "p_growth": judged.timing["p_growth"].to_dict(),
        "faults": dict(judged.faults),
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def write_table(rows: list[dict[str, Any]], names: list[str]) -> str:
    """Return a line for each policy that was judged, in Markdown.

    Differences are in per cent of log growth a year; p are those of the markets.
    """
    heads = ["policy", "outcome", "difference, %", *names, "lost in 30 days", "largest scale", "p"]
    lines = [heads, ["---"] * len(heads)]

    # Combinators whose defaults change nothing have the line of what they hold.
    by_cells: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        if "outcome" in row:
            by_cells.setdefault(tuple(list_cells(row, names)), []).append(f"`{row['policy']}`")
    lines += [[", ".join(policies), *cells] for cells, policies in by_cells.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def list_cells(row: dict[str, Any], names: list[str]) -> list[str]:
    """Return the cells of one policy but its name."""
    gap = write_gap(row["difference"])
    if not math.isnan(row["difference"]):
        gap = f"{gap} ({write_gap(row['low'])} to {write_gap(row['high'])})"
    gaps = [write_gap(row["by_market"].get(name, math.nan)) for name in names]
    lost = "none"
    if row["chance"] > 0.0:
        lost = f"{format_chance(row['chance'])} ({row['chance_market']})"
    scale = min(row["largest_scale"].values())
    p_growth = [row["p_growth"].get(name, math.nan) for name in names]
    p = ", ".join("-" if math.isnan(p) else format_p_value(p) for p in p_growth)
    return [row["outcome"], gap, *gaps, lost, f"{scale:.3g}", p]


def write_gap(difference: float) -> str:
    """Return a difference of log growth in per cent a year, or that there is none."""
    if math.isnan(difference):
        return "not tested"
    return f"{100.0 * difference:+.2f}"


def main() -> None:
    """Judge the policies, print JSON, and the table of docs/found.md."""
    wanted = read_flags(__doc__, "folders", only=["all"], start="2021-01-01", end="2024-01-01")
    warnings.simplefilter("ignore")
    markets = load_markets([Path(folder) for folder in wanted.folders], wanted.start, wanted.end)
    only = [] if wanted.only == ["all"] else wanted.only
    rows = judge_policies(list_policies(only), markets)

    spans = {
        name: [str(market.times[0]), str(market.times[-1])] for name, market in markets.items()
    }
    print_json({"markets": spans, "capital": CAPITAL, "band": BAND, "rows": rows})
    sys.stdout.write("\n" + write_table(rows, [*markets]))


if __name__ == "__main__":
    main()

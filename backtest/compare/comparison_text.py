"""The text summary of a comparison, for a terminal of 100 columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.base import (
    capitalize,
    format_number,
    format_paragraph,
    format_percent,
    format_span,
    to_nanoseconds,
)
from backtest.base.units import DAY
from backtest.compare.best_of_many import build_confidence_set, run_superiority_test
from backtest.compare.pairs import FEW, LOST, NONE, RUIN, SAME
from backtest.engine.result_text import SHORT
from backtest.measures.cautions import AFTER_RUIN

if TYPE_CHECKING:
    from backtest.compare.comparison_record import ComparisonRecord

MOST_NAME = 24
"""The longest name in a table; longer ones are shortened, and in full in the list of policies."""


class SummaryColumn(NamedTuple):
    title: str
    width: int
    write: Callable[[float], str]


def format_count(value: float) -> str:
    return f"{value:,.0f}" if value else "-"


def format_known(value: float) -> str:
    """Format a fraction, of an account that has none a dash."""
    return "-" if math.isnan(value) else format_percent(value)


PERFORMANCE: Mapping[str, SummaryColumn] = {
    "log_growth": SummaryColumn("log growth", 12, format_percent),
    "volatility": SummaryColumn("volatility", 12, format_percent),
    "sharpe": SummaryColumn("Sharpe", 8, format_number),
    "max_drawdown": SummaryColumn("drawdown", 11, format_percent),
    "es_95": SummaryColumn("ES 95 %", 10, format_percent),
    "mean_leverage": SummaryColumn("leverage", 10, format_number),
    "liquidations": SummaryColumn("liquidated", 12, format_count),
}
WHOLE: Mapping[str, SummaryColumn] = {
    "total_return": SummaryColumn("growth", 10, format_known),
    "max_drawdown": SummaryColumn("drawdown", 11, format_known),
    "total_return_quote": SummaryColumn("in quote: growth", 18, format_known),
    "max_drawdown_quote": SummaryColumn("drawdown", 11, format_known),
    "options_cost_annual": SummaryColumn("options a year", 16, format_known),
    "options_spread_annual": SummaryColumn("spread", 9, format_known),
}
"""The columns of the whole run: in coins and in money, and what options cost."""
OF_SOME = ("total_return_quote", "options_cost_annual")
"""Measures that only accounts in coins, or with options, have."""
OPTION_COSTS = (
    "Options cost premium less proceeds, and fees, of the mean equity a year; that contains the "
    "spread paid."
)
COSTS: Mapping[str, SummaryColumn] = {
    "fees_annual": SummaryColumn("fees", 10, format_percent),
    "slippage_annual": SummaryColumn("slippage", 10, format_percent),
    "impact_annual": SummaryColumn("impact", 10, format_percent),
    "funding_annual": SummaryColumn("funding", 10, format_percent),
    "interest_annual": SummaryColumn("interest", 10, format_percent),
    "liquidation_loss_annual": SummaryColumn("liquidation", 13, format_percent),
    "turnover": SummaryColumn("turnover", 11, format_number),
}
GAPS: Mapping[str, SummaryColumn] = {
    "log_growth": SummaryColumn("log growth", 18, format_percent),
    "sharpe": SummaryColumn("Sharpe", 14, format_number),
    "volatility": SummaryColumn("volatility", 18, format_percent),
    "es_95": SummaryColumn("ES 95 %", 16, format_percent),
}

SEPARATE = (
    "each policy has an account of its own in each of {} markets: measures are means over them, "
    "and differences are of the mean of their returns"
)

COVERAGE = (
    "measured on simulated accounts of 500 and 2,000 days, 95 % intervals held the true difference "
    "of log growth and Sharpe ratio in 93 to 97 % of cases, of volatility in 96 to 98 %, of ES in "
    "94 to 99 % (docs/compare.md)"
)

LEAST_MEASURED = 500
"""Periods of a comparison under which nobody measured the coverage."""

RUINED = {-math.inf: "below", math.inf: "above"}


def write_summary(comparison: ComparisonRecord) -> str:
    parts = (
        describe_policies(comparison),
        describe_accounts(comparison),
        describe_whole(comparison),
        describe_markets(comparison),
        describe_costs(comparison),
        describe_differences(comparison),
        describe_conclusions(comparison),
    )
    return "\n\n".join("\n".join(part) for part in map(list, parts) if part)


def describe_policies(comparison: ComparisonRecord) -> Iterator[str]:
    manifest, data = comparison.manifest, comparison.manifest["data"]
    policies = manifest["policies"]
    named = [f"{name}: {policies[name]['text']}" for name in comparison.names]
    yield from format_paragraph("Policies", *named)
    name = data["instrument"] or "unnamed instrument"
    notes = ["SYNTHETIC: these prices are made up"] if data["synthetic"] else []
    start, end = (to_nanoseconds(data[each]) for each in ("start", "end"))
    if (days := (end - start) / DAY) < SHORT:
        notes.append(f"yearly figures are extrapolated from {days:,.1f} days")
    yield from format_paragraph("Data", f"{name}, {format_span(data)}", *notes)
    if comparison.is_equal_risk:
        yield from format_paragraph("Equal risk", *describe_scales(comparison))
    for caution in comparison.warnings:
        yield from format_paragraph("Warning", caution)


def describe_scales(comparison: ComparisonRecord) -> Iterator[str]:
    table = comparison.table
    scales = [f"{name} x {table['scale'][name]:.4g}" for name in comparison.names]
    low, high = table["volatility"].min(), table["volatility"].max()
    yield f"positions scaled and run again: {', '.join(scales)}"
    yield f"volatilities from {format_percent(low)} to {format_percent(high)}"
    yield "the scales are known only afterwards: to compare, not to trade"


def describe_accounts(comparison: ComparisonRecord) -> Iterator[str]:
    yield from format_rows(comparison, "Measures", PERFORMANCE)
    yield from describe_lost(comparison)


def describe_whole(comparison: ComparisonRecord) -> Iterator[str]:
    """Yield growth and deepest fall in coins and in money, and the cost of options."""
    if not any(name in comparison.table for name in OF_SOME):
        return
    columns = {name: column for name, column in WHOLE.items() if name in comparison.table}
    yield from format_rows(comparison, "Over the run", columns)
    if "options_cost_annual" in columns:
        yield from format_paragraph("", OPTION_COSTS.removesuffix("."))


def describe_lost(comparison: ComparisonRecord) -> Iterator[str]:
    for name in comparison.ruined:
        yield f"  {name} was RUINED {tell_ruin(comparison, name)}: no trade since; {AFTER_RUIN}"
    for name in comparison.lost:
        if name not in comparison.ruined:
            left = 1.0 + float(comparison.table["total_return"][name])
            yield f"  {name} was LOST: {format_percent(left, 4)} of its money is left at the end"
    if len(comparison.lost) > 1:
        yield f"  nothing is compared between lost accounts: {', '.join(comparison.lost)}"


def tell_ruin(comparison: ComparisonRecord, name: str) -> str:
    row: Any = comparison.table.loc[name]
    days = f"after {float(row['ruin_time']):,.1f} days"
    if not comparison.markets:
        return days
    return f"in {float(row['ruined']):.0f} of {len(comparison.markets)} markets, {days} on average"


def describe_markets(comparison: ComparisonRecord) -> Iterator[str]:
    if names := comparison.markets:
        columns = {
            f"sharpe {name}": SummaryColumn(shorten_name(name), max(len(shorten_name(name)) + 3, 9),
                                            format_number)
            for name in names
        }  # fmt: skip
        yield from format_rows(comparison, "Sharpe by market", columns)
        yield from format_paragraph("", f"{capitalize(SEPARATE.format(len(names)))}.")


def describe_costs(comparison: ComparisonRecord) -> Iterator[str]:
    """Yield the table of costs per year, as shares of mean equity."""
    table = comparison.table
    paid = {
        name: column
        for name, column in COSTS.items()
        if name in ("fees_annual", "turnover") or (table[name].fillna(0.0) != 0.0).any()
    }
    yield from format_rows(comparison, "Paid per year", paid)


def format_rows(
    comparison: ComparisonRecord, title: str, columns: Mapping[str, SummaryColumn]
) -> Iterator[str]:
    width = find_width(comparison)
    rows = comparison.table.to_dict("index")
    heads = "".join(f"{column.title:>{column.width}}" for column in columns.values())
    yield f"{title:{width + 2}}{heads}"
    for name in comparison.order:
        row = rows[name]
        cells = [f" {each.write(row[key]):>{each.width - 1}}" for key, each in columns.items()]
        yield f"  {shorten_name(name):{width}}{''.join(cells)}"


def find_width(comparison: ComparisonRecord) -> int:
    return max(14, *(len(shorten_name(name)) for name in comparison.names))


def shorten_name(name: str) -> str:
    return name if len(name) <= MOST_NAME else f"{name[: MOST_NAME - 2]}.."


# ----------------------------------------------------------------------------------- differences


def describe_differences(comparison: ComparisonRecord) -> Iterator[str]:
    records: list[dict[Any, Any]] = comparison.differences.to_dict("records")
    rows = {(row["policy"], row["measure"]): row for row in records}
    width = find_width(comparison)
    how = (
        f", with its {format_confidence(comparison)} interval"
        if comparison.manifest["blocks"]
        else ""
    )
    yield f"Difference from {comparison.baseline}{how}"
    heads = "".join(f"{column.title:>{column.width}}  " for column in GAPS.values())
    yield f"{'':{width + 2}}{heads}".rstrip()
    for name in comparison.order:
        if name != comparison.baseline:
            cells = [write_gap(rows[name, key], column) for key, column in GAPS.items()]
            yield f"  {shorten_name(name):{width}}{''.join(cells)}".rstrip()
    yield from explain_differences(comparison)


def write_gap(row: Mapping[str, Any], column: SummaryColumn) -> str:
    mark = " *" if row["distinguishable"] else "  "
    if row["basis"] == SAME:
        text = "alike"
    elif row["basis"] == LOST:
        text = LOST
    elif row["basis"] in (RUIN, NONE):
        text = RUINED.get(row["difference"], "n/a")
    else:
        value, unit = split_unit(without_sign(column.write(row["difference"])))
        half = row["high"] - row["difference"]
        around = split_unit(column.write(half))[0] if math.isfinite(half) else "?"
        text = f"{value}{unit}" if row["basis"] == FEW else f"{value} ± {around}{unit}"
    return f"{text:>{column.width}}{mark}"


def without_sign(text: str) -> str:
    return text if text.strip("-0.% ") else text.removeprefix("-")


def split_unit(text: str) -> tuple[str, str]:
    return (text.removesuffix(" %"), " %") if text.endswith(" %") else (text, "")


def format_confidence(comparison: ComparisonRecord) -> str:
    return f"{100.0 * comparison.confidence:.6g} %"


def explain_differences(comparison: ComparisonRecord) -> Iterator[str]:
    blocks = comparison.manifest["blocks"]
    if not blocks:
        return
    lengths = ", ".join(f"{n} for {GAPS[name].title}" for name, n in blocks.items())
    others, level = len(comparison.names) - 1, 1.0 - comparison.confidence
    corrected = f" after Holm's correction for {others} of a measure" if others > 1 else ""
    is_open = np.isinf(comparison.differences["high"]) & (comparison.differences["basis"] != RUIN)
    yield from format_paragraph(
        "*",
        f"more than noise: p at most {level:.4g}{corrected}",
        *(["?: no bound, because too few days make up the difference"] if is_open.any() else ()),
        f"stationary bootstrap: {comparison.draws:,} histories in blocks of a mean length of "
        f"{lengths} (periods of {comparison.manifest['sampling']})",
        describe_coverage(comparison),
    )


def describe_coverage(comparison: ComparisonRecord) -> str:
    n = len(comparison.returns)
    if n >= LEAST_MEASURED:
        return COVERAGE
    return (
        f"{COVERAGE}; here are {n:,} periods, fewer than were measured: the intervals may be too "
        "narrow"
    )


# ------------------------------------------------------------------------------------ conclusions


def describe_conclusions(comparison: ComparisonRecord) -> Iterator[str]:
    found = comparison.differences
    if (found["basis"] == FEW).all():
        return
    lines = []
    for measure, column in GAPS.items():
        beyond = found[(found["measure"] == measure) & found["distinguishable"]]
        pairs = zip(beyond["policy"], beyond["difference"], strict=True)
        words = [f"{name} ({'higher' if gap > 0.0 else 'lower'})" for name, gap in pairs]
        lines.append(f"{column.title}: {', '.join(words) or 'none'}")
    yield from format_paragraph("Beyond noise", *lines)
    living = len(comparison.names) - len(comparison.lost)
    if living > 2:
        yield from format_paragraph("All at once", *describe_joint_tests(comparison))


def describe_joint_tests(comparison: ComparisonRecord) -> Iterator[str]:
    if comparison.baseline not in comparison.ruined:
        test = run_superiority_test(comparison, "log_growth", None)
        shown = f"{test.best} does" if test.is_beaten else "it is not shown that any does"
        yield (
            f"p = {test.p_value:.3f} that no policy truly grows faster than {comparison.baseline} "
            f"(Hansen's SPA): {shown}"
        )
    kept = build_confidence_set(comparison, "log_growth")
    yield (
        f"may be the best in log growth, with {format_confidence(comparison)} confidence "
        f"(model confidence set): {', '.join(kept.members)}"
    )


MEASURES = {
    "log_growth": "log growth per year",
    "sharpe": "Sharpe",
    "volatility": "volatility",
    "es_95": "ES 95 %",
}


def write_verdict(comparison: ComparisonRecord) -> str:
    table = comparison.differences
    clear = table[table["distinguishable"]]
    parts = []
    for measure, words in MEASURES.items():
        rows = clear[clear["measure"] == measure].to_dict("records")
        sides = [f"{row['policy']} ({'higher' if row['difference'] > 0.0 else 'lower'})"
                 for row in rows]  # fmt: skip
        parts += [f"{words}: {', '.join(sides)}"] if sides else []
    start = f"Against {comparison.baseline}, with {comparison.confidence:.0%} confidence,"
    if not parts:
        return f"{start} nothing differs by more than noise."
    return f"{start} these differ by more than noise. {capitalize('; '.join(parts))}."


def list_notices(comparison: ComparisonRecord) -> Iterator[str]:
    for name in comparison.ruined:
        yield f"{name} was ruined {tell_ruin(comparison, name)}: no trade since; {AFTER_RUIN}."
    if len(comparison.lost) > 1:
        yield f"Nothing is compared between lost accounts: {', '.join(comparison.lost)}."
    if comparison.is_equal_risk:
        yield (
            "At equal risk: positions were scaled by factors known only afterwards, to compare "
            "and not to trade."
        )
    yield from comparison.warnings

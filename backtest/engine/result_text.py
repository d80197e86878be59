"""The text summary of a run, for a terminal of 80 columns or more."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest.base.number_text import (
    format_leverage,
    format_number,
    format_percent,
)
from backtest.base.text_layout import capitalize, format_paragraph
from backtest.base.units import DAY
from backtest.engine.account_text import (
    count_boundless,
    summarize_account,
    summarize_events,
)
from backtest.engine.benchmark import describe_benchmark
from backtest.engine.checks_text import describe_checks
from backtest.engine.position_tables import OWN, attribution_table
from backtest.engine.result_tables import TERMS
from backtest.engine.run_record import sample_risk_free
from backtest.engine.setting_text import summarize_setting
from backtest.engine.target_cuts_text import describe_targets
from backtest.measures.cautions import AFTER_RUIN
from backtest.measures.performance import max_drawdown, ratio, sampled_returns

if TYPE_CHECKING:
    from backtest.engine.run_record import RunRecord

SHORT = 330.0
"""Days of a run under which its yearly figures are said to be extrapolated."""
MEASURES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("total return", "total_return", format_percent),
    ("cagr", "cagr", format_percent),
    ("volatility, annual", "volatility", format_percent),
    ("Sharpe", "sharpe", format_number),
    ("Sortino", "sortino", format_number),
    ("max drawdown", "max_drawdown", format_percent),
    ("Calmar", "calmar", format_number),
    ("VaR 95 % of {} returns", "var_95", format_percent),
    ("ES 95 %", "es_95", format_percent),
    ("VaR 99 %", "var_99", format_percent),
    ("ES 99 %", "es_99", format_percent),
)
"""The rows of the table of measures: label, measure and format."""
RATIOS = ("sharpe", "sortino")
"""Measures that are marked if the account was ruined: returns after the ruin count as 0."""


class BuyAndHold(NamedTuple):
    """Measures of holding the instrument unlevered: price only, no costs."""

    total_return: float
    volatility: float
    sharpe: float
    max_drawdown: float


def write_summary(result: RunRecord) -> str:
    """Return what happened to the account: data, measures, costs, liquidations, checks.

    Lines are at most 80 characters wide where no single word is wider, without colors. Money is
    in the settlement currency.
    """
    by_instrument = () if result.has_one_position else (summarize_instruments,)
    sections = (
        summarize_setting, compare_measures, summarize_risk, *by_instrument, summarize_account,
        summarize_events, summarize_checks,
    )  # fmt: skip
    return "\n\n".join("\n".join(section(result)) for section in sections)


def compare_measures(result: RunRecord) -> Iterator[str]:
    """Yield the account's measures, of one position next to those of the instrument at 1x."""
    held: dict[str, float] = {}
    if result.has_one_position:
        held = measure_holding(result)._asdict()
        yield f"{'':28}{'account':>14}{'buy and hold 1x':>20}"
    else:
        yield f"  {'final equity':26}{result.metrics['final_equity']:>14,.2f}"
    for label, name, format_value in MEASURES:
        theirs = format_value(held[name]) if name in held else ""
        row = f"  {label_measure(label, name, result):26}"
        yield f"{row}{format_value(result.metrics[name]):>14}{theirs:>20}".rstrip()
    if held:
        is_inverse = result.venue.contract.kind == "inverse"
        unit = "in the quote currency, " if is_inverse else ""
        yield f"  Buy and hold: the mark price from the first close on; {unit}price only, no costs."
    yield from describe_sample(result)


def label_measure(label: str, name: str, result: RunRecord) -> str:
    """Return the label of a measure; marked if returns after ruin count as 0 in it."""
    text = label.format(result.manifest["sampling"])
    return f"{text} (0 after ruin)" if name in RATIOS and result.metrics["ruined"] else text


def describe_sample(result: RunRecord) -> Iterator[str]:
    """Yield cautions: days after ruin count, and yearly figures are extrapolated."""
    if result.metrics["ruined"]:
        yield f"  {capitalize(AFTER_RUIN)}."
    days = (int(result.span.closes[-1]) - result.span.start) / DAY
    if days < SHORT:
        yield f"  Yearly figures are extrapolated from {days:,.1f} days."


def measure_holding(result: RunRecord) -> BuyAndHold:
    """Return the measures of the mark price itself, from the first close to the last.

    Returns are sampled and annualized as the account's are, over the same risk-free rate.
    """
    unit = result.mark / result.mark[0]
    returns = sampled_returns(unit, result.ends_sample, 1.0)
    excess = returns - sample_risk_free(result)
    periods = result.span.periods
    has_spread = len(returns) > 1
    volatility = float(np.std(returns, ddof=1)) if has_spread else math.nan
    deviation = float(np.std(excess, ddof=1)) if has_spread else math.nan
    return BuyAndHold(
        total_return=float(unit[-1]) - 1.0,
        volatility=volatility * math.sqrt(periods),
        sharpe=ratio(float(np.mean(excess)), deviation, periods) if has_spread else math.nan,
        max_drawdown=max_drawdown(unit),
    )


def summarize_risk(result: RunRecord) -> Iterator[str]:
    """Yield the worst drawdown with its dates, the leverage, the targets, and the trading."""
    metrics, is_one = result.metrics, result.has_one_position
    if is_one:
        yield from format_paragraph("Drawdown", describe_drawdown(result))
    use = describe_use(metrics) if is_one else describe_gross(result)
    yield from format_paragraph("Leverage", *use)
    targets = describe_targets(result.cut_rows) if is_one else describe_each_target(result)
    yield from format_paragraph("Targets", *targets)
    fills = int((result.events["kind"] == "fill").sum())
    turnover = format_number(metrics["turnover"])
    told = f"{fills:,} {'fill' if fills == 1 else 'fills'}"
    yield from format_paragraph("Trading", f"{told}; turnover {turnover} times equity per year")
    if not is_one:
        yield from format_paragraph(
            "Diversity",
            f"diversification ratio {format_number(metrics['diversification_ratio'])}, "
            f"{format_number(metrics['effective_bets'])} effective bets of {len(result.names)}",
        )
    if result.benchmark is not None:
        yield from format_paragraph("Benchmark", describe_benchmark(result.manifest, metrics))


def describe_use(metrics: Mapping[str, float]) -> Iterator[str]:
    """Yield the leverage of one position, what it cost in growth, and the margin used."""
    yield (
        f"mean {format_number(metrics['mean_leverage'])}, "
        f"peak {format_number(metrics['peak_leverage'])}; "
        f"peak margin ratio {format_percent(metrics['peak_margin_ratio'])}; within 10 % of the "
        f"liquidation price at {format_percent(metrics['near_liquidation_share'])} of closes"
    )
    yield (
        f"decay {format_percent(metrics['leverage_decay'])} of log growth per year: "
        f"{format_percent(metrics['volatility_drag'])} to volatility, "
        f"{format_percent(metrics['carry_decay'])} to carry"
    )
    yield (
        f"margin used {format_percent(metrics['mean_margin_used'])} of equity, "
        f"peak {format_percent(metrics['peak_margin_used'])}"
    )


def describe_gross(result: RunRecord) -> Iterator[str]:
    """Yield the gross and net leverage of several positions, and how they kept to their cap."""
    metrics = result.metrics
    yield (
        f"{format_leverage(metrics['mean_leverage'])} gross on average, at most "
        f"{format_leverage(metrics['peak_leverage'])}; "
        f"net {format_leverage(metrics['mean_net_leverage'])}; peak margin ratio "
        f"{format_percent(metrics['peak_margin_ratio'])}"
    )
    yield from describe_cap(result.account.max_gross_leverage, metrics)


def describe_each_target(result: RunRecord) -> Iterator[str]:
    """Yield the targets of several positions, and which instruments had none but 0."""
    rows = [row for row in result.cut_rows if row["instrument"] == "all"]
    yield from describe_targets(rows, " per instrument")
    idle = [
        row["instrument"]
        for row in result.cut_rows
        if row["cause"] == "all" and not (row["decisions"] and row["mean_asked"])
    ]
    if idle and len(idle) < len(result.names) and not count_boundless(result):
        yield f"never a target but 0 for {', '.join(idle)}"


def describe_drawdown(result: RunRecord) -> str:
    """Return the depth of the worst drawdown, its dates, its length and whether it is over."""
    fall, metrics, span = result.tally.drawdown, result.metrics, result.span
    if fall.low == fall.low_peak:
        return "none"
    is_over = fall.recovered >= 0
    end = f"recovered {span.day_of(fall.recovered)}" if is_over else "not recovered by the end"
    return (
        f"{format_percent(metrics['max_drawdown'])} from {span.day_of(fall.drawdown_peak)} "
        f"to {span.day_of(fall.drawdown_trough)}, {end}; "
        f"{metrics['drawdown_days']:,.0f} days under water"
    )


def describe_cap(cap: float, metrics: Mapping[str, float]) -> Iterator[str]:
    """Yield how far prices carried the gross leverage over its cap; nothing without a cap."""
    if cap == math.inf:
        return
    if metrics["gross_over_cap"] > 0.0:
        yield (
            f"above the cap of {format_leverage(cap)} at "
            f"{format_percent(metrics['gross_over_cap'])} of closes: the cap limits targets at "
            "fills, not what prices do between them"
        )
    else:
        yield f"never above the cap of {format_leverage(cap)} at a close"


def summarize_instruments(result: RunRecord) -> Iterator[str]:
    """Yield the money of each instrument by term."""
    held = {name: result.of_positions(name) for name in OWN}
    account = {name: result.of_account(name) for name in TERMS}
    table = attribution_table(result.names, account, held)
    shown = table.loc[:, (table != 0.0).any(axis=0)]
    if shown.empty:
        yield "No instrument made or cost anything."
        return
    yield from shown.to_string(float_format=lambda x: f"{round(x, 2) + 0.0:,.2f}").splitlines()


def summarize_checks(result: RunRecord) -> Iterator[str]:
    """Yield which data were filled in, and what was checked."""
    data = result.manifest["data"]
    each = data.get("instruments", {"": data})
    notes = {f"{name}, " if name else "": one.get("filled", {}) for name, one in each.items()}
    yield from describe_checks(result.manifest, notes)

"""The text summary of a run, for a terminal of 80 columns or more."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.account.terms import TERMS
from backtest.base import (
    capitalize,
    choose_decimals,
    format_leverage,
    format_number,
    format_paragraph,
    format_percent,
)
from backtest.base.units import DAY
from backtest.engine.account_text import (
    count_boundless,
    describe_options,
    summarize_account,
    summarize_events,
)
from backtest.engine.benchmark import describe_benchmark, name_benchmark
from backtest.engine.limit_orders import describe_limit_orders, list_limit_orders
from backtest.engine.option_results import list_held
from backtest.engine.position_tables import attribution_table
from backtest.engine.run_record import sample_risk_free
from backtest.engine.setting_text import summarize_setting
from backtest.engine.target_cuts_text import describe_targets
from backtest.engine.trades import list_run_trades
from backtest.market import split_notes
from backtest.measures import max_drawdown, ratio, sampled_returns
from backtest.measures.cautions import AFTER_RUIN

if TYPE_CHECKING:
    from backtest.base import FloatArray
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
RATIOS = ("sharpe", "sortino")


class Held(NamedTuple):
    name: str
    text: str
    total_return: float
    volatility: float
    sharpe: float
    max_drawdown: float


def write_summary(result: RunRecord) -> str:
    """Return what happened to the account: data, measures, costs, liquidations, checks.

    Lines are at most 80 characters wide where no single word is wider, without colors. Money is
    in the settlement currency.
    """
    sections = (
        summarize_setting, compare_measures, summarize_risk, summarize_instruments,
        summarize_account, summarize_events, summarize_checks,
    )  # fmt: skip
    texts = ("\n".join(section(result)) for section in sections)
    return "\n\n".join(text for text in texts if text)


def compare_measures(result: RunRecord) -> Iterator[str]:
    held = measure_holding(result)
    yield f"{'':28}{'account':>14}{held.name:>20}"
    for label, name, format_value in MEASURES:
        theirs = format_value(getattr(held, name)) if name in held._fields else ""
        row = f"  {label_measure(label, name, result):26}"
        yield f"{row}{format_value(result.metrics[name]):>14}{theirs:>20}".rstrip()
    yield f"  {capitalize(held.text)}."
    yield from describe_sample(result)


def label_measure(label: str, name: str, result: RunRecord) -> str:
    text = label.format(result.manifest["sampling"])
    return f"{text} (0 after ruin)" if name in RATIOS and result.metrics["ruined"] else text


def describe_sample(result: RunRecord) -> Iterator[str]:
    if result.metrics["ruined"]:
        yield f"  {capitalize(AFTER_RUIN)}."
    days = (int(result.span.closes[-1]) - result.span.start) / DAY
    if days < SHORT:
        yield f"  Yearly figures are extrapolated from {days:,.1f} days."


def measure_holding(result: RunRecord) -> Held:
    """Return the measures of the market itself, from the first close to the last.

    Of one instrument its mark price, of several the index that the measures compare with. Returns
    are sampled and annualized as the account's are, over the same risk-free rate.
    """
    name, text, unit = follow_market(result)
    returns = sampled_returns(unit, result.ends_sample, 1.0)
    excess = returns - sample_risk_free(result)
    periods = result.span.periods
    has_spread = len(returns) > 1
    volatility = float(np.std(returns, ddof=1)) if has_spread else math.nan
    deviation = float(np.std(excess, ddof=1)) if has_spread else math.nan
    return Held(
        name=name,
        text=text,
        total_return=float(unit[-1]) - 1.0,
        volatility=volatility * math.sqrt(periods),
        sharpe=ratio(float(np.mean(excess)), deviation, periods) if has_spread else math.nan,
        max_drawdown=max_drawdown(unit),
    )


def follow_market(result: RunRecord) -> tuple[str, str, FloatArray]:
    if not result.has_one_position:
        unit = np.cumprod(1.0 + result.market_returns)
        text = f"the {name_benchmark(result.manifest)} at 1x; price only, no costs"
        return "benchmark 1x", text, unit / unit[0]
    is_inverse = result.venue.contract.kind == "inverse"
    priced = "in the quote currency, " if is_inverse else ""
    text = f"buy and hold: the mark price from the first close on; {priced}price only, no costs"
    return "buy and hold 1x", text, result.mark / result.mark[0]


def summarize_risk(result: RunRecord) -> Iterator[str]:
    metrics = result.metrics
    yield from format_paragraph("Drawdown", describe_drawdown(result))
    yield from format_paragraph("Leverage", *describe_use(result))
    yield from format_paragraph("Targets", *describe_own_targets(result))
    fills = int((result.events["kind"] == "fill").sum())
    turnover = format_number(metrics["turnover"])
    told = f"{fills:,} {'fill' if fills == 1 else 'fills'}"
    told = f"{told}; turnover {turnover} times equity per year"
    yield from format_paragraph("Trading", told, *describe_trades(result))
    if result.account.fill == "limit":
        told = describe_limit_orders(list_limit_orders(result))
        yield from format_paragraph("Limit orders", told)
    if result.options is not None:
        yield from format_paragraph("Options", *describe_options(result, result.options))
    if diversity := result.diversity:
        ratio = format_number(diversity["diversification_ratio"])
        yield from format_paragraph("Diversity", f"diversification ratio {ratio}")
    if result.benchmark is not None:
        yield from format_paragraph("Benchmark", describe_benchmark(result.manifest, metrics))


def describe_use(result: RunRecord) -> Iterator[str]:
    metrics = result.metrics
    mean = format_number(metrics["mean_leverage"])
    if diversity := result.diversity:
        mean += f" gross, {format_number(diversity['mean_net_leverage'])} net"
    yield (
        f"mean {mean}, peak {format_number(metrics['peak_leverage'])}; "
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
    yield from describe_cap(result.account.max_gross_leverage, metrics)


def describe_own_targets(result: RunRecord) -> Iterator[str]:
    rows = result.target_cut_rows
    total = [row for row in rows if row.get("instrument", "all") == "all"]
    yield from describe_targets(total, " per instrument" if result.diversity else "")
    idle = [
        row["instrument"]
        for row in rows
        if "instrument" in row
        and row["cause"] == "all"
        and not (row["decisions"] and row["mean_asked"])
    ]
    if idle and len(idle) < len(result.names) and not count_boundless(result):
        yield f"never a target but 0 for {', '.join(idle)}"


def describe_drawdown(result: RunRecord) -> str:
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


def describe_trades(result: RunRecord) -> Iterator[str]:
    trades = list_run_trades(result, "trip").measures
    count = int(trades["trades"])
    if count:
        days, held = trades["mean_days"], trades["time_in_market"]
        mean = f"{trades['expectancy']:+,.{choose_decimals(result.account.capital)}f}"
        yield (
            f"{count:,} round {'trip' if count == 1 else 'trips'}, "
            f"{format_percent(trades['win_rate'])} won; profit factor "
            f"{format_number(trades['profit_factor'])}, {mean} and {days:,.1f} days "
            f"each on average; in the market at {format_percent(held)} of closes"
        )


def describe_cap(cap: float, metrics: Mapping[str, float]) -> Iterator[str]:
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
    if not result.diversity:
        return
    names, held = list_held(result)
    account = {name: result.of_account(name) for name in TERMS}
    table = attribution_table(names, account, held)
    shown = table.loc[:, (table != 0.0).any(axis=0)]
    if shown.empty:
        yield "No instrument made or cost anything."
        return
    places = choose_decimals(result.account.capital)
    text = shown.to_string(float_format=lambda x: f"{round(x, places) + 0.0:,.{places}f}")
    yield from text.splitlines()


def summarize_checks(result: RunRecord) -> Iterator[str]:
    data = result.manifest["data"]
    each = data.get("instruments", {"": data})
    notes = {f"{name}, " if name else "": one.get("filled", {}) for name, one in each.items()}
    yield from describe_checks(result.manifest, notes)


def describe_checks(
    manifest: Mapping[str, Any], notes: Mapping[str, Mapping[str, str]]
) -> Iterator[str]:
    filled: list[str] = []
    chosen: list[str] = []
    for start, of_market in notes.items():
        for lines, found in zip((filled, chosen), split_notes(of_market), strict=True):
            lines += [f"{start}{name}: {how}" for name, how in found.items()]
    yield from format_paragraph("Filled", *(filled or ["nothing; the data had no gaps"]))
    if chosen:
        yield from format_paragraph("Data choices", *chosen)
    causality = f"causality: {manifest['causality']}"
    yield from format_paragraph("Checked", f"the books balance at every bar; {causality}")
    if manifest["compiled"] != "yes":
        yield from format_paragraph("Plain Python", str(manifest["compiled"]))

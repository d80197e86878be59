"""The report page of a run: story, costs, risk, time, leverage, ledger, assumptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base.number_text import format_money, format_number, format_percent
from backtest.base.result_folders import name_folder
from backtest.base.text_layout import capitalize, clip
from backtest.base.units import DAY, format_time
from backtest.engine.account_text import describe_left, find_start
from backtest.engine.benchmark import explain_measures
from backtest.engine.result_text import measure_holding
from backtest.engine.target_cuts_text import describe_isolated
from backtest.measures.cautions import AFTER_RUIN, name_sharpe
from backtest.measures.run_measures import COSTS
from backtest.report.basis.assumptions import build_assumptions, tabulate_measures
from backtest.report.basis.data_and_command import NOTHING, Background
from backtest.report.basis.data_quality import describe_filled
from backtest.report.page.page import SYNTHETIC, Fact, Page, Section
from backtest.report.page.thinning import thin_rows
from backtest.report.run.costs_section import build_costs
from backtest.report.run.ledger_table import build_ledger, choose_rows
from backtest.report.run.market_states_section import build_states
from backtest.report.run.over_time_section import build_time, build_use, find_drawdowns, find_months
from backtest.report.run.realization_section import list_realization
from backtest.report.run.risk_section import build_risk, choose_horizon
from backtest.report.run.story_section import draw_story

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backtest.engine import Result


def build_run(result: Result, background: Background = NOTHING) -> Page:
    """Return the report of a run."""
    return Page(
        kind="run",
        title=clip(str(result.manifest["policy"]["text"]), 200),
        manifest=result.manifest,
        notices=list_run_notices(result),
        summary=summarize_run(result),
        facts=list_run_facts(result),
        write_sections=lambda: build_run_sections(result, background),
        collect=lambda: collect_run_numbers(result),
    )


def build_run_sections(result: Result, background: Background) -> list[Section]:
    """Return the sections of the report."""
    rows = choose_rows(result.events)
    folder = name_folder(result.manifest["policy"]["name"], result.manifest["id"])
    return [
        Section("story", "The account's story",
                "The account from the first bar to the last.",
                [draw_story(result, rows)]),
        build_costs(result),
        build_risk(result),
        build_time(result),
        build_use(result),
        build_states(result),
        *list_realization(result),
        Section("events", "Event ledger",
                "All events in order. Search by any word; marks in the first chart link here.",
                [build_ledger(result, rows)]),
        Section("measures", "All measures", explain_measures(result.manifest),
                [tabulate_measures(result.metrics)]),
        *build_assumptions(result.manifest, [folder], background=background),
    ]  # fmt: skip


def list_run_notices(result: Result) -> list[str]:
    """Return what must be read before any number."""
    data, metrics = result.manifest["data"], result.metrics
    notices = [f"No order was filled: {result.no_fill}."] if result.no_fill else []
    if data["synthetic"]:
        notices.append(SYNTHETIC)
    if metrics["ruined"]:
        notices.append(
            f"Ruined {result.span.describe_close(result.tally.ruin)}, after "
            f"{metrics['ruin_time']:,.1f} days: {describe_left(result)}, no trade since. "
            f"{capitalize(AFTER_RUIN)}."
        )
    if data["liquidations_tested_on"] == "last prices":
        notices.append("No mark prices: liquidations are tested on last prices, which swing wider.")
    if "dividends" in data:
        notices.append(f"Dividends: {data['dividends']}, booked as funding.")
    elif data["funding_events"] == 0:
        notices.append("No funding rates: none is charged.")
    if filled := describe_filled(data["filled"]):
        notices.append(f"Filled in: {filled}.")
    said = str(result.manifest.get("margin_table", ""))
    if said.startswith("the "):  # of other days, or changed within the run
        notices.append(f"{capitalize(said)}.")
    return [*notices, *list_cautions(result)]


def list_cautions(result: Result) -> list[str]:
    """Return what must be read about the account and its policy before any number."""
    backing = describe_isolated(result.account)
    notices = [f"{capitalize(backing)}."] if backing else []
    if boundless := int(np.isinf(result.bars["target"]).sum()):
        notices.append(f"The policy asked for an infinite leverage at {boundless:,} closes.")
    return notices


def summarize_run(result: Result) -> str:
    """Summarize the run in three sentences."""
    metrics, held = result.metrics, measure_holding(result)
    start, days = find_start(result), (int(result.span.closes[-1]) - result.span.start) / DAY
    flows = metrics["flows"] - metrics["top_ups"]
    added = [f"{format_money(flows)} of net deposits"] if flows else []
    added += [f"{format_money(metrics['top_ups'])} from the reserve"] if metrics["top_ups"] else []
    with_flows = f", with {' and '.join(added)}" if added else ""
    count = int(metrics["liquidations"])
    hits = {0: "was never liquidated", 1: "was liquidated once"}.get(
        count, f"was liquidated {count:,} times"
    )
    paid = sum(metrics[name] for name in COSTS)
    return (
        f"{format_money(start)} became {format_money(metrics['final_equity'])} in {days:,.0f} days"
        f"{with_flows}: a return of {format_percent(metrics['total_return'])}, against "
        f"{format_percent(held.total_return)} of the instrument at 1x. The account was at worst "
        f"{format_percent(metrics['max_drawdown'])} below its peak, {hits}, and paid "
        f"{format_money(paid)} in fees, slippage, funding and interest."
    )


def list_run_facts(result: Result) -> list[Fact]:
    """Return the headline numbers."""
    metrics, held = result.metrics, measure_holding(result)
    yearly = sum(metrics[f"{name}_annual"] for name in COSTS)
    is_over = "recovered" if metrics["recovered"] else "not recovered"
    return [
        Fact("Return", format_percent(metrics["total_return"]),
             f"1x {format_percent(held.total_return)}"),
        Fact("CAGR", format_percent(metrics["cagr"]), "per year"),
        Fact(name_sharpe(metrics), format_number(metrics["sharpe"]),
             f"1x {format_number(held.sharpe)}"),
        Fact("Volatility", format_percent(metrics["volatility"]),
             f"1x {format_percent(held.volatility)}"),
        Fact("Worst drawdown", format_percent(metrics["max_drawdown"]),
             f"{metrics['drawdown_days']:,.0f} days, {is_over}"),
        Fact("Leverage", f"{format_number(metrics['mean_leverage'])}x",
             f"mean; peak {format_number(metrics['peak_leverage'])}x"),
        Fact("Liquidations", f"{metrics['liquidations']:,.0f}",
             f"{describe_calls(metrics)}, {metrics['stops']:,.0f} stops"),
        Fact("Costs", format_percent(yearly), "of mean equity, per year"),
    ]  # fmt: skip


def describe_calls(metrics: Mapping[str, float]) -> str:
    """Describe how many margin calls there were, and how many of them failed."""
    failed = metrics["calls_failed"]
    more = f" ({failed:,.0f} failed)" if failed > 0.0 else ""
    return f"{metrics['margin_calls']:,.0f} margin calls{more}"


def collect_run_numbers(result: Result) -> dict[str, Any]:
    """Return the numbers of the report: measures, split, months, drawdowns, curves, manifest."""
    closes, bars = result.span.named, result.bars
    columns = ("equity", "drawdown", "leverage", "mark", "liquidation_price", "margin_ratio")
    rows = thin_rows(closes, *(bars[name].to_numpy() for name in columns), buckets=250)
    curves = {"close": [format_time(int(each)) for each in closes[rows]]}
    curves |= {name: bars[name].to_numpy()[rows].tolist() for name in columns}
    months = find_months(result)
    split = result.attribution()
    found = result.calibration(horizon=choose_horizon(result))
    falls = find_drawdowns(result)
    for name in ("peak", "trough", "recovery"):
        falls[name] = [str(each) for each in falls[name]]
    table = zip(months.index, months.to_numpy().tolist(), strict=True)
    events = result.events["kind"].value_counts()
    return {
        "metrics": dict(result.metrics),
        "attribution": {**split.terms.to_dict(), "growth": split.growth},
        "months": {str(year): list(row) for year, row in table},
        "drawdowns": falls.to_dict("records"),
        "calibration": found.scores.reset_index().to_dict("records"),
        "market_states": {
            by: result.measures_by(by).to_dict("index") for by in ("phase", "volatility")
        },
        "target_cuts": result.cut_rows,
        "events": {str(kind): int(count) for kind, count in events.items()},
        "curves": curves,
        "manifest": result.manifest,
    }

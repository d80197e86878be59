"""The report page of a run of several positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base.number_text import format_money, format_number, format_percent
from backtest.base.text_layout import capitalize, clip
from backtest.base.units import DAY, format_time
from backtest.engine.account_text import count_boundless
from backtest.engine.benchmark import explain_measures
from backtest.engine.result_files import name_result
from backtest.engine.setting_text import describe_isolated_positions, list_other_days
from backtest.measures.cautions import AFTER_RUIN, name_sharpe
from backtest.measures.measure_names import ABOUT
from backtest.measures.run_measures import COSTS
from backtest.report.basis.assumptions import build_assumptions, tabulate_measures
from backtest.report.basis.data_and_command import NOTHING, Background
from backtest.report.basis.data_quality import describe_filled
from backtest.report.page.page import (
    SYNTHETIC,
    Fact,
    Page,
    Section,
    Table,
    name_columns,
)
from backtest.report.page.thinning import thin_rows
from backtest.report.run.contagion_section import build_contagion, count_victims
from backtest.report.run.exposure_charts import draw_account, list_charts
from backtest.report.run.ledger_table import build_ledger, choose_rows
from backtest.report.run.market_states_section import build_states
from backtest.report.run.over_time_section import build_time, build_use
from backtest.report.run.realization_section import list_realization
from backtest.report.run.risk_section import build_risk

if TYPE_CHECKING:
    from backtest.engine import Result

SPLIT = (
    "price_pnl",
    "fees",
    "slippage",
    "impact",
    "funding",
    "interest",
    "liquidation_loss",
)
"""The columns of the attribution that the page always shows, before the net."""
RARE = ("bad_debt", "collateral_pnl", "conversion")
"""The columns that it shows where they are not 0."""
CURVES = ("equity", "drawdown", "gross_leverage", "net_leverage", "margin_ratio")


def build_portfolio(result: Result, background: Background = NOTHING) -> Page:
    """Return the report of a run of several positions."""
    return Page(
        kind="run",
        title=clip(str(result.manifest["policy"]["text"]), 200),
        manifest=result.manifest,
        notices=list_notices(result),
        summary=summarize(result),
        facts=list_facts(result),
        write_sections=lambda: build_sections(result, background),
        collect=lambda: collect_numbers(result),
    )


def build_sections(result: Result, background: Background) -> list[Section]:
    """Return the sections of the report."""
    return [
        Section("story", "The account's story",
                "The account from the first bar to the last.",
                [draw_account(result)]),
        Section("exposure", "Exposure and risk",
                "What was held, which instruments carried the risk, and how they moved together.",
                [*list_charts(result)]),
        build_contagion(result),
        Section("attribution", "What each instrument made and cost",
                "Money by instrument; the row of the account has what belongs to no instrument.",
                [tabulate_attribution(result)]),
        build_risk(result),
        build_time(result),
        build_use(result),
        build_states(result),
        *list_realization(result),
        Section("events", "Event ledger",
                "All events in order. Search by any word.",
                [build_ledger(result, choose_rows(result.events))]),
        Section("measures", "All measures", explain_measures(result.manifest),
                [tabulate_own(result.metrics), tabulate_shared(result.metrics)]),
        *build_assumptions(result.manifest, [name_result(result.manifest)], background=background),
    ]  # fmt: skip


def list_notices(result: Result) -> list[str]:
    """Return what must be read before any number."""
    data, metrics = result.manifest["data"], result.metrics
    notices = [f"No order was filled: {result.no_fill}."] if result.no_fill else []
    notices += [SYNTHETIC] if data["synthetic"] else []
    if metrics["ruined"]:
        when = result.span.describe_close(result.tally.ruin)
        notices.append(f"Ruined {when}: no trade since. {capitalize(AFTER_RUIN)}.")
    unmarked = [
        name
        for name, each in data["instruments"].items()
        if each.get("liquidations_tested_on") == "last prices"
    ]
    if unmarked:
        notices.append(
            f"No mark prices, so liquidations are tested on last prices: {join(unmarked)}."
        )
    unfunded = [n for n, each in data["instruments"].items() if not each.get("funding_events")
                and "dividends" not in each]  # fmt: skip
    if unfunded:
        notices.append(f"No funding rates, so none is charged: {join(unfunded)}.")
    instruments = data["instruments"].items()
    filled = [name for name, each in instruments if describe_filled(each.get("filled", {}))]
    if filled:
        notices.append(f"Missing values were filled in: {join(filled)}. See the data below.")
    notices += [f"{text}." for text in list_other_days(result)]
    if backing := describe_isolated_positions(result.account, result.names):
        notices.append(f"{capitalize(backing)}.")
    if boundless := count_boundless(result):
        notices.append(f"An infinite leverage was asked for at {boundless:,} closes.")
    if result.account.intrabar == "worst":
        notices.append("Each position meets its adverse extreme at once: a bound, not an estimate.")
    return notices


def join(names: list[str], most: int = 120) -> str:
    """Join names with commas; those beyond ``most`` characters are counted.

    Examples
    --------
    >>> join(["BTCUSDT", "ETHUSDT", "LTCUSDT"]), join(["BTCUSDT", "ETHUSDT", "LTCUSDT"], 16)
    ('BTCUSDT, ETHUSDT, LTCUSDT', 'BTCUSDT, ETHUSDT and 1 more')
    """
    shown = list(names)
    while len(shown) > 1 and len(", ".join(shown)) > most:
        shown.pop()
    left = len(names) - len(shown)
    return ", ".join(shown) + (f" and {left} more" if left else "")


def summarize(result: Result) -> str:
    """Summarize the run in three sentences."""
    metrics = result.metrics
    days = (int(result.span.closes[-1]) - result.span.start) / DAY
    start = result.account.capital + result.account.reserve
    first = result.bars.iloc[0]
    start += float(first["collateral"] - first["collateral_pnl"])  # as at the first open
    hits, victims = int(metrics["liquidations"]), count_victims(result)
    told = {0: "There was no liquidation", 1: "There was one liquidation"}.get(
        hits, f"There were {hits:,} liquidations"
    )
    noun = "position in profit" if victims == 1 else "positions in profit"
    pulled = f" {victims:,} {noun} closed with the others." if victims else ""
    paid = sum(metrics[name] for name in COSTS)
    return (
        f"{format_money(start)} became {format_money(metrics['final_equity'])} in {days:,.0f} days "
        f"with {len(result.names)} instruments. {told}.{pulled} The account was at worst "
        f"{format_percent(metrics['max_drawdown'])} below its peak and paid {format_money(paid)} "
        "in fees, slippage, funding and interest."
    )


def list_facts(result: Result) -> list[Fact]:
    """Return the headline numbers."""
    metrics = result.metrics
    return [
        Fact("Return", format_percent(metrics["total_return"]), "of the unit value"),
        Fact("CAGR", format_percent(metrics["cagr"]), "per year"),
        Fact(name_sharpe(metrics), format_number(metrics["sharpe"])),
        Fact("Volatility", format_percent(metrics["volatility"])),
        Fact("Worst drawdown", format_percent(metrics["max_drawdown"]),
             f"{metrics['drawdown_days']:,.0f} days"),
        Fact("Gross leverage", f"{format_number(float(result.bars['gross_leverage'].mean()))}x",
             f"mean; net {format_number(float(result.bars['net_leverage'].mean()))}x"),
        Fact("Liquidations", f"{metrics['liquidations']:,.0f}",
             f"{count_victims(result):,} winners pulled down"),
        Fact("Effective bets", format_number(metrics["effective_bets"]),
             f"diversification ratio {format_number(metrics['diversification_ratio'])}"),
    ]  # fmt: skip


def tabulate_attribution(result: Result) -> Table:
    """Return the money of each instrument by term."""
    table = result.attribution()
    terms = [*SPLIT, *(name for name in RARE if (table[name] != 0.0).any()), "net"]
    money = table[terms].to_numpy()
    dust = 1e-9 * float(np.max(np.abs(money)))
    shown = np.where(np.abs(money) <= dust, 0.0, money)
    rows = tuple(
        (str(name), *(format_money(float(value)) for value in row))
        for name, row in zip(table.index, shown, strict=True)
    )
    columns = name_columns("instrument", *((name.replace("_", " "), "money") for name in terms))
    note = "Costs are positive and subtracted."
    if "conversion" in terms:
        note += " A conversion costs the slippage of the collateral that is sold."
    return Table("Attribution", columns, rows, note)


def tabulate_own(metrics: Mapping[str, float]) -> Table:
    """Return the measures that only several positions have."""
    rows = tuple(
        (name.replace("_", " "), format_number(value))
        for name, value in metrics.items()
        if name not in ABOUT
    )
    return Table("Of the portfolio", name_columns("measure", "value"), rows)


def tabulate_shared(metrics: Mapping[str, float]) -> Table:
    """Return the measures of any run."""
    return tabulate_measures({name: value for name, value in metrics.items() if name in ABOUT})


def collect_numbers(result: Result) -> dict[str, Any]:
    """Return the numbers of the report: measures, attribution, contagion, curves, manifest."""
    bars, closes = result.bars, result.span.named
    rows = thin_rows(closes, *(bars[name].to_numpy() for name in CURVES), buckets=250)
    curves: dict[str, Any] = {"close": [format_time(int(each)) for each in closes[rows]]}
    curves |= {name: bars[name].to_numpy()[rows].tolist() for name in CURVES}
    exposures = result.exposures.iloc[rows]
    contagion = result.contagion().assign(time=lambda table: table["time"].astype(str))
    events = result.events["kind"].value_counts()
    return {
        "metrics": dict(result.metrics),
        "attribution": result.attribution().to_dict("index"),
        "contagion": contagion.to_dict("records"),
        "target_cuts": list(result.cut_rows),
        "no_fill": result.no_fill,
        "events": {str(kind): int(count) for kind, count in events.items()},
        "curves": curves,
        "exposures": {name: exposures[name].tolist() for name in exposures},
        "manifest": result.manifest,
    }

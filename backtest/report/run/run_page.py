"""The report page of a run, of one position or of several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from backtest.base import capitalize, clip, format_money, format_number, format_percent, format_time
from backtest.base.units import DAY
from backtest.engine import (
    collect_limit_orders,
    collect_options,
    count_boundless,
    describe_left,
    explain_measures,
    find_start,
    list_backing,
    list_other_days,
    measure_holding,
    name_result,
)
from backtest.measures import name_sharpe
from backtest.measures.cautions import AFTER_RUIN
from backtest.measures.measure_table import ABOUT, COSTS, find_cost_rates
from backtest.report.basis.assumptions import build_assumptions, tabulate_measures
from backtest.report.basis.data_quality import NOTHING, Background, describe_filled
from backtest.report.page.figures import thin_rows
from backtest.report.page.page import SYNTHETIC, Block, Fact, Page, Section, Table, name_columns
from backtest.report.run.costs_section import build_costs, build_instrument_costs
from backtest.report.run.exposure_charts import list_charts
from backtest.report.run.ledger_table import build_ledger, choose_rows
from backtest.report.run.options_section import list_options_section
from backtest.report.run.over_time_section import (
    build_targets,
    build_time,
    find_drawdowns,
    find_months,
)
from backtest.report.run.risk_section import build_contagion, build_risk, count_victims
from backtest.report.run.story_section import draw_run
from backtest.report.run.trades_section import collect_trades, list_trades_section

if TYPE_CHECKING:
    from backtest.engine import Result

PREMIUMS = "options_cost_annual"
CURVES = (
    "equity", "drawdown", "leverage", "gross_leverage", "net_leverage", "options_leverage", "mark",
    "liquidation_price", "margin_ratio",
)  # fmt: skip


def build_run(result: Result, background: Background = NOTHING) -> Page:
    return Page(
        kind="run",
        title=clip(str(result.manifest["policy"]["text"]), 200),
        manifest=result.manifest,
        notices=[*list_data_notices(result), *list_account_notices(result)],
        summary=summarize_run(result),
        facts=list_run_facts(result),
        write_sections=lambda: build_run_sections(result, background),
        collect=lambda: collect_run_numbers(result),
    )


def build_run_sections(result: Result, background: Background) -> list[Section]:
    rows, ledger = choose_rows(result.events), "All events in order. Search by any word."
    return [
        Section("story", "The account's story", "The account from the first bar to the last.",
                [draw_run(result, rows)]),
        *list_positions(result),
        *list_options_section(result),
        build_risk(result),
        build_time(result),
        build_targets(result),
        *list_trades_section(result),
        Section("events", "Event ledger", ledger, [build_ledger(result, rows)]),
        Section("measures", "All measures", explain_measures(result.manifest),
                [*tabulate_own(result.metrics), tabulate_shared(result.metrics)]),
        *build_assumptions(result.manifest, [name_result(result.manifest)], background=background),
    ]  # fmt: skip


def list_positions(result: Result) -> list[Section]:
    if result.has_one_position:
        return [build_costs(result)]
    return [
        Section("exposure", "Exposure and risk",
                "What was held, which instruments carried the risk, and how they moved together.",
                [*list_charts(result)]),
        build_contagion(result),
        build_instrument_costs(result),
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------- notices


def list_data_notices(result: Result) -> Iterator[str]:
    data = result.manifest["data"]
    instruments: Mapping[str, Any] = data.get("instruments") or {"": data}
    if result.no_fill:
        yield f"No order was filled: {result.no_fill}."
    if data["synthetic"]:
        yield SYNTHETIC
    if result.metrics["ruined"]:
        yield (
            f"Ruined {result.span.describe_close(result.tally.ruin)}, after "
            f"{result.metrics['ruin_time']:,.1f} days: {describe_left(result)}, no trade since. "
            f"{capitalize(AFTER_RUIN)}."
        )
    unmarked = [name for name, each in instruments.items()
                if each.get("liquidations_tested_on") == "last prices"]  # fmt: skip
    if unmarked:
        yield (
            f"No mark prices{name_those(unmarked)}: liquidations are tested on last prices, which "
            "swing wider."
        )
    for name, each in instruments.items():
        if "dividends" in each:
            yield f"Dividends{name_those([name])}: {each['dividends']}, booked as funding."
    unfunded = [name for name, each in instruments.items()
                if not each.get("funding_events") and "dividends" not in each]  # fmt: skip
    if unfunded:
        yield f"No funding rates{name_those(unfunded)}: none is charged."
    yield from list_filled(instruments)


def list_filled(instruments: Mapping[str, Any]) -> Iterator[str]:
    texts = {name: describe_filled(each.get("filled", {})) for name, each in instruments.items()}
    if texts.get(""):
        yield f"Filled in: {texts['']}."
    elif names := [name for name, text in texts.items() if text]:
        yield f"Missing values were filled in: {join(names)}. See the data below."


def list_account_notices(result: Result) -> Iterator[str]:
    for text in (*list_other_days(result), *list_backing(result.account, result.names)):
        yield f"{capitalize(text)}."
    if boundless := count_boundless(result):
        yield f"An infinite leverage was asked for at {boundless:,} closes."
    if result.account.intrabar == "worst":
        yield "Each position meets its adverse extreme at once: a bound, not an estimate."


def name_those(names: list[str]) -> str:
    return f" of {join(names)}" if any(names) else ""


def join(names: list[str], most: int = 120) -> str:
    shown = list(names)
    while len(shown) > 1 and len(", ".join(shown)) > most:
        shown.pop()
    left = len(names) - len(shown)
    return ", ".join(shown) + (f" and {left} more" if left else "")


# --------------------------------------------------------------------------------------- headline


def summarize_run(result: Result) -> str:
    metrics, held = result.metrics, measure_holding(result)
    start, days = find_start(result), (int(result.span.closes[-1]) - result.span.start) / DAY
    count = len(result.names)
    market = "the instrument" if count == 1 else f"the benchmark of {count} instruments"
    count = int(metrics["liquidations"])
    hits = {0: "was never liquidated", 1: "was liquidated once"}.get(
        count, f"was liquidated {count:,} times"
    )
    paid = sum(metrics[name] for name in COSTS)
    return (
        f"{format_money(start)} became {format_money(metrics['final_equity'])} in {days:,.0f} days"
        f"{describe_flows(metrics)}: a return of {format_percent(metrics['total_return'])}, "
        f"against {format_percent(held.total_return)} of {market} at 1x. "
        f"The account was at worst {format_percent(metrics['max_drawdown'])} below its peak, "
        f"{hits}{describe_pulled(result)}, and paid {format_money(paid)} in fees, slippage, "
        "funding and interest."
    )


def describe_flows(metrics: Mapping[str, float]) -> str:
    flows = metrics["flows"] - metrics["top_ups"]
    added = [f"{format_money(flows)} of net deposits"] if flows else []
    added += [f"{format_money(metrics['top_ups'])} from the reserve"] if metrics["top_ups"] else []
    return f", with {' and '.join(added)}" if added else ""


def describe_pulled(result: Result) -> str:
    victims = count_victims(result)
    noun = "position" if victims == 1 else "positions"
    return f" with {victims:,} {noun} in profit closed too" if victims else ""


def list_run_facts(result: Result) -> list[Fact]:
    metrics, held = result.metrics, measure_holding(result)
    rates = find_cost_rates(result.tally, result.span)
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
             f"{describe_net(result)}; peak {format_number(metrics['peak_leverage'])}x"),
        Fact("Liquidations", f"{metrics['liquidations']:,.0f}",
             f"{describe_calls(metrics)}, {metrics['stops']:,.0f} stops"),
        *list_option_facts(metrics),
        *list_spread_facts(result),
        Fact("Costs", format_percent(sum(rates[name] for name in COSTS)),
             "of mean equity, per year" + ", without premiums" * (PREMIUMS in metrics)),
    ]  # fmt: skip


def describe_net(result: Result) -> str:
    if diversity := result.diversity:
        return f"mean gross; net {format_number(diversity['mean_net_leverage'])}x"
    return "mean"


def list_option_facts(metrics: Mapping[str, float]) -> Iterator[Fact]:
    if PREMIUMS in metrics:
        mean, peak = (format_number(metrics[f"{x}_options_leverage"]) for x in ("mean", "peak"))
        yield Fact("Options by delta", f"{mean}x", f"mean; peak {peak}x")
        yield Fact("Cost of options", format_percent(metrics[PREMIUMS]),
                   "of mean equity, per year: premiums less proceeds, with fees")  # fmt: skip


def list_spread_facts(result: Result) -> list[Fact]:
    if not (diversity := result.diversity):
        return []
    ratio = format_number(diversity["diversification_ratio"])
    return [Fact("Diversification", ratio, "volatilities over that of the portfolio")]


def describe_calls(metrics: Mapping[str, float]) -> str:
    failed = metrics["calls_failed"]
    more = f" ({failed:,.0f} failed)" if failed > 0.0 else ""
    return f"{metrics['margin_calls']:,.0f} margin calls{more}"


# ---------------------------------------------------------------------------------------- numbers


def tabulate_own(metrics: Mapping[str, float]) -> Iterator[Block]:
    rows = tuple(
        (name.replace("_", " "), format_number(value))
        for name, value in metrics.items()
        if name not in ABOUT
    )
    if rows:
        yield Table("Of the portfolio", name_columns("measure", "value"), rows)


def tabulate_shared(metrics: Mapping[str, float]) -> Table:
    return tabulate_measures({name: value for name, value in metrics.items() if name in ABOUT})


def collect_run_numbers(result: Result) -> dict[str, Any]:
    events = result.events["kind"].value_counts()
    return {
        "metrics": dict(result.metrics),
        **collect_history(result),
        **collect_curves(result),
        "trades": collect_trades(result),
        **collect_limit_orders(result),
        "target_cuts": list(result.target_cut_rows),
        "no_fill": result.no_fill,
        **collect_options(result),
        "events": {str(kind): int(count) for kind, count in events.items()},
        "manifest": result.manifest,
    }


def collect_history(result: Result) -> dict[str, Any]:
    months, falls = find_months(result), find_drawdowns(result)
    for name in ("peak", "trough", "recovery"):
        falls[name] = [str(each) for each in falls[name]]
    table = zip(months.index, months.to_numpy().tolist(), strict=True)
    return {
        "attribution": collect_attribution(result),
        "months": {str(year): list(row) for year, row in table},
        "drawdowns": falls.to_dict("records"),
    }


def collect_attribution(result: Result) -> dict[str, Any]:
    split: Any = result.attribution()
    if result.has_one_position:
        return {**split.terms.to_dict(), "growth": split.growth}
    return dict(split.to_dict("index"))


def collect_curves(result: Result) -> dict[str, Any]:
    closes, bars = result.span.named, result.bars
    columns = [name for name in CURVES if name in bars]
    rows = thin_rows(closes, *(bars[name].to_numpy() for name in columns), buckets=250)
    curves: dict[str, Any] = {"close": [format_time(int(each)) for each in closes[rows]]}
    curves |= {name: bars[name].to_numpy()[rows].tolist() for name in columns}
    exposures = result.exposures.iloc[rows]
    contagion = result.contagion().assign(time=lambda table: table["time"].astype(str))
    return {
        "curves": curves,
        "exposures": {str(name): exposures[name].tolist() for name in exposures},
        "contagion": contagion.to_dict("records"),
    }

"""The first picture of a run: equity, leverage, price, distance and costs on one axis of time.

The *holder* is the market held without leverage, the *constant* the constant leverage of the same
volatility, an *ending* a liquidation or the ruin, drawn as a line over all panels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest import core
from backtest.account.events import FORCED, MARKS, Event, Mark
from backtest.account.money import MONEY_TERMS
from backtest.core.code_names import pd
from backtest.core.result_parts import Panel, ShownChart
from backtest.core.units import DAY
from backtest.report.figures import is_wide
from backtest.report.rate_notes import name_term
from backtest.report.run_charts import MAX_MARKS, find_drawdowns, find_end, place_marks
from backtest.results import run_record
from backtest.results.result import EqualRisk

if TYPE_CHECKING:
    from backtest.results import Result

HEIGHT = 860
"""Of the chart with all its panels, in pixels."""
SHADED = 3
"""The deepest drawdowns that are shaded and numbered."""
MAX_LINES = 40
"""Most endings that are drawn; if there are more, the latest."""
MAX_FILLS = 150
"""Most fills of one kind on a price; if there are more, the largest are drawn."""
MAX_CHOICES = 12
"""Most instruments of which one can be chosen, those with the largest mean notional."""
OUT_OF_REACH = 1.0
"""Move of the mark price beyond which the distance to liquidation is not drawn."""
CLOSINGS = [event.kind.name for event in FORCED if event != Event.RUINED]
"""Kinds of events that close a position without a decision."""
FILLED = {
    "opened": Mark("entry", "triangle-up", "accent"),
    "closed": Mark("exit", "triangle-down-open", "ink"),
    "changed": Mark("adjustment", "line-ns-open", "neutral"),
    **{name: MARKS[name] for name in CLOSINGS},
}
"""Marks on the price."""


class Drawing(NamedTuple):
    """What the parts of the picture add to it: columns of its table, panels, and words."""

    columns: dict[str, core.FloatArray]
    panels: list[Panel]
    colors: dict[str, str]
    captions: list[str]
    choices: dict[str, str]
    labels: dict[str, str]
    events: list[pd.DataFrame]


def draw_overview(result: Result) -> ShownChart:
    """Return the chart; each part adds its lines, panel and words to one drawing."""
    drawing = Drawing(
        columns={},
        panels=[],
        colors={},
        captions=[],
        choices={},
        labels={},
        events=[],
    )
    add_equity(result, drawing)
    add_leverage(result, drawing)
    add_prices(result, drawing)
    add_costs(result, drawing)
    if len(result.time) > THINNED:
        drawing.captions.append("Each line keeps the extremes of every pixel.")

    spans = tuple(shade_drawdowns(result))
    if spans:
        drawing.captions.append("Shaded and numbered: the deepest drawdowns, from peak to trough.")
    events = None
    if drawing.events:
        events = pd.concat(drawing.events)
    return ShownChart(
        key="story",
        title="The account over time",
        caption=" ".join(drawing.captions),
        table=pd.DataFrame(drawing.columns, index=core.utc_index(result.span.named)),
        colors=drawing.colors,
        height=HEIGHT,
        panels=tuple(drawing.panels),
        events=events,
        dotted=("cap",),
        spans=spans,
        lines=tuple(list_endings(result)),
        until=find_end(result),
        choices=drawing.choices,
        labels=drawing.labels,
    )


THINNED = 2000
"""Points of a line above which it is thinned."""


def add_equity(result: Result, drawing: Drawing) -> None:
    """Add the equity with what it is compared with, and the drawdown."""
    bars = result.bars
    start = run_record.find_start(result)
    drawing.columns["account"] = bars["equity"].to_numpy()

    market = run_record.follow_market(result)
    holder = "buy and hold" if market.name == "1x" else "benchmark, unlevered"
    drawing.columns[holder] = start * market.unit
    lines = {"account": "accent", holder: "neutral"}
    drawing.captions.append(
        f"The account at each close. {core.capitalize(holder)}: price only, no costs."
    )

    constant = result._constant
    if not isinstance(constant, EqualRisk):
        drawing.captions.append(f"No constant leverage stands beside it: {constant.why}.")
    elif not holds_constant(result):
        label = f"constant {constant.leverage:z.2f}x"
        drawing.columns[label] = start * constant.unit
        lines[label] = "ink"
        drawing.captions.append(
            f"{core.capitalize(label)} had the same volatility within 1 %, costs included; it was "
            "chosen in hindsight."
        )

    drawing.columns["drawdown"] = -bars["drawdown"].to_numpy() + 0.0  # no -0
    drawing.colors.update(lines, drawdown="loss")
    drawing.panels.append(Panel("Equity", tuple(lines), height=2.3, scale="log"))
    drawing.panels.append(
        Panel("Drawdown", ("drawdown",), height=0.8, percent=True, from_zero=True, filled=True)
    )

    marked = result.events[result.events["kind"].isin(tuple(MARKS))]
    marks = place_marks(
        result,
        marked,
        height=bars["equity"].to_numpy(),
        kinds_of=MARKS,
        most=MAX_MARKS,
    )
    if len(marks):
        drawing.events.append(marks.assign(panel="Equity"))


def holds_constant(result: Result) -> bool:
    """Return whether the policy is itself a constant leverage, which needs no twin beside it."""
    is_constant = result.manifest["policy"].get("name") == "Constant"
    return is_constant and not result.manifest.get("overlay")


def add_leverage(result: Result, drawing: Drawing) -> None:
    """Add target and held leverage of one position, or gross and net leverage of several."""
    bars = result.bars
    title = "Leverage, x"
    if result.has_one_position:
        target = bars["target"].ffill().to_numpy()
        drawing.columns["target"] = target * result.signal
        drawing.columns["held"] = bars["leverage"].to_numpy()
        drawing.colors.update({"target": "neutral", "held": "accent"})
        drawing.panels.append(Panel(title, ("target", "held")))
        caption = "The target is what the policy returned"
        if np.any(result.signal != 1.0):
            caption = f"{caption}, times the signal"
        drawing.captions.append(f"{caption}.")
        return

    gross = bars["gross_leverage"].to_numpy()
    net = bars["net_leverage"].to_numpy()
    lines = ["gross"]
    drawing.columns["gross"] = gross
    if np.allclose(gross, net, rtol=1e-9, atol=1e-9):
        drawing.labels["gross"] = "gross = net"
    else:
        drawing.columns["net"] = net
        lines.append("net")

    cap = result.account.max_gross_leverage
    if math.isfinite(cap):
        drawing.columns["cap"] = np.full(len(gross), cap)
        lines.append("cap")

    drawing.colors.update({"gross": "accent", "net": "neutral", "cap": "loss"})
    drawing.panels.append(Panel(title, tuple(lines)))
    drawing.captions.append("Gross leverage adds all notionals, net their signs too.")


def add_prices(result: Result, drawing: Drawing) -> None:
    """Add price, liquidation price and fills, and how far the one is from the other."""
    places = rank_instruments(result)
    prices: list[str] = []
    distances: list[str] = []
    for place in places:
        choice = None
        if len(places) > 1:
            choice = result.names[place]
        added = add_instrument(result, drawing, place, choice)
        prices += [added["mark price"], added["liquidation price"]]
        distances.append(added["distance"])

    drawing.panels.append(Panel("Price", tuple(prices), height=1.7, scale="log"))
    drawing.captions.append("Fills on the price, the largest where there are many.")
    if any(np.isfinite(drawing.columns[name]).any() for name in distances):
        panel = Panel(
            DISTANCE,
            tuple(distances),
            percent=True,
            from_zero=True,
        )
        drawing.captions.append(
            "The distance is the move of the mark price that would liquidate at each close; no "
            "line where it is out of reach."
        )
    else:
        drawing.columns["margin ratio"] = np.minimum(result.bars["margin_ratio"].to_numpy(), 1.5)
        panel = Panel(
            MARGIN_RATIO,
            ("margin ratio",),
            percent=True,
            from_zero=True,
        )
        drawing.colors["margin ratio"] = "accent"
    drawing.panels.append(panel)


def add_instrument(
    result: Result,
    drawing: Drawing,
    place: int,
    choice: str | None,
) -> dict[str, str]:
    """Add lines and fills of an instrument to a drawing; return the columns by their labels.

    ``choice`` is the name by which a page shows them, None of the only instrument.
    """
    mark = result.marks[:, place]
    liquidation = result.liquidation_prices[:, place]
    lines = {
        "mark price": mark,
        "liquidation price": clip_liquidation(mark, liquidation),
        "distance": measure_distance(mark, liquidation),
    }
    columns = {}
    for label, values in lines.items():
        column = label
        if choice is not None:
            column = f"{label} of {choice}"
            drawing.choices[column] = choice
        drawing.columns[column] = values
        drawing.labels[column] = label
        drawing.colors[column] = PRICE_COLORS[label]
        columns[label] = column

    fills = list_fills(result, place)
    if len(fills):
        drawing.events.append(fills.assign(panel="Price", choice=choice))
    return columns


DISTANCE = "Distance to liquidation"
MARGIN_RATIO = "Margin ratio: 100 % is liquidation"
PRICE_COLORS = {
    "mark price": "ink",
    "liquidation price": "loss",
    "distance": "accent",
}


def rank_instruments(result: Result) -> list[int]:
    """Return the places of the instruments by their mean notional, the largest first."""
    sizes = np.nan_to_num(np.abs(result.notionals)).mean(axis=0)
    order = np.argsort(-sizes, kind="stable")[:MAX_CHOICES]
    return [int(place) for place in order]


def clip_liquidation(mark: core.FloatArray, liquidation: core.FloatArray) -> core.FloatArray:
    """Return liquidation prices, NaN where they would take the axis far from the price."""
    lowest = float(np.nanmin(mark))
    highest = float(np.nanmax(mark))
    low = 0.0
    if is_wide(mark) or highest < 2.5 * lowest:
        low = 0.6 * lowest

    with np.errstate(invalid="ignore"):
        is_near = (liquidation >= low) & (liquidation <= 1.5 * highest)
    return np.where(is_near, liquidation, np.nan)


def measure_distance(mark: core.FloatArray, liquidation: core.FloatArray) -> core.FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        away = np.abs(liquidation / mark - 1.0)
        return np.where(away <= OUT_OF_REACH, away, np.nan)


def list_fills(result: Result, place: int) -> pd.DataFrame:
    """Return the fills of an instrument, marked on its price as entries, exits or adjustments."""
    events = result.events
    is_own = (events["instrument"] == result.names[place]).to_numpy()
    is_fill = events["kind"].isin(["fill", *FILLED]).to_numpy()
    fills = events[is_own & is_fill]

    # What was held after each fill, and before it, up to the rounding of the sum.
    after = fills["quantity"].cumsum().to_numpy()
    before = np.append(0.0, after[:-1])
    dust = 1e-9 * float(np.abs(after).max(initial=0.0))

    # A fill from flat, or to the other side, opens a position.
    is_new = (np.abs(before) <= dust) | (before * after < 0.0)
    is_flat = np.abs(after) <= dust
    kinds = np.select([is_new, is_flat], ["opened", "closed"], default="changed")
    kinds = np.where(fills["kind"] == "fill", kinds, fills["kind"].astype(str))
    return place_marks(
        result,
        fills.assign(kind=kinds),
        height=result.marks[:, place],
        kinds_of=FILLED,
        most=MAX_FILLS,
    )


def add_costs(result: Result, drawing: Drawing) -> None:
    """Add the costs so far, a line for each that the account had."""
    account = result.record.account
    lines: list[str] = []
    for term in MONEY_TERMS:
        if term.sign > 0 or term.is_of_assets:
            continue
        paid = np.cumsum(getattr(account, term.name))
        if np.any(paid != 0.0):
            name = name_term(result, term)
            drawing.columns[name] = paid
            lines.append(name)

    if lines:
        drawing.panels.append(Panel("Costs so far", tuple(lines)))
        drawing.captions.append("Costs are paid since the start; below 0 is earned.")


def shade_drawdowns(result: Result) -> Iterator[tuple[int, int, str]]:
    falls = find_drawdowns(result).iloc[:SHADED]
    stamps = zip(falls["peak"], falls["trough"], strict=True)
    for place, (peak, trough) in enumerate(stamps, start=1):
        if trough > peak:
            yield peak.value, trough.value, str(place)


def list_endings(result: Result) -> Iterator[tuple[int, str]]:
    """Yield the time and the name of the ruin, then of each liquidation."""
    first = result.span.first
    entries = result.entries
    hits = entries[entries["kind"] == Event.LIQUIDATED][-MAX_LINES:]
    bars = np.unique(hits["bar"]).tolist()
    ruin = int(result.tally.ruin)
    if ruin >= 0:
        words = "liquidated and ruined" if ruin in bars else "ruined"
        time = int(result.span.named[ruin - first])
        yield time, f"{words} {name_day(time)}"

    for bar in bars:
        if bar == ruin:
            continue
        words = "liquidated"
        instruments = name_owners(result, hits["owner"][hits["bar"] == bar].tolist())
        if instruments and len(result.names) > 1:
            words = f"{', '.join(instruments)} liquidated"
        time = int(result.span.named[bar - first])
        yield time, f"{words} {name_day(time)}"


def name_owners(result: Result, owners: list[int]) -> list[str]:
    """Return the instruments of some entries, each once; the account itself is none."""
    n_instruments = len(result.names)
    return [result.names[owner] for owner in dict.fromkeys(owners) if owner < n_instruments]


def name_day(time: int) -> str:
    return core.format_time(time - time % DAY)

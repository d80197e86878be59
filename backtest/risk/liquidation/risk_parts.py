"""The parts of the page of a liquidation risk."""

from __future__ import annotations

import pandas as pd

from backtest.base import Head, Part, ShownChart, ShownTable

EVENTS = {"p_liquidation": "liquidation", "p_ruin": "ruin", "p_margin_call": "margin call"}
ESTIMATORS = {
    "plain": "share of independent paths",
    "antithetic": "share of paths in mirrored pairs",
}
MONEY = "settlement currency"
WEALTH = {
    "equity_05": Head("5 % quantile", MONEY, "money"),
    "equity_50": Head("median", MONEY, "money"),
    "equity_95": Head("95 % quantile", MONEY, "money"),
    "bad_debt": Head("expected bad debt", MONEY, "money"),
    "days_to_liquidation": Head("median time to a liquidation", "days"),
    "method": Head("estimator"),
}
HAZARD = {
    "at_risk": Head("not liquidated before", "paths", "count"),
    "liquidated": Head("liquidated in it", "paths", "count"),
    "hazard": Head("hazard", "share of those", "chance"),
}
DAYS_SHOWN = 60


def list_risk_parts(
    table: pd.DataFrame,
    fan: pd.DataFrame,
    hazard: pd.DataFrame,
    typical: pd.DataFrame | None,
    confidence: float,
) -> list[Part]:
    fan = fan.rename(columns=lambda name: f"{str(name).removeprefix('equity_')} %")
    colors = {str(name): "accent" if name == "50 %" else "neutral" for name in fan}
    price = None if typical is None else typical["price"]
    return [
        Part("horizons", "By horizon", "From the last close of the data on.", (
            tabulate_chances(table, confidence),
            ShownTable(table, "Wealth at the horizon", labels=Head("horizon"), heads=WEALTH,
                       columns=tuple(WEALTH)),
            tabulate_estimators(table),
        )),
        Part("paths", "What happens on the way", "Wealth by time.", (
            ShownChart("fan", "Wealth", "Quantiles of 5, 25, 50, 75 and 95 % at each close.", fan,
                       colors=colors, height=320),
            ShownChart("typical", "The typical path to liquidation", "Mean price, over the last "
                       "close, of the paths that are liquidated.", price, colors={"price": "loss"},
                       height=260),
        )),
        Part("hazard", "Hazard by day", "First liquidations, of those not liquidated before.", (
            ShownChart("hazard", "Hazard", "Share of the accounts not liquidated before that is "
                       "liquidated in each day.", hazard["hazard"], "bars",
                       {"hazard": "loss"}, x="day", height=240),
            ShownTable(hazard, "By day", labels=Head("day"), heads=HAZARD, most=DAYS_SHOWN,
                       columns=tuple(HAZARD)),
        )),
    ]  # fmt: skip


def tabulate_chances(table: pd.DataFrame, confidence: float) -> ShownTable:
    interval = f"{100 * confidence:g} % interval"
    heads: dict[str, Head] = {}
    for kind in (kind for kind in EVENTS if not table[kind].isna().all()):
        low, high = f"{kind}_low", f"{kind}_high"
        heads[kind] = Head(EVENTS[kind], "probability", "chance")
        heads[low] = Head(f"{interval} of {EVENTS[kind]}", "", "chance", high)
    heads["method"] = Head("estimator")
    return ShownTable(table, "Probabilities", labels=Head("horizon"), heads=heads,
                      columns=tuple(heads))  # fmt: skip


def tabulate_estimators(table: pd.DataFrame) -> ShownTable:
    used = {name: ESTIMATORS[name] for name in dict.fromkeys(table["method"])}
    frame = pd.DataFrame({"is": list(used.values())}, index=list(used))
    heads = {"is": Head("what it is")}
    return ShownTable(frame, "Estimators", labels=Head("estimator"), heads=heads)

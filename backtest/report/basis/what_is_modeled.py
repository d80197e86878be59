"""What a run models, in the order of the steps of a bar, and the sources of its venue's rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from backtest.account import Account, describe_limit
from backtest.base import format_bps, format_percent, format_setting, to_plain
from backtest.engine import read_tables_in_use
from backtest.report.page.page import Block, Paragraph, Table, name_columns
from backtest.venue import Venue, preset_files
from backtest.venue import describe_interest as describe_rates

NOT_MODELED = (
    "The order book, queue position and partial fills at several prices; latency; exchange "
    "outages, auto-deleveraging and insurance-fund rules; taxes; and what the account's own trades "
    "would have done to later prices."
)


FILLED_AT = {
    "next_open": "at the open of the next bar",
    "next_close": "at the close of the next bar",
    "same_close": "at the close of the decision, which is optimistic: the price is known before "
    "the trade",
    "limit": "inside the next bar, at a limit price and the maker fee, if the bar trades a tick "
    "through it, otherwise not at all; closings and reductions {}; what goes to market",
}
STOPS = {
    "stop_loss": "at a loss of {}",
    "trailing_stop": "{} under the best price",
    "equity_stop": "at an equity {} under its highest",
    "take_profit": "at a profit of {}, after all losses",
    "max_holding": "at the first open after being held for {}",
}


def describe_stops(account: Mapping[str, Any]) -> Iterator[str]:
    for name, text in STOPS.items():
        stop = account.get(name)
        if isinstance(stop, Mapping) and "multiple" not in stop:
            yield text.format(", ".join(f"{value} ({each})" for each, value in stop.items()))
        elif isinstance(stop, Mapping):
            yield text.format(f"{stop['multiple']:g} x {stop['column']}")
        elif isinstance(stop, str):
            yield text.format(stop)
        elif stop:
            yield text.format(format_percent(stop))


def describe_model(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    venue, account, data = manifest["venue"], manifest["account"], manifest["data"]
    yield "decisions", "at the close of a bar, from what was known then"
    yield "fills", describe_fills(venue, account)
    yield "leverage", describe_limits(venue, account)
    tested = str(data.get("liquidations_tested_on", "mark prices, where there are any"))
    yield "liquidation", f"tested inside every bar, on {tested}; {describe_liquidation(venue)}"
    stops = list(describe_stops(account))
    if stops:
        yield "stop", f"tested inside every bar, {'; '.join(stops)}"
    if account.get("margin_call"):
        yield "margin calls", describe_calls(venue, account)
    yield "funding", describe_funding(data)
    yield "interest", describe_interest(venue)
    if account.get("flows"):
        yield "deposits and withdrawals", "as given with the account, at the open of their bar"
    yield "not modeled", NOT_MODELED


def describe_fills(venue: Mapping[str, Any], account: Mapping[str, Any]) -> str:
    slippage = venue["slippage"]
    rests = account.get("closing", "market") == "limit"
    place = FILLED_AT[account.get("fill", "next_open")].format("too" if rests else "at the open")
    cost = f"{place}, {format_bps(slippage['rate'])} worse"
    if spread := slippage.get("spread"):
        cost += f", half a spread of {format_bps(spread)} on top"
    if slippage.get("impact"):
        cost += ", and worse still for their size"
    if fee := venue["fees"].get("per_order"):
        cost += f", at a fixed fee of {format_setting(fee)}"
    most = slippage.get("max_participation")
    whole = "whole" if most is None else f"up to {format_percent(most)} of the volume"
    band = account.get("band", 0.0)
    spared = f"; none where leverage is within {band:g} of what was asked" if band else ""
    return f"{cost}, {whole}{spared}"


def describe_limits(venue: Mapping[str, Any], account: Mapping[str, Any]) -> str:
    most = Account.from_dict({"max_leverage": account.get("max_leverage", "inf")}).max_leverage
    limit = describe_limit(most)
    to = "" if limit.startswith("by") else "to "
    bounds = f"by the venue, and {to}{limit}" if limit else "by the venue alone"
    added = ", to which the wallet adds before a liquidation" if account.get("auto_margin") else ""
    counts = venue.get("profit_counts", "all")
    share = {"all": 1.0, "losses": 0.0}.get(counts, counts)
    backed = "" if share == 1.0 else f"; {share:.0%} of unrealized profit backs new orders"
    return f"limited {bounds}; {account['margin']} margin{added}{backed}"


def describe_liquidation(venue: Mapping[str, Any]) -> str:
    rule = venue["liquidation"]
    if rule["mode"] == "takeover":
        return "takeover: all margin is lost"
    step = f", in steps of {rule['step']}" if rule["mode"] == "partial" else ""
    size = " and worse still for its size" if rule.get("impact") else ""
    worse = f"{format_bps(rule['slippage'])} worse{size}"
    return f"{rule['mode']}{step}, {worse}, fee {format_bps(rule['fee'])}"


def describe_calls(venue: Mapping[str, Any], account: Mapping[str, Any]) -> str:
    reserve = account.get("reserve", 0.0)
    answer = f"met from a reserve of {reserve:,.10g}" if reserve else "not met: there is no reserve"
    grace = venue.get("call_grace")
    then = "" if grace is None else f"; the position is reduced after {grace} bars"
    return f"from a margin ratio of {format_percent(account['margin_call'])}, {answer}{then}"


def describe_funding(data: Mapping[str, Any]) -> str:
    if "dividends" in data:
        return f"none; {data['dividends']} dividends, to the position held at the open"
    count = data.get("funding_events")
    if count is None:
        return "at each settlement of the data, on the position held there"
    if not count:
        return "none: the data have no rates"
    return f"at each of the {count:,} settlements of the data, on the position held there"


def describe_interest(venue: Mapping[str, Any]) -> str:
    return describe_rates(venue.get("interest_on"), venue) or "none: all rates are 0"


GROUPS = {
    "contract": "contract",
    "brackets": "margin table",
    "fees": "fees",
    "slippage": "slippage",
    "liquidation": "liquidation",
    "rules": "other rules",
}
ASIDE = ("in_force", "earlier")
COLUMNS = name_columns("rules", "as of", "source", text=["as of", "source"])
NO_PRESET = (
    "The rules are not from a preset: they were given with the run, without dates and sources."
)


class Chosen(NamedTuple):
    name: preset_files.PresetName
    changes: Mapping[str, list[str]]


def list_sources(manifest: Mapping[str, Any], suffix: str = "") -> Block:
    venue = manifest["venue"]
    preset = str((venue.get("in_force") or {}).get("preset", ""))
    if not preset:
        return Paragraph(NO_PRESET)
    if preset not in {each.name for each in preset_files.available()}:
        return Paragraph(f"The rules are those of {preset}; its file has their dates and sources.")
    rows = list_group_sources(choose_tables(preset, venue), list_table_dates(manifest))
    note = "Figures without a source are assumptions, marked as such."
    return Table(f"Sources of the rules{suffix}", COLUMNS, tuple(rows), note)


def list_table_dates(manifest: Mapping[str, Any]) -> list[str]:
    tables = read_tables_in_use(manifest, Venue.from_dict(manifest["venue"]))
    return [each.since for each in tables if each.since is not None]


def list_group_sources(chosen: Chosen, days: list[str]) -> Iterator[tuple[str, str, str]]:
    venue, symbol, at = chosen.name
    origins = {each.group: each for each in preset_files.origins(venue, symbol, at)}
    for group, words in GROUPS.items():
        changed = "; ".join(chosen.changes.get(group, ()))
        found = [origins[group]] if group in origins else []
        if group == "brackets" and days:
            of_days = [preset_files.origins(venue, symbol, day) for day in days]
            found = [each for several in of_days for each in several if each.group == group]
        for each in found:
            yield words, each.date, each.source
        if changed or not found:
            yield words, "this run", changed or "not in the preset: the default"


def choose_tables(preset: str, venue: Mapping[str, Any]) -> Chosen:
    since = str(venue["in_force"].get("since", ""))
    days = dict.fromkeys(("", f"@{preset_files.LATEST}", f"@{since}" if since else ""))
    names = [preset_files.parse_name(preset + day, where="manifest") for day in days]
    found = [Chosen(name, find_changes(name, venue)) for name in names]
    return min(found, key=lambda each: sum(map(len, each.changes.values())))


def find_changes(name: preset_files.PresetName, venue: Mapping[str, Any]) -> dict[str, list[str]]:
    before = to_plain(Venue.preset(*name).to_dict())
    changes: dict[str, list[str]] = {}
    for key in dict.fromkeys((*before, *venue)):
        was, now = before.get(key), venue.get(key)
        if key in ASIDE or was == now:
            continue
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            names = dict.fromkeys((*was, *now))
            changes[key] = [
                describe_change(each, was.get(each), now.get(each))
                for each in names
                if was.get(each) != now.get(each)
            ]
        elif key in GROUPS:
            changes[key] = [f"{len(now or ())} rows of this run's own"]
        else:
            text = describe_change(key.replace("_", " "), was, now)
            changes.setdefault("rules", []).append(text)
    return changes


def describe_change(name: str, was: Any, now: Any) -> str:
    is_plain = isinstance(now, list) or (isinstance(now, Mapping) and "value" not in now)
    text = f"{name} of this run's own" if is_plain else f"{name} {format_setting(now)}"
    return text if was is None else f"{text} instead of {format_setting(was)}"

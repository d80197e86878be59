"""Build an experiment with several instruments, as its file and flags describe it.

``[venue.NAME]`` and ``[policy.NAME]`` are the venue and the policy of one instrument. The other
entries of ``[venue]`` and ``[policy]`` are those of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from backtest.account import Account
from backtest.allocate import WeightRule
from backtest.base.errors import ParameterError, VenueError, did_you_mean
from backtest.base.fields import Text
from backtest.cli.draft import Draft, DraftTable, flatten, located
from backtest.cli.experiment import (
    RUN_TERMS,
    SAMPLE,
    DataSpan,
    Experiment,
    build_experiment,
    build_policy,
    build_venue,
    check_start,
    load_market,
    names_symbol,
    read_span,
    split_preset,
    warn_of_cold_start,
    warn_of_other_symbol,
)
from backtest.cli.experiment_schema import find_single
from backtest.cli.lending_table import apply_lending
from backtest.cli.named_weights import read_allocation
from backtest.engine import signals
from backtest.engine.indicator_rules import RULES
from backtest.engine.named_signals import read_rule
from backtest.engine.signal_rule import SignalRule
from backtest.market import Market, Markets
from backtest.market.read.instrument_folders import is_panel
from backtest.market.weight_files import read_weight_file
from backtest.policy import Policy
from backtest.venue import Venue, preset_files
from backtest.venue.missing_symbol import cure_missing_symbol

DEFAULT_VENUE = "binance-usdm"
PANEL_KEYS = ("weights", "carry_weights", "allocate", "allocate_settings")
"""The keys of ``[run]`` that only several instruments have."""


def build_experiment_or_panel(draft: Draft, *, warms: bool = True) -> Experiment:
    """Build the objects that a draft describes: of one instrument, or of several.

    ``warms`` is that of :func:`backtest.cli.experiment.build_experiment`.
    """
    data = draft.section("data", path="path")
    if is_panel(list_paths(data), list_instruments(data)):
        return build_panel(draft, warms=warms)
    given = list_panel_terms(draft)
    if given:
        table, key = given[0]
        raise ParameterError(
            f"{f'[{table}] {key}'.strip()} is for several instruments, the data are of one",
            where=draft.locate(table, (key,)),
            cure="give --data for each of several folders, or --instrument for each of several "
            "instruments of one",
        )
    return build_experiment(draft, warms=warms)


def load_market_or_panel(draft: Draft) -> Market | Markets:
    """Return the market of a draft, or the markets of several instruments, without the rest."""
    span, data = read_span(draft, warms=False), draft.section("data", path="path")
    if is_panel(list_paths(data), list_instruments(data)):
        return load_markets(data, span)
    return load_market(data, span.low, span.high)


def build_single_experiment(draft: Draft, command: str, *, warms: bool = True) -> Experiment:
    """Build the objects that a draft describes, for a command that takes one instrument."""
    experiment = build_experiment_or_panel(draft, warms=warms)
    require_one(experiment.market, command)
    return experiment


def require_one(market: Market | Markets, command: str) -> None:
    """Refuse several instruments where a command takes one."""
    if isinstance(market, Markets):
        raise ParameterError(
            f"{command} takes one market, was given {', '.join(market)}",
            where="--data, --instrument",
            cure="give one folder with one instrument",
        )


def list_panel_terms(draft: Draft) -> list[tuple[str, str]]:
    """Return the tables and keys of a draft that only several instruments have."""
    found = [("run", key) for key in PANEL_KEYS if key in draft.tables.get("run", {})]
    found += [("data", "currency")] if "currency" in draft.tables.get("data", {}) else []
    found += [("overlay", "")] if draft.tables.get("overlay") else []
    return found + [("policy", name) for name in find_single(draft.tables.get("policy", {}))]


def build_panel(draft: Draft, *, warms: bool) -> Experiment:
    """Build markets, policies, venues and account; errors name the table or the flags."""
    run = draft.section("run")
    rule = read_panel_rule(run)
    with located(draft.locate("account")):
        account = Account.from_dict(draft.tables.get("account", {}))
    span = read_span(draft, warms=warms)
    data = draft.section("data", path="path")
    markets = load_markets(data, span)
    policy = build_policies(draft.section("policy", path="name"), markets.names)
    venue = apply_lending(draft, build_venues(draft, markets), markets)
    terms = {name: run.entries[name] for name in RUN_TERMS if name in run.entries}
    terms |= {"venue": venue, "account": account}
    terms["signal"] = read_weights(draft, markets) if rule is None else rule
    if draft.tables.get("overlay"):
        terms["overlay"] = build_policy(draft.section("overlay", path="name"))
    if warms:
        check_start(span, markets)
        terms["start"] = span.start
    elif span.start is not None:
        warn_of_cold_start(span.start)
    return Experiment(markets, policy, terms)


# ------------------------------------------------------------------------------------------ data


def list_paths(data: DraftTable) -> list[Path]:
    """Return the paths of the data; none for the sample."""
    given = data.entries.get("path", SAMPLE)
    paths = [given] if isinstance(given, str) else list(given)
    return [] if paths == [SAMPLE] else [data.folder / each for each in paths]


def list_instruments(data: DraftTable) -> list[str]:
    """Return the instruments that are named; empty if none is."""
    given = data.entries.get("instrument", [])
    return [given] if isinstance(given, str) else list(given)


NO_SPAN = DataSpan(None, None, None, "")


def load_markets(data: DraftTable, span: DataSpan) -> Markets:
    """Load the markets of the data, cut to a span and resampled."""
    known = ("path", "instrument", "resample", "from", "to")
    choices = {name: choice for name, choice in data.entries.items() if name not in known}
    paths = list_paths(data)
    if not paths:
        raise ParameterError(
            "the sample is one instrument, was asked for several",
            where=data.where,
            cure="choose the data: --data PATH",
        )
    between = None if span.low is None and span.high is None else (span.low, span.high)
    names = list_instruments(data) or None
    with located(data.where):
        markets = Markets.load(*paths, instruments=names, between=between, **choices)
        interval = data.entries.get("resample")
        if interval is None:
            return markets
        resampled = {name: each.resample(interval) for name, each in markets.items()}
        return Markets(resampled, currency=markets.currency or None)


# -------------------------------------------------------------------------------- policy and venue


def split_by_name(
    entries: Mapping[str, Any], names: Sequence[str], *, known: Sequence[str], where: str
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the entries of all instruments, and the tables of single ones by name.

    ``known`` are the keys that may hold a table and are not names.
    """
    single = {
        name: dict(entry)
        for name, entry in entries.items()
        if isinstance(entry, Mapping) and name not in known
    }
    for name in single:
        if name not in names:
            raise ParameterError(
                f"a table must be of an instrument of the data, was of {name!r}"
                + did_you_mean(name, [*names, *known]),
                where=where,
                cure=f"name one of {', '.join(names)}",
            )
    return {name: entry for name, entry in entries.items() if name not in single}, single


def build_policies(section: DraftTable, names: Sequence[str]) -> Policy | dict[str, Policy]:
    """Build one policy for all instruments, or one for each where tables name them."""
    of_all, single = split_by_name(section.entries, names, known=("settings",), where=section.where)
    if not single:
        return build_policy(section)
    missing = [name for name in names if name not in single]
    if missing and "name" not in of_all:
        raise ParameterError(
            f"each instrument must have a policy, {missing[0]!r} has none",
            where=section.where,
            cure=f"add [policy.{missing[0]}], or [policy] name for all that have none",
        )
    return {
        name: build_policy(section._replace(entries=single.get(name, of_all))) for name in names
    }


def list_policies(policy: Policy | Mapping[str, Policy]) -> list[Policy]:
    """Return the different policies of an experiment."""
    return [policy] if isinstance(policy, Policy) else list(dict.fromkeys(policy.values()))


def name_policies(policy: Policy | Mapping[str, Policy]) -> str:
    """Return the class of the policy, or the classes of several."""
    return ", ".join(dict.fromkeys(type(each).__name__ for each in list_policies(policy)))


def build_venues(draft: Draft, markets: Markets) -> Venue | dict[str, Venue]:
    """Build the venue of each instrument; one for all if the preset names a symbol."""
    section = draft.section("venue", path="preset")
    of_all, single = split_by_name(
        section.entries, markets.names, known=list_venue_tables(), where=section.where
    )
    base = section._replace(entries=of_all)
    is_one = not single and (":" in of_all.get("preset", "") or "contract" in of_all)
    if is_one:
        return build_one_venue(base, next(iter(markets)), None)
    return {
        name: build_one_venue(
            base._replace(entries={**of_all, **single.get(name, {})}), name, market
        )
        for name, market in markets.items()
    }


def list_venue_tables() -> list[str]:
    """Return the fields of a venue."""
    return list(Venue.__dataclass_fields__)


def build_one_venue(section: DraftTable, name: str, market: Market | None) -> Venue:
    """Build the venue of one instrument, whose preset may leave the symbol out."""
    text = section.entries.get("preset")
    text = None if text is None else Text().check(f"preset of {name}", text, where=section.where)
    if text is None and "contract" in section.entries:
        return build_venue(section, None)
    text = DEFAULT_VENUE if text is None else text
    if market is not None:
        text = complete_preset(text, name, market, where=section.where)
    preset = split_preset(text, section.where, section.folder)
    venue = build_venue(section, preset)
    if market is not None:
        is_named = market.instrument or not names_symbol(preset.symbol, name)
        warn_of_other_symbol(preset if is_named else None, market)
    return venue


def complete_preset(text: str, name: str, market: Market, *, where: str = "") -> str:
    """Return ``venue:SYMBOL`` for ``venue``, with the symbol of an instrument.

    Raises VenueError if the venue has no table for the instrument.

    Examples
    --------
    >>> complete_preset("binance-usdm@latest", "ETH/USDT:USDT", Market.sample(bars=2))
    'binance-usdm:ETHUSDT@latest'
    """
    venue, at, date = text.partition("@")
    if ":" in venue or venue.endswith(preset_files.SUFFIX):
        return text
    known = [each.symbol for each in preset_files.available() if each.venue == venue]
    names = [each for each in (name, market.instrument) if each]
    exact = [each for each in names if each in known]
    alike = [symbol for each in names for symbol in known if names_symbol(symbol, each)]
    found = exact or sorted(alike, key=len, reverse=True)
    if known and not found:
        raise VenueError(
            f"the venue must have a margin table of each instrument, {venue} has none of "
            f"{names[-1]!r}",
            where=where,
            cure=f"{cure_missing_symbol(venue, names[-1], known)}, and give it in an "
            f"experiment, [venue.{name}] with preset = 'NAME:SYMBOL'",
        )
    return f"{venue}:{found[0] if found else names[-1]}{at}{date}"


# ---------------------------------------------------------------------------------------- signal


def read_panel_allocation(draft: Draft, run: DraftTable) -> WeightRule:
    """Return the rule that gives the weights."""
    where = draft.locate("run", ("allocate", "allocate_settings"))
    others = [name for name in ("weights", "carry_weights") if name in run.entries]
    if others or "allocate" not in run.entries:
        found = f"allocate and {others[0]}" if others else "settings without a rule"
        raise ParameterError(
            f"weights must come from a rule or a file, was given {found}",
            where=draft.locate("run", ("allocate", "allocate_settings", *others)),
            cure="give --allocate RULE or --weights FILE; allocate_settings belong to a rule",
        )
    with located(where):
        settings = flatten(run.entries.get("allocate_settings", {}))
        return read_allocation(run.entries["allocate"], settings, where=where)


def read_panel_rule(run: DraftTable) -> SignalRule | None:
    """Return the rule of the signal; refuse a number or a column, which are of one instrument."""
    signal, settings = run.entries.get("signal"), flatten(run.entries.get("signal_settings", {}))
    if signal is None and not settings:
        return None
    others = [name for name in ("weights", "allocate") if name in run.entries]
    is_rule = isinstance(signal, str) and signal.partition(":")[0] in RULES
    if others or not is_rule:
        found = f" beside {others[0]}" if others else ""
        raise ParameterError(
            f"the signal of several instruments must be weights or a rule, was {signal!r}{found}",
            where=run.where,
            cure="give --weights FILE, a table by time and instrument, --allocate RULE, or a rule, "
            "--signal ma-cross:20:50; leave all out for 1/n",
        )
    return read_rule(str(signal), settings, where=run.where)


def read_weights(draft: Draft, markets: Markets) -> pd.DataFrame | WeightRule | None:
    """Return the weights of a file by the bars of the markets, or their rule; None for 1/n."""
    run = draft.section("run", path="weights")
    if "allocate" in run.entries or "allocate_settings" in run.entries:
        return read_panel_allocation(draft, run)
    carries = bool(run.entries.get("carry_weights", False))
    if "weights" not in run.entries:
        if carries:
            raise ParameterError(
                "carry_weights is for weights of a file, was given without one",
                where=run.where,
                cure="give --weights FILE too",
            )
        return None
    zone = draft.tables.get("data", {}).get("timezone")
    where = draft.locate("run", ("weights",))
    with located(where):
        frame = read_weight_file(run.folder / run.entries["weights"], zone)
        return signals.from_frame(markets, frame, carry=carries)

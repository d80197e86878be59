"""Build an experiment: market, policy, signal, venue and account, from its file and flags."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from backtest.account import Account
from backtest.base import ParameterError, TimeLike, did_you_mean, pick_value, utc_index
from backtest.cli.experiment_data import SAMPLE, check_start, load_data, read_span
from backtest.cli.experiment_draft import (
    Draft,
    DraftTable,
    GivenFlag,
    Tables,
    flatten,
    nest,
    overlay,
)
from backtest.cli.experiment_keys import RULE_TABLES
from backtest.cli.experiment_schema import read_experiment
from backtest.cli.experiment_venue import build_overlay, build_policies, build_venues
from backtest.cli.progress import show_progress
from backtest.cli.typed_values import format_typed
from backtest.engine import check_columns, read_named, read_rule, schedule_options, signals
from backtest.engine.indicator_rules import RULES
from backtest.market import Market, Markets, as_markets, find_clock, read_weight_file
from backtest.market.markets import MAX_AGE
from backtest.options import Chain, Surfaces, find_underlying
from backtest.venue import Option, RateCurve, Venue, require_costs
from backtest.weights import equal, inverse_volatility

RUN_TERMS = ("sampling", "calendar", "compile")


class Experiment(NamedTuple):
    market: Any
    policy: Any
    terms: dict[str, Any]

    def list_given_terms(self) -> dict[str, Any]:
        return {name: each for name, each in self.terms.items() if each is not None}


def draft_experiment(
    file: Path | None,
    flags: Sequence[GivenFlag],
    arguments: Sequence[str] = (),
    line: Sequence[str] = (),
) -> Draft:
    """Read an experiment file and apply the flags to it.

    A flag that replaces the policy, the venue, the signal or the allocation of the file also drops
    their settings.
    """
    from_file = {} if file is None else read_experiment(file)
    tables: Tables = {name: dict(content) for name, content in from_file.items()}
    for flag in flags:
        if replaces_table(flag, tables):
            tables[flag.table] = {}
        if flag.table == "run" and flag.key in RULE_TABLES:
            tables.get("run", {}).pop(f"{flag.key}_settings", None)
    for flag in flags:
        tables = overlay(tables, nest(flag))
    return Draft(tables, file, from_file, flags, tuple(arguments), tuple(line))


def replaces_table(flag: GivenFlag, tables: Tables) -> bool:
    """Return whether a flag names another policy than the file, or a venue."""
    if (flag.table, flag.key) == ("policy", "name"):
        return bool(tables.get("policy", {}).get("name") != flag.value)
    return (flag.table, flag.key) == ("venue", "preset")


def build_experiment(draft: Draft, *, warms: bool = True) -> Experiment:
    """Build the objects that a draft describes.

    ``warms`` keeps the bars before the account's start, to warm the policy's columns. The accounts
    of a sweep or a search begin with their market, so their market is cut at the start instead.
    """
    run, span = draft.section("run"), read_span(draft, warms=warms)
    account = Account.from_dict(draft.tables.get("account", {}))
    loaded = load_data(draft, span)
    markets = as_markets(loaded)
    policy = build_policies(draft.section("policy", path="name"), markets.names)
    venue = apply_lending(draft, build_venues(draft, markets), markets)
    market = list_options(draft, loaded, venue)
    terms = {name: run.entries[name] for name in RUN_TERMS if name in run.entries}
    terms |= {"venue": venue, "account": account, "signal": read_signal(draft, market)}
    if draft.tables.get("overlay"):
        terms["overlay"] = build_overlay(draft.section("overlay", path="name"))
    if warms:
        check_start(span, market)
        terms["start"] = span.start
    elif span.start is not None:
        warn_of_cold_start(span.start)
    return Experiment(market, policy, terms)


def build_run_command(draft: Draft, values: Mapping[str, object]) -> str:
    """Return the ``backtest run`` command that runs one set of a sweep or a search again.

    Their accounts begin with their market, so the data are cut at the start of the account.

    Examples
    --------
    >>> draft = draft_experiment(None, [], arguments=["--to", "2023-02-01", "--set", "target=1"])
    >>> build_run_command(draft, {"target": 0.5, "account.band": 0.1})
    'backtest run --to 2023-02-01 --set target=0.5 --set account.band=0.1'
    """
    words = ["backtest", "run"]
    rest = iter(draft.arguments)
    for word in rest:
        given = [word, next(rest)] if word in ("--set", "--data") else [word]
        is_replaced = word == "--set" and given[1].partition("=")[0].strip() in values
        if not is_replaced and not (word in words and word == "--data" and is_separate(draft)):
            words += given
    start = draft.tables.get("run", {}).get("start")
    words += [] if start is None else ["--from", str(start)]
    for name, value in values.items():
        words += ["--set", f"{name}={format_typed(value)}"]
    return shlex.join(words)


def is_separate(draft: Draft) -> bool:
    """Return whether a sweep, a search or a comparison has an account of its own in each market."""
    tables = (draft.tables.get(name, {}) for name in ("sweep", "tune", "validate", "compare"))
    return any(table.get("accounts") == "separate" for table in tables)


def name_where(draft: Draft) -> str:
    """Return where the printed command runs the best set again, after a comma, if it matters."""
    return ", in the first market" if is_separate(draft) else ""


def warn_of_cold_start(start: TimeLike) -> None:
    warnings.warn(
        f"the data are cut at the start, {start}: here the bars before it do not warm the "
        "columns of policies, which trade as soon as those are known; `backtest run` and "
        "`backtest compare` keep them",
        stacklevel=2,
    )


RATES = ("borrow_rate", "cash_rate")


def apply_lending(draft: Draft, venue: Any, markets: Markets) -> Any:
    """Return a venue, or venues by instrument, with the rates of the draft's curve, if any.

    Raises ParameterError if the venue has rates of its own, or the curve or utilization is wrong.
    """
    terms = dict(draft.tables.get("lending", {}))
    if not terms:
        return venue
    utilization = terms.pop("utilization", None)
    curve = RateCurve.from_dict(terms, where="lending")
    check_utilization(utilization, markets)
    rates = curve.rates(next(iter(markets.values())), utilization)
    if not isinstance(venue, Mapping):
        return replace_rates(venue, rates)
    return {name: replace_rates(each, rates) for name, each in venue.items()}


def check_utilization(utilization: object, markets: Markets) -> None:
    if utilization is None:
        raise ParameterError(
            "lending.utilization is needed, 0.8 for example, or the name of a column of the bars"
        )
    if len(markets) > 1 and isinstance(utilization, str):
        raise ParameterError(
            "lending.utilization must be a number for several markets, as interest belongs to the "
            f"account, got {utilization!r}"
        )


def replace_rates(venue: Venue, rates: Mapping[str, object]) -> Venue:
    own = [name for name in RATES if not is_zero(getattr(venue, name))]
    if own or venue.interest_on == "balance":
        found = own[0] if own else "interest_on"
        raise ParameterError(
            f"rates must come from [lending] or from the venue, got venue.{found} too"
        )
    return venue.override({"interest_on": "loan", **rates})


def is_zero(rate: object) -> bool:
    return isinstance(rate, (int, float)) and rate == 0.0


def read_signal(draft: Draft, market: Market | Markets) -> Any:
    """Return what ``[run]`` describes: weights, or a constant, a column of the bars, or a rule.

    They are of the bars that policies see.
    """
    market = find_clock(market).seen
    run = draft.section("run")
    settings = flatten(run.entries.get("signal_settings", {}))
    if run.entries.get("signal") is None and not settings:
        return read_weights(draft, as_markets(market))
    check_direction(run, market)
    signal, (first, *_) = run.entries.get("signal"), as_markets(market).values()
    if isinstance(signal, str):
        with suppress(ValueError):
            signal = float(signal)
    if not settings:
        return read_named(signal, market)
    if not isinstance(signal, str) or signal in first.columns:
        raise ParameterError(
            f"run.signal_settings are of a rule, such as rsi, got {next(iter(settings))} for the "
            f"signal {signal!r}"
        )
    return read_rule(signal, settings, columns=first.columns)


def check_direction(run: DraftTable, market: Market | Markets) -> None:
    """Refuse a signal beside weights, and for several instruments one that is not a rule."""
    signal = run.entries.get("signal")
    others = [name for name in ("weights", "allocate") if name in run.entries]
    is_rule = isinstance(signal, str) and signal.partition(":")[0] in RULES
    if others or not (is_rule or len(as_markets(market)) == 1):
        found = f" beside {others[0]}" if others else ""
        raise ParameterError(
            "run.signal of several instruments must be a rule, ma-cross:20:50 for example, or "
            f"weights or allocate in its place, got {signal!r}{found}"
        )


def read_weights(draft: Draft, markets: Markets) -> pd.DataFrame | None:
    """Return the weights of a file or a rule by the bars of the markets; None for 1/n."""
    run = draft.section("run", path="weights")
    if "allocate" in run.entries or "allocate_settings" in run.entries:
        return allocate(run, markets)
    carries = bool(run.entries.get("carry_weights", False))
    if "weights" not in run.entries:
        if carries:
            raise ParameterError("run.carry_weights is for weights of a file, got none")
        return None
    zone = draft.tables.get("data", {}).get("timezone")
    frame = read_weight_file(run.folder / run.entries["weights"], zone)
    return signals.from_frame(markets, frame, carry=carries)


def allocate(run: DraftTable, markets: Markets) -> pd.DataFrame:
    """Return the weights that a rule computes from the returns that policies see."""
    others = [name for name in ("weights", "carry_weights") if name in run.entries]
    if others or "allocate" not in run.entries:
        found = f"allocate and {others[0]}" if others else "allocate_settings without allocate"
        raise ParameterError(f"weights must come from a rule or a file, got {found}")
    settings = flatten(run.entries.get("allocate_settings", {}))
    seen, rule = as_markets(find_clock(markets).seen), run.entries["allocate"]
    known = () if rule == "equal" else ("half_life", "window", "every")
    for name in settings:
        if name not in known:
            raise ParameterError(
                f"run.allocate_settings.{name}: {rule} has no such setting"
                + did_you_mean(name, known)
            )
    return equal(seen) if rule == "equal" else inverse_volatility(seen, **settings)


def list_options(
    draft: Draft, market: Market | Markets, venue: Venue | Mapping[str, Venue]
) -> Market | Markets:
    """Return the markets of a draft with its options, with surfaces fitted to its quotes.

    What takes no time is checked before the fit, which does.
    """
    entries = draft.section("options").entries
    if not entries:
        return market
    contracts = read_contracts(entries.get("contracts", []))
    if not contracts or "chains" not in entries:
        raise ParameterError(
            "options need contracts, and chains: a folder of quotes or 'sample'; "
            + ("got no contracts" if not contracts else "got no chains")
        )
    markets = as_markets(market)
    owners = find_owners(contracts, markets)
    for name in dict.fromkeys(owners.values()):
        costs = pick_value(venue, name).option_costs
        require_costs(costs, name)
    quantities = read_quantities(draft, contracts)
    is_sample = entries["chains"] == SAMPLE
    chains = (
        dict.fromkeys(owners.values(), Chain.sample())
        if is_sample
        else read_chains(draft, owners, contracts, markets)
    )
    found: Market | Markets = Markets(
        {**markets, **contracts},
        currency=markets.currency or None,
        surfaces=fit_surfaces(chains),
        chains=None if is_sample else chains,
        quote_age=entries.get("quote_age"),
        max_age=entries.get("max_age", MAX_AGE),
    )
    return found if quantities is None else schedule_options(found, quantities)


def find_owners(contracts: Mapping[str, Option], markets: Markets) -> dict[str, str]:
    """Return the instrument of each contract."""
    return {
        name: find_underlying(str(each.underlying), markets, f"option {name!r}")
        for name, each in contracts.items()
    }


def read_quantities(draft: Draft, contracts: Mapping[str, Option]) -> pd.DataFrame | None:
    """Return the signed contracts to hold by time and contract, if a file gives them."""
    if "quantities" not in draft.section("options").entries:
        return None
    file = draft.find_path("options", "quantities")
    frame = read_weight_file(file, draft.tables.get("data", {}).get("timezone"))
    check_columns(frame, [*contracts])
    return frame


def fit_surfaces(chains: Mapping[str, Chain]) -> dict[str, Surfaces]:
    found = {}
    for name, chain in chains.items():
        with show_progress(f"surfaces of {name}", "snapshots") as progress:
            found[name] = Surfaces.fit(chain, progress=progress)
    return found


def read_contracts(given: Any) -> dict[str, Option]:
    listed = [given] if isinstance(given, str | Mapping) else given
    found = [
        Option(each)
        if isinstance(each, str)
        else Option.from_dict(each, where=f"options.contracts.{k}")
        for k, each in enumerate(listed)
    ]
    return {str(each.name): each for each in found}


def read_chains(
    draft: Draft, owners: Mapping[str, str], contracts: Mapping[str, Option], markets: Markets
) -> dict[str, Chain]:
    """Return the quotes by instrument, of the days of the markets and those before."""
    settlement = draft.section("options").entries.get("settlement")
    chain = Chain.load(draft.find_path("options", "chains"), settlement=settlement)
    end = utc_index(markets.time[-1:] + markets.interval)[0]
    known = Chain(
        chain.table[chain.table["time"] < end].reset_index(drop=True),
        chain.settlement,
        chain.source,
    )
    found: dict[str, Chain] = {}
    for name, owner in owners.items():
        if owner not in found:
            several = len(known.underlyings) > 1
            found[owner] = known.select(contracts[name].underlying) if several else known
    return found

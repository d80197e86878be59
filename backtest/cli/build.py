"""Build what an experiment describes: market, policy, signal, venue and account."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from backtest.account import Account
from backtest.base import (
    BacktestError,
    ParameterError,
    Text,
    TimeLike,
    VenueError,
    did_you_mean,
    format_time,
    list_values,
    pick_value,
    to_nanoseconds,
    utc_index,
)
from backtest.cli.experiment import Draft, DraftTable, find_single, flatten, overlay
from backtest.cli.find_policy import read_policy
from backtest.cli.progress import show_progress
from backtest.engine import check_columns, read_named, read_rule, schedule_options, signals
from backtest.engine.signal_rules import RULES
from backtest.market import (
    Market,
    Markets,
    as_markets,
    find_clock,
    find_in_folders,
    is_panel,
    read_weight_file,
    with_clock,
)
from backtest.market.markets import MAX_AGE
from backtest.options import Chain, Surfaces, find_underlying
from backtest.policy import Policy
from backtest.venue import Option, RateCurve, Venue, has_other_unit, preset_files, require_costs
from backtest.weights import equal, inverse_volatility

RUN_TERMS = ("sampling", "calendar", "compile")


class Experiment(NamedTuple):
    market: Any
    policy: Any
    terms: dict[str, Any]

    def list_given_terms(self) -> dict[str, Any]:
        return {name: each for name, each in self.terms.items() if each is not None}


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


def warn_of_cold_start(start: TimeLike) -> None:
    warnings.warn(
        f"the data are cut at the start, {start}: here the bars before it do not warm the "
        "columns of policies, which trade as soon as those are known; `backtest run` and "
        "`backtest compare` keep them",
        stacklevel=2,
    )


RATES = ("borrow_rate", "cash_rate")


def apply_lending(draft: Draft, venue: Any, markets: Markets) -> Any:
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
    return {
        name: find_underlying(str(each.underlying), markets, f"option {name!r}")
        for name, each in contracts.items()
    }


def read_quantities(draft: Draft, contracts: Mapping[str, Option]) -> pd.DataFrame | None:
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


# -------------------------------------------------------------------------------------------- data

SAMPLE = "sample"
SEEDED = re.compile(r"sample(:(?P<seed>\d{1,9}))?", re.ASCII)
WEIGHTS = ("weights", "carry_weights", "allocate", "allocate_settings")
NAMED = ("path", "instrument", "resample", "from", "to")


class DataSpan(NamedTuple):
    low: TimeLike | None
    high: TimeLike | None
    start: TimeLike | None

    @property
    def between(self) -> tuple[TimeLike | None, TimeLike | None] | None:
        return None if self.low is None and self.high is None else (self.low, self.high)


def read_span(draft: Draft, *, warms: bool) -> DataSpan:
    data, run = draft.tables.get("data", {}), draft.tables.get("run", {})
    low, high, start, end = data.get("from"), data.get("to"), run.get("start"), run.get("end")
    given = {"data.from": low, "data.to": high, "run.start": start, "run.end": end}
    for name, time in given.items():
        if time is not None:
            to_nanoseconds(time, name)
    if is_before(start, low) or is_before(high, end):
        raise ParameterError(
            f"start and end must lie inside the data, got {start or 'none'} to {end or 'none'} of "
            f"{low or 'none'} to {high or 'none'}"
        )
    if start is not None and end is not None and not is_before(start, end):
        raise ParameterError(f"end must lie after start, got {start} to {end}")
    first = low if warms or start is None else start
    return DataSpan(first, high if end is None else end, start)


def is_before(time: TimeLike | None, other: TimeLike | None) -> bool:
    if time is None or other is None:
        return False
    return to_nanoseconds(time) < to_nanoseconds(other)


def check_start(span: DataSpan, market: Market | Markets) -> None:
    if span.start is not None and to_nanoseconds(span.start) < market.start:
        raise ParameterError(
            f"the account must begin inside the data, which begin {format_time(market.start)}, "
            f"got {span.start}"
        )


class NamedData(NamedTuple):
    """What ``[data]`` names: paths or seeds of samples, instruments, and choices of the loaders."""

    paths: list[Path]
    seeds: list[int]
    instruments: list[str]
    choices: dict[str, Any]

    @property
    def is_several(self) -> bool:
        return len(self.seeds) > 1 if self.seeds else is_panel(self.paths, self.instruments)


def read_named_data(draft: Draft) -> NamedData:
    data = draft.section("data", path="path")
    names, instruments = (list_texts(data.entries.get(key)) for key in ("path", "instrument"))
    choices = {name: choice for name, choice in data.entries.items() if name not in NAMED}
    names = names or [SAMPLE]
    seeds: list[int] = []
    if any(name.partition(":")[0] == SAMPLE for name in names):
        found = [SEEDED.fullmatch(name) for name in names]
        seeds = [int(each["seed"] or 0) for each in found if each]
        if len(set(seeds)) < len(names):
            raise ParameterError(
                "data.path must be paths, or samples of different seeds, sample:1 and sample:2, "
                f"got {', '.join(names)}; a folder of that name is ./sample"
            )
    return NamedData([data.folder / each for each in names], seeds, instruments, choices)


def list_texts(given: Any) -> list[str]:
    return [given] if isinstance(given, str) else list(given or [])


def load_data(draft: Draft, span: DataSpan | None = None) -> Market | Markets:
    named, run = read_named_data(draft), draft.section("run", path="detail")
    if not named.is_several:
        check_named_terms(draft)
    market = load_named(named, read_span(draft, warms=False) if span is None else span)
    interval = draft.table("data").get("resample")
    if interval is not None:
        try:
            market = market.resample(interval)
        except BacktestError as error:
            raise type(error)(f"data.resample: {error}") from error
    detail = run.entries.get("detail")
    folder = None if detail is None else run.folder / detail
    found: Market | Markets = with_clock(market, run.entries.get("decide"), folder)
    return found


def load_named(named: NamedData, span: DataSpan) -> Market | Markets:
    paths, names, choices = named.paths, named.instruments, named.choices
    if named.seeds:
        if given := [*["instrument"] * bool(names), *choices]:
            raise ParameterError(f"the sample takes no {', '.join(given)}: its data are known")
        found = {f"{SAMPLE}-{seed}": Market.sample(seed=seed) for seed in named.seeds}
        market = Markets(found) if named.is_several else next(iter(found.values()))
        return market if span.between is None else market.between(*span.between)
    if named.is_several:
        return Markets.load(*paths, instruments=names or None, between=span.between, **choices)
    name = names[0] if names else None
    chosen = find_in_folders(paths, name)
    if chosen is not None:  # of a folder with a folder for each market
        paths, name = [chosen.path], chosen.instrument
    own: dict[str, Any] = {} if name is None else {"instrument": name}
    return Market.load(*paths, between=span.between, **choices, **own)


def check_named_terms(draft: Draft) -> None:
    tables = draft.tables
    venue, known = tables.get("venue", {}), Venue.__dataclass_fields__
    found = [("run", key) for key in WEIGHTS if key in tables.get("run", {})]
    found += [("data", "currency")] if "currency" in tables.get("data", {}) else []
    found += [("policy", name) for name in find_single(tables.get("policy", {}))]
    found += [("venue", k) for k, x in venue.items() if isinstance(x, Mapping) and k not in known]
    for table, key in found[:1]:
        raise ParameterError(f"{table}.{key} is for several instruments, the data are of one")


DEFAULT_POLICY = "vol-target"
DEFAULT_VENUE = "binance-usdm:BTCUSDT"


def split_by_name(
    entries: Mapping[str, Any], names: Sequence[str], *, known: Sequence[str], table: str
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    single = {
        name: dict(entry)
        for name, entry in entries.items()
        if isinstance(entry, Mapping) and name not in known
    }
    for name in single:
        if name not in names:
            raise ParameterError(
                f"{table}.{name} must be of an instrument of the data, {', '.join(names)}"
                + did_you_mean(name, [*names, *known])
            )
    return {name: entry for name, entry in entries.items() if name not in single}, single


# ---------------------------------------------------------------------------------------- policies


def build_policy(section: DraftTable) -> Policy:
    name = section.entries.get("name", DEFAULT_POLICY)
    settings = flatten(section.entries.get("settings", {}))
    return read_policy(name, settings, section.folder)


def build_policies(section: DraftTable, names: Sequence[str]) -> Policy | dict[str, Policy]:
    of_all, single = split_by_name(section.entries, names, known=("settings",), table="policy")
    if not single:
        return build_with_own(section, names)
    missing = [name for name in names if name not in single]
    if missing and "name" not in of_all:
        raise ParameterError(
            f"each instrument must have a policy, {missing[0]!r} has none: policy.name is that of "
            "all that have none"
        )
    return {
        name: build_policy(section._replace(entries=single.get(name, of_all))) for name in names
    }


def build_overlay(section: DraftTable) -> Policy:
    if "name" not in section.entries:
        raise ParameterError(
            f"overlay.name is needed, got {', '.join(flatten(section.entries))} only"
        )
    return build_policy(section)


def build_with_own(section: DraftTable, names: Sequence[str]) -> Policy | dict[str, Policy]:
    settings = flatten(section.entries.get("settings", {}))
    shared = {key: each for key, each in settings.items() if key.rpartition(".")[0] not in names}
    if len(shared) == len(settings):
        return build_policy(section)
    found = {}
    for name in names:
        own = {key.rpartition(".")[2]: each for key, each in settings.items()
               if key.rpartition(".")[0] == name}  # fmt: skip
        entries = {**section.entries, "settings": {**shared, **own}}
        found[name] = build_policy(section._replace(entries=entries))
    return found


def list_policies(policy: Policy | Mapping[str, Policy]) -> list[Policy]:
    return list(dict.fromkeys(list_values(policy)))


def name_policies(policy: Policy | Mapping[str, Policy]) -> str:
    return ", ".join(dict.fromkeys(type(each).__name__ for each in list_policies(policy)))


# ------------------------------------------------------------------------------------------ venues


def build_venues(draft: Draft, markets: Markets) -> Venue | dict[str, Venue]:
    section = draft.section("venue", path="preset")
    of_all, single = split_by_name(
        section.entries, markets.names, known=[*Venue.__dataclass_fields__], table="venue"
    )
    base = section._replace(entries=of_all)
    data = read_named_data(draft)
    is_several = data.is_several and not data.seeds  # samples have no symbol
    text = of_all.get("preset", find_default(draft, is_several=is_several))
    if not single and (text is None or ":" in text or not is_several):
        preset = None if text is None else split_preset(text, section.folder)
        venue = build_venue(base, preset)
        if not is_several:
            warn_of_other_symbol(preset, next(iter(markets.values())))
        return venue
    own = {name: base._replace(entries={**of_all, **single.get(name, {})}) for name in markets}
    in_file = draft.from_file.get("venue", {})
    whole = {
        name
        for name in markets
        if any(isinstance(x, Mapping) and "contract" in x for x in (in_file, in_file.get(name)))
    }
    return {
        name: build_own_venue(own[name], None if name in whole else text, name, market)
        for name, market in markets.items()
    }


def find_default(draft: Draft, *, is_several: bool) -> str | None:
    if "contract" in draft.from_file.get("venue", {}):
        return None
    return DEFAULT_VENUE.partition(":")[0] if is_several else DEFAULT_VENUE


def build_own_venue(section: DraftTable, default: str | None, name: str, market: Market) -> Venue:
    given = section.entries.get("preset", default)
    if given is None:
        return build_venue(section, None)
    text = complete_preset(Text().check(f"venue.{name}.preset", given), name, market)
    preset = split_preset(text, section.folder)
    is_named = market.instrument or not names_symbol(preset.symbol, name)
    venue = build_venue(section, preset)
    warn_of_other_symbol(preset if is_named else None, market)
    return venue


def split_preset(text: str, folder: Path = Path()) -> preset_files.PresetName:
    name = preset_files.parse_name(text)
    is_file = name.venue.endswith(preset_files.SUFFIXES)
    return name._replace(venue=str(folder / name.venue)) if is_file else name


def build_venue(section: DraftTable, preset: preset_files.PresetName | None) -> Venue:
    table = {name: entry for name, entry in section.entries.items() if name != "preset"}
    if preset is not None:
        under = preset_files.read_preset(*preset)
        if "brackets" in table:
            under = {name: under[name] for name in under if name not in ("in_force", "earlier")}
        table = overlay(drop_other_least(under, table.get("contract")), table)
    return Venue.from_dict(table)


def drop_other_least(preset: Mapping[str, Any], changes: object) -> Mapping[str, Any]:
    held = preset["contract"]
    kind = changes.get("kind") if isinstance(changes, Mapping) else None
    if kind is None or not has_other_unit(held.get("kind", "linear"), kind):
        return preset
    return {**preset, "contract": {x: held[x] for x in held if x != "min_notional"}}


def warn_of_other_symbol(preset: preset_files.PresetName | None, market: Market) -> None:
    if preset is None or market.synthetic:
        return
    symbol = preset.symbol
    if not market.instrument:
        warnings.warn(
            "the data do not name their instrument; the venue's rules (brackets, lot, least "
            f"notional) are those of {symbol}: name it, --instrument {symbol}, or choose other "
            "rules, --venue NAME:SYMBOL",
            stacklevel=2,
        )
    elif not names_symbol(symbol, market.instrument):
        warnings.warn(
            f"the venue's rules (brackets, lot, least notional) are those of {symbol}, "
            f"the prices are those of {market.instrument}",
            stacklevel=2,
        )


def names_symbol(symbol: str, instrument: str) -> bool:
    word = re.sub(r"^PF_|[-_](SWAP|PERPETUAL|PERP)$", "", symbol.upper()).replace("XBT", "BTC")
    plain = re.sub(r"[^A-Z0-9]", "", instrument.upper()).replace("XBT", "BTC")
    return re.sub(r"[^A-Z0-9]", "", word) in plain


def complete_preset(text: str, name: str, market: Market) -> str:
    venue, at, date = text.partition("@")
    if ":" in venue or venue.endswith(preset_files.SUFFIXES):
        return text
    known = [each.symbol for each in preset_files.available() if each.venue == venue]
    names = [each for each in (name, market.instrument) if each]
    exact = [each for each in names if each in known]
    alike = [symbol for each in names for symbol in known if names_symbol(symbol, each)]
    found = exact or sorted(alike, key=len, reverse=True)
    if known and not found:
        raise VenueError(
            f"the venue must have a margin table of each instrument, {venue} has none of "
            f"{names[-1]!r}; 'backtest venues import' takes one from ccxt, and an experiment gives "
            f"it, [venue.{name}] with preset = 'NAME:SYMBOL'"
        )
    return f"{venue}:{found[0] if found else names[-1]}{at}{date}"

"""Build what the tables of an experiment describe: market, signal, venue, account and test."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from backtest import core, options
from backtest.account import Account
from backtest.engine.conditions import Conditions, plain
from backtest.experiments import venue_choice
from backtest.experiments.draft import Draft, flatten
from backtest.experiments.policy_names import read_policy
from backtest.experiments.tables import ACCOUNTS, DEFAULT_VENUE, SAMPLE
from backtest.margin import RateCurve
from backtest.market import (
    Market,
    Markets,
    as_markets,
    find_clock,
    find_coin,
    find_in_folders,
    is_panel,
)
from backtest.market.markets import MAX_AGE
from backtest.market.weight_frame import read_weight_file
from backtest.options.option_inputs import check_lots, check_settlement
from backtest.policies import Policy, split_name
from backtest.signals import read_named, read_rule
from backtest.signals import rules as signals
from backtest.signals.rules import RULES
from backtest.venue import Option, Venue, preset_files, require_costs

_C = TypeVar("_C", bound=Conditions)

ShowProgress: TypeAlias = "Callable[[str, str], AbstractContextManager[core.Progress | None]]"
"""Takes what is done and the noun that is counted, and returns what shows how far it is."""


def show_nothing(title: str, noun: str) -> AbstractContextManager[None]:  # noqa: ARG001 - as above
    return nullcontext()


def build_test(draft: Draft, kind: type[_C], show_progress: ShowProgress = show_nothing) -> _C:
    """Return the test, of this class, that a draft describes in its tables but policies and jobs.

    Raises ParameterError, VenueError or DataError as the classes of its parts do.
    """
    for name in (ACCOUNTS, "transfer"):
        if draft.table(name):
            raise core.ParameterError(
                f"{name}: several accounts are run by `backtest run`, and by bt.Accounts; this "
                "takes an experiment of one account"
            )
    run, overlaid = draft.table("run"), draft.table("overlay")
    market = load_data(draft)
    markets = as_markets(market)
    given: dict[str, Any] = {name: run[name] for name in TAKEN_AS_THEY_ARE if name in run}
    if "calendar" in run:
        given["calendar"] = str(run["calendar"])  # written as a number, as often as not
    if overlaid:
        if "name" not in overlaid:
            raise core.ParameterError(f"overlay.name is needed, got {', '.join(overlaid)} only")
        given["overlay"] = build_policy(overlaid)
    start = run.get("start")
    if start is not None and core.to_nanoseconds(start, "run.start") < market.start:
        raise core.ParameterError(
            "the account must begin inside the data, which begin "
            f"{core.format_time(market.start)}, got {start}"
        )
    account = Account.from_dict(draft.table("account"))
    venue = apply_lending(draft, build_venues(draft, markets), markets)
    test = kind(market, venue=venue, account=account, **given)
    if draft.table("options"):
        listed = list_options(draft, plain(test).market, test.venue, show_progress)
        test = plain(test).replace(market=listed)
    return test.replace(signal=read_signal(draft, plain(test).market))


TAKEN_AS_THEY_ARE = ("sampling", "decision_interval", "detail", "start", "end")
"""Fields of a test that ``[run]`` has under the same names."""


def load_data(draft: Draft) -> Market | Markets:
    data = dict(draft.table("data"))
    span = (data.pop("from", None), data.pop("to", None))
    for name, time in zip(("data.from", "data.to"), span, strict=True):
        if time is not None:
            core.to_nanoseconds(time, name)
    texts, interval = list_texts(data.pop("path", SAMPLE)), data.pop("resample", None)
    instruments, paths = list_texts(data.pop("instrument", [])), [*map(Path, texts)]
    terms: dict[str, Any] = {**data, "since": span[0], "until": span[1]}
    market: Market | Markets
    if is_sample(texts):
        market = load_samples(texts, span, [*["instrument"] * bool(instruments), *data])
    elif is_panel(paths, instruments):
        market = Markets.load(*texts, instruments=instruments or None, **terms)
    elif "currency" in data:
        raise core.ParameterError("data.currency is for several instruments, the data are of one")
    else:
        files, own = find_in_folders(paths, instruments[0] if instruments else None)
        market = Market.load(*files, **terms, instrument=own)
    return market if interval is None else market.resample(interval)


def is_sample(paths: list[str]) -> bool:
    return any(path.partition(":")[0] == SAMPLE for path in paths)


def load_samples(paths: list[str], span: tuple[Any, Any], given: list[str]) -> Market | Markets:
    seeds = [re.fullmatch(r"sample(?::(\d{1,9}))?", path, re.ASCII) for path in paths]
    numbers = dict.fromkeys(int(each[1] or 0) for each in seeds if each)
    if len(numbers) < len(paths):
        raise core.ParameterError(
            "data.path must be paths, or samples of different seeds, sample:1 and sample:2, "
            f"got {', '.join(paths)}; a folder of that name is ./sample"
        )
    if given:
        raise core.ParameterError(f"the sample accepts no {', '.join(given)}: its data are known")
    found = {f"{SAMPLE}-{seed}": Market.sample(seed=seed) for seed in numbers}
    market = Markets(found) if len(found) > 1 else next(iter(found.values()))
    return market if span == (None, None) else market.slice(*span)


def list_texts(given: Any) -> list[str]:
    return [given] if isinstance(given, str) else list(given or [])


def read_signal(draft: Draft, market: Market | Markets) -> Any:
    run, seen = draft.table("run"), find_clock(market).seen
    markets = as_markets(seen)
    chosen = [name for name in ("signal", "weights", "allocate") if run.get(name) is not None]
    if len(chosen) > 1:
        raise core.ParameterError(f"give one of run.{' and run.'.join(chosen)}")
    for name, needed in (("carry_weights", "weights"), ("allocate_settings", "allocate")):
        if run.get(name) and needed not in run:
            raise core.ParameterError(f"run.{name} needs run.{needed}, got none")
    if "allocate" in chosen:
        tables = (run.get(f"{name}_settings", {}) for name in ("allocate", "signal"))
        own, varied = map(flatten, tables)  # a sweep names them signal.half_life and so on
        return allocate(run["allocate"], {**own, **varied}, markets)
    if "weights" in chosen:
        frame = read_weight_file(Path(run["weights"]), draft.table("data").get("timezone"))
        carry = run.get("carry_weights", False)
        if len(markets) == 1 and frame.shape[1] == 1:
            return signals.from_series(next(iter(markets.values())), frame.iloc[:, 0], carry=carry)
        return signals.from_frame(markets, frame, carry=carry)
    signal, settings = run.get("signal"), flatten(run.get("signal_settings", {}))
    is_rule = isinstance(signal, str) and signal.partition(":")[0] in RULES
    if signal is not None and not is_rule and len(markets) > 1:
        raise core.ParameterError(
            "run.signal of several instruments must be a rule, ma-cross:20:50 for example, or "
            f"weights or allocate in its place, got {signal!r}"
        )
    if not settings:
        return signal if len(markets) == 1 else read_named(signal, seen)
    columns = next(iter(markets.values())).columns
    if not isinstance(signal, str) or signal in columns:
        raise core.ParameterError(
            f"run.signal_settings are of a rule, such as rsi, got {next(iter(settings))} for the "
            f"signal {signal!r}"
        )
    return read_rule(signal, settings, columns=columns)


def allocate(rule: str, settings: Mapping[str, Any], markets: Markets) -> Any:
    from backtest.signals import RiskBudget, equal, inverse_volatility  # noqa: PLC0415 - seldom

    known_by_rule: dict[str, tuple[str, ...]] = {
        "equal": (), "inverse-volatility": ("half_life", "every"),
        "risk-budget": ("half_life", "every", "budgets"),
    }  # fmt: skip
    core.Choice(*known_by_rule).check("run.allocate", rule)
    known = known_by_rule[rule]
    heads = [name.partition(".")[0] for name in settings]
    core.check_names(f"run.allocate_settings: {rule}", heads, known, noun="setting")
    if len(markets) == 1:
        raise core.ParameterError("run.allocate is for several instruments, got one")
    if rule == "risk-budget":
        equally = {} if "budgets" in heads else {"budgets": dict.fromkeys(markets.names, 1.0)}
        return RiskBudget.from_settings({**settings, **equally})
    return equal(markets) if rule == "equal" else inverse_volatility(markets, **settings)


def by_instrument(
    table: str,
    entries: Mapping[str, Any],
    names: Sequence[str],
    known: Sequence[str],
    build: Callable[[Mapping[str, Any]], Any],
) -> Any:
    single = {
        name: each
        for name, each in entries.items()
        if isinstance(each, Mapping) and name not in known
    }
    for name in single:
        if name not in names:
            raise core.ParameterError(
                f"{table}.{name} must be of an instrument of the data, {', '.join(names)}"
                + core.did_you_mean(name, [*names, *known])
            )
    shared = {name: each for name, each in entries.items() if name not in single}
    missing = [name for name in names if name not in single]
    if table == "policy" and single and missing and "name" not in shared:
        raise core.ParameterError(
            f"each instrument must have a policy, {missing[0]!r} has none: policy.name "
            "applies to all others"
        )
    settings = flatten(shared.get("settings", {}))
    own: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key in [each for each in settings if split_name(each)[0] in names]:  # BTCUSDT.target
        name, rest = split_name(key)
        own[name][rest] = settings.pop(key)
    if not single and not any(own.values()):
        return build(shared)
    tables = {name: {"settings": settings | own[name]} if any(own.values()) else {}
              for name in names}  # fmt: skip
    return {name: build({**shared, **tables[name], **single.get(name, {})}) for name in names}


def build_policy(table: Mapping[str, Any]) -> Policy:
    return read_policy(table.get("name", "vol-target"), flatten(table.get("settings", {})))


def build_venues(draft: Draft, markets: Markets) -> Venue | dict[str, Venue]:
    data, table = draft.table("data"), dict(draft.table("venue"))
    paths = list_texts(data.get("path", SAMPLE))
    has_names = not is_sample(paths)  # samples have no symbol
    is_several = is_panel([*map(Path, paths)], list_texts(data.get("instrument", [])))
    table = venue_choice.choose_listings(table, markets, has_files=has_names)
    if has_names and is_several and "listing" not in table:
        given = table.setdefault("preset", DEFAULT_VENUE.partition(":")[0])
        if given and ":" not in given:
            for name, market in markets.items():
                own = table.get(name, {})
                if not isinstance(own, Mapping):
                    raise core.ParameterError(f"venue.{name}: must be a table, got {own!r:.60}")
                if "listing" in own:
                    continue
                preset = complete_preset(own.get("preset", given), name, market)
                table[name] = {**own, "preset": preset}
    table.setdefault("preset", DEFAULT_VENUE)
    venue: Venue | dict[str, Venue] = by_instrument(
        "venue", table, markets.names, [*Venue.__dataclass_fields__], build_venue
    )
    for name, market in markets.items() if has_names else ():
        terms, instrument = core.pick_value(venue, name).in_force, market.instrument
        symbol = "" if terms is None else terms.symbol
        if terms is None or market.synthetic or names_symbol(symbol, instrument or name):
            continue
        text = f"the venue's rules (brackets, lot, minimum notional) are for {symbol}"
        if len(markets) > 1:
            text += f", the prices are for {instrument or name}; --venue NAME without a symbol "
            text += "uses the rules of each instrument"
        elif instrument:
            text += f", the prices are for {instrument}"
        else:
            text = f"the data do not name their instrument; {text}: name it, --instrument {symbol}"
            text += ", or choose other rules, --venue NAME:SYMBOL"
        warnings.warn(text, stacklevel=2)
    return venue


def build_venue(entries: Mapping[str, Any]) -> Venue:
    chosen = ("preset", venue_choice.BESIDE, *venue_choice.OF_LISTING)
    table = {name: entry for name, entry in entries.items() if name not in chosen}
    if "listing" in entries:
        return venue_choice.read_entries(entries).override(table)
    if not entries["preset"]:
        return Venue.from_dict(table)
    return Venue.preset(*preset_files.parse_name(entries["preset"])).override(table)


FOR_ALL = ("STOCK",)
"""Symbols of presets whose rules hold for every instrument of the venue."""


_OF_VENUES = re.compile(r"^P[FI]_|[-_](SWAP|PERPETUAL|PERP)$")
"""What venues put around the name of a perpetual."""


def names_symbol(symbol: str, instrument: str) -> bool:
    """Return whether an instrument is that of a symbol, by whole names.

    ``BTCUSDT`` is that of ``BTC/USDT:USDT``, of ``BTC`` and ``BTC-USD``, but ``WBTCUSDT`` is none
    of them, and ``ETHFIUSDT`` not ``ETH``.
    """
    if symbol in FOR_ALL:
        return True
    coin, word = read_coin(symbol)
    parts = map(read_coin, instrument.split(":"))
    return any(coin == own and name.startswith(word) for own, name in parts)


def read_coin(name: str) -> tuple[str, str]:
    """Return the coin in a name, and the name in plain letters; XBT is BTC."""
    plain = _OF_VENUES.sub("", name.upper()).replace("XBT", "BTC")
    coin = find_coin(plain) or re.split(r"[^A-Z0-9]", plain)[0]
    return coin, re.sub(r"[^A-Z0-9]", "", plain)


def complete_preset(text: str, name: str, market: Market) -> str:
    """Return ``venue:SYMBOL`` for ``venue``, with the symbol of an instrument."""
    venue, at, date = text.partition("@")
    if ":" in venue or venue.endswith(preset_files.SUFFIXES):
        return text
    known = [each.symbol for each in preset_files.available() if each.venue == venue]
    names = [each for each in (name, market.instrument) if each]
    exact = [each for each in names if each in known]
    alike = [symbol for each in names for symbol in known if names_symbol(symbol, each)]
    found = exact or sorted(alike, key=len, reverse=True)
    if known and not found:
        raise core.VenueError(
            f"the venue must have a margin table of each instrument, {venue} has none of "
            f"{names[-1]!r}; an experiment gives one, [venue.{name}] with preset = 'NAME:SYMBOL'"
        )
    return f"{venue}:{found[0] if found else names[-1]}{at}{date}"


def apply_lending(draft: Draft, venue: Any, markets: Markets) -> Any:
    terms = dict(draft.table("lending"))
    if not terms:
        return venue
    utilization = terms.pop("utilization", None)
    curve = RateCurve.from_dict(terms, where="lending")
    if utilization is None or (len(markets) > 1 and isinstance(utilization, str)):
        raise core.ParameterError(
            "lending.utilization is needed, 0.8 for example, or for one market the name of a "
            f"column of its bars, got {utilization!r}"
        )
    rates = curve.rates(next(iter(markets.values())), utilization)
    for each in core.list_values(venue):
        own = [name for name in rates if repr(getattr(each, name)) not in ("0", "0.0")]
        if own or each.interest_on == "balance":
            raise core.ParameterError(
                "rates must come from [lending] or from the venue, got "
                f"venue.{own[0] if own else 'interest_on'} too"
            )
    changes = {"interest_on": "loan", **rates}
    if isinstance(venue, Mapping):
        return {name: each.override(changes) for name, each in venue.items()}
    return venue.override(changes)


def list_options(
    draft: Draft, market: Market | Markets, venue: Any, show_progress: ShowProgress
) -> Market | Markets:
    entries = draft.table("options")
    given = entries.get("contracts", [])
    listed = [
        Option(each)
        if isinstance(each, str)
        else Option.from_dict(each, where=f"options.contracts.{k}")
        for k, each in enumerate([given] if isinstance(given, str | Mapping) else given)
    ]
    contracts = {str(each.name): each for each in listed}
    if not contracts or "chains" not in entries:
        raise core.ParameterError(
            "options need contracts, and chains: a folder of quotes or 'sample'; "
            + ("got no contracts" if not contracts else "got no chains")
        )
    markets, quoted = as_markets(market), entries.get("settlement")
    owners = {
        name: options.find_underlying(str(each.underlying), markets, f"option {name!r}")
        for name, each in contracts.items()
    }
    for name, each in contracts.items():  # before surfaces are fitted, which takes minutes
        own = core.pick_value(venue, owners[name])
        require_costs(own.option_costs, owners[name])
        check_settlement(name, each, owners[name], own)
        if quoted not in (None, each.settlement):
            raise core.ParameterError(
                f"options.settlement must match the contracts, {each.settlement!r}, got {quoted!r}"
            )
    quantities, zone = None, draft.table("data").get("timezone")
    if "quantities" in entries:
        quantities = read_weight_file(Path(entries["quantities"]), zone)
        options.check_columns(quantities, [*contracts])
        lots = [core.pick_value(venue, owners[name]).option_costs.find_lot(each)
                for name, each in contracts.items()]  # fmt: skip
        check_lots(quantities, [*contracts], lots)
    chains, surfaces = dict[str, options.Chain](), {}
    if is_sample := entries["chains"] == SAMPLE:
        chains = dict.fromkeys(owners.values(), options.Chain.sample())
    else:
        whole = options.Chain.load(Path(entries["chains"]), settlement=quoted, timezone=zone)
        end = core.utc_index(markets.time[-1:] + markets.interval)[0]
        table = whole.table[whole.table["time"] < end].reset_index(drop=True)
        known = options.Chain(table, whole.settlement, whole.source)
        several = len(known.underlyings) > 1
        for name, owner in owners.items():
            if owner not in chains:
                chains[owner] = known.select(contracts[name].underlying) if several else known
        for name, chain in chains.items():
            options.check_chain(contracts, owners, name, chain)
    for name, chain in chains.items():
        with show_progress(f"surfaces of {name}", "snapshots") as progress:
            surfaces[name] = options.Surfaces.fit(chain, progress=progress)
    found = Markets(
        {**markets, **contracts},
        currency=markets.currency or None,
        surfaces=surfaces,
        chains=None if is_sample else chains,
        quote_age=entries.get("quote_age"),
        max_age=entries.get("max_age", MAX_AGE),
    )
    scheduled: Market | Markets = options.schedule_options(found, quantities)
    return scheduled

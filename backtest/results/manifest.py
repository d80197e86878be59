"""The manifest: everything that decides a result, so that it can be reproduced and identified."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from types import FunctionType
from typing import Any

import numpy as np

from backtest import core
from backtest._compile.bytecode import describe_function
from backtest.account import Account
from backtest.core import IntArray, TimeLike
from backtest.market import Market, Markets, describe_clock
from backtest.policies import Policy, formula_of
from backtest.results.measure_table import RunSpan
from backtest.results.promises import list_promises
from backtest.venue import InUse, Venue

NOT_IN_ID = (
    "id",
    "policy_module",
    "compared_with",
    "compiled",
    "causality",
    "margin_table",
    "margin_tables",
    "promises",
)
"""Entries that decide no number."""


def write_manifest(
    setup: Any,
    span: RunSpan,
    *,
    plain_because: str,
    compared_with: str,
) -> dict[str, Any]:
    """Return the manifest of a run: what decides its numbers, its id, and facts that do not."""
    market: Market | Markets = setup.markets
    venue: Venue | Mapping[str, Venue] = setup.venues
    is_panel = len(setup.markets) > 1
    if not is_panel:
        market = next(iter(setup.markets.values()))
        venue = next(iter(setup.venues.values()))

    data = describe_data(market, setup.account, span.start, span.closes)
    if setup.markets.options and not is_panel:
        data["options"] = setup.markets.listing.describe()
    facts: dict[str, Any] = {"data": data, "policy": describe_policies(setup.policies)}
    if setup.overlay is not None:
        facts["overlay"] = describe_policy(setup.overlay)
    resumed_from = None
    if setup.resume is not None:
        resumed_from = setup.resume.manifest["id"]
    facts |= {
        "venue": {},
        "account": {},
        "signal": setup.describe_signal(),
        "sampling": setup.test.sampling,
        "calendar": setup.test.calendar,
        "seed": None,
        "resumed_from": resumed_from,
        "versions": core.find_versions(),
    }
    if setup.benchmark is not None:
        facts["benchmark"] = compared_with

    # The rules are plain already: they were written once.
    manifest: dict[str, Any] = core.to_plain(facts)
    manifest["venue"] = describe_venue(venue)
    manifest["account"] = core.describe_value(setup.account)
    aside = list_remarks(
        setup,
        span,
        plain_because=plain_because,
        compared_with=compared_with,
    )
    return {"id": core.compute_id(manifest), **manifest, **aside}


def list_remarks(
    setup: Any,
    span: RunSpan,
    *,
    plain_because: str,
    compared_with: str,
) -> dict[str, Any]:
    """Return what a manifest says beside the facts that decide the numbers."""
    policies = setup.policies
    is_panel = len(setup.markets) > 1
    tables: Any = describe_all_tables(setup, span)
    if not is_panel:
        (tables,) = tables.values()
    checks = "; ".join(dict.fromkeys(observed.causality for observed in setup.observed))
    remarks: dict[str, Any] = {
        "policy_module": type(next(iter(policies.values()))).__module__,
        "compared_with": compared_with,
        "compiled": plain_because or "yes",
        "causality": setup.join_checks(checks),
        "margin_table": tables,
    }

    promises = list_promises(policies, setup.overlay)
    if promises:
        remarks["promises"] = [list(promise) for promise in promises]
    if not is_panel:
        market = next(iter(setup.markets.values()))
        venue = next(iter(setup.venues.values()))
        remarks["margin_tables"] = list_tables_in_use(market, venue, span.start)
    return remarks


def describe_all_tables(setup: Any, span: RunSpan) -> dict[str, str]:
    """Return how the margin tables of each instrument fit a run."""
    end = int(span.closes[-1])
    texts = {}
    for name, venue in setup.venues.items():
        texts[name] = describe_margin_tables(setup.markets[name], venue, span.start, end)
    return texts


def list_tables_in_use(
    market: Market,
    venue: Venue,
    start: int,
) -> list[dict[str, Any]]:
    """Return the margin tables of a run, with the first bar of each and the number of its bars."""
    time = market.time[market.time >= start]
    return [
        {
            "of": table.since,
            "from": core.format_time(int(time[table.first])),
            "bars": table.stop - table.first,
        }
        for table in venue.in_use(time)
    ]


def change_policy(manifest: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest of a run whose policy is described otherwise, with its id."""
    facts = {name: value for name, value in manifest.items() if name not in NOT_IN_ID}
    aside = {name: manifest[name] for name in NOT_IN_ID if name in manifest and name != "id"}
    facts["policy"] = {**manifest["policy"], **changes}
    plain: dict[str, Any] = core.to_plain(facts)
    return {"id": core.compute_id(plain), **plain, **aside}


def describe_data(
    market: Market | Markets,
    account: Account,
    start: int,
    closes: IntArray,
) -> dict[str, Any]:
    """Return the facts of the bars of a run; of several instruments those of each."""
    if isinstance(market, Market):
        return describe_instrument(market, account, start, closes)

    data = describe_bars(market, start, closes)
    if market.decision_interval:
        data["decision_interval"] = core.format_duration(market.decision_interval)
    if market.options:
        data["options"] = market.listing.describe()
    instruments = {}
    for name, part in market.items():
        part_closes = part.time + part.interval
        instruments[name] = describe_instrument(part, account, start, part_closes)
    data["instruments"] = instruments
    return data


def describe_instrument(
    market: Market,
    account: Account,
    start: int,
    closes: IntArray,
) -> dict[str, Any]:
    """Return what a manifest says of the bars of one instrument, and of flows after them."""
    n_late_flows = 0  # counting them loads pandas
    if account.flows is not None:
        last_open = core.utc_index(market.time[-1:])[0]
        n_late_flows = int((account.flows.index > last_open).sum())

    data = {**describe_bars(market, start, closes), **describe_clock(market)}
    if market.sessions:
        data["sessions"] = True
    data |= {
        "filled": dict(market.filled),
        "liquidations_tested_on": "mark prices" if market.has_mark else "last prices",
        "funding_events": len(market.funding_time),
        "flows_after_the_end": n_late_flows,
    }
    return data


def describe_policy(policy: Policy) -> dict[str, Any]:
    """Return the class, the settings and the code of a policy, as a manifest has them."""
    return {
        "text": repr(policy),
        "name": type(policy).__name__,
        "settings": policy.settings(),
        "source_hash": hash_source(type(policy)),
    }


def describe_policies(policies: Mapping[str, Policy]) -> dict[str, Any]:
    """Return the policy of all instruments, or a portfolio of several."""
    distinct = {repr(policy) for policy in policies.values()}
    if len(distinct) == 1:
        return describe_policy(next(iter(policies.values())))

    texts = []
    by_instrument = {}
    for name, policy in policies.items():
        texts.append(f"{name}: {policy!r}")
        by_instrument[name] = describe_policy(policy)
    listed = ", ".join(texts)
    return {
        "text": f"{{{listed}}}",
        "name": "portfolio",
        "settings": {},
        "source_hash": "",
        "by_instrument": by_instrument,
    }


def describe_venue(venue: Venue | Mapping[str, Venue]) -> dict[str, Any]:
    """Return the rules of a venue, or of that of each instrument, as plain data."""
    if isinstance(venue, Mapping):
        return {name: core.describe_value(part) for name, part in venue.items()}
    return core.describe_value(venue)


def describe_history(
    market: Market | Markets | None,
    start: TimeLike | None = None,
) -> Mapping[str, Any]:
    """Return the facts of the bars of a market from a start on, as the manifest of a run has them.

    Bars before the start are history that policies observe: nothing is traded there.
    """
    if market is None:
        blank = dict.fromkeys(("source", "instrument", "content_hash", "start", "end"), "")
        return {
            **blank,
            "bars": 0,
            "interval": "",
            "synthetic": False,
            "filled": {},
        }

    first_open = market.start
    if start is not None:
        first_open = max(first_open, core.to_nanoseconds(start, "start"))
    opens = market.time[market.time >= first_open]
    closes = opens + market.interval
    return {**describe_bars(market, int(opens[0]), closes), "filled": {}}


MOST_SOURCES = 3
"""Most instruments whose sources are named in a sentence."""


def phrase_source(data: Mapping[str, Any]) -> str:
    """Return where data come from in words: of several instruments, the source of each.

    The text of an object without a call, ``<Markets: A, B; 1h, 48 bars from 2023-01-01>``, loses
    its brackets.
    """
    source = str(data.get("source") or "")
    if not source.startswith("<"):
        return source

    named = {}
    for facts in (data.get("instruments") or {}).values():
        if "source" in facts:
            named[facts["source"]] = True
    sources = [*named]
    n_more = len(sources) - MOST_SOURCES
    if n_more > 0:
        sources = [*sources[:MOST_SOURCES], f"and {n_more} more"]
    if sources:
        return ", ".join(map(phrase_text, sources))
    return phrase_text(source)


def phrase_text(source: str) -> str:
    """Return the text of an object without its brackets."""
    return source.removeprefix("<").removesuffix(">").removeprefix("Markets: ")


def describe_bars(
    market: Market | Markets,
    start: int,
    closes: IntArray,
) -> dict[str, Any]:
    """Return what a manifest says of the bars from a start to the last of some closes, ns."""
    return {
        "source": repr(market),
        "instrument": market.instrument,
        "content_hash": market.content_hash,
        "start": core.format_time(start),
        "end": core.format_time(int(closes[-1])),
        "bars": len(closes),
        "interval": core.format_duration(market.interval),
        "synthetic": market.synthetic,
    }


def describe_margin_tables(
    market: Market,
    venue: Venue,
    start: int,
    end: int,
) -> str:
    """Return whether the margin tables of a venue cover a span of time (ns), in words."""
    clauses = []
    if not market.synthetic:
        misfit = venue.describe_misfit(start, end)
        if misfit:
            clauses.append(misfit)
    changes = [table.until for table in venue.earlier if start < table.end < end]
    if changes:
        clauses.append(f"the margin table changed on {', '.join(changes)}")
    if clauses:
        return "; ".join(clauses)

    if venue.in_force is None:
        return "of no preset"
    if venue.in_force.since is None:
        return f"the listing {venue.in_force.preset} has no day; give date="
    return "prices are synthetic" if market.synthetic else "in force"


def read_tables_in_use(manifest: Mapping[str, Any], venue: Venue) -> list[InUse]:
    """Return the margin tables that a saved run used."""
    if "margin_tables" in manifest:
        tables = manifest["margin_tables"]
        stamps = [core.to_nanoseconds(table["from"]) for table in tables]
    else:
        # Of several instruments the manifest has none: they follow from its dates.
        start = core.to_nanoseconds(manifest["data"]["start"])
        end = core.to_nanoseconds(manifest["data"]["end"])
        changes = [table.end for table in venue.earlier if start < table.end < end]
        stamps = [start, *changes]
    return venue.in_use(np.array(stamps, dtype=np.int64))


def hash_source(cls: type[Policy]) -> str:
    """Return a hash of the code of a policy: of its functions and constants, and of its parts."""
    texts = [f"{cls.__module__}.{cls.__qualname__}"]
    for base in cls.__mro__:
        package = base.__module__.partition(".")[0]
        if package not in ("backtest", "builtins"):  # ours has a version
            texts += list_functions(base)
            texts += list_members(base, without=cls.parameters())

    texts.append(write_function(formula_of(cls)))
    texts += [hash_source(part.policy) for part in getattr(cls, "parts", ())]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def write_function(function: FunctionType | Callable[..., Any]) -> str:
    """Return the code of a function as text, without its layout and comments."""
    return describe_function(function, {}, by_source=False).text


def list_functions(cls: type) -> list[str]:
    functions = [value for value in vars(cls).values() if isinstance(value, FunctionType)]
    return [write_function(function) for function in functions]


def list_members(cls: type, *, without: Collection[str]) -> Iterator[str]:
    """Yield the properties, class methods and constants of a class as texts."""
    for name, value in vars(cls).items():
        if name in without or isinstance(value, FunctionType):
            continue

        # The functions of a property, of a class or static method, and of a cached property.
        for attribute in ("fget", "__func__", "func"):
            function = getattr(value, attribute, None)
            if isinstance(function, FunctionType):
                yield f"{name}: {write_function(function)}"

        is_special = name.startswith("__") and name.endswith("__")
        if not is_special and is_constant(value):
            yield f"{name}={value!r}"


def is_constant(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(is_constant(item) for item in value)
    return isinstance(value, (bool, int, float, complex, str, bytes, type(None), np.generic))


def describe_search(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the policy and the title of a search, by the fields of an entry of the store."""
    name = str(manifest["policy"]["name"])
    dimensions = manifest["space"]["dimensions"]
    varied = ", ".join(str(dimension["name"]) for dimension in dimensions)
    return {"policy": name, "title": f"{name} over {varied}"}


def find_held(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a policy that its sets do not vary, with their values."""
    # A sweep lists only the settings that its sets do not vary.
    if manifest.get("kind") == "sweep":
        return dict(manifest["policy"]["settings"])

    space = manifest.get("space")
    if not space:
        return {}

    varied = {dimension["name"] for dimension in space["dimensions"]}
    known = {**manifest["policy"]["settings"], **space["fixed"]}
    return {name: value for name, value in known.items() if name not in varied}

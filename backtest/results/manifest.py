"""The manifest: everything that decides a result, so that it can be reproduced and identified."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import FunctionType
from typing import Any

import numpy as np

from backtest import core
from backtest._compile.bytecode import describe_function
from backtest.account import Account
from backtest.core import IntArray
from backtest.market import Market, Markets, describe_clock
from backtest.policies import Policy, formula_of
from backtest.results.measure_table import RunSpan
from backtest.results.promises import list_promises
from backtest.venue import InUse, Venue

NOT_IN_ID = (
    "id", "policy_module", "compared_with", "compiled", "causality", "margin_table",
    "margin_tables", "promises",
)  # fmt: skip


def write_manifest(
    setup: Any, span: RunSpan, *, plain_because: str, compared_with: str
) -> dict[str, Any]:
    markets, venues, resume = setup.markets, setup.venues, setup.resume
    is_panel, policies = len(markets) > 1, setup.policies
    (name, venue), market = next(iter(venues.items())), next(iter(markets.values()))
    end = int(span.closes[-1])
    has_options = bool(markets.options) and not is_panel
    listed = {"options": markets.listing.describe()} if has_options else {}
    manifest: dict[str, Any] = core.to_plain(
        {
            "data": describe_data(
                markets if is_panel else market, setup.account, span.start, span.closes
            )
            | listed,
            "policy": describe_policies(policies),
            **({} if setup.overlay is None else {"overlay": describe_policy(setup.overlay)}),
            "venue": describe_venue(venues if is_panel else venue),
            "account": setup.account.to_dict(),
            "signal": setup.describe_signal(),
            "sampling": setup.test.sampling,
            "calendar": setup.test.calendar,
            "seed": None,
            "resumed_from": None if resume is None else resume.manifest["id"],
            "versions": core.find_versions(),
            **({} if setup.benchmark is None else {"benchmark": compared_with}),
        }
    )
    tables = {
        each: describe_margin_tables(markets[each], own, span.start, end)
        for each, own in venues.items()
    }
    checks = "; ".join(dict.fromkeys(each.causality for each in setup.observed))
    aside: dict[str, Any] = {
        "policy_module": type(next(iter(policies.values()))).__module__,
        "compared_with": compared_with,
        "compiled": plain_because or "yes",
        "causality": setup.join_checks(checks),
        "margin_table": tables if is_panel else tables[name],
    }
    if promises := list_promises(policies, setup.overlay):
        aside["promises"] = [list(each) for each in promises]
    if not is_panel:
        time = market.time[market.time >= span.start]
        aside["margin_tables"] = [
            {
                "of": table.since,
                "from": core.format_time(int(time[table.first])),
                "bars": table.stop - table.first,
            }
            for table in venue.in_use(time)
        ]
    return {"id": core.compute_id(manifest), **manifest, **aside}


def change_policy(manifest: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    facts = {name: value for name, value in manifest.items() if name not in NOT_IN_ID}
    plain: dict[str, Any] = core.to_plain({**facts, "policy": {**manifest["policy"], **changes}})
    aside = {name: manifest[name] for name in NOT_IN_ID[1:] if name in manifest}
    return {"id": core.compute_id(plain), **plain, **aside}


def describe_data(
    market: Market | Markets, account: Account, start: int, closes: IntArray
) -> dict[str, Any]:
    if isinstance(market, Market):
        return describe_instrument(market, account, start, closes)
    clock = {}
    if market.decision_interval:
        clock["decision_interval"] = core.format_duration(market.decision_interval)
    return {
        **describe_bars(market, start, closes),
        **clock,
        **({"options": market.listing.describe()} if market.options else {}),
        "instruments": {
            name: describe_instrument(each, account, start, each.time + each.interval)
            for name, each in market.items()
        },
    }


def describe_instrument(
    market: Market, account: Account, start: int, closes: IntArray
) -> dict[str, Any]:
    late = 0  # flows; counting them loads pandas
    if account.flows is not None:
        late = int((account.flows.index > core.utc_index(market.time[-1:])[0]).sum())
    return {
        **describe_bars(market, start, closes),
        **describe_clock(market),
        **({"sessions": True} if market.sessions else {}),
        "filled": dict(market.filled),
        "liquidations_tested_on": "mark prices" if market.has_mark else "last prices",
        "funding_events": len(market.funding_time),
        "flows_after_the_end": late,
    }


def describe_policy(policy: Policy) -> dict[str, Any]:
    return {
        "text": repr(policy),
        "name": type(policy).__name__,
        "settings": policy.settings(),
        "source_hash": hash_source(type(policy)),
    }


def describe_policies(policies: Mapping[str, Policy]) -> dict[str, Any]:
    distinct = list(dict.fromkeys(map(repr, policies.values())))
    first = next(iter(policies.values()))
    if len(distinct) == 1:
        return describe_policy(first)
    texts = ", ".join(f"{name}: {policy!r}" for name, policy in policies.items())
    return {
        "text": f"{{{texts}}}",
        "name": "portfolio",
        "settings": {},
        "source_hash": "",
        "by_instrument": {name: describe_policy(each) for name, each in policies.items()},
    }


def describe_venue(venue: Venue | Mapping[str, Venue]) -> dict[str, Any]:
    if isinstance(venue, Mapping):
        return {name: each.to_dict() for name, each in venue.items()}
    return venue.to_dict()


def describe_history(market: Market | Markets | None) -> Mapping[str, Any]:
    if market is None:
        blank = dict.fromkeys(("source", "instrument", "content_hash", "start", "end"), "")
        return {**blank, "bars": 0, "interval": "", "synthetic": False, "filled": {}}
    return {**describe_bars(market, market.start, market.time + market.interval), "filled": {}}


def describe_bars(market: Market | Markets, start: int, closes: IntArray) -> dict[str, Any]:
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


def describe_margin_tables(market: Market, venue: Venue, start: int, end: int) -> str:
    changes = ", ".join(each.until for each in venue.earlier if start < each.end < end)
    changed = f"the margin table changed on {changes}" if changes else ""
    misfit = "" if market.synthetic else venue.describe_misfit(start, end)
    if misfit or changed:
        return "; ".join(filter(None, (misfit, changed)))
    if venue.in_force is None:
        return "of no preset"
    if venue.in_force.since is None:
        return f"the listing {venue.in_force.preset} has no day; give date="
    return "prices are synthetic" if market.synthetic else "in force"


def read_tables_in_use(manifest: Mapping[str, Any], venue: Venue) -> list[InUse]:
    if "margin_tables" in manifest:
        stamps = [core.to_nanoseconds(each["from"]) for each in manifest["margin_tables"]]
    else:
        start, end = (core.to_nanoseconds(manifest["data"][k]) for k in ("start", "end"))
        stamps = [start, *(each.end for each in venue.earlier if start < each.end < end)]
    return venue.in_use(np.array(stamps, dtype=np.int64))


def hash_source(cls: type[Policy]) -> str:
    texts = [f"{cls.__module__}.{cls.__qualname__}"]
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] in ("backtest", "builtins"):
            continue
        functions = [value for value in vars(base).values() if isinstance(value, FunctionType)]
        texts += [describe_function(function, {}, by_source=False).text for function in functions]
        for name, value in vars(base).items():
            if name in cls.parameters() or isinstance(value, FunctionType):
                continue
            inner = (getattr(value, each, None) for each in ("fget", "__func__", "func"))
            texts += [f"{name}: {describe_function(each, {}, by_source=False).text}"
                      for each in inner if isinstance(each, FunctionType)]  # fmt: skip
            is_special = name.startswith("__") and name.endswith("__")
            if not is_special and is_constant(value):
                texts.append(f"{name}={value!r}")
    texts.append(describe_function(formula_of(cls), {}, by_source=False).text)
    texts += [hash_source(part.policy) for part in getattr(cls, "parts", ())]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def is_constant(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(is_constant(each) for each in value)
    return isinstance(value, (bool, int, float, complex, str, bytes, type(None), np.generic))


def describe_search(manifest: Mapping[str, Any]) -> dict[str, str]:
    name = str(manifest["policy"]["name"])
    varied = ", ".join(str(each["name"]) for each in manifest["space"]["dimensions"])
    return {"policy": name, "title": f"{name} over {varied}"}


def find_held(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a policy that its sets do not vary, with their values."""
    space = manifest.get("space")
    if manifest.get("kind") == "sweep":  # whose settings are those that no set has
        return dict(manifest["policy"]["settings"])
    if not space:
        return {}

    varied = {each["name"] for each in space["dimensions"]}
    known = {**manifest["policy"]["settings"], **space["fixed"]}
    return {name: value for name, value in known.items() if name not in varied}

"""Load a stored study, finished or not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from backtest.account import Account
from backtest.base import DataError, ParameterError
from backtest.engine import end_expired, hash_source, read_named
from backtest.sweep import BaseTerms, choose_evaluator, names_signal, resolve_signals
from backtest.sweep.pooling import POOLS
from backtest.tune.holdout import find_split
from backtest.tune.journal import OUTCOME, STUDY, Journal, find_broken, read_json
from backtest.tune.single_sets import Bench
from backtest.tune.study_identity import describe_market
from backtest.tune.study_record import StudyOutcome, StudyRecord
from backtest.venue import Venue

if TYPE_CHECKING:
    from backtest.market import Market, Markets
    from backtest.policy import Policy


Loaded = TypeVar("Loaded", bound=StudyRecord)


def load_study(
    kind: type[Loaded],
    folder: Path,
    *,
    market: Market | Markets | None,
    policy: type[Policy] | Policy | None,
    signal: Any,
    overlay: Policy | None = None,
) -> Loaded:
    facts = read_json(folder / STUDY)
    bench = None
    if market is not None and policy is not None:
        bench = rebuild_bench(facts, market, policy, signal, overlay)
    batches = tuple(Journal(folder, facts["id"]).read_all())
    return kind(facts, batches, load_outcome(folder), folder, bench)


def load_outcome(folder: Path) -> StudyOutcome | None:
    if not (folder / OUTCOME).is_file():
        return None
    outcome = read_json(folder / OUTCOME)
    for name, what in find_broken(folder, outcome):
        raise DataError(
            f"{folder / name}: a finished study must keep its files, this one is {what}; restore "
            f"it, or delete {OUTCOME} and continue with resume=True: complete trials are kept"
        )
    return StudyOutcome.from_dict(outcome)


def rebuild_bench(
    facts: Mapping[str, Any],
    market: Market | Markets,
    policy: type[Policy] | Policy,
    signal: Any,
    overlay: Policy | None,
) -> Bench:
    check_prices(facts)
    cls = policy if isinstance(policy, type) else type(policy)
    market = end_expired(market, rebuild_venue(facts))
    is_separate = facts.get("accounts") == "separate"
    named = read_named(signal, market)
    base = rebuild_base(facts, cls)
    make = choose_evaluator(read_stored_pool(facts), is_separate=is_separate)
    terms = {"venue": base.venue, "account": base.account, "overlay": overlay}
    terms |= {name: facts[name] for name in ("sampling", "calendar", "metrics")}
    resolved = resolve_signals(named, market, is_separate=is_separate)
    whole = make(market, base.policy, signal=resolved, **terms)
    pairs = {
        "market": (describe_market(market), facts["data"]),
        "policy": (hash_source(cls), facts["policy"]["source_hash"]),
        "signal": (whole.describe_signals(), facts["signal"]),
        "overlay": (None if overlay is None else repr(overlay), facts.get("overlay")),
    }
    differing = [name for name, (now, before) in pairs.items() if now != before]
    if differing:
        raise ParameterError(
            "a study must be loaded with what it was made with or for its tables only, got another "
            + ", another ".join(differing)
        )
    lasting = named if has_rule(facts) else whole.keep_signals()
    whole = make(market, base.policy, signal=lasting, **terms)
    return Bench(whole, find_split(market, facts["holdout"]))


def read_stored_pool(facts: Mapping[str, Any]) -> str:
    pool = str(facts.get("pool", POOLS[0]))
    if pool not in POOLS:
        raise ParameterError(
            f"sets of a stored study can be run again if its pool has a name, got {pool}; load it "
            "without market and policy, for its tables"
        )
    return pool


def has_rule(facts: Mapping[str, Any]) -> bool:
    space = facts["space"]
    return names_signal([*(each["name"] for each in space["dimensions"]), *space["fixed"]])


def rebuild_base(facts: Mapping[str, Any], cls: type[Policy]) -> BaseTerms:
    held = facts["policy"]["settings"]
    has_all = len(held) == len(cls.parameters())
    return BaseTerms(
        cls(**held) if has_all else cls,
        rebuild_venue(facts),
        Account.from_dict(facts["account"], where=f"{STUDY}, account"),
    )


def rebuild_venue(facts: Mapping[str, Any]) -> Venue | dict[str, Venue]:
    where, stored = f"{STUDY}, venue", facts["venue"]
    if {*stored} != {*facts["data"].get("instruments", ())}:
        return Venue.from_dict(stored, where=where)
    return {
        name: Venue.from_dict(each, where=f"{where} of {name}") for name, each in stored.items()
    }


def check_prices(facts: Mapping[str, Any]) -> None:
    assets = facts["account"].get("collateral", ())
    held = [each["name"] for each in assets if isinstance(each["prices"], Mapping)]
    if held:
        raise ParameterError(
            f"sets of a stored study need the prices of the collateral {', '.join(held)}, which it "
            "does not hold; load it without market and policy, for its tables"
        )

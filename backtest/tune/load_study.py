"""Load a stored study, finished or not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from backtest.account import Account
from backtest.base.errors import DataError, ParameterError
from backtest.base.phrases import Argument, Phrase
from backtest.engine import hash_source
from backtest.engine.cut_terms import end_expired
from backtest.engine.directions import read_directions
from backtest.engine.named_signals import read_named, resolve_signal
from backtest.sweep import Base, Evaluator
from backtest.sweep.sets.sets import names_signal
from backtest.tune.holdout import find_split
from backtest.tune.journal import Journal
from backtest.tune.single_sets import Bench
from backtest.tune.study_folder import OUTCOME, STUDY, find_broken, read_json
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
    """Read a stored study into an object of the given class; see :meth:`Study.load`."""
    facts = read_json(folder / STUDY)
    bench = None
    if market is not None and policy is not None:
        bench = rebuild_bench(facts, market, policy, signal, overlay)
    batches = tuple(Journal(folder, facts["id"]).read_all())
    return kind(facts, batches, load_outcome(folder), folder, bench)


def load_outcome(folder: Path) -> StudyOutcome | None:
    """Return the outcome of a study; None if it is not finished."""
    if not (folder / OUTCOME).is_file():
        return None
    outcome = read_json(folder / OUTCOME)
    for name, what in find_broken(folder, outcome):
        raise DataError(
            f"{name} of a finished study was {what}",
            where=str(folder / name),
            cure=Phrase(
                "restore it; or delete {} and continue with {}: complete trials are kept",
                f"{OUTCOME}",
                Argument("resume", True),
            ),
        )
    return StudyOutcome.from_dict(outcome)


def rebuild_bench(
    facts: Mapping[str, Any],
    market: Market | Markets,
    policy: type[Policy] | Policy,
    signal: Any,
    overlay: Policy | None,
) -> Bench:
    """Return the bench that runs the sets of a stored study."""
    check_prices(facts)
    cls = policy if isinstance(policy, type) else type(policy)
    market = end_expired(market, rebuild_venue(facts))
    named = read_named(signal, market)
    signal = resolve_signal(named, market)
    directions = read_directions(signal, market, where="Study.load")
    pairs = {
        "market": (describe_market(market), facts["data"]),
        "policy": (hash_source(cls), facts["policy"]["source_hash"]),
        "signal": (directions.describe(), facts["signal"]),
        "overlay": (None if overlay is None else repr(overlay), facts.get("overlay")),
    }
    differing = [name for name, (now, before) in pairs.items() if now != before]
    if differing:
        raise ParameterError(
            "a study must be loaded with what it was made with, got another "
            + ", another ".join(differing),
            where="Study.load",
            cure="give those it was made with, or none of them for its tables only",
        )
    base = rebuild_base(facts, cls)
    whole = Evaluator(
        market,
        base.policy,
        venue=base.venue,
        account=base.account,
        signal=named if has_rule(facts) else directions.keep_times(),
        overlay=overlay,
        sampling=facts["sampling"],
        calendar=facts["calendar"],
        metrics=facts["metrics"],
    )
    return Bench(whole, find_split(market, facts["holdout"]))


def has_rule(facts: Mapping[str, Any]) -> bool:
    """Return whether parameters of the signal's rule were varied or fixed in a stored study."""
    space = facts["space"]
    return names_signal([*(each["name"] for each in space["dimensions"]), *space["fixed"]])


def rebuild_base(facts: Mapping[str, Any], cls: type[Policy]) -> Base:
    """Return the policy, venue and account whose settings the sets of a stored study replace."""
    held = facts["policy"]["settings"]
    has_all = len(held) == len(cls.parameters())
    return Base(
        cls(**held) if has_all else cls,
        rebuild_venue(facts),
        Account.from_dict(facts["account"], where=f"{STUDY}, account"),
    )


def rebuild_venue(facts: Mapping[str, Any]) -> Venue | dict[str, Venue]:
    """Return the venue of a stored study, or the venues by instrument."""
    where, stored = f"{STUDY}, venue", facts["venue"]
    if {*stored} != {*facts["data"].get("instruments", ())}:
        return Venue.from_dict(stored, where=where)
    return {
        name: Venue.from_dict(each, where=f"{where} of {name}") for name, each in stored.items()
    }


def check_prices(facts: Mapping[str, Any]) -> None:
    """Refuse to run sets of an account with collateral, whose prices no study stores."""
    assets = facts["account"].get("collateral", ())
    held = [each["name"] for each in assets if isinstance(each["prices"], Mapping)]
    if held:
        raise ParameterError(
            f"sets of a stored study need the prices of the collateral {', '.join(held)}, which it "
            "does not hold",
            where="Study.load",
            cure="load it without market and policy for its tables, and run its best set with "
            "bt.run",
        )

"""Load a stored study, finished or not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from backtest.account import Account
from backtest.base.errors import DataError, ParameterError
from backtest.base.phrases import Argument, Phrase
from backtest.engine import describe_signal, hash_source, read_signal
from backtest.engine.named_signals import resolve_signal
from backtest.sweep import Base, Evaluator
from backtest.tune.bench import Bench
from backtest.tune.holdout import find_split, keep_times
from backtest.tune.journal import Journal
from backtest.tune.study_folder import OUTCOME, STUDY, find_broken, read_json
from backtest.tune.study_identity import describe_market
from backtest.tune.study_record import Outcome, StudyRecord
from backtest.venue import Venue

if TYPE_CHECKING:
    from backtest.market import Market
    from backtest.policy import Policy


Loaded = TypeVar("Loaded", bound=StudyRecord)


def load_study(
    kind: type[Loaded],
    folder: Path,
    *,
    market: Market | None,
    policy: type[Policy] | Policy | None,
    signal: Any,
) -> Loaded:
    """Read a stored study into an object of the given class; see :meth:`Study.load`."""
    facts = read_json(folder / STUDY)
    bench = None
    if market is not None and policy is not None:
        bench = rebuild_bench(facts, market, policy, signal)
    batches = tuple(Journal(folder, facts["id"]).read_all())
    return kind(facts, batches, load_outcome(folder), folder, bench)


def load_outcome(folder: Path) -> Outcome | None:
    """Return the outcome of a study; None if it is not finished."""
    if not (folder / OUTCOME).is_file():
        return None
    outcome = read_json(folder / OUTCOME)
    for name, what in find_broken(folder, outcome):
        raise DataError(
            f"{name} of a finished study must be as it was written, was {what}",
            where=str(folder / name),
            cure=Phrase(
                "restore it; or delete {} and go on with {}: the trials that are whole are kept",
                f"{OUTCOME}",
                Argument("resume", True),
            ),
        )
    return Outcome.from_dict(outcome)


def rebuild_bench(
    facts: Mapping[str, Any], market: Market, policy: type[Policy] | Policy, signal: Any
) -> Bench:
    """Return the bench that runs the sets of a stored study."""
    signal = resolve_signal(signal, market)
    directions = read_signal(signal, market, 0)
    cls = policy if isinstance(policy, type) else type(policy)
    pairs = {
        "market": (describe_market(market), facts["data"]),
        "policy": (hash_source(cls), facts["policy"]["source_hash"]),
        "signal": (describe_signal(signal, directions), facts["signal"]),
    }
    differing = [name for name, (now, before) in pairs.items() if now != before]
    if differing:
        raise ParameterError(
            "a study must be loaded with what it was made with, was given another "
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
        signal=keep_times(directions, market, signal),
        sampling=facts["sampling"],
        calendar=facts["calendar"],
        metrics=facts["metrics"],
    )
    return Bench(whole, find_split(market, facts["holdout"]))


def rebuild_base(facts: Mapping[str, Any], cls: type[Policy]) -> Base:
    """Return the policy, venue and account whose settings the sets of a stored study replace."""
    held = facts["policy"]["settings"]
    has_all = len(held) == len(cls.parameters())
    return Base(
        cls(**held) if has_all else cls,
        Venue.from_dict(facts["venue"], where=f"{STUDY}, venue"),
        Account.from_dict(facts["account"], where=f"{STUDY}, account"),
    )

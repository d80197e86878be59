"""Continue an account where an earlier result ended: under the same rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from backtest.account import Account
from backtest.base.errors import ParameterError
from backtest.base.json_values import to_plain
from backtest.base.phrases import Argument, Phrase, Place
from backtest.base.units import TimeLike
from backtest.engine.loop_inputs import has_interest
from backtest.engine.manifest import describe_policies, describe_policy
from backtest.engine.run_record import RunRecord
from backtest.policy import Policy
from backtest.venue import Venue

WHERE = Place("resume", of="bt.run")


def read_resume(
    resume: object, start: TimeLike | None, *, is_of_fast_loop: bool
) -> RunRecord | None:
    """Return the earlier result; refuse what is none, and a start besides it."""
    if resume is None:
        return None
    if not isinstance(resume, RunRecord) or resume.is_of_fast_loop != is_of_fast_loop:
        kind = "one position" if is_of_fast_loop else "several positions"
        raise ParameterError(
            f"a run of {kind} can only continue a result of {kind}, got {resume!r:.60}",
            where=WHERE,
            cure="pass the earlier result, or bt.Result.load(folder)",
        )
    if start is not None:
        raise ParameterError(
            "a resumed run starts where the earlier one ended, got a start as well",
            where=Place("start", of="bt.run"),
            cure=Phrase("leave {} out", Argument("start")),
        )
    return resume


def check_rules(
    resume: RunRecord | None,
    policies: Mapping[str, Policy],
    overlay: Policy | None,
    venues: Mapping[str, Venue],
    account: Account,
) -> None:
    """Require the rules of the earlier run; only flows after its end may be added."""
    if resume is None:
        return
    above = None if overlay is None else describe_policy(overlay)
    present: Any = to_plain({"policy": describe_policies(policies), "overlay": above})
    past: Any = to_plain(
        {"policy": resume.manifest["policy"], "overlay": resume.manifest.get("overlay")}
    )
    present |= list_rules(account, venues, resume.last_time)
    past |= list_rules(resume.account, resume.venues, resume.last_time)
    differing = [name for name in {**past, **present} if past.get(name) != present.get(name)]
    if differing:
        raise ParameterError(
            f"a resumed run must keep the same rules, got another {', '.join(differing)}",
            where=WHERE,
            cure="pass the policy, overlay, venue and account of the earlier result; flows after "
            "its end may be added",
        )


def list_rules(account: Account, venues: Mapping[str, Venue], until: int) -> dict[str, Any]:
    """Return the rules of a run by name: flows up to a time, and no rule that has no effect."""
    rules = {f"account.{name}": x for name, x in describe_account(account, until).items()}
    for instrument, venue in venues.items():
        of = f" of {instrument}" if len(venues) > 1 else ""
        rules |= {f"venue.{name}{of}": x for name, x in venue.to_dict().items()}
        if not has_interest(venue):
            rules.pop(f"venue.interest_on{of}", None)
    plain: dict[str, Any] = to_plain(rules)
    return plain


def describe_account(account: Account, until: int) -> dict[str, Any]:
    """Return an account as data: flows up to a time, markets of collateral by their names."""
    found = replace(account, flows=None).to_dict()
    for each in found.get("collateral", ()):
        if isinstance(each["prices"], Mapping):
            each["prices"] = each["prices"]["instrument"]
    return {**found, "flows": list_flows(account, until)}


def list_flows(account: Account, until: int) -> list[tuple[int, float]]:
    """Return the flows of an account up to a time, as (ns, amount)."""
    if account.flows is None:
        return []
    stamps = pd.DatetimeIndex(account.flows.index).as_unit("ns").asi8.tolist()
    pairs = zip(stamps, account.flows.tolist(), strict=True)
    return [(stamp, amount) for stamp, amount in pairs if stamp <= until]

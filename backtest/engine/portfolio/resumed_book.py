"""Continue an account of several positions where an earlier result ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from backtest.account import Account
from backtest.base.errors import ParameterError
from backtest.base.json_values import to_plain
from backtest.base.phrases import Argument, Phrase, Place
from backtest.base.units import TimeLike
from backtest.engine.manifest import (
    describe_policies,
    describe_policy,
    describe_venue,
)
from backtest.engine.run_history import list_flows
from backtest.engine.run_record import RunRecord
from backtest.policy import Policy
from backtest.venue import Venue

WHERE = Place("resume", of="bt.run")


def read_resume(resume: object, start: TimeLike | None) -> RunRecord | None:
    """Return the earlier result; refuse what is none, and a start besides it."""
    if resume is None:
        return None
    if not isinstance(resume, RunRecord) or resume.has_one_position:
        raise ParameterError(
            "a run of several positions can only continue a result of several positions, "
            f"was {resume!r:.60}",
            where=WHERE,
            cure="pass the earlier result, or bt.Result.load(folder)",
        )
    if start is not None:
        raise ParameterError(
            "a resumed run starts where the earlier one ended, was given a start as well",
            where=Place("start", of="bt.run"),
            cure=Phrase("leave {} out", Argument("start")),
        )
    return resume


def check_rules(
    resume: RunRecord,
    policies: Mapping[str, Policy],
    overlay: Policy | None,
    venues: Mapping[str, Venue],
    account: Account,
) -> None:
    """Require the rules of the earlier run; only flows after its end may be added."""
    until = int(resume.span.closes[-1]) - resume.interval
    present = {
        "policy": describe_policies(policies),
        "overlay": None if overlay is None else describe_policy(overlay),
        "venue": describe_venue(venues),
        "account": describe_rules(account, until),
    }
    past = {name: resume.manifest[name] for name in present}
    past["account"] = describe_rules(resume.account, until)
    plain: Any = to_plain(present)
    differing = [name for name, value in to_plain(past).items() if value != plain[name]]
    if differing:
        raise ParameterError(
            f"a resumed run must keep the same rules, was given another {', '.join(differing)}",
            where=WHERE,
            cure="pass the policies, overlay, venues and account of the earlier result; flows "
            "after its end may be added",
        )


def describe_rules(account: Account, until: int) -> dict[str, Any]:
    """Return an account as data: flows up to a time, markets of collateral by their names."""
    found = replace(account, flows=None).to_dict()
    for each in found.get("collateral", ()):
        if isinstance(each["prices"], Mapping):
            each["prices"] = each["prices"]["instrument"]
    return {**found, "flows": list_flows(account, until)}

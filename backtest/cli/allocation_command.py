"""``backtest allocation``: one capital divided into separate accounts (subaccounts)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from backtest.base import ParameterError, check_names
from backtest.cli.cures import naming_source
from backtest.cli.experiment import build_experiment
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_draft import Draft, GivenFlag, flatten, located
from backtest.cli.experiment_keys import Key, list_flags
from backtest.cli.find_policy import read_policy
from backtest.cli.flags import POLICY, Output
from backtest.cli.progress import show_progress
from backtest.cli.typed_values import split_pair
from backtest.subaccounts import Subaccount, Subaccounts

EXAMPLES = """
backtest allocation --pocket 'a=0.6*Cppi()' --pocket 'b=0.4*VolTarget()'
backtest allocation --pocket 'a=0.5*Cppi()' --pocket 'b=0.5*Constant(3)' --transfer losses-only
backtest allocation examples/allocation.toml --report allocation.html
"""


FIELDS = ("share", "policy", "settings", "instrument", "signal", "overlay")
FORM = "a=0.6*Cppi()"


def read_pocket_flags(flag: str, texts: Sequence[str]) -> Iterator[GivenFlag]:
    seen: set[str] = set()
    for text in texts:
        name, rest = split_pair(flag, text, FORM, form="NAME=SHARE*POLICY")
        if name in seen:
            raise ParameterError(
                f"the names of subaccounts must be different, {name!r} was given twice",
                where=flag,
                cure="give each subaccount another name",
            )
        seen.add(name)
        share, star, policy = str(rest).partition("*")
        try:
            number = float(share)
        except ValueError:
            star = ""
        if not star or not policy.strip() or "." in name:
            raise ParameterError(
                f"{flag} takes NAME=SHARE*POLICY, got {text!r:.60}",
                where=flag,
                cure=f"write for example {flag} '{FORM}': 60 % of the capital under Cppi",
            )
        entry = {"share": number, "policy": policy.strip()}
        yield GivenFlag(flag, "allocation", f"pockets.{name}", entry)


def build_allocation(draft: Draft) -> Subaccounts:
    """Build the allocation that a draft describes."""
    section = draft.section("allocation")
    table = dict(section.entries)
    subaccounts = table.pop("pockets", {})
    if not subaccounts:
        raise ParameterError(
            "an allocation needs subaccounts, has none",
            where=section.where,
            cure=f"add them: --pocket '{FORM}' --pocket 'b=0.4*VolTarget()'",
        )
    with located(section.where):
        found = {name: build_subaccount(name, each, draft) for name, each in subaccounts.items()}
    with naming_source(draft, "allocation"):
        return Subaccounts(found, **table)


def build_subaccount(name: str, entry: Any, draft: Draft) -> Subaccount:
    """Build one subaccount from its table."""
    where = f"pockets.{name}"
    if not isinstance(entry, dict):
        raise ParameterError(
            f"a subaccount must be a table, got {entry!r:.60}",
            where=where,
            cure='give {share = 0.6, policy = "cppi"}',
        )
    check_names("a subaccount", entry, FIELDS, ("share", "policy"), noun="key", where=where)
    section = draft.section("allocation")
    settings = flatten(entry.get("settings", {}))
    policy = read_policy(entry["policy"], settings, where=where, folder=section.folder)
    overlay = None
    if "overlay" in entry:
        overlay = read_policy(entry["overlay"], {}, where=where, folder=section.folder)
    return Subaccount(
        policy,
        entry["share"],
        instrument=entry.get("instrument"),
        signal=entry.get("signal"),
        overlay=overlay,
    )


POCKETS = Key(
    "allocation", "pockets", dict[str, Any], "--pocket", POLICY,
    "A subaccount, NAME=SHARE*POLICY, such as 'a=0.6*Cppi()'; repeat for each.", read_pocket_flags,
)  # fmt: skip
TERMS = ("venue", "account", "sampling", "calendar", "compile", "start")


def allocation(draft: Draft, *, output: Output) -> None:
    """Divide one capital into separate accounts with transfers between them."""
    refuse_policy(draft)
    plan = build_allocation(draft)
    experiment = build_experiment(draft)
    terms = {name: each for name, each in experiment.terms.items() if name in TERMS}
    signal = experiment.terms["signal"]
    with naming_source(draft, "allocation"), show_progress("transfers", "dates") as progress:
        found = plan.run(experiment.market, **terms, signal=signal, progress=progress)
    output.give_out(found)


def refuse_policy(draft: Draft) -> None:
    """Refuse the flags of a single policy."""
    given = [each.name for each in draft.flags if each.table in ("policy", "overlay")]
    if given:
        raise ParameterError(
            f"subaccounts have policies of their own, got {given[0]}",
            where=given[0],
            cure="write the policy into its subaccount: --pocket 'a=0.6*Cppi(multiplier=4)'",
        )


COMMAND = take_experiment(allocation, [POCKETS, *list_flags("allocation")])

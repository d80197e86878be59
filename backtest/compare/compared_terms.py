"""The accounts of a comparison: policies crossed with venues, accounts and margin modes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

from backtest.account import Account
from backtest.base import Either, ParameterError, Phrase, Place
from backtest.compare.shared_terms import Compared, SharedTerms
from backtest.policy import Policy
from backtest.venue import Venue

WHERE = "bt.compare"


class Row(NamedTuple):
    entry: Compared
    setting: SharedTerms
    terms: str = ""
    is_separate: bool = False

    def list_settings(self) -> list[SharedTerms]:
        if not self.is_separate:
            return [self.setting]
        return [self.setting.take_market(name) for name in self.setting.market.names]

    def describe(self) -> dict[str, Any]:
        if not self.terms:
            return {}
        return {
            "terms": self.terms,
            "venue": self.setting.describe_venue(),
            "account": self.setting.account.to_dict(),
        }


class Term(NamedTuple):
    label: str
    words: str
    value: Any


def list_rows(
    named: Mapping[str, Compared],
    setting: SharedTerms,
    *,
    venues: Mapping[str, Any] | None,
    accounts: Mapping[str, Account] | None,
    margins: Sequence[str] | None,
) -> dict[str, Row]:
    if venues is None and accounts is None and margins is None:
        return {name: Row(entry, setting) for name, entry in named.items()}
    refuse_results(named)
    axes = (
        read_terms("venue", setting.venue, venues, (Venue, Mapping)),
        read_terms("account", setting.account, accounts, (Account,)),
        read_margins(margins),
    )
    rows: dict[str, Row] = {}
    for (policy, entry), venue, account, margin in product(named.items(), *axes):
        held = replace_margin(account.value, margin)
        labels = [policy] if len(named) > 1 else []
        labels += [each.label for each in (venue, account, margin) if each.label]
        words = ", ".join(each.words for each in (venue, account, margin) if each.words)
        own = setting._replace(venue=venue.value, account=held)
        rows["/".join(labels) or policy] = Row(entry, own, words)
    if len(rows) < 2:
        raise ParameterError(
            f"a comparison needs two accounts or more, got {len(rows)}",
            where=WHERE,
            cure="give two policies, venues, accounts or margin modes",
        )
    check_kinds_alike(rows)
    return rows


def read_terms(
    name: str, shared: Any, several: Mapping[str, Any] | None, kinds: tuple[type, ...]
) -> list[Term]:
    place = Place(f"{name}s", of=WHERE)
    if several is None:
        return [Term("", "", shared)]
    if shared is not None:
        raise ParameterError(
            f"give either {name} or {name}s, not both",
            where=place,
            cure=f"leave {name} out, and add it to {name}s",
        )
    is_named = isinstance(several, Mapping) and all(
        isinstance(label, str) and label.strip() and isinstance(value, kinds)
        for label, value in several.items()
    )
    if not is_named or not several:
        raise ParameterError(
            f"{name}s must be a mapping of labels to {name}s, got {several!r:.80}",
            where=place,
            cure=f"write {name}s={{'one': {name}, 'other': {name}}}",
        )
    if len(several) == 1:
        return [Term("", f"{name} {label}", value) for label, value in several.items()]
    return [Term(label, f"{name} {label}", value) for label, value in several.items()]


def read_margins(margins: Sequence[str] | None) -> list[Term]:
    if margins is None:
        return [Term("", "", None)]
    if isinstance(margins, str) or not margins or len(set(margins)) < len(margins):
        raise ParameterError(
            f"margins must be a list of different modes, got {margins!r}",
            where=Place("margins", of=WHERE),
            cure=Phrase(
                "write {}", Either("margins=['cross', 'isolated']", "--margin cross,isolated")
            ),
        )
    several = len(margins) > 1
    return [Term(mode if several else "", f"margin {mode}", mode) for mode in margins]


def replace_margin(account: Account, margin: Term) -> Account:
    if margin.value is None:
        return account
    try:
        return replace(account, margin=margin.value)
    except ParameterError as error:
        place = Place("margins", repr(margin.value), of=WHERE)
        raise ParameterError(error.problem, where=place, cure=error.cure) from error


def refuse_results(named: Mapping[str, Compared]) -> None:
    given = [name for name, entry in named.items() if not isinstance(entry, Policy)]
    if given:
        raise ParameterError(
            f"with several venues, accounts or margins the comparison runs all, {given[0]!r} is a "
            "result",
            where=Place("policies", of=WHERE),
            cure="give its policy",
        )


def check_kinds_alike(rows: Mapping[str, Row]) -> None:
    """Require contracts of one kind: returns in coins and in cash are not of the same money."""
    kinds = {name: row.setting.first_venue.contract.kind for name, row in rows.items()}
    if len(set(kinds.values())) > 1:
        found = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
        raise ParameterError(
            f"venues to compare must settle in the same kind of money, got {found}",
            where=Place("venues", of=WHERE),
            cure="compare linear contracts with linear ones, and inverse with inverse ones",
        )

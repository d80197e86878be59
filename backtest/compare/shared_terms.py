"""The terms that all accounts of a comparison share, and the names of the policies."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backtest.account import Account
from backtest.base import (
    LastPriceWarning,
    ParameterError,
    TimeLike,
    did_you_mean,
    format_time,
    pick_value,
    repr_plain,
    to_nanoseconds,
    to_plain,
)
from backtest.engine import Directions, Result, read_directions, run
from backtest.market import as_given, as_markets
from backtest.policy import Policy
from backtest.sweep import pick
from backtest.venue import Venue

Compared: TypeAlias = "Policy | Result"
ComparedPolicies: TypeAlias = "Mapping[str, Compared] | Sequence[Compared]"


class SharedTerms(NamedTuple):
    market: Any
    venue: Any
    account: Account
    signal: Any = None
    sampling: str = "1d"
    calendar: str = "365"
    start: TimeLike | None = None
    compile: bool = True
    overlay: Policy | None = None

    @property
    def first(self) -> int:
        if self.start is None:
            return 0
        since = to_nanoseconds(self.start, "start")
        return int(np.searchsorted(self.market.time, since))

    def read_directions(self) -> Directions:
        return read_directions(self.signal, self.market, first=self.first)

    @property
    def first_venue(self) -> Venue:
        if isinstance(self.venue, Venue):
            return self.venue
        venue: Venue = next(iter(self.venue.values()))
        return venue

    def describe_venue(self) -> dict[str, Any]:
        venues = {name: pick_value(self.venue, name).to_dict() for name in as_markets(self.market)}
        described: dict[str, Any] = as_given(venues, self.market)
        return described

    def take_market(self, name: str) -> SharedTerms:
        return self._replace(
            market=self.market[name],
            venue=pick(self.venue, name),
            account=self.account.for_instrument(name),
            signal=pick(self.signal, name),
        )

    def describe_signal(self) -> str:
        return self.read_directions().describe()

    def run(self, policy: Policy) -> Result:
        terms = self._asdict()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LastPriceWarning)  # already shown
            result: Result = run(terms.pop("market"), policy, **terms)
            return result

    def describe(self) -> dict[str, Any]:
        market, rule = self.market, self.account.requirement
        account = replace(self.account, requirement=rule.resolve([*as_markets(market)]))
        facts: dict[str, Any] = to_plain(
            {
                "market": market.content_hash,
                "start": format_time(int(market.time[min(self.first, market.n_bars - 1)])),
                "end": format_time(int(market.time[-1]) + market.interval),
                "venue": self.describe_venue(),
                "account": account.to_dict(),
                "signal": self.describe_signal(),
                "sampling": self.sampling,
                "calendar": self.calendar,
            }
        )
        return facts if self.overlay is None else facts | {"overlay": repr(self.overlay)}


def find_overlay(result: Result) -> str:
    overlay = result.manifest.get("overlay") or {}
    return str(overlay.get("text", ""))


def describe_result(result: Result) -> dict[str, Any]:
    manifest = result.manifest
    data = manifest["data"]
    names = ("venue", "account", "signal", "sampling", "calendar")
    span = {"start": data["start"], "end": data["end"]}
    found = {"market": data["content_hash"], **span, **{name: manifest[name] for name in names}}
    overlay = find_overlay(result)
    return found | {"overlay": overlay} if overlay else found


def list_differences(
    mine: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = ""
) -> list[str]:
    found = []
    for name in {**mine, **theirs}:
        one, other = mine.get(name), theirs.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += list_differences(one, other, f"{prefix}{name}.")
        elif one != other:
            found.append(f"{prefix}{name}")
    return found


def check_result(name: str, result: Result, setting: SharedTerms) -> None:
    differing = list_differences(setting.describe(), describe_result(result))
    if result.manifest["resumed_from"] is not None:
        differing.append("where it began (it was resumed)")
    if differing:
        raise ParameterError(
            "results must share market, signal, venue and account, "
            f"{name!r} has another {', '.join(differing)}; give its policy to run it again"
        )


# ------------------------------------------------------------------------------------------ names


def name_entries(policies: ComparedPolicies) -> dict[str, Compared]:
    if isinstance(policies, Mapping):
        named = dict(policies)
    elif isinstance(policies, Sequence) and not isinstance(policies, str):
        named = name_uniquely([check_entry(each) for each in policies])
    else:
        raise entries_error(f"got {policies!r:.60}")
    for name, entry in named.items():
        if not isinstance(name, str) or not name.strip():
            raise entries_error(f"got the name {name!r}")
        check_entry(entry, f"[{name!r}]")
    if len(named) < 2:
        raise entries_error(f"got {len(named)}")
    return named


def name_uniquely(entries: Sequence[Compared]) -> dict[str, Compared]:
    titles = [find_title(entry) for entry in entries]
    names = []
    for title, entry in zip(titles, entries, strict=True):
        alike = [
            find_settings(each) for each, own in zip(entries, titles, strict=True) if own == title
        ]
        mine = find_settings(entry)
        own = [key for key in mine if len({repr(other.get(key)) for other in alike}) > 1]
        words = ", ".join(f"{key}={mine[key]}" for key in own)
        names.append(f"{title} {words}".strip())
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise entries_error(f"holds {twice[0]} twice")
    return dict(zip(names, entries, strict=True))


def find_title(entry: Compared) -> str:
    if isinstance(entry, Policy):
        return type(entry).title()
    name = str(entry.manifest["policy"]["name"])
    kinds = {type(policy) for policy in entry.policies.values()}
    return str(kinds.pop().title()) if len(kinds) == 1 else name


def find_settings(entry: Compared) -> Mapping[str, Any]:
    if isinstance(entry, Result):
        found: Mapping[str, Any] = entry.manifest["policy"]["settings"]
        return found
    return entry.settings()


def check_entry(entry: object, place: str = "") -> Compared:
    if isinstance(entry, Policy | Result):
        return entry
    cure = "; add ()" * isinstance(entry, type)
    raise ParameterError(
        f"policies{place} must be a policy or a result, got {repr_plain(entry)}{cure}"
    )


def entries_error(found: str) -> ParameterError:
    return ParameterError(
        "policies must be two or more, each with a name of its own, "
        f"{{'calm': VolTarget(target=0.2), 'bold': VolTarget(target=0.8)}} for example, {found}"
    )


def check_baseline(baseline: str | None, names: Sequence[str]) -> str:
    if baseline is None:
        return names[0]
    if baseline not in names:
        raise ParameterError(
            f"baseline must be one of {', '.join(names)}, got {baseline!r}"
            f"{did_you_mean(baseline, names)}"
        )
    return baseline

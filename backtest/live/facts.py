"""What an account must be known of before its policy can decide, and what is assumed instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.base import ParameterError, did_you_mean, repr_plain, to_float
from backtest.policy import (
    AccountView,
    Combinator,
    Policy,
    combinator_of,
    formula_for,
    margin_formula_for,
    may_read_of_account,
)

if TYPE_CHECKING:
    from backtest.engine import Setup
    from backtest.live.snapshot import AccountSnapshot

BEHIND = {
    "peak_equity": ("peak_equity",),
    "drawdown": ("peak_equity",),
    "reserve": ("reserve",),
    "bars_since_liquidation": ("bars_since_liquidation",),
    "bars_since_stop": ("bars_since_stop",),
    "days": ("started",),
}
OF_RULES = {
    "trailing_stop": ("best_price", "compares with it"),
    "equity_stop": ("highest_equity", "compares with it"),
    "max_holding": ("opened", "counts from it"),
}
OF_HELD = ("best_price", "opened")
OF_POSITIONS = ("bars_since_liquidation", "bars_since_stop")
ASSUMABLE = (
    "peak_equity", "reserve", "bars_since_liquidation", "bars_since_stop", "started",
    "highest_equity", "best_price", "opened", "overlay",
)  # fmt: skip


class Need(NamedTuple):
    fact: str
    reader: str
    is_policy: bool


def find_account_reads(policy: Policy) -> frozenset[str]:
    fields = AccountView._fields
    if isinstance(policy, Combinator):
        rule: Any = combinator_of(type(policy)).combine
        own = frozenset(f for f in fields if may_read_of_account(rule, frozenset({f})))
        return own.union(*(find_account_reads(each) for each in policy.policies))
    rules = [each for each in (formula_for(policy, ()), margin_formula_for(policy, ())) if each]
    return frozenset(
        f for f in fields if any(may_read_of_account(rule, frozenset({f})) for rule in rules)
    )


def list_needs(setup: Setup) -> Iterator[Need]:
    for policy in setup.observed:
        reads = find_account_reads(policy.policy)
        kind = type(policy.policy).__name__
        for name, facts in BEHIND.items():
            if name in reads:
                for fact in facts:
                    yield Need(fact, f"{kind} reads account.{name}", is_policy=True)
    for name, (fact, reader) in OF_RULES.items():
        if getattr(setup.account, name) not in (None, 0.0):
            yield Need(fact, f"{name} {reader}", is_policy=False)
    if setup.overlay is not None:
        yield Need("overlay", "the overlay keeps it where it returns NaN", is_policy=False)


def is_known(setup: Setup, snapshot: AccountSnapshot, fact: str) -> bool:
    if fact == "peak_equity" and snapshot.unit is not None:
        return True
    held = {name: each for name, each in snapshot.positions.items() if each.quantity != 0.0}
    if fact == "best_price":
        of_all = held.values()
        return all(each.best_price is not None or each.best_value is not None for each in of_all)
    if fact == "opened":
        stopped = [n for n in setup.markets.names if setup.account.for_instrument(n).max_holding]
        return all(held[name].opened is not None for name in stopped if name in held)
    if getattr(snapshot, fact) is not None:
        return True
    own = [snapshot.positions.get(name) for name in setup.markets.names]
    return fact in OF_POSITIONS and all(x and getattr(x, fact) is not None for x in own)


class Completed(NamedTuple):
    snapshot: AccountSnapshot
    as_equity: frozenset[str]
    texts: tuple[str, ...]
    is_read: bool


def complete(
    setup: Setup, snapshot: AccountSnapshot, assume: Mapping[str, Any] | None
) -> Completed:
    assumed = check_assumptions(assume)
    needs = list(list_needs(setup))
    lacking = [
        each
        for each in needs
        if not is_known(setup, snapshot, each.fact) and each.fact not in assumed
    ]
    if lacking:
        raise report_lacking(lacking)
    read = {each.fact for each in needs if each.is_policy}
    used = {fact: value for fact, value in assumed.items() if not is_known(setup, snapshot, fact)}
    given = {fact: value for fact, value in used.items() if value != "equity"}
    after = replace(snapshot, **{fact: x for fact, x in given.items() if fact not in OF_HELD})
    if "best_price" in given:
        after = assume_best(after, given["best_price"])
    if "opened" in given:
        after = assume_opened(after, given["opened"])
    return Completed(
        after,
        as_equity=frozenset(used) - {*given},
        texts=tuple(f"{fact} is assumed to be {value}" for fact, value in used.items()),
        is_read=any(fact in read for fact in used),
    )


def report_lacking(lacking: Sequence[Need]) -> ParameterError:
    facts = ", ".join(dict.fromkeys(each.fact for each in lacking))
    readers = "; ".join(dict.fromkeys(each.reader for each in lacking))
    example = {each.fact: "..." for each in lacking}
    return ParameterError(
        f"state must have what the policy and the account read, got no {facts}: {readers}; add it "
        f"to the snapshot, or give assume={example}"
    )


def assume_best(snapshot: AccountSnapshot, value: Any) -> AccountSnapshot:
    held = {
        name: replace(
            each,
            best_price=each.entry if value == "entry" else value,
            best_value=each.entry_value if value == "entry" else None,
        )
        for name, each in snapshot.positions.items()
    }
    return replace(snapshot, positions=held)


def assume_opened(snapshot: AccountSnapshot, time: Any) -> AccountSnapshot:
    held = {
        name: each if each.opened is not None else replace(each, opened=time)
        for name, each in snapshot.positions.items()
    }
    return replace(snapshot, positions=held)


def check_assumptions(assume: Mapping[str, Any] | None) -> dict[str, Any]:
    if assume is None:
        return {}
    return {str(fact): check_assumption(str(fact), value) for fact, value in assume.items()}


def check_assumption(fact: str, value: Any) -> Any:
    if fact not in ASSUMABLE:
        raise ParameterError(
            f"assume must name facts among {', '.join(ASSUMABLE)}, got {fact!r}"
            f"{did_you_mean(fact, ASSUMABLE)}"
        )
    is_time = fact in ("started", "opened")
    wanted = "entry" if fact == "best_price" else "equity"
    if value is not None and (is_time or value == wanted):
        return value  # a snapshot checks its times
    try:
        return to_float(value if not isinstance(value, str) else float(value))
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"assume.{fact} must be {'a time' if is_time else f'a number or {wanted!r}'}, "
            f"got {repr_plain(value)}"
        ) from error

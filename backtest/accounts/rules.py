"""Transfer rules: what may move between accounts, asked at each wake of a book of accounts.

The words of this room:

| word | meaning |
|---|---|
| account | one of several: a test with its own market, venue and capital |
| book | all accounts, and the rule that moves money between them |
| wake | a time at which the rule is asked: a UTC multiple of ``every`` |
| status | what the rule sees of an account at a wake |
| transfer | money that the rule asked to move from a sender to a receiver |
| transit | what has left senders and has not arrived |
"""

from __future__ import annotations

import copy
import math
import numbers
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from backtest import core
from backtest.core.fields import INNER_SHARE, NOT_NEGATIVE, SHARE

if TYPE_CHECKING:
    import pandas as pd

Answer = Mapping[tuple[str, str], float]
"""Amounts by (sender, receiver), in the settlement currency."""


class AccountStatus(NamedTuple):
    """What a transfer rule sees of an account: numbers of its last close.

    Attributes
    ----------
    equity : float
        Equity at that close, without the reserve; the capital before its first bar.
    available : float
        What could be withdrawn there. The reserve is not part of it.
    margin_ratio : float
        Requirement over backing of its worst pool: the cross positions together, and each isolated
        position. 0 if nothing is held, infinite without backing.
    leverage : float
        The sum of its notionals over its equity.
    in_transit : float
        What is on its way to it, after fees.
    as_of : Timestamp or None
        That close, UTC; None before its first.
    requirement, backing : float
        Of its worst pool: their quotient is the margin ratio.
    ordered : float
        What was asked for it at earlier wakes and has not left its senders yet.
    capital : float
        What it began with, without the reserve.
    fee : float
        The fee of a transfer, paid out of what is sent.
    can_send : bool
        False for accounts with options, which may only receive.
    """

    equity: float
    available: float
    margin_ratio: float
    leverage: float
    in_transit: float
    as_of: pd.Timestamp | None
    requirement: float = 0.0
    backing: float = 0.0
    ordered: float = 0.0
    capital: float = 0.0
    fee: float = 0.0
    can_send: bool = True


Statuses = Mapping[str, AccountStatus]
SMALLEST = 1e-300
"""More than nothing, to divide by."""


class TransferRule(core.Value):
    """Base of transfer rules: parameters, and what they move at a wake.

    A rule of your own has annotated fields, as a policy, and the method :meth:`transfer`. It is
    called in plain Python. It keeps nothing between wakes: what it answers depends on its
    parameters and on what it is shown.

    Examples
    --------
    >>> class Halve(TransferRule):
    ...     '''Send half of what one account has available to another.'''
    ...
    ...     sender: str = "cex"
    ...     receiver: str = "dex"
    ...
    ...     def transfer(self, time, accounts):
    ...         return {(self.sender, self.receiver): accounts[self.sender].available / 2.0}
    >>> Halve(sender="spot")
    Halve(sender='spot')
    """

    def transfer(self, time: pd.Timestamp, accounts: Statuses) -> Answer:
        """Return what to send, by (sender, receiver); an empty dict for nothing.

        ``time`` is the wake, UTC; ``accounts`` are :class:`AccountStatus` by name.
        """
        raise NotImplementedError

    def check(self, names: Sequence[str]) -> None:
        """Raise a ParameterError if the rule does not fit accounts of these names."""


class Never(TransferRule):
    """Move nothing: the accounts are as they would be apart."""

    def transfer(self, time: pd.Timestamp, accounts: Statuses) -> Answer:  # noqa: ARG002
        """Return nothing."""
        return {}


class TopUp(TransferRule):
    """Top up an account whose margin ratio is too high from those that have money available.

    An account is called where its margin ratio is at least ``when_margin_ratio``. It is sent what
    brings the ratio of its worst pool to ``to``, with what is on its way already, and with the
    fees. The account with the most available sends first; if all together have less, they send
    what they have. Called accounts send nothing. The one with the highest ratio is served first.

    Parameters
    ----------
    when_margin_ratio : float
        The margin ratio (requirement over backing) from which an account is called.
    to : float
        The margin ratio that the transfer restores, below it.

    Notes
    -----
    Money arrives in the wallet. It backs cross positions at once, an isolated position only where
    its account has ``auto_margin``.
    """

    when_margin_ratio: Annotated[float, INNER_SHARE] = 0.5
    to: Annotated[float, INNER_SHARE] = 0.3

    def faults(self) -> core.Faults:
        """Yield ``to`` if it is not below ``when_margin_ratio``."""
        if not self.to < self.when_margin_ratio:
            yield "to", f"must be below when_margin_ratio, {self.when_margin_ratio:g}"

    def transfer(self, time: pd.Timestamp, accounts: Statuses) -> Answer:  # noqa: ARG002
        """Return what the called accounts lack, from those with the most available."""
        called = []
        left = {}
        for name, status in accounts.items():
            if status.margin_ratio >= self.when_margin_ratio:
                called.append(name)
            elif status.can_send:
                left[name] = status.available
        called.sort(key=lambda name: (-accounts[name].margin_ratio, name))

        answer: dict[tuple[str, str], float] = {}
        for receiver in called:
            status = accounts[receiver]
            missing = status.requirement / self.to - status.backing
            missing -= status.in_transit + status.ordered

            # Those with the most first; the fee is paid out of what is sent.
            for sender in sorted(left, key=lambda name: (-left[name], name)):
                amount = min(missing + status.fee, left[sender])
                if missing <= 0.0 or amount <= status.fee:
                    break
                answer[sender, receiver] = amount
                left[sender] -= amount
                missing -= amount - status.fee
        return answer


class Shares(core.Declaration):
    """Shares by the name of an account, together 1."""

    def read(self, value: Any) -> core.FrozenTable:
        """Return them as a table that does not change, or raise a Fault."""
        if not isinstance(value, Mapping) or not value:
            raise core.Fault("must be shares by the name of an account, {'cex': 0.6, 'dex': 0.4}")

        shares = {}
        for name, share in value.items():
            try:
                shares[str(name)] = SHARE.read(share)
            except core.Fault as fault:
                raise core.Fault(str(fault), f"{core.repr_given(share)} for {name}") from None

        total = math.fsum(shares.values())
        if not abs(total - 1.0) <= ROUNDING:
            raise core.Fault(f"must be 1 together, they are {total:g}")
        return core.FrozenTable(shares)


ROUNDING = 1e-9
"""How far shares may be from 1 together."""


class KeepShares(TransferRule):
    """Bring the accounts back to shares of the whole where one has drifted too far.

    The whole is the sum of all equities and of what is on its way. Where the share of an account
    (with what is on its way to it) differs from its own by more than ``band``, those above send
    what they have over their shares, as far as it is available, to those below, in proportion to
    what these lack.

    Parameters
    ----------
    shares : mapping of str to float
        The share of each account in the whole; together 1.
    band : float
        The largest difference of a share that is left alone; 0.1 is a tenth of the whole.
    """

    shares: Annotated[Mapping[str, float], Shares()]
    band: Annotated[float, NOT_NEGATIVE] = 0.1

    def check(self, names: Sequence[str]) -> None:
        """Raise a ParameterError if an account has no share, or a share no account."""
        core.check_names("KeepShares.shares", self.shares, names, needed=names, noun="account")

    def transfer(self, time: pd.Timestamp, accounts: Statuses) -> Answer:  # noqa: ARG002
        """Return what brings the shares back, empty within the band."""
        whole = math.fsum(status.equity + status.in_transit for status in accounts.values())
        excesses = {}
        for name, status in accounts.items():
            held = status.equity + status.in_transit + status.ordered
            excesses[name] = held - self.shares[name] * whole
        if not max(map(abs, excesses.values())) > self.band * max(whole, 0.0):
            return {}

        # What each account lacks of its share, or can send of what it has over it.
        needs: dict[str, float] = {}
        offers: dict[str, float] = {}
        for name, excess in excesses.items():
            if excess < 0.0:
                needs[name] = -excess
            elif excess > 0.0 and accounts[name].can_send:
                offers[name] = min(excess, accounts[name].available)

        # Offers may be more than is needed: what was ordered before is counted at both ends until
        # it leaves. Then each sends the same share of its offer.
        needed = math.fsum(needs.values())
        share = min(1.0, needed / max(math.fsum(offers.values()), needed, SMALLEST))
        answer: dict[tuple[str, str], float] = {}
        for sender, offer in offers.items():
            for receiver, need in needs.items():
                answer[sender, receiver] = share * offer * (need / needed)
        return answer


class SweepProfits(TransferRule):
    """Send what accounts have earned to one that keeps it.

    An account whose equity is over its capital by more than ``above`` of it sends what is over the
    capital, as far as it is available.

    Parameters
    ----------
    to : str
        The account that receives.
    above : float
        The profit from which an account sends, as a fraction of its capital.
    """

    to: str
    above: Annotated[float, NOT_NEGATIVE] = 0.0

    def check(self, names: Sequence[str]) -> None:
        """Raise a ParameterError if there is no account ``to``."""
        core.check_names("SweepProfits.to", [self.to], names, noun="account")

    def transfer(self, time: pd.Timestamp, accounts: Statuses) -> Answer:  # noqa: ARG002
        """Return the profits of all accounts but the one that receives them."""
        answer: dict[tuple[str, str], float] = {}
        for name, status in accounts.items():
            if name == self.to or not status.can_send:
                continue

            # A transfer that its fee would eat is not worth sending.
            profit = status.equity - status.capital
            amount = min(profit, status.available)
            if profit > self.above * status.capital and amount > status.fee:
                answer[name, self.to] = amount
        return answer


RULES: dict[str, type[TransferRule]] = {
    "never": Never,
    "top-up": TopUp,
    "keep-shares": KeepShares,
    "sweep-profits": SweepProfits,
}
"""The rules of files by name."""


NAMES = {rule.__name__: name for name, rule in RULES.items()}


def phrase_transfers(call: str) -> str:
    """Return transfers by the call of a rule: transfers by top-up (when margin ratio 0.5)."""
    name, _, arguments = call.removesuffix(")").partition("(")
    if name == Never.__name__:
        return "no transfers"

    phrase = f"transfers by {NAMES.get(name, name)}"
    if not arguments:
        return phrase
    words = re.sub(r"(\w+)=", lambda found: found[1].replace("_", " ") + " ", arguments)
    words = words.replace("'", "")
    return f"{phrase} ({words})"


def check_rule(rule: Any, names: Sequence[str]) -> Any:
    """Return a rule that fits the accounts; raise a ParameterError if it does not."""
    if isinstance(rule, type):
        raise core.ParameterError(
            f"transfer must be a rule with its parameters, got the class {rule.__name__}; "
            f"give transfer={rule.__name__}(...)"
        )
    if not callable(getattr(rule, "transfer", None)):
        raise core.ParameterError(
            "transfer must be TopUp, KeepShares, SweepProfits, Never, or an object of your own "
            f"with a method transfer(time, accounts), got {core.repr_plain(rule)}"
        )
    if isinstance(rule, TransferRule):
        rule.check(names)
    return rule


def ask_rule(rule: Any, time: pd.Timestamp, accounts: Statuses) -> dict[tuple[str, str], float]:
    """Return what a rule asks to send at a wake, without amounts of 0, after checking it.

    Raises PolicyError for what is no transfer between two accounts of the book.
    """
    name = type(rule).__name__
    try:
        answer = rule.transfer(time, accounts)
    except core.BacktestError:
        raise
    except core.RAISED as error:
        raise core.PolicyError(
            f"{name}.transfer raised {type(error).__name__}: {error}, at {time:%Y-%m-%d %H:%M} UTC"
        ) from error

    fault = find_answer_fault(answer, accounts)
    if fault:
        raise core.PolicyError(f"{name}.transfer {fault}, at {time:%Y-%m-%d %H:%M} UTC")
    return {pair: float(amount) for pair, amount in answer.items() if amount != 0.0}


def find_answer_fault(answer: Any, accounts: Statuses) -> str:
    """Return what is wrong with the answer of a rule, empty if nothing is."""
    if not isinstance(answer, Mapping):
        return (
            "must return a dict of amounts by (sender, receiver), {} for none, got "
            f"{core.repr_plain(answer)}"
        )
    for pair, amount in answer.items():
        fault = find_pair_fault(pair, accounts) or find_amount_fault(pair, amount, accounts)
        if fault:
            return fault
    return ""


def find_pair_fault(pair: Any, accounts: Statuses) -> str:
    """Return why a key of an answer names no transfer between two accounts."""
    if not (isinstance(pair, tuple) and len(pair) == 2):
        return (
            "must name a transfer by (sender, receiver), ('cex', 'dex') for example, got "
            f"{core.repr_plain(pair)}"
        )
    for name in pair:
        if name not in accounts:
            near = core.did_you_mean(str(name), [*accounts])
            return f"must name accounts of the book, {', '.join(accounts)}, got {name!r:.60}{near}"

    sender, receiver = pair
    if sender == receiver:
        return f"must send from one account to another, got {sender!r} to itself"
    return ""


def find_amount_fault(pair: tuple[str, str], amount: Any, accounts: Statuses) -> str:
    """Return why an amount cannot be sent."""
    sender, receiver = pair
    is_number = isinstance(amount, numbers.Real) and not isinstance(amount, bool)
    if not (is_number and math.isfinite(amount) and amount >= 0.0):
        return (
            f"must return finite amounts of at least 0, got {core.repr_plain(amount)} from "
            f"{sender!r} to {receiver!r}; swap the two names to send the other way"
        )
    if amount > 0.0 and not accounts[sender].can_send:
        return (
            f"must not send from {sender!r}, which has options: it can only receive; look at "
            "can_send of an account before sending from it"
        )
    return ""


def check_repeats(
    rule: Any,
    time: pd.Timestamp,
    accounts: Statuses,
    answer: Mapping[tuple[str, str], float],
    reason: str,
) -> None:
    """Raise a PolicyError if a copy of the rule does not answer the same."""
    other = ask_rule(copy.deepcopy(rule), time, dict(accounts))
    if other != answer:
        raise core.PolicyError(
            f"{type(rule).__name__}.transfer must answer the same {reason}, at "
            f"{time:%Y-%m-%d %H:%M} UTC got {dict(answer)} and then {other}; use only what it is "
            "shown: no random numbers, no clock, no later prices, nothing kept between calls"
        )

"""``bt.Accounts``: several accounts on one clock, and the rule that moves money between them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from backtest import core
from backtest.accounts.result import AccountsResult, make_result
from backtest.accounts.rules import (
    RULES,
    AccountStatus,
    Never,
    TransferRule,
    ask_rule,
    check_repeats,
    check_rule,
)
from backtest.accounts.simulated_account import SimulatedAccount
from backtest.accounts.transfers import TransferQueue
from backtest.core import IntArray
from backtest.engine import AnyPolicy, Compile, Conditions, OverflowedFormula, plain, setting
from backtest.engine.checks import check_settlement
from backtest.engine.run_setup import Setup, set_up_run
from backtest.market import Market, as_markets
from backtest.policies.lookahead import rewrite_after

PEGGED = ("USD", "USDT", "USDC")
"""Currencies that ``settle`` counts as one, at 1."""
MOST_WAKES = 5_000_000
NAME = re.compile(r"[A-Za-z0-9][\w .+-]*", re.ASCII)
"""Names of accounts: they name folders."""
CHECKED = 4
"""Wakes at which a rule that sends is asked again on copies, beside each power of two."""


class Accounts:
    """Several accounts, each with its market, venue and capital, and transfers between them.

    Each account is simulated by itself, as :meth:`backtest.Backtest.run` does. At each wake, a UTC
    multiple of ``every``, all bars that have closed are simulated in all accounts, and the rule is
    asked what to send. What it asks leaves the sender at its next open, as far as it can be
    withdrawn there, and arrives at the receiver's first open after the ``delay``, less the ``fee``.

    Parameters
    ----------
    accounts : mapping of str to Backtest
        At least two tests, by the name of their account.
    transfer : TransferRule
        What moves: :class:`TopUp`, :class:`KeepShares`, :class:`SweepProfits`, :class:`Never` (the
        default), or an object of your own with a method ``transfer(time, accounts)``.
    every : str
        How often the rule is asked, such as ``"1h"``.
    delay : str
        The time from leaving to arriving, such as ``"30min"``; ``"0s"`` for none.
    fee : float
        The fee of a transfer, in the settlement currency, paid out of what is sent.
    settle : str, optional
        The currency in which accounts are added up if they settle in several of USD, USDT and USDC:
        these count as one, at 1. Other currencies must be equal.

    Raises
    ------
    ParameterError
        If an argument is not allowed, accounts settle in different currencies, or an account fills
        decisions before its open (``fill="same_close"``) and money may move.

    Examples
    --------
    >>> import backtest as bt
    >>> from backtest.strategies import Constant
    >>> market = bt.Market.sample(bars=24 * 30)
    >>> test = bt.Backtest(market, venue="binance-usdm:BTCUSDT", account=bt.Account(capital=5e3))
    >>> book = bt.Accounts({"long": test, "short": test.replace(signal=-1.0)}, every="1h",
    ...                    transfer=bt.TopUp(when_margin_ratio=0.5, to=0.3), delay="30min")
    >>> result = book.run(Constant(leverage=3.0))
    >>> round(result.metrics["final_equity"]) > 0
    True
    """

    def __init__(
        self,
        accounts: Mapping[str, Conditions],
        *,
        transfer: TransferRule | Any = None,
        every: str = "1d",
        delay: str = "0s",
        fee: float = 0.0,
        settle: str | None = None,
    ) -> None:
        self.accounts = check_accounts(accounts)
        names = [*self.accounts]
        if transfer is None:
            transfer = Never()
        self.transfer = check_rule(transfer, names)

        # Times in ns, beside the texts that the manifest has.
        self.every = every
        self.every_ns = core.parse_duration(every, "every")
        self.delay = str(delay)
        self.delay_ns = read_delay(delay)

        self.fee = float(core.Real(0.0).check("fee", fee))
        self.settle = settle
        self.currency = agree_currency(find_currencies(self.accounts), settle)
        if not isinstance(self.transfer, Never):
            refuse_early_fills(self.accounts)

    def __repr__(self) -> str:
        return f"<Accounts {', '.join(self.accounts)}: {self.transfer!r} every {self.every}>"

    def replace(self, **changes: Any) -> Accounts:
        """Return the same accounts with other arguments, such as ``transfer=Never()``."""
        fields = {
            "accounts": self.accounts,
            "transfer": self.transfer,
            "every": self.every,
            "delay": self.delay,
            "fee": self.fee,
            "settle": self.settle,
        }
        core.check_names("Accounts.replace", changes, [*fields], noun="argument")
        fields |= changes
        return Accounts(fields.pop("accounts"), **fields)

    @core.record_making
    def run(
        self,
        policies: AnyPolicy | Mapping[str, AnyPolicy],
        *,
        compile: Compile = True,  # noqa: A002 - the word of bt.run
        progress: core.Progress | None = None,
    ) -> AccountsResult:
        """Take all accounts through their markets, and move money between them.

        Parameters
        ----------
        policies : Policy, or mapping of str to Policy
            One for all accounts, or one for each by its name; that of an account with several
            instruments may be a mapping too.
        compile : bool or "now"
            As in :meth:`backtest.Backtest.run`.
        progress : callable, optional
            Called with wakes done and wakes in all.

        Raises
        ------
        ParameterError
            If an account lacks a policy.
        PolicyError
            If a policy fails, or the rule returns no transfer between two of the accounts, or does
            not answer the same again.
        AccountingError
            If the books of the whole do not balance at some wake.
        """
        assigned = assign_policies(policies, [*self.accounts])
        setups = {}
        for name, test in self.accounts.items():
            with naming(name):
                setups[name] = set_up_run(test, assigned[name])

        # A formula that overflows where it is compiled is run again with its limits checked.
        try:
            return self.simulate(setups, compile, progress, has_overflowed=False)
        except OverflowedFormula:
            return self.simulate(setups, compile, progress, has_overflowed=True)

    def compare(
        self,
        rules: Mapping[str, TransferRule | Any],
        policies: AnyPolicy | Mapping[str, AnyPolicy],
        *,
        compile: Compile = True,  # noqa: A002 - the word of bt.run
    ) -> pd.DataFrame:
        """Run the same accounts under several rules, by name; return a row of measures for each.

        The columns are those of :attr:`AccountsResult.metrics`, with the ``transfers`` that left,
        what was ``sent``, and how often a transfer saved an account or money lay elsewhere.
        """
        if not isinstance(rules, Mapping) or not rules:
            raise core.ParameterError(
                "rules must be transfer rules by name, {'never': bt.Never()} for example, got "
                f"{core.repr_plain(rules)}"
            )

        rows = {}
        for name, rule in rules.items():
            result = self.replace(transfer=rule).run(policies, compile=compile)
            rows[name] = {
                **result.metrics,
                "transfers": float((result.transfers["sent"] > 0.0).sum()),
                "sent": float(result.transfers["sent"].sum()),
                **{number: float(getattr(result, number)) for number in result.numbers},
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("rule")

    def simulate(
        self,
        setups: Mapping[str, Setup],
        compile: Compile,  # noqa: A002 - the word of bt.run
        progress: core.Progress | None,
        *,
        has_overflowed: bool,
    ) -> AccountsResult:
        """Return the result of a run whose accounts are set up."""
        has_transfers = not isinstance(self.transfer, Never)
        accounts = {}
        for name, setup in setups.items():
            accounts[name] = SimulatedAccount(
                name,
                setup,
                is_compiled=compile,
                has_overflowed=has_overflowed,
                has_transfers=has_transfers,
            )
        queue = TransferQueue(accounts, delay=self.delay_ns, fee=self.fee)

        wakes = find_wakes(accounts, self.every_ns)
        if has_transfers:
            self.simulate_wakes(accounts, queue, wakes, progress)

        # After the last wake: what is still waiting leaves, and all bars that are left.
        queue.depart_before(np.inf)
        for name, account in accounts.items():
            with naming(name):
                account.advance(account.total)
        return make_result(self, accounts, queue, wakes)

    def simulate_wakes(
        self,
        accounts: Mapping[str, SimulatedAccount],
        queue: TransferQueue,
        wakes: IntArray,
        progress: core.Progress | None,
    ) -> None:
        """Ask the rule at each wake, with all accounts at their last closes."""
        closed = {name: account.count_closed(wakes).tolist() for name, account in accounts.items()}
        checks = RuleChecks(self.transfer, [*self.accounts.values()])
        for k, wake in enumerate(wakes.tolist()):
            # What left before this wake is known to all; what leaves at it, leaves after it.
            queue.depart_before(wake)
            for name, account in accounts.items():
                with naming(name):
                    account.advance(closed[name][k])

            statuses = self.show_accounts(accounts, queue)
            time = pd.Timestamp(wake, tz="UTC")
            answer = ask_rule(self.transfer, time, statuses)
            checks.check(k, time, statuses, answer)
            queue.order(wake, answer)
            core.report_progress(progress, k + 1, len(wakes))

    def show_accounts(
        self, accounts: Mapping[str, SimulatedAccount], queue: TransferQueue
    ) -> dict[str, AccountStatus]:
        """Return what the rule is shown, by account."""
        in_transit = queue.count_in_transit()
        ordered = queue.count_ordered()
        statuses = {}
        for name, account in accounts.items():
            statuses[name] = account.show(
                in_transit=in_transit[name], ordered=ordered[name], fee=self.fee
            )
        return statuses


class RuleChecks:
    """Asks a rule again on copies at some wakes, and with later bars replaced.

    At the first wake, at each whose number is a power of two, and at the first that send.
    """

    def __init__(self, rule: Any, tests: list[Conditions]) -> None:
        self.rule = rule
        self.tests = tests
        self.is_ours = type(rule) in RULES.values()
        self.sent = 0

    def check(
        self,
        k: int,
        time: pd.Timestamp,
        statuses: Mapping[str, AccountStatus],
        answer: Mapping[tuple[str, str], float],
    ) -> None:
        """Raise a PolicyError if the rule does not answer the same at wake k."""
        if self.is_ours:
            return
        if answer:
            self.sent += 1
        is_power_of_two = k & (k - 1) == 0  # or 0
        is_among_first = bool(answer) and self.sent <= CHECKED
        if not (is_power_of_two or is_among_first):
            return

        check_repeats(self.rule, time, statuses, answer, "when asked again")
        with replace_later_bars(self.tests, time.value):
            check_repeats(
                self.rule, time, statuses, answer, "when later bars are replaced by others"
            )


@contextlib.contextmanager
def replace_later_bars(tests: list[Conditions], time: int) -> Iterator[None]:
    """Let the markets of some tests have other bars after those that have closed by a time."""
    # A market may stand in several tests, and is changed once.
    markets: dict[int, Market] = {}
    for test in tests:
        for several in (test.market, plain(test).market):
            for market in as_markets(several).values():
                markets[id(market)] = market

    saved = {key: dict(vars(market)) for key, market in markets.items()}
    try:
        for market in markets.values():
            last = int(np.searchsorted(market.time + market.interval, time, side="right")) - 1
            if 0 <= last < market.n_bars - 1:
                other = rewrite_after(market, last, np.random.default_rng(last))
                vars(market).update({**vars(other), "facts": {}})
        yield
    finally:
        for key, market in markets.items():
            vars(market).clear()
            vars(market).update(saved[key])


@contextlib.contextmanager
def naming(account: str) -> Iterator[None]:
    """Begin the messages of errors with the account that they are of."""
    try:
        yield
    except OverflowedFormula:
        raise
    except core.BacktestError as error:
        raise type(error)(f"account {account!r}: {error}") from error


def check_accounts(accounts: Any) -> dict[str, Conditions]:
    """Return tests by name; raise a ParameterError for what is none, or for fewer than two."""
    if not isinstance(accounts, Mapping) or len(accounts) < 2:
        raise core.ParameterError(
            "accounts must be two tests or more by name, {'cex': bt.Backtest(...), 'dex': "
            f"bt.Backtest(...)}} for example, got {core.repr_plain(accounts)}"
        )

    for name, test in accounts.items():
        if not (isinstance(name, str) and NAME.fullmatch(name)):
            raise core.ParameterError(
                "the name of an account must begin with a letter or digit and go on with letters, "
                f"digits, spaces and . _ + -, for it names a folder, got {name!r:.60}"
            )
        if not isinstance(test, Conditions):
            raise core.ParameterError(
                f"account {name!r} must be a bt.Backtest, got {core.repr_plain(test)}"
            )
    return dict(accounts)


def read_delay(delay: Any) -> int:
    """Return a delay in ns; 0 is one."""
    if isinstance(delay, str) and re.fullmatch(r"\s*0+\s*(s|m|min|h|d|w)?\s*", delay):
        return 0
    if not isinstance(delay, str) and delay == 0 and not isinstance(delay, bool):
        return 0
    return core.parse_duration(delay, "delay")


def find_currencies(accounts: Mapping[str, Conditions]) -> dict[str, str]:
    """Return the settlement currency of each account, empty where it is unknown."""
    currencies = {}
    for name, test in accounts.items():
        with naming(name):
            markets, venues, _ = setting(plain(test))
            currencies[name] = check_settlement(markets, venues)
    return currencies


def agree_currency(currencies: Mapping[str, str], settle: str | None) -> str:
    """Return the currency in which all accounts are counted; raise if they differ."""
    known = {name: currency for name, currency in currencies.items() if currency}
    distinct = [*dict.fromkeys(known.values())]
    listed = " and ".join(f"{currency} ({name})" for name, currency in known.items())

    if settle is None:
        if not distinct:
            return ""
        if len(distinct) == 1:
            return distinct[0]
        cure = "keep accounts of each currency in a book of their own"
        if all(currency in PEGGED for currency in distinct):
            cure = "give settle='USD' to count USD, USDT and USDC as one, at 1"
        raise core.ParameterError(
            f"all accounts of a book must settle in one currency, got {listed}; {cure}"
        )

    if not isinstance(settle, str) or not settle:
        raise core.ParameterError(
            f"settle must be the name of a currency, 'USD' for example, got {settle!r:.40}"
        )
    wrong = [currency for currency in distinct if currency != settle]
    if wrong and not (settle in PEGGED and all(currency in PEGGED for currency in wrong)):
        raise core.ParameterError(
            f"settle={settle!r} must be the currency of all accounts, or count USD, USDT and USDC "
            f"as one, got {listed}"
        )
    return settle


def refuse_early_fills(accounts: Mapping[str, Conditions]) -> None:
    """Raise a ParameterError if an account fills before its open, where transfers are booked."""
    for name, test in accounts.items():
        if test.account.fill == "same_close":
            raise core.ParameterError(
                f"account {name!r}: fill must not be 'same_close' where money moves between "
                "accounts: its orders fill before the open at which a transfer leaves or arrives; "
                "give fill='next_open', or transfer=bt.Never()"
            )


def assign_policies(policies: Any, names: list[str]) -> dict[str, Any]:
    """Return the policy of each account by its name."""
    if not isinstance(policies, Mapping):
        return dict.fromkeys(names, policies)
    core.check_names("the book's run", policies, names, needed=names, noun="account")
    return {name: policies[name] for name in names}


def find_wakes(accounts: Mapping[str, SimulatedAccount], every: int) -> IntArray:
    """Return the multiples of ``every`` from the first close of any account to the last, UTC ns."""
    first_close = min(int(account.closes[account.first]) for account in accounts.values())
    last_close = max(int(account.closes[-1]) for account in accounts.values())
    first = -(-first_close // every)  # rounded up
    count = last_close // every - first + 1
    if count > MOST_WAKES:
        raise core.ParameterError(
            f"every must leave at most {MOST_WAKES:,} wakes, got {core.format_duration(every)}, "
            f"{count:,} wakes in the data"
        )
    return np.arange(first * every, last_close + 1, every, dtype=np.int64)

"""What several accounts return: their results, the whole, the transfers; and its pages."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from backtest import core
from backtest.accounts.rules import Never, phrase_transfers
from backtest.accounts.simulated_account import ARRIVING, LEAVING, Flow, SimulatedAccount, make_room
from backtest.accounts.transfers import TransferQueue
from backtest.accounts.whole import (
    AccountPath,
    attribute_accounts,
    check_books,
    find_money_elsewhere,
    follow_account,
    follow_transfers,
    follow_whole,
    list_liquidations,
    measure_whole,
    tabulate_whole,
)
from backtest.core import IntArray
from backtest.core.number_text import Head
from backtest.core.result_parts import MONEY, Headline, Part, ShownChart, ShownTable
from backtest.engine import run_account
from backtest.engine.run import finish
from backtest.engine.run_setup import Setup
from backtest.results import Result
from backtest.results.measure_table import Measures
from backtest.results.settings_result import SettingsResult
from backtest.results.tables import find_settlement

FOLDER = "accounts"
"""The folder of the results of the accounts, in that of the whole."""


@dataclass(frozen=True, eq=False, repr=False)
class AccountsResult(SettingsResult):
    """The outcome of :meth:`Accounts.run`: the whole, and each account.

    Attributes
    ----------
    bars : DataFrame
        A row by close of any account: ``equity`` and ``wealth`` (with reserves) of all accounts and
        what is on its way, ``in_transit``; ``unit``, the value of what was worth 1 at the start,
        free of deposits; ``drawdown`` of it; ``leverage``, the sum of all notionals over the equity
        of the whole; and the equity of each account, ``"equity NAME"``, which steps at its closes.
    transfers : DataFrame
        A row by transfer: ``asked_at``, ``sender``, ``receiver``, ``asked``; ``left_at`` and
        ``sent``; ``cut``, why that is less: "available", "fee" (it was at most the fee), or "no
        later bar"; the ``fee``; ``arrived_at`` and ``arrived``, none if the receiver has no later
        bar.
    attribution : DataFrame
        A row by account: its wealth at the ``start``, ``deposits``, what it earned by cause and its
        ``profit``, what it ``sent`` and ``received``, ``transfer_fees``, its wealth at the ``end``.
    measures : DataFrame
        The measures of the whole, by wealth. :attr:`metrics` has them by name.
    results : mapping of str to Result
        The result of each account. Its account has the transfers among its ``flows``:
        ``bt.Backtest.of(result).run(policy)`` repeats it alone.
    """

    results: Mapping[str, Result]

    kind = "book"
    called = "accounts"
    call = "bt.Accounts"
    numbers = (
        "saved_by_transfer",
        "saved_amount",
        "liquidated_with_money_elsewhere",
        "money_elsewhere",
    )
    table_names = ("bars", "transfers", "attribution", "measures")
    long_tables = ("bars",)

    @cached_property
    def _tables(self) -> Mapping[str, pd.DataFrame]:
        return vars(self)["_tabulate"]()  # type: ignore[no-any-return] # of make_result

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields with all that is made when it is asked for: the accounts stay here."""
        made = {"_tables": self._tables, "_elsewhere": self._elsewhere}
        fields = {**vars(self), **made}
        for maker in ("_tabulate", "_look_for_rescues"):
            fields.pop(maker, None)
        return fields

    @property
    def bars(self) -> pd.DataFrame:
        """The whole, and the equity of each account, a row by close of any account."""
        return self._tables["bars"]

    @property
    def transfers(self) -> pd.DataFrame:
        """A row by transfer: what was asked, sent and cut, and what arrived."""
        return self._tables["transfers"]

    @property
    def attribution(self) -> pd.DataFrame:
        """A row by account: what it began with, earned, sent, received and has."""
        return self._tables["attribution"]

    @property
    def measures(self) -> pd.DataFrame:
        """The measures of the whole, a row by name."""
        return self._tables["measures"]

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """The measures of the whole by name; an unknown name raises KeyError with the nearest."""
        return Measures({str(name): float(x) for name, x in self.measures["value"].items()})

    @cached_property
    def _elsewhere(self) -> dict[str, float]:
        return vars(self)["_look_for_rescues"]()  # type: ignore[no-any-return] # of make_result

    @property
    def saved_by_transfer(self) -> int:
        """Accounts that would have been liquidated before, without what arrived.

        Each account that received money is run again without it, but with what it sent.
        """
        return int(self._elsewhere["saved_by_transfer"])

    @property
    def saved_amount(self) -> float:
        """What had arrived at these accounts by the time at which they would have been."""
        return self._elsewhere["saved_amount"]

    @property
    def liquidated_with_money_elsewhere(self) -> int:
        """Bars that liquidated an account while others had money available, or on its way."""
        return int(self._elsewhere["liquidated_with_money_elsewhere"])

    @property
    def money_elsewhere(self) -> float:
        """What that was, together: at the last closes before these bars."""
        return self._elsewhere["money_elsewhere"]

    @property
    def settlement(self) -> str:
        """The currency in which the accounts are counted, empty if it is unknown."""
        return str(self.settings["settlement"])

    @property
    def notices(self) -> tuple[str, ...]:
        """What must be read before any number: the notices of each account, under its name."""
        notices = []
        for name, result in self.results.items():
            notices += [f"{name}: {notice}" for notice in result.notices]
        return tuple(notices)

    @property
    def title(self) -> str:
        return f"{', '.join(self.results)}, {phrase_transfers(self.settings['rule'])}"

    @property
    def folder_title(self) -> str:
        return f"accounts {self.settings['rule']}"

    @property
    def policy_name(self) -> str:
        return str(self.settings["rule"])

    @property
    def note(self) -> str:
        liquidations = core.count_nouns(int(self.metrics["liquidations"]), "liquidation")
        return f"{core.count_nouns(self._count_sent(), 'transfer')}, {liquidations}"

    def _count_sent(self) -> int:
        return int((self.transfers["sent"] > 0.0).sum())

    @property
    def verdict(self) -> str:
        change = core.format_percent(self.metrics["total_return"], is_signed=True)
        fall = core.format_percent(self.metrics["max_drawdown"])
        clauses = [f"All accounts together: {change}, worst drawdown {fall}"]

        liquidated = self.attribution.index[self.attribution["liquidations"] > 0.0]
        if len(liquidated):
            clauses.append(f"liquidated: {', '.join(map(str, liquidated))}")
        else:
            clauses.append("none was liquidated")
        return f"{'; '.join(clauses)}."

    @property
    def details(self) -> str:
        settings = self.settings
        transfers = core.capitalize(phrase_transfers(settings["transfer"]))
        if settings["rule"] == Never.__name__:
            texts = [f"{transfers}."]
        else:
            texts = [
                f"{transfers}, evaluated every {settings['every']}; one takes "
                f"{settings['delay']} and costs {settings['fee']:g}."
            ]

        if self.liquidated_with_money_elsewhere:
            times = core.count_nouns(self.liquidated_with_money_elsewhere, "bar")
            texts.append(
                f"In {times} an account was liquidated while "
                f"{core.format_money(self.money_elsewhere)} lay elsewhere or was on its way."
            )
        if self.saved_by_transfer:
            saved = core.count_nouns(self.saved_by_transfer, "account")
            texts.append(
                f"Without the {core.format_money(self.saved_amount)} that arrived, {saved} would "
                "have been liquidated before."
            )
        return " ".join(texts)

    def list_numbers(self) -> list[Headline]:
        metrics = self.metrics
        fees = core.format_money(float(self.transfers["fee"].sum()))
        moved = core.format_money(float(self.transfers["sent"].sum()))
        saved = ""
        if self.saved_by_transfer:
            saved = f"by {core.format_money(self.saved_amount)} that arrived"
        elsewhere = ""
        if self.liquidated_with_money_elsewhere:
            elsewhere = f"with {core.format_money(self.money_elsewhere)} available"

        return [
            Headline("final_equity", "final equity", metrics["final_equity"], "money"),
            Headline("total_return", "total return", metrics["total_return"], "signed percent"),
            Headline("sharpe", "Sharpe", metrics["sharpe"], "decimals"),
            Headline("max_drawdown", "worst drawdown", metrics["max_drawdown"], "percent"),
            Headline(
                name="transfers",
                title="transfers",
                value=self._count_sent(),
                style="count",
                note=f"{moved} sent, fees {fees}",
            ),
            Headline("liquidations", "liquidations", metrics["liquidations"], "count"),
            Headline(
                name="saved_by_transfer",
                title="saved by a transfer",
                value=self.saved_by_transfer,
                style="count",
                note=saved,
            ),
            Headline(
                name="liquidated_with_money_elsewhere",
                title="liquidated with money elsewhere",
                value=self.liquidated_with_money_elsewhere,
                style="count",
                note=elsewhere,
            ),
        ]

    def list_parts(self) -> list[Part]:
        return [
            Part(
                key="whole",
                title="All accounts",
                lead=f"Equity at closes, with what is on its way. {MONEY}",
                blocks=(self._draw_equity(), self._draw_drawdown()),
            ),
            Part(
                key="accounts",
                title="By account",
                lead="What each had, earned, sent and received.",
                blocks=(self._tabulate_summary(),),
                shows="summary",
            ),
            Part(
                key="attribution",
                title="By account",
                lead="Where the money was made, and where it went.",
                blocks=(self._tabulate_attribution(), MONEY),
            ),
            Part(
                key="transfers",
                title="Transfers",
                lead="What was asked, what left, and what arrived.",
                blocks=(self._tabulate_transfers(),),
                shows="both",
            ),
        ]

    def _draw_equity(self) -> ShownChart:
        names = [*self.results]
        lines = self.bars[["equity", *(f"equity {name}" for name in names)]]
        return ShownChart(
            key="equity",
            title="Equity",
            caption="Of all accounts, and of each at its closes.",
            table=lines.set_axis(["all together", *names], axis=1),
            kind="steps",
            y="money",
            has_legend=True,
        )

    def _draw_drawdown(self) -> ShownChart:
        return ShownChart(
            key="drawdown",
            title="Drawdown",
            caption="Of the unit value of all accounts.",
            table=self.bars[["drawdown"]],
            kind="area",
            percent="y",
            height=180,
        )

    def _tabulate_summary(self) -> ShownTable:
        return ShownTable(
            self.attribution[[*SUMMARIZED]].rename(columns=name_term).T,
            labels=Head("money"),
            heads={name: Head(name, "", "money") for name in self.results},
        )

    def _tabulate_attribution(self) -> ShownTable:
        heads = {}
        for name in self.attribution:
            heads[str(name)] = Head(name_term(str(name)), "money", "money")
        heads["liquidations"] = Head("liquidations", "", "count")

        # What no account had or paid is not shown; liquidations always are.
        table = self.attribution
        is_shown = (table != 0.0).any() | (table.columns == "liquidations")
        return ShownTable(table.loc[:, is_shown], labels=Head("account"), heads=heads)

    def _tabulate_transfers(self) -> ShownTable:
        amounts = ("asked", "sent", "fee", "arrived")
        asked_at = self.transfers["asked_at"]
        hidden = ["asked_at"]
        if not self.transfers["cut"].astype(bool).any():
            hidden.append("cut")
        return ShownTable(
            self.transfers.drop(columns=hidden).set_index(asked_at),
            labels=Head("asked at"),
            heads={name: Head(name, "money", "money") for name in amounts},
            empty="Nothing was sent.",
        )

    def list_assumptions(self) -> tuple[str, ...]:
        texts = [
            "Sharpe and Sortino of the whole are in excess of a risk-free rate of 0.",
            "What a transfer may take is fixed at the sender's open, before that bar; it arrives "
            "at the receiver's first open after the delay.",
        ]
        if self.settings["settle"] is not None:
            texts.append(
                f"Accounts are added up in {self.settings['settle']}: USD, USDT and USDC count as "
                "one, at 1."
            )
        return tuple(texts)

    def list_policies(self) -> list[type]:
        policies: list[type] = []
        for result in self.results.values():
            policies.extend(result.list_policies())
        return policies

    def describe_data(self) -> Mapping[str, Any]:
        """Return the data of all accounts in one description; each result has its own."""
        data = [result.manifest["data"] for result in self.results.values()]

        def collect(key: str) -> list[str]:
            """Return the different texts under a key, in the order of the accounts."""
            return [*dict.fromkeys(str(entries[key]) for entries in data)]

        hashes = "".join(str(entries["content_hash"]) for entries in data)
        return {
            "source": "; ".join(collect("source")),
            "instrument": ", ".join(collect("instrument")),
            "content_hash": hashlib.sha256(hashes.encode()).hexdigest()[:16],
            "start": min(collect("start")),
            "end": max(collect("end")),
            "bars": len(self.bars),
            "interval": ", ".join(collect("interval")),
            "synthetic": any(entries["synthetic"] for entries in data),
            "filled": {},
        }

    def _write_more(self, folder: Path) -> None:
        for name, result in self.results.items():
            result.save(folder / FOLDER / name)

    @classmethod
    def _read_back(cls, manifest: dict[str, Any], tables: Mapping[str, Any], folder: Path) -> Self:
        settings = core.from_plain(manifest["settings"])
        results = {}
        for name, identity in settings["results"].items():
            places = [*(folder / FOLDER / name).glob(f"*-{identity}")]
            if len(places) != 1:
                raise core.damage_error(folder / FOLDER / name, f"must hold the result {identity}")
            results[name] = Result.load(places[0])

        made = cls(results=results, settings=settings)
        vars(made)["_tables"] = dict(tables)
        vars(made)["manifest"] = manifest  # what was saved, not what is left of it
        vars(made)["_elsewhere"] = core.from_plain(manifest["outcome"])
        return made


SUMMARIZED = ("start", "deposits", "profit", "sent", "received", "transfer_fees", "end")


def name_term(name: str) -> str:
    return name.replace("_", " ")


def make_result(
    book: Any, accounts: Mapping[str, SimulatedAccount], queue: TransferQueue, wakes: IntArray
) -> AccountsResult:
    """Return the result of accounts whose bars are all simulated."""
    outcomes = {name: account.find_outcome() for name, account in accounts.items()}
    paths = {}
    for name, account in accounts.items():
        traded = float(outcomes[name].tally.money.traded)
        paths[name] = follow_account(account, outcomes[name].record, turnover=traded)

    end = max(int(account.closes[-1]) for account in accounts.values())
    times = np.append(wakes, end)
    transfers = follow_transfers(accounts, queue.log, times, book.fee)
    check_books(accounts, paths, transfers, times)

    results = {}
    for name, account in accounts.items():
        results[name] = finish(with_transfers(account), outcomes[name])

    rule = book.transfer
    sampling = agree([account.setup.test.sampling for account in accounts.values()], "1d")
    made = AccountsResult(
        results=results,
        settings={
            "rule": type(rule).__name__,
            "transfer": repr(rule),
            "every": book.every,
            "delay": book.delay,
            "fee": book.fee,
            "settle": book.settle,
            "settlement": book.currency or find_settlement(next(iter(results.values()))),
            "sampling": sampling,
            "results": {name: result.manifest["id"] for name, result in results.items()},
        },
    )
    vars(made)["_tabulate"] = lambda: tabulate(accounts, paths, results, queue, sampling)
    vars(made)["_look_for_rescues"] = lambda: look_for_rescues(accounts, results, queue)
    return made


def tabulate(
    accounts: Mapping[str, SimulatedAccount],
    paths: Mapping[str, AccountPath],
    results: Mapping[str, Result],
    queue: TransferQueue,
    sampling: str,
) -> dict[str, pd.DataFrame]:
    """Return the tables of the whole, which are made when one of them is asked for."""
    whole = follow_whole(accounts, paths, results, queue.log, queue.fee)
    start = min(int(account.opens[account.first]) for account in accounts.values())
    period = core.parse_duration(sampling)
    usual_periods = core.units.YEAR_DAYS * core.DAY / period
    periods = agree([account.setup.periods for account in accounts.values()], usual_periods)

    measured = measure_whole(whole, start, period, periods, results)
    return {
        "bars": tabulate_whole(whole),
        "transfers": queue.tabulate(),
        "attribution": attribute_accounts(accounts, paths, results, queue.log, queue.fee),
        "measures": pd.DataFrame({"value": measured}).rename_axis("measure"),
    }


def agree(values: list[Any], other: Any) -> Any:
    """Return what all values are, or another where they differ."""
    if len({*values}) == 1:
        return values[0]
    return other


def with_transfers(account: SimulatedAccount) -> Setup:
    """Return the setup of an account whose flows are its own and what it sent and received.

    So its result says what happened to it, and a run of it alone repeats it. Transfers are
    stamped just before the open at which they were booked, for flows of one time cannot be two.
    """
    setup = account.setup
    transfers = account.list_transfers()
    if not transfers:
        return setup

    # The first bar has nothing before its open that a run would read.
    shifts = {LEAVING: 2, ARRIVING: 1}
    amounts: dict[int, list[float]] = {}
    for flow in transfers:
        shift = 0 if flow.bar == account.first else shifts[flow.order]
        amounts.setdefault(int(account.opens[flow.bar]) - shift, []).append(flow.amount)

    stated = setup.account.flows
    if stated is not None:
        stamps = pd.DatetimeIndex(stated.index).as_unit("ns").asi8.tolist()
        for stamp, amount in zip(stamps, stated.tolist(), strict=True):
            amounts.setdefault(stamp, []).append(amount)

    times = sorted(amounts)
    flows = pd.Series(
        [math.fsum(amounts[time]) for time in times],
        index=core.utc_index(np.array(times, dtype=np.int64)),
    )
    changed = replace(setup.account, flows=flows)
    test = setup.test.replace(account=replace(setup.test.account, flows=flows))
    return setup._replace(account=changed, test=test)


def look_for_rescues(
    accounts: Mapping[str, SimulatedAccount], results: Mapping[str, Result], queue: TransferQueue
) -> dict[str, float]:
    """Return how often a transfer saved an account, or money lay elsewhere, with the amounts."""
    amounts = find_money_elsewhere(accounts, results, queue.log)
    elsewhere = [amount for amount in amounts if amount > queue.fee]

    saved = []
    for name, account in accounts.items():
        amount = find_saving_amount(account, results[name])
        if amount > 0.0:
            saved.append(amount)
    return {
        "saved_by_transfer": len(saved),
        "saved_amount": math.fsum(saved),
        "liquidated_with_money_elsewhere": len(elsewhere),
        "money_elsewhere": math.fsum(elsewhere),
    }


def find_saving_amount(account: SimulatedAccount, result: Result) -> float:
    """Return what had arrived when the account would have been liquidated without it; else 0."""
    arrivals = [flow for flow in account.flows if flow.order == ARRIVING]
    if not arrivals:
        return 0.0

    # The account again, without what arrived.
    setup = account.setup
    others: list[Flow] = [flow for flow in account.flows if flow.order != ARRIVING]
    feed = make_room(setup, others)
    alone = setup._replace(inputs=setup.inputs._replace(feed=feed))
    outcome = run_account(alone, is_compiled=account.choice == "compiled", progress=None)
    without = list_liquidations(outcome.entries)
    if not without:
        return 0.0

    first = without[0]
    if any(bar <= first for bar in list_liquidations(result.entries)):
        return 0.0
    return math.fsum(flow.amount for flow in arrivals if flow.bar <= first)

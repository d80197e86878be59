"""Transfers between the accounts of a book: asked, cut, on their way, arrived."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from backtest import core
from backtest.accounts.simulated_account import ARRIVING, LEAVING, SimulatedAccount
from backtest.core import IntArray

CUT_BY_AVAILABLE = "available"
CUT_BY_FEE = "fee"
NO_LATER_BAR = "no later bar"


@dataclass
class Transfer:
    """One transfer. Times are UTC ns; bars are those of the sender and of the receiver.

    ``cut`` says why less was sent than asked, empty if it was all. What was sent and has no
    ``arrival_bar`` stays on its way: the receiver has no later bar.
    """

    sender: str
    receiver: str
    asked_at: int
    asked: float
    departure_bar: int | None = None
    arrival_bar: int | None = None
    sent: float = 0.0
    arrived: float = 0.0
    cut: str = ""


class TransferQueue:
    """Moves money between simulated accounts, in the order of the times at which it leaves.

    ``log`` has all transfers in the order in which they were asked for.
    """

    def __init__(self, accounts: Mapping[str, SimulatedAccount], *, delay: int, fee: float) -> None:
        self.accounts = accounts
        self.delay = delay
        self.fee = fee
        self.log: list[Transfer] = []
        self.waiting: dict[int, list[Transfer]] = defaultdict(list)
        self.departures: list[int] = []
        self.travelling: list[Transfer] = []

    def order(self, time: int, answer: Mapping[tuple[str, str], float]) -> None:
        """Take what a rule asked for at a wake: it leaves at the sender's next open."""
        for (sender, receiver), amount in answer.items():
            transfer = Transfer(sender, receiver, time, amount)
            self.log.append(transfer)

            account = self.accounts[sender]
            bar = account.find_open(time)
            if bar is None:
                transfer.cut = NO_LATER_BAR
                continue

            transfer.departure_bar = bar
            leaves_at = int(account.opens[bar])
            if leaves_at not in self.waiting:
                heapq.heappush(self.departures, leaves_at)
            self.waiting[leaves_at].append(transfer)

    def depart_before(self, time: float) -> None:
        """Let everything leave whose sender's open lies before a time."""
        while self.departures and self.departures[0] < time:
            leaves_at = heapq.heappop(self.departures)
            by_sender: dict[str, list[Transfer]] = defaultdict(list)
            for transfer in self.waiting.pop(leaves_at):
                by_sender[transfer.sender].append(transfer)
            for sender, transfers in by_sender.items():
                self.send(self.accounts[sender], leaves_at, transfers)

    def send(self, account: SimulatedAccount, leaves_at: int, transfers: list[Transfer]) -> None:
        """Let the transfers of one account leave at its open, and enter them at their receivers.

        What is available then is shared in proportion to what was asked.
        """
        bar: Any = transfers[0].departure_bar
        account.advance(bar)
        available = account.find_withdrawable(bar)
        asked = math.fsum(transfer.asked for transfer in transfers)
        share = 1.0
        if asked > available:
            share = available / asked

        # What the fee would eat whole stays where it is.
        for transfer in transfers:
            amount = share * transfer.asked
            transfer.cut = CUT_BY_AVAILABLE if share < 1.0 else ""
            if amount <= self.fee:
                transfer.cut = transfer.cut or CUT_BY_FEE
                continue
            transfer.sent = amount
            transfer.arrived = amount - self.fee

        sent = math.fsum(transfer.sent for transfer in transfers)
        if sent == 0.0:
            return

        # One entry, at most what is available: the bar takes it out whole.
        account.enter(bar, LEAVING, -min(sent, available))
        for transfer in transfers:
            if transfer.sent > 0.0:
                self.deliver(transfer, leaves_at + self.delay)

    def deliver(self, transfer: Transfer, time: int) -> None:
        """Enter a transfer at the receiver's first open from a time on."""
        receiver = self.accounts[transfer.receiver]
        bar = receiver.find_open(time)
        self.travelling.append(transfer)
        if bar is not None:
            transfer.arrival_bar = bar
            receiver.enter(bar, ARRIVING, transfer.arrived)

    def count_ordered(self) -> dict[str, float]:
        """Return what was asked for each account and has not left its sender."""
        ordered = dict.fromkeys(self.accounts, 0.0)
        for transfers in self.waiting.values():
            for transfer in transfers:
                ordered[transfer.receiver] += transfer.asked
        return ordered

    def count_in_transit(self) -> dict[str, float]:
        """Return what is on its way to each account: in no simulated bar yet.

        Transfers that have arrived leave the list of those under way.
        """
        under_way = []
        amounts: dict[str, list[float]] = {name: [] for name in self.accounts}
        for transfer in self.travelling:
            if not self.has_arrived(transfer):
                under_way.append(transfer)
                amounts[transfer.receiver].append(transfer.arrived)

        self.travelling = under_way
        return {name: math.fsum(parts) for name, parts in amounts.items()}

    def has_arrived(self, transfer: Transfer) -> bool:
        """Return whether the receiver's bar in which a transfer arrives is simulated."""
        if transfer.arrival_bar is None:
            return False
        return transfer.arrival_bar < self.accounts[transfer.receiver].t

    def tabulate(self) -> pd.DataFrame:
        """Return the log as a table; see :class:`backtest.accounts.AccountsResult`."""
        rows = [self.describe(transfer) for transfer in self.log]
        table = pd.DataFrame(rows, columns=[*COLUMNS])
        for name, kind in COLUMNS.items():
            if kind == "time":
                table[name] = core.utc_index(table[name].to_numpy(dtype=np.int64))
            else:
                table[name] = table[name].astype(kind)
        return table

    def describe(self, transfer: Transfer) -> dict[str, Any]:
        """Return the row of a transfer; what was not sent has no time at which it left."""
        left_at = NO_TIME
        fee = 0.0
        if transfer.sent > 0.0:
            left_at = self.find_time(transfer.sender, transfer.departure_bar)
            fee = self.fee

        arrived = 0.0
        if transfer.arrival_bar is not None:
            arrived = transfer.arrived

        return {
            "asked_at": transfer.asked_at,
            "sender": transfer.sender,
            "receiver": transfer.receiver,
            "asked": transfer.asked,
            "left_at": left_at,
            "sent": transfer.sent,
            "cut": transfer.cut,
            "fee": fee,
            "arrived_at": self.find_time(transfer.receiver, transfer.arrival_bar),
            "arrived": arrived,
        }

    def find_time(self, name: str, bar: int | None) -> int:
        """Return the open of a bar of an account, UTC ns; that of no time without a bar."""
        if bar is None:
            return NO_TIME
        opens: IntArray = self.accounts[name].opens
        return int(opens[bar])


NO_TIME = int(np.iinfo(np.int64).min)
"""NaT in ns."""
COLUMNS: dict[str, Any] = {
    "asked_at": "time",
    "sender": "str",
    "receiver": "str",
    "asked": "float64",
    "left_at": "time",
    "sent": "float64",
    "cut": "str",
    "fee": "float64",
    "arrived_at": "time",
    "arrived": "float64",
}
"""Columns of the table of transfers, and what they hold."""

"""The record of a run: what the bar loop writes at each close, by name."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from backtest.account.money import OPTION_TERMS, POSITION_TERMS, TERMS

if TYPE_CHECKING:
    from backtest.account import TradedDays
    from backtest.account.events import Entries
    from backtest.core import FloatArray
    from backtest.results.tally import Tally


OF_ACCOUNT = ("equity", "cash", "reserve", "unit", "overlay")
OF_POSITION = ("quantity", "entry", "margin", "target")
"""What a record has before the terms of money."""

if TYPE_CHECKING:

    class Fields(tuple[FloatArray, ...]):
        _fields: tuple[str, ...]

        def __new__(cls, *arrays: FloatArray, **named: FloatArray) -> Self: ...
        def __getattr__(self, name: str) -> FloatArray: ...
        def _asdict(self) -> dict[str, FloatArray]: ...
        def _replace(self, **named: FloatArray) -> Self: ...

    AccountFields = Fields
    PositionFields = Fields
    OptionFields = Fields
else:
    AccountFields = namedtuple("AccountFields", (*OF_ACCOUNT, *TERMS, "top_up"))
    AccountFields.__doc__ = "The account at each close, arrays of shape (n_bars,)."
    PositionFields = namedtuple("PositionFields", (*OF_POSITION, *POSITION_TERMS))
    PositionFields.__doc__ = "The positions at each close, arrays of shape (n_bars, n)."
    OptionFields = namedtuple("OptionFields", ("quantity", "value", *OPTION_TERMS))
    OptionFields.__doc__ = "The options at each close, arrays of shape (n_bars, K), or of no width."


class HeldAtCloses(NamedTuple):
    """What an account holds at some closes: money of shape (n_bars,), and its contracts.

    Of shape (n_bars, n): quantities, entries and margins of positions; (n_bars, C): amounts of
    collateral; (n_bars, K): quantities of options.
    """

    cash: FloatArray
    quantity: FloatArray
    entry: FloatArray
    margin: FloatArray
    amounts: FloatArray
    options: FloatArray


class Closes(NamedTuple):
    """What follows from the account and the market at each close.

    Of shape (n_bars,): the settlement ``balance`` B, and of the cross positions the ``backing`` M
    and the ``requirement`` (times the level); the ``collateral`` in full and at its rate; the
    ``initial`` margin of all positions; the ``distance`` D, and ``collateral_share``, the part of
    the collateral in the requirement R. Of shape (n_bars, n): ``share``, the Euler share of a
    position in R, ``own``, its part of the ``requirement`` or, isolated, its own, ``withheld``, the
    value of its options that is no backing, ``failure``, the u at which its margin fails, the
    others frozen, and ``posted``, its initial margin.
    """

    balance: FloatArray
    backing: FloatArray
    requirement: FloatArray
    collateral: FloatArray
    collateral_at_rate: FloatArray
    initial: FloatArray
    distance: FloatArray
    collateral_share: FloatArray
    share: FloatArray
    own: FloatArray
    withheld: FloatArray
    failure: FloatArray
    posted: FloatArray


class Record(NamedTuple):
    """What the loop wrote at each close, and what follows from it."""

    account: AccountFields
    positions: PositionFields
    closes: Closes | None = None
    options: OptionFields | None = None

    @property
    def n_bars(self) -> int:
        return len(self.account.equity)

    @property
    def values(self) -> FloatArray:
        """All fields side by side, of shape (n_bars, columns)."""
        columns: list[FloatArray] = []
        for part in (self.account, self.positions, self.closes, self.options):
            if part is not None:
                columns += [values.reshape(self.n_bars, -1) for values in part]
        return np.concatenate(columns, axis=1)

    @property
    def held(self) -> dict[str, FloatArray]:
        return self.positions._asdict()

    def of_one(self) -> dict[str, FloatArray]:
        """Return the fields of the account and of its only position, of shape (n_bars,)."""
        position = {name: values[:, 0] for name, values in self.held.items()}
        return {**position, **self.account._asdict()}

    def take(self, rows: slice) -> Record:
        """Return the record of some bars."""

        def take(fields: Any) -> Any:
            if fields is None:
                return None
            part = [values[rows] for values in fields]
            return type(fields)._make(part)

        return Record(
            account=take(self.account),
            positions=take(self.positions),
            closes=take(self.closes),
            options=take(self.options),
        )


class TermRows(NamedTuple):
    """The terms of a record as rows: (terms, n_bars), and of positions (terms, n_bars, n)."""

    account: FloatArray
    positions: FloatArray


def new_record(
    n_bars: int,
    n: int,
    n_options: int = 0,
) -> tuple[Record, TermRows]:
    """Return a record of zeros, and its terms of money as rows; both are views of the same arrays.

    What is written into the rows stands in the record too. Of a single position without options
    the terms are those of the account: both have one array, so that it is written once. Bad debt
    has two.
    """
    of_account = np.zeros((len(AccountFields._fields), n_bars))
    of_positions = np.zeros((len(PositionFields._fields), n_bars, n))
    of_options = np.zeros((len(OptionFields._fields), n_bars, n_options))
    account = AccountFields(*of_account)
    positions = PositionFields(*of_positions)
    is_alone = n == 1 and n_options == 0
    if is_alone:
        shared = {}
        for name, values in account._asdict().items():
            if name in PositionFields._fields and name != "bad_debt":
                shared[name] = values[:, None]
        positions = positions._replace(**shared)

    # The terms of money come after the other fields.
    record = Record(account, positions, options=OptionFields(*of_options))
    rows = TermRows(
        account=of_account[len(OF_ACCOUNT) :],
        positions=of_positions[len(OF_POSITION) :],
    )
    return record, rows


def new_closes(n_bars: int, n: int) -> Closes:
    """Return zeros for what follows at closes; the last five are by position."""
    of_account = np.zeros((len(Closes._fields) - 5, n_bars))
    of_positions = np.zeros((5, n_bars, n))
    return Closes(*of_account, *of_positions)


class Outcome(NamedTuple):
    """Where a loop ended, what it recorded, and what it has accumulated.

    ``memory`` is that of the policies, ``cuts`` what limits took of their targets. ``is_compiled``
    says whether the loop was. ``legs`` are those of policies that trade options, by the number of
    the contract; ``hedged`` are the instruments that these policies ordered in contracts.
    """

    state: Any
    tally: Tally
    memory: Any
    record: Record
    entries: Entries
    plain_because: str
    cuts: FloatArray
    traded: TradedDays | None
    is_compiled: bool = False
    legs: Mapping[int, str] = MappingProxyType({})
    hedged: frozenset[int] = frozenset()

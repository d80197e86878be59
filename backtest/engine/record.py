"""The record of a run: what the bar loop writes at each close, by name.

Both loops write the same fields. Their arrays lie one after another, a field at a time, so that
memory of fields that stay 0 is never touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from backtest.base.units import FloatArray
    from backtest.engine.fee_days import TradedDays
    from backtest.measures.tally import Tally


class AccountFields(NamedTuple):
    """The account at each close, arrays of shape (n_bars,).

    ``price_pnl`` to ``performance_fee`` are the money of the bar; ``flows`` include top-ups, two
    belong to the collateral, and the last two are fees of a fund. ``overlay`` is the leverage that
    the overlay decided.
    """

    equity: FloatArray
    cash: FloatArray
    reserve: FloatArray
    unit: FloatArray
    overlay: FloatArray
    price_pnl: FloatArray
    fees: FloatArray
    slippage: FloatArray
    impact: FloatArray
    funding: FloatArray
    interest: FloatArray
    liquidation_loss: FloatArray
    flows: FloatArray
    top_up: FloatArray
    bad_debt: FloatArray
    collateral_pnl: FloatArray
    conversion: FloatArray
    management_fee: FloatArray
    performance_fee: FloatArray


class PositionFields(NamedTuple):
    """The positions at each close, arrays of shape (n_bars, n).

    ``entry`` is in u, ``target`` the leverage that was decided, and ``price_pnl`` to ``bad_debt``
    are the money of the bar.
    """

    quantity: FloatArray
    entry: FloatArray
    margin: FloatArray
    target: FloatArray
    price_pnl: FloatArray
    fees: FloatArray
    slippage: FloatArray
    impact: FloatArray
    funding: FloatArray
    liquidation_loss: FloatArray
    bad_debt: FloatArray


class Closes(NamedTuple):
    """What follows from the account and the market at each close.

    Of shape (n_bars,): the settlement ``balance`` B, and of the cross positions the ``backing`` M
    and the ``requirement`` (times the level); the ``collateral`` in full and at its rate; and the
    ``initial`` margin of all positions. Of shape (n_bars, n): ``share``, the part of a position in
    the requirement, and ``failure``, the u at which its margin fails, the others frozen.
    """

    balance: FloatArray
    backing: FloatArray
    requirement: FloatArray
    collateral: FloatArray
    collateral_at_rate: FloatArray
    initial: FloatArray
    share: FloatArray
    failure: FloatArray


class Record(NamedTuple):
    """The record of a run; ``closes`` is None if they are computed afterwards."""

    account: AccountFields
    positions: PositionFields
    closes: Closes | None = None

    @property
    def n_bars(self) -> int:
        """The number of bars."""
        return len(self.account.equity)

    @property
    def values(self) -> FloatArray:
        """All fields side by side, of shape (n_bars, columns)."""
        parts = [*self.account, *self.positions, *(self.closes or ())]
        return np.concatenate([each.reshape(self.n_bars, -1) for each in parts], axis=1)

    def of_one(self) -> dict[str, FloatArray]:
        """Return the fields of the account and of its only position, of shape (n_bars,)."""
        own = {name: each[:, 0] for name, each in self.positions._asdict().items()}
        return {**own, **self.account._asdict()}

    def take(self, rows: slice) -> Record:
        """Return the record of some bars."""
        closes = None if self.closes is None else Closes(*(each[rows] for each in self.closes))
        return Record(
            AccountFields(*(each[rows] for each in self.account)),
            PositionFields(*(each[rows] for each in self.positions)),
            closes,
        )


def new_record(n_bars: int, n: int, *, has_closes: bool) -> Record:
    """Return an empty record of several positions."""
    account = AccountFields(*np.zeros((len(AccountFields._fields), n_bars)))
    positions = PositionFields(*np.zeros((len(PositionFields._fields), n_bars, n)))
    if not has_closes:
        return Record(account, positions)
    of_account = np.zeros((len(Closes._fields) - 2, n_bars))
    return Record(account, positions, Closes(*of_account, *np.zeros((2, n_bars, n))))


def new_record_of_one(n_bars: int) -> Record:
    """Return an empty record of one position, whose money is that of the account."""
    own = [name for name in PositionFields._fields if name not in AccountFields._fields]
    names = (*AccountFields._fields, *own)
    columns = dict(zip(names, np.zeros((len(names), n_bars)), strict=True))
    columns["overlay"][:] = 1.0
    return Record(
        AccountFields(**{name: columns[name] for name in AccountFields._fields}),
        PositionFields(**{name: columns[name][:, None] for name in PositionFields._fields}),
    )


def join_records(parts: Sequence[Record]) -> Record:
    """Return records one after another."""
    accounts, positions, closes = zip(*parts, strict=True)
    return Record(
        AccountFields(*map(np.concatenate, zip(*accounts, strict=True))),
        PositionFields(*map(np.concatenate, zip(*positions, strict=True))),
        None if closes[0] is None else Closes(*map(np.concatenate, zip(*closes, strict=True))),
    )


class Outcome(NamedTuple):
    """Where a loop ended, what it recorded, and what it has accumulated.

    ``memory`` is that of the policies. ``charged`` has the fee rate of ordinary trades from some
    bars on, of one position.
    """

    state: Any
    tally: Tally
    memory: Any
    record: Record
    entries: FloatArray
    plain_because: str
    traded: TradedDays | None
    charged: tuple[tuple[int, float], ...] = ()

    def of_account(self, name: str) -> FloatArray:
        """Return a field of the account at each close, of shape (n_bars,)."""
        return np.asarray(getattr(self.record.account, name))

    def of_positions(self, name: str) -> FloatArray:
        """Return a field of the positions at each close, of shape (n_bars, n)."""
        return np.asarray(getattr(self.record.positions, name))


def join_outcomes(outcomes: Sequence[Outcome]) -> Outcome:
    """Return one outcome of an account that went on from one to the next."""
    if len(outcomes) == 1:
        return outcomes[0]
    return outcomes[-1]._replace(
        record=join_records([each.record for each in outcomes]),
        entries=np.concatenate([each.entries for each in outcomes]),
        charged=tuple(pair for each in outcomes for pair in each.charged),
        plain_because=outcomes[0].plain_because,
    )

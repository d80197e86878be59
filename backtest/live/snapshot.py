"""``AccountSnapshot``: what an account owns at one moment, as an exchange or a run reports it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pandas as pd

from backtest.base import (
    Choice,
    Declaration,
    Fault,
    Flag,
    FrozenTable,
    Number,
    ParameterError,
    Value,
    checked,
    declared,
    describe_fault,
    read_time,
)

if TYPE_CHECKING:
    from backtest.base import Faults
    from backtest.engine import Result

SIGNED, NOT_NEGATIVE = Number(), Number(0.0)
BARS = Number(0.0, may_be_infinite=True)
MONEY = ("cash", "wallet", "equity")


class Moment(Declaration):
    kind = pd.Timestamp

    def read(self, value: Any) -> pd.Timestamp | None:
        return None if value is None else pd.Timestamp(read_time(value), tz="UTC")


@dataclass(frozen=True)
class ByName(Declaration):
    read_one: Callable[[str, Any], Any]

    def read(self, value: Any) -> FrozenTable:
        if not isinstance(value, Mapping):
            raise Fault("must be a table by name")
        return FrozenTable({str(name): self.read_one(str(name), x) for name, x in value.items()})


class Snapshot(Value):
    """A value with times, which are written as text."""

    def to_dict(self) -> dict[str, Any]:
        """Return what is known as data."""
        return {
            name: each.isoformat() if isinstance(each, pd.Timestamp) else each
            for name, each in super().to_dict().items()
        }


@declared(kw_only=True)
class HeldPosition(Snapshot):
    quantity: Annotated[float, SIGNED]
    entry: Annotated[float | None, NOT_NEGATIVE] = None
    margin: Annotated[float, SIGNED] = 0.0
    mode: Annotated[str | None, Choice("cross", "isolated")] = None
    best_price: Annotated[float | None, NOT_NEGATIVE] = None
    opened: Annotated[Any, Moment()] = None
    bars_since_liquidation: Annotated[float | None, BARS] = None
    bars_since_stop: Annotated[float | None, BARS] = None
    overlay: Annotated[float | None, SIGNED] = None
    halted: Annotated[bool, Flag()] = False
    venue_leverage: Annotated[float | None, NOT_NEGATIVE] = None
    entry_value: Annotated[float | None, SIGNED] = None
    best_value: Annotated[float | None, SIGNED] = None

    def faults(self) -> Faults:
        """Yield what an open position lacks."""
        if self.entry_value is not None:
            return
        if self.quantity != 0.0 and self.entry is None:
            yield "entry", "must be the average entry price of an open position"
        if self.entry is not None and not self.entry > 0.0:
            yield "entry", "must be over 0"


def read_position(name: str, given: Any) -> HeldPosition:
    if isinstance(given, HeldPosition):
        return given
    return HeldPosition.from_dict(given, where=f"positions.{name}")


def read_amount(name: str, given: Any) -> float:
    return float(SIGNED.check(f"collateral.{name}", given))


@declared(kw_only=True)
class AccountSnapshot(Snapshot):
    """What an account owns at one moment: the state that :func:`backtest.decide` starts from.

    Exactly one of ``cash``, ``wallet`` and ``equity`` is given. All money is in the settlement
    currency.

    Parameters
    ----------
    equity : float, optional
        Value of the account with unrealized profit, without the reserve.
    wallet : float, optional
        Realized money without unrealized profit, as exchanges report a wallet balance; in isolated
        margin without what is posted.
    cash : float, optional
        Cash after paying for cross positions, which runs record.
    positions : mapping of str to HeldPosition or mapping
        Open positions by instrument.
    time : str or Timestamp, optional
        When the account was read, in UTC.
    reserve : float, optional
        Money outside the account for top-ups.
    peak_equity : float, optional
        Highest equity so far, without flows.
    unit, unit_peak : float, optional
        Unit value and its peak, instead of ``peak_equity``; runs write them to keep all bits.
    highest_equity : float, optional
        Highest equity at a close since the start or the last equity stop.
    paid_in : float, optional
        Capital paid in, for ``ruin_at``.
    bars_since_liquidation, bars_since_stop : float, optional
        Bars since these events of the account; infinite: never.
    started : str or Timestamp, optional
        When the account began.
    overlay : float, optional
        Leverage that the overlay returned last.
    collateral : mapping of str to float, optional
        Amounts of collateral by name. Default: those of the account's terms.
    halted : bool
        Whether a liquidation or ruin ended the account, so that nothing is decided.
    traded_30d : float, optional
        Notional traded in the last 30 days, which chooses fee tiers.

    Raises
    ------
    ParameterError
        If a field is unknown, missing or of the wrong kind.

    Examples
    --------
    >>> import backtest as bt
    >>> held = {"BTCUSDT": {"quantity": 0.5, "entry": 30_000.0}}
    >>> bt.AccountSnapshot(wallet=10_000.0, positions=held).positions["BTCUSDT"].quantity
    0.5
    """

    cash: Annotated[float | None, SIGNED] = None
    wallet: Annotated[float | None, SIGNED] = None
    equity: Annotated[float | None, SIGNED] = None
    positions: Annotated[Mapping[str, HeldPosition], ByName(read_position)] = FrozenTable({})
    time: Annotated[Any, Moment()] = None
    reserve: Annotated[float | None, NOT_NEGATIVE] = None
    peak_equity: Annotated[float | None, NOT_NEGATIVE] = None
    unit: Annotated[float | None, NOT_NEGATIVE] = None
    unit_peak: Annotated[float | None, NOT_NEGATIVE] = None
    highest_equity: Annotated[float | None, NOT_NEGATIVE] = None
    paid_in: Annotated[float | None, NOT_NEGATIVE] = None
    bars_since_liquidation: Annotated[float | None, BARS] = None
    bars_since_stop: Annotated[float | None, BARS] = None
    started: Annotated[Any, Moment()] = None
    overlay: Annotated[float | None, SIGNED] = None
    collateral: Annotated[Mapping[str, float] | None, ByName(read_amount)] = None
    halted: Annotated[bool, Flag()] = False
    traded_30d: Annotated[float | None, NOT_NEGATIVE] = None

    def faults(self) -> Faults:
        """Yield what contradicts itself: the money, or the unit and its peak."""
        given = [name for name in MONEY if getattr(self, name) is not None]
        if not given:
            yield (
                "equity",
                "must be given (with unrealized profit), or wallet (without it) or cash",
            )
        if given[1:]:
            yield given[1], f"must be left out beside {given[0]}"
        if (self.unit is None) != (self.unit_peak is None):
            yield "unit", "must be given together with unit_peak"
        elif self.unit is not None and self.unit > (self.unit_peak or 0.0):
            yield "unit", f"must be at most unit_peak, {self.unit_peak:g}"

    @classmethod
    @checked
    def load(cls, path: str | Path) -> AccountSnapshot:
        """Return the snapshot in a JSON file."""
        file = Path(path)
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ParameterError(
                f"a snapshot must be a readable JSON file, got {describe_fault(error)} ({file})"
            ) from error
        return cls.from_dict(data, where=file.name)

    # --------------------------------------------------------------------------- sources

    @classmethod
    @checked
    def from_result(cls, result: Result) -> AccountSnapshot:
        """Return what the account of a run owns at its last close.

        Open margin calls are left out; go on from the result itself to keep them.
        """
        from backtest.live.snapshot_of_run import read_snapshot  # noqa: PLC0415 - it needs the engine

        return cls(**read_snapshot(result))

    @classmethod
    @checked
    def from_ccxt(
        cls,
        balance: Mapping[str, Any],
        positions: Sequence[Mapping[str, Any]],
        *,
        currency: str = "USDT",
        total: str = "equity",
        names: Mapping[str, str] | None = None,
        **known: Any,
    ) -> AccountSnapshot:
        """Return the snapshot in what ccxt's ``fetch_balance`` and ``fetch_positions`` return.

        Parameters
        ----------
        balance, positions : mapping, sequence of mappings
            The unified structures of ccxt.
        currency : str
            Settlement currency.
        total : str
            What the venue's ``total`` is: ``"equity"`` with unrealized profit (Binance, Bybit and
            OKX derivatives), or ``"wallet"``.
        names : mapping of str to str, optional
            Our instruments by symbol of ccxt. Default: ``"BTC/USDT:USDT"`` is ``"BTCUSDT"``.
        **known
            Further fields of the snapshot, such as ``peak_equity``.
        """
        from backtest.live.snapshot_of_run import read_ccxt  # noqa: PLC0415 - only there

        return cls(**(read_ccxt(balance, positions, currency, total, names or {}) | known))

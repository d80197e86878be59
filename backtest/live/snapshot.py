"""``AccountSnapshot``: what an account owns at one moment, as an exchange or a run reports it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pandas as pd

from backtest.base import (
    Number,
    ParameterError,
    check_number,
    checked,
    describe_fault,
    did_you_mean,
    from_plain,
    repr_plain,
    to_nanoseconds,
    to_plain,
)

if TYPE_CHECKING:
    from backtest.engine import Result

MONEY = ("cash", "wallet", "equity")
SIGNED = ("cash", "wallet", "equity", "quantity", "entry_value", "best_value", "margin", "overlay")
ENDLESS = ("bars_since_liquidation", "bars_since_stop")
TIMES = ("time", "started", "opened")


@dataclass(frozen=True, kw_only=True)
class HeldPosition:
    quantity: float
    entry: float | None = None
    margin: float = 0.0
    mode: str | None = None
    best_price: float | None = None
    opened: Any = None
    bars_since_liquidation: float | None = None
    bars_since_stop: float | None = None
    overlay: float | None = None
    halted: bool = False
    venue_leverage: float | None = None
    entry_value: float | None = None
    best_value: float | None = None


@dataclass(frozen=True, kw_only=True)
class AccountSnapshot:
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

    cash: float | None = None
    wallet: float | None = None
    equity: float | None = None
    positions: Mapping[str, HeldPosition] = field(default_factory=dict)
    time: Any = None
    reserve: float | None = None
    peak_equity: float | None = None
    unit: float | None = None
    unit_peak: float | None = None
    highest_equity: float | None = None
    paid_in: float | None = None
    bars_since_liquidation: float | None = None
    bars_since_stop: float | None = None
    started: Any = None
    overlay: float | None = None
    collateral: Mapping[str, float] | None = None
    halted: bool = False
    traded_30d: float | None = None

    def __post_init__(self) -> None:
        read_times(self)
        check_fields(self)
        if not isinstance(self.positions, Mapping):
            raise_kind("positions", "a mapping by instrument", self.positions)
        held = {str(name): read_position(name, each) for name, each in self.positions.items()}
        object.__setattr__(self, "positions", held)
        if self.collateral is not None:
            object.__setattr__(self, "collateral", read_amounts(self.collateral))
        check_money(self)

    # --------------------------------------------------------------------------- files

    def to_dict(self) -> dict[str, Any]:
        """Return the snapshot as data; fields that are not known are left out."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        found |= {name: stamp.isoformat() for name in ("time", "started") if (stamp := found[name])}
        found["positions"] = {name: drop_none(write_held(x)) for name, x in self.positions.items()}
        plain: dict[str, Any] = to_plain(drop_none(found))
        return plain

    @classmethod
    @checked
    def from_dict(cls, data: Mapping[str, Any]) -> AccountSnapshot:
        """Return the snapshot that :meth:`to_dict` wrote."""
        check_names(data, [each.name for each in fields(cls)])
        return cls(**from_plain(dict(data)))

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
        return cls.from_dict(data)

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


def drop_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def write_held(held: HeldPosition) -> dict[str, Any]:
    opened = None if held.opened is None else held.opened.isoformat()
    return {**vars(held), "opened": opened}


def read_position(name: object, given: Any) -> HeldPosition:
    place = f"positions.{name}."
    if isinstance(given, Mapping):
        check_names(given, [each.name for each in fields(HeldPosition)], place)
        if given.get("quantity") is None:
            raise_kind(f"{place}quantity", "the signed contracts", None)
        given = HeldPosition(**given)
    if not isinstance(given, HeldPosition):
        raise_kind(place[:-1], "a mapping with quantity and entry", given)
    if given.mode not in (None, "cross", "isolated"):
        raise_kind(f"{place}mode", "'cross' or 'isolated'", given.mode)
    read_times(given)
    check_fields(given, place)
    if given.quantity != 0.0 and given.entry is None and given.entry_value is None:
        raise_kind(f"{place}entry", "the average entry price of an open position", None)
    if given.entry is not None and given.entry_value is None and not given.entry > 0.0:
        raise_kind(f"{place}entry", "over 0", given.entry)
    return given


def read_amounts(given: Any) -> dict[str, float]:
    if not isinstance(given, Mapping):
        raise_kind("collateral", "a mapping of amounts by name", given)
    return {str(n): float(check_number(f"collateral.{n}", x)) for n, x in given.items()}


def read_times(record: Any) -> None:
    for name in TIMES:
        if getattr(record, name, None) is not None:
            stamp = to_nanoseconds(getattr(record, name))
            object.__setattr__(record, name, pd.Timestamp(stamp, tz="UTC"))


def check_fields(record: Any, place: str = "") -> None:
    for each in fields(record):
        value = getattr(record, each.name)
        if each.name == "halted":
            if not isinstance(value, bool):
                raise_kind(f"{place}halted", "true or false", value)
            continue
        if value is None or each.name in ("positions", "collateral", "mode", *TIMES):
            continue
        if isinstance(value, str) and value in ("inf", "nan"):
            value = float(value)
        least = -math.inf if each.name in SIGNED else 0.0
        kind = Number(least, may_be_infinite=each.name in ENDLESS)
        checked = kind.check(f"{place}{each.name}", value)
        object.__setattr__(record, each.name, float(checked))


def check_names(given: Mapping[str, Any], known: Sequence[str], place: str = "") -> None:
    for name in given:
        if name not in known:
            raise ParameterError(
                f"{place}{name} is not a field of a snapshot{did_you_mean(name, known)}"
            )


def check_money(snapshot: AccountSnapshot) -> None:
    given = [name for name in MONEY if getattr(snapshot, name) is not None]
    if len(given) != 1:
        raise ParameterError(
            "a snapshot has exactly one of cash, wallet (without unrealized profit) and equity "
            f"(with it), got {' and '.join(given) or 'none'}"
        )
    if (snapshot.unit is None) != (snapshot.unit_peak is None):
        raise_kind("unit", "given together with unit_peak", snapshot.unit)
    highest = snapshot.unit_peak or 0.0
    if snapshot.unit is not None and not 0.0 <= snapshot.unit <= highest:
        raise_kind("unit", f"over 0 and at most unit_peak, {snapshot.unit_peak:g}", snapshot.unit)


def raise_kind(name: str, rule: str, value: object) -> NoReturn:
    raise ParameterError(f"{name} must be {rule}, got {repr_plain(value)}")

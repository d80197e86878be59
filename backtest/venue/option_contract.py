"""European options as contracts, and what is held of them at a price."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pandas as pd

from backtest.base import (
    Choice,
    Number,
    ParameterError,
    Text,
    Value,
    checked,
    repr_plain,
    to_nanoseconds,
)
from backtest.base.fields import NOT_NEGATIVE, POSITIVE

NAME = re.compile(r"([A-Z0-9]+)(_USDC|_USDT)?-(\d{1,2}[A-Z]{3}\d{2})-(\d+(?:[.d]\d+)?)-([CP])")
SAID = ("kind", "strike", "expiry", "settlement", "underlying")
YEAR = 365 * 86_400 * 10**9


@dataclass(frozen=True, eq=False, repr=False)
class Option(Value):
    """A European option.

    Parameters
    ----------
    name : str, optional
        A name as Deribit's, ``"BTC-26JUN26-60000-P"``, which says all the rest: it expires at 08:00
        UTC and settles in the coin, with ``"BTC_USDC-..."`` in cash. Default: made of the rest.
    kind : str
        ``"call"`` or ``"put"``.
    strike : float
        In the quote currency.
    expiry : str or Timestamp
        In UTC.
    settlement : str
        ``"cash"`` (in the quote currency) or ``"coin"`` (in the underlying).
    style : str
        ``"european"``; American options are not modeled.
    size : float
        Units of the underlying per contract: 100 of a stock option.
    underlying : str
        What it is an option on, such as ``"BTC"``.
    settlement_price : float, optional
        The price of the underlying at which the venue settled it, in the quote currency.
    spread : float, optional
        From bid to ask in implied volatility, in the place of that of the venue's costs.
    lot : float
        The step of quantities: orders of policies are truncated to it. 0: any quantity.
    """

    name: Annotated[str | None, Text()] = None
    kind: Annotated[str | None, Choice("call", "put")] = None
    strike: Annotated[float | None, POSITIVE] = None
    expiry: str | None = None
    settlement: Annotated[str | None, Choice("cash", "coin")] = None
    style: Annotated[str, Choice("european")] = "european"
    size: Annotated[float, POSITIVE] = 1.0
    underlying: Annotated[str | None, Text()] = None
    settlement_price: Annotated[float | None, POSITIVE] = None
    spread: Annotated[float | None, NOT_NEGATIVE] = None
    lot: Annotated[float, NOT_NEGATIVE] = 0.0

    def _check_rules(self) -> None:
        found = read_name(self.name) if self.name is not None else {}
        for field, value in found.items():
            given = getattr(self, field)
            if given is not None and not is_same(field, given, value):
                raise ParameterError(
                    f"{field} must be what the name says, {value!r}, got {given!r}",
                    where=f"Option {self.name!r}",
                    cure=f"leave {field} out, or leave the name out",
                )
        if not found:
            self._set_fields(settlement=self.settlement or "cash")
        self._set_fields(**found)
        self._check_complete()
        self._set_fields(expiry=format_day(self.expiry))
        if self.name is None:
            self._set_fields(name=self.make_name())

    def _check_complete(self) -> None:
        missing = [
            each
            for each in ("kind", "strike", "expiry", "underlying")
            if getattr(self, each) is None
        ]
        if missing:
            found = (
                "none" if self.name is None else f"{self.name!r} alone, which is not such a name"
            )
            raise ParameterError(
                f"an option needs a name as Deribit's, or {', '.join(missing)}, got {found}",
                where="Option",
                cure="give bt.Option('BTC-26JUN26-60000-P'), or bt.Option(kind='put', "
                "strike=60_000, expiry='2026-06-26 08:00', underlying='BTC')",
            )

    @classmethod
    @checked
    def grid(
        cls,
        underlying: str,
        *,
        strikes: Iterable[float],
        start: Any,
        end: Any,
        kinds: Iterable[str] = ("call", "put"),
        **terms: Any,
    ) -> dict[str, Option]:
        """Return the contracts of all strikes that expire at 08:00 UTC of each Friday, by name.

        Parameters
        ----------
        underlying : str
            What they are options on.
        strikes : iterable of float
            In the quote currency.
        start, end : time
            The first and the last time at which one may expire.
        kinds : iterable of str
            ``"call"``, ``"put"`` or both.
        **terms
            Further fields of an option, such as ``settlement`` and ``lot``.

        Examples
        --------
        >>> [*Option.grid("BTC", strikes=[50_000], start="2026-06-20", end="2026-07-04",
        ...               kinds=["put"], settlement="coin")]
        ['BTC-26JUN26-50000-P', 'BTC-3JUL26-50000-P']
        """
        first, last = format_day(start, "Option.grid, start"), format_day(end, "Option.grid, end")
        days = pd.date_range(pd.Timestamp(first).normalize(), last, freq="W-FRI")
        stamps = [day + pd.Timedelta(hours=8) for day in days]
        found = [
            cls(underlying=underlying, kind=kind, strike=strike, expiry=str(stamp), **terms)
            for stamp in stamps
            if pd.Timestamp(first) <= stamp <= pd.Timestamp(last)
            for strike in strikes
            for kind in kinds
        ]
        return {str(each.name): each for each in found}

    @property
    def sign(self) -> float:
        """1 for a call, -1 for a put."""
        return 1.0 if self.kind == "call" else -1.0

    @property
    def is_coin(self) -> bool:
        """Whether it settles in the underlying."""
        return self.settlement == "coin"

    def make_name(self) -> str:
        """Return a name as Deribit's if it says the rest, else one with the day as 2026-06-26."""
        day, end = (
            pd.Timestamp(str(self.expiry)),
            f"{self.strike:g}-{'C' if self.sign > 0 else 'P'}",
        )
        short = day.strftime("%d%b%y").upper().lstrip("0")
        name = f"{self.underlying}-{short}-{end}"
        is_said = {field: getattr(self, field) for field in SAID} == read_name(name)
        return name if is_said else f"{self.underlying}-{day:%Y-%m-%d}-{end}"

    def years_from(self, at: Any) -> float:
        """Return the time to expiry in years of 365 days, negative if it has expired."""
        expiry = to_nanoseconds(str(self.expiry), where="Option.expiry")
        return (expiry - to_nanoseconds(at, where="OptionPosition.at")) / YEAR


def read_name(name: str) -> dict[str, Any]:
    found = NAME.fullmatch(name)
    if found is None:
        return {}
    underlying, quote, day, strike, kind = found.groups()
    try:
        expiry = pd.to_datetime(day, format="%d%b%y") + pd.Timedelta(hours=8)
    except ValueError as error:
        raise ParameterError(
            f"the name of an option must have a day such as 26JUN26, got {day}",
            where=f"Option {name!r}",
            cure="correct the name, or give kind, strike, expiry and underlying",
        ) from error
    return {
        "kind": "call" if kind == "C" else "put",
        "strike": float(strike.replace("d", ".")),
        "expiry": format_day(expiry),
        "settlement": "cash" if quote else "coin",
        "underlying": underlying,
    }


def is_same(field: str, one: Any, other: Any) -> bool:
    return bool(format_day(one) == other if field == "expiry" else one == other)


def format_day(given: Any, where: str = "Option.expiry") -> str:
    stamp = pd.Timestamp(to_nanoseconds(given, where=where))
    return stamp.isoformat(" ")


@dataclass(frozen=True)
class OptionField:
    kind: ClassVar[type] = object

    def check(self, name: str, value: object, *, where: str) -> Option:
        if isinstance(value, str):
            return Option(value)
        if isinstance(value, Option):
            return value
        if isinstance(value, Mapping):
            return Option.from_dict(value, where=where)
        raise ParameterError(
            f"{name} must be an Option or a name, got {repr_plain(value)}",
            where=where,
            cure="give bt.Option('BTC-26JUN26-60000-P')",
        )


@dataclass(frozen=True, eq=False, repr=False)
class OptionPosition(Value):
    """Contracts of an option that are held, and the market that values them.

    Parameters
    ----------
    option : Option or str
        The contract, or its name.
    quantity : float
        Contracts; negative if sold.
    index : float
        Price of the underlying.
    at : str or Timestamp
        The time, in UTC, at or before the expiry.
    volatility : float, optional
        Implied volatility of this contract per sqrt(year). Portfolio margin needs it.
    forward : float, optional
        Forward price of the expiry. Default: the index.
    rate : float
        Continuous discount rate per year.
    mark : float, optional
        Mark price per unit of the underlying, in the settlement currency. Default: the Black-76
        price at the volatility.
    group : str, optional
        The group of the margin rule, or an instrument: what moves with it, and whose holding
        covers shorts. Default: the underlying.
    """

    option: Annotated[Any, OptionField()]
    quantity: Annotated[float, Number()]
    index: Annotated[float, POSITIVE]
    at: str
    volatility: Annotated[float | None, NOT_NEGATIVE] = None
    forward: Annotated[float | None, POSITIVE] = None
    rate: Annotated[float, Number(-10, 10)] = 0.0
    mark: Annotated[float | None, NOT_NEGATIVE] = None
    group: Annotated[str | None, Text()] = None

    def _check_rules(self) -> None:
        where = f"OptionPosition {self.option.name!r}"
        self._set_fields(at=format_day(self.at, "OptionPosition.at"))
        if self.option.years_from(self.at) < 0.0:
            raise ParameterError(
                f"at must not be after the expiry {self.option.expiry}, got {self.at}",
                where=where,
                cure="leave out options that have expired: their payoff is in the balance",
            )
        if self.volatility is None and self.mark is None:
            raise ParameterError(
                "an option needs a volatility or a mark, got neither",
                where=where,
                cure="give volatility=0.55 per sqrt(year), or mark= per unit of the underlying",
            )

    @property
    def years(self) -> float:
        """Time to expiry in years of 365 days."""
        return float(self.option.years_from(self.at))

    @property
    def label(self) -> str:
        """What it moves with: the group, or the underlying."""
        return str(self.group or self.option.underlying)

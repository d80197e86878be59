"""European options as contracts, what they cost to trade, and what is held of them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from backtest import core
from backtest.core import Choice, Declaration, Faults, Real, Text, Value, to_nanoseconds
from backtest.core.code_names import pd
from backtest.core.fields import COST, NOT_NEGATIVE, POSITIVE

NAME = re.compile(r"([A-Z0-9]+)(_USDC|_USDT)?-(\d{1,2}[A-Z]{3}\d{2})-(\d+(?:[.d]\d+)?)-([CP])")
SAID = ("kind", "strike", "expiry", "settlement", "underlying")
"""The fields that a name as Deribit's says."""
YEAR = 365 * 86_400 * 10**9


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
    lot : float, optional
        The step of quantities: orders of policies are truncated to it, schedules must keep it. 0:
        any quantity. Default: that of the venue's costs.
    """

    name: Annotated[str | None, Text()] = None
    kind: Annotated[str | None, Choice("call", "put")] = None
    strike: Annotated[float | None, POSITIVE] = None
    expiry: Annotated[str | None, core.Time()] = None
    settlement: Annotated[str | None, Choice("cash", "coin")] = None
    style: Annotated[str, Choice("european")] = "european"
    size: Annotated[float, POSITIVE] = 1.0
    underlying: Annotated[str | None, Text()] = None
    settlement_price: Annotated[float | None, POSITIVE] = None
    spread: Annotated[float | None, NOT_NEGATIVE] = None
    lot: Annotated[float | None, NOT_NEGATIVE] = None

    def faults(self) -> Faults:
        """Yield the fields that contradict the name of an option, and those that are missing."""
        said = read_name(self.name)
        for field, value in said.items():
            declared = getattr(self, field)
            if declared is not None and field == "expiry":
                declared = format_day(declared)
            if declared not in (None, value):
                yield field, f"must match the name {self.name!r}, {value!r}, or be left out"

        for field in ("kind", "strike", "expiry", "underlying"):
            if field not in said and getattr(self, field) is None:
                yield field, "is needed without a name as Deribit's, 'BTC-26JUN26-60000-P'"

    def _settle(self) -> None:
        said = read_name(self.name) or {"settlement": self.settlement or "cash"}
        self._set_fields(**said)
        self._set_fields(expiry=format_day(self.expiry))
        if self.name is None:
            self._set_fields(name=self._make_name())

    def _make_name(self) -> str:
        """Return the name of an option that was declared without one.

        It is short as Deribit's, BTC-26JUN26-60000-P, where that name would be read as these very
        fields; of any other settlement or hour of expiry it has the day as 2026-06-26.
        """
        day = pd.Timestamp(str(self.expiry))
        strike: Any = self.strike
        ending = f"{format_strike(strike)}-{LETTERS[str(self.kind)]}"
        short_day = day.strftime("%d%b%y").upper().lstrip("0")
        short_name = f"{self.underlying}-{short_day}-{ending}"
        declared = {field: getattr(self, field) for field in SAID}
        if read_name(short_name) == declared:
            return short_name
        return f"{self.underlying}-{day:%Y-%m-%d}-{ending}"

    @classmethod
    @core.checked
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

        ``start`` and ``end`` are the first and the last time at which one may expire, ``terms``
        further fields of an option, such as ``settlement`` and ``lot``.
        """
        # Midnights of Fridays whose 08:00 lies between both times: 8 hours earlier, both ends are
        # bounds of midnights.
        eight = pd.Timedelta(hours=8)
        first = pd.Timestamp(to_nanoseconds(start)) - eight
        last = pd.Timestamp(to_nanoseconds(end)) - eight
        days = pd.date_range(first.ceil("D"), last, freq="W-FRI")

        options = {}
        for day, strike, kind in itertools.product(days, [*strikes], [*kinds]):
            option = cls(
                underlying=underlying,
                kind=kind,
                strike=strike,
                expiry=str(day + eight),
                **terms,
            )
            options[str(option.name)] = option
        return options

    @property
    def sign(self) -> float:
        """1 for a call, -1 for a put."""
        if self.kind == "call":
            return 1.0
        return -1.0

    @property
    def is_coin(self) -> bool:
        """Whether it settles in the underlying."""
        return self.settlement == "coin"

    def years_from(self, at: Any) -> float:
        """Return the time to expiry in years of 365 days, negative if it has expired."""
        return (to_nanoseconds(str(self.expiry)) - to_nanoseconds(at)) / YEAR


def read_name(name: str | None) -> dict[str, Any]:
    """Return the fields that a name as Deribit's says of an option; nothing if it is another name.

    BTC-26JUN26-60000-P is a put of strike 60,000 that expires at 08:00 UTC and settles in the coin.
    """
    match = NAME.fullmatch(name or "")
    if match is None:
        return {}

    underlying, quote, day, strike, letter = match.groups()
    try:
        expiry = pd.to_datetime(day, format="%d%b%y") + pd.Timedelta(hours=8)
    except ValueError as error:
        raise core.ParameterError(
            f"the name of an option must have a day such as 26JUN26, got {name}"
        ) from error

    kinds = {letter_of_kind: kind for kind, letter_of_kind in LETTERS.items()}
    settlement = "coin"
    if quote:
        settlement = "cash"
    return {
        "kind": kinds[letter],
        "strike": float(strike.replace("d", ".")),  # Deribit writes 0d5 for a strike of 0.5
        "expiry": format_day(expiry),
        "settlement": settlement,
        "underlying": underlying,
    }


LETTERS = {"call": "C", "put": "P"}
"""How names say the kind of an option."""


def format_strike(strike: float) -> str:
    """Return a strike as names say it: all its digits, none of rounding."""
    return f"{strike:.15g}"


def format_day(time: Any) -> str:
    return pd.Timestamp(to_nanoseconds(time)).isoformat(" ")


class OptionField(Declaration):
    def read(self, value: Any) -> Option:
        if isinstance(value, str):
            return Option(value)
        if isinstance(value, Option):
            return value
        if isinstance(value, Mapping):
            return Option.from_dict(value)
        raise core.Fault("must be an Option or a name, 'BTC-26JUN26-60000-P' for example")


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
    quantity: Annotated[float, Real()]
    index: Annotated[float, POSITIVE]
    at: Annotated[str, core.Time()]
    volatility: Annotated[float | None, NOT_NEGATIVE] = None
    forward: Annotated[float | None, POSITIVE] = None
    rate: Annotated[float, Real(-10, 10)] = 0.0
    mark: Annotated[float | None, NOT_NEGATIVE] = None
    group: Annotated[str | None, Text()] = None

    def faults(self) -> Faults:
        if self.option.years_from(self.at) < 0.0:
            rule = f"must not be after the expiry {self.option.expiry}: the balance has the payoff"
            yield "at", rule
        if self.volatility is None and self.mark is None:
            yield "volatility", "is needed, or a mark: 0.55 per sqrt(year) for example"

    def _settle(self) -> None:
        self._set_fields(at=format_day(self.at))
        core.warn_of_high_rate("rate", self.rate)

    @property
    def years(self) -> float:
        """Time to expiry in years of 365 days."""
        return float(self.option.years_from(self.at))

    @property
    def label(self) -> str:
        """What it moves with: the group, or the underlying."""
        return str(self.group or self.option.underlying)


CAP = Real(0, 1, open_low=True)


class OptionCosts(Value, kw_only=True):
    """Fees, ticks and spread of the options on an instrument; what is not free has no default.

    Parameters
    ----------
    fee : float
        Fee of a trade per unit of the underlying: a fraction of its price, in coins for options
        settled in coins.
    fee_cap : float
        The most that the fee may be, as a fraction of the premium; 1 for no cap below it.
    delivery_fee, delivery_cap : float
        The same for the payoff at expiry.
    tick : float
        The least distance of a fill from the mark, per unit of the underlying, in the settlement
        currency.
    spread : float, optional
        From bid to ask in implied volatility, 0.02 for two points, where no quote says it. Fills
        there are half of it from the mark.
    delivery_window : str, optional
        The time before an expiry whose mark closes are averaged for the settlement price, where
        bars are shorter. Default: the mark price at the expiry.
    lot : float
        The step of quantities and the smallest order, in contracts. Default: 0.1, as Deribit's on
        BTC (``min_trade_amount`` in the documentation of its API, of BTC-13JAN23-16000-P); those of
        a stock exchange have 1, and so have options on ETH there, without a source at hand.
    """

    fee: Annotated[float, COST]
    fee_cap: Annotated[float, CAP]
    delivery_fee: Annotated[float, COST]
    delivery_cap: Annotated[float, CAP]
    tick: Annotated[float, NOT_NEGATIVE]
    spread: Annotated[float | None, NOT_NEGATIVE] = None
    delivery_window: Annotated[str | None, core.Duration()] = None
    lot: Annotated[float, NOT_NEGATIVE] = 0.1

    def find_lot(self, option: Option) -> float:
        """Return the step of the quantities of an option, in contracts; 0: any quantity."""
        if option.lot is None:
            return self.lot
        return option.lot


def require_costs(costs: object, name: str) -> OptionCosts:
    """Return the costs of options on an instrument; raise ParameterError if it has none."""
    if isinstance(costs, OptionCosts):
        return costs
    raise core.ParameterError(
        f"options on {name} need venue.option_costs, got {costs!r}; "
        "bt.OptionCosts(fee=, fee_cap=, delivery_fee=, delivery_cap=, tick=)"
    )

"""What an account owns at one moment, as an exchange or a run reports it, and its state."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from backtest import account as accounts
from backtest import core, policies
from backtest.account import AccountState, Terms, TradedDays
from backtest.account.money import Wallet
from backtest.account.records import WINDOW
from backtest.core import Choice, Declaration, Flag, FrozenTable, ParameterError, Real, checked
from backtest.core.units import DAY
from backtest.engine import Setup, start_account_state
from backtest.policies import AccountView, Combinator, Policy, may_read_of_account, start_memory
from backtest.results.tables import value_of
from backtest.venue.account_fields import (
    WITH_PROFIT,
    WITHOUT_PROFIT,
    find_meaning,
    read_account_fields,
)

SIGNED = Real()
NOT_NEGATIVE = Real(0.0)
OVER_ZERO = Real(0.0, open_low=True)
BARS = Real(0.0, may_be_infinite=True)
MONEY = ("wallet", "equity")


@dataclass(frozen=True)
class ByName(Declaration):
    read_one: Callable[[str, Any], Any]

    def read(self, value: Any) -> FrozenTable:
        if not isinstance(value, Mapping):
            raise core.Fault("must be a table by name")
        entries = {str(name): self.read_one(str(name), entry) for name, entry in value.items()}
        return FrozenTable(entries)


class HeldPosition(core.Value, kw_only=True):
    quantity: Annotated[float, SIGNED]
    entry: Annotated[float | None, OVER_ZERO] = None
    margin: Annotated[float, SIGNED] = 0.0
    mode: Annotated[str | None, Choice("cross", "isolated")] = None
    best_price: Annotated[float | None, NOT_NEGATIVE] = None
    opened: Annotated[str | None, core.Time()] = None
    bars_since_liquidation: Annotated[float | None, BARS] = None
    bars_since_stop: Annotated[float | None, BARS] = None
    overlay: Annotated[float | None, SIGNED] = None
    halted: Annotated[bool, Flag()] = False
    venue_leverage: Annotated[float | None, NOT_NEGATIVE] = None
    contract_size: Annotated[float | None, OVER_ZERO] = None
    notional: Annotated[float | None, NOT_NEGATIVE] = None
    mark_price: Annotated[float | None, OVER_ZERO] = None
    liquidation_price: Annotated[float | None, OVER_ZERO] = None

    def faults(self) -> core.Faults:
        if self.quantity != 0.0 and self.entry is None:
            yield "entry", "must be the average entry price of an open position"


def read_position(name: str, position: Any) -> HeldPosition:
    if isinstance(position, HeldPosition):
        return position
    return HeldPosition.from_dict(position, where=f"positions.{name}")


RESTS = ("day", "week")
MS_RANGE = (1e11, 1e13)
"""Milliseconds from 1973 to 2286: what is outside was counted in another unit."""


class AccountSnapshot(core.Value, kw_only=True):
    """What an account owns at one moment: where :meth:`backtest.Backtest.decide` starts.

    Either ``wallet`` or ``equity`` is given. All money is in the settlement currency.

    Raises ParameterError if a field is unknown, missing or of the wrong kind.

    Parameters
    ----------
    equity : float, optional
        Value of the account with unrealized profit, without the reserve.
    wallet : float, optional
        Realized money without unrealized profit, as exchanges report a wallet balance; in isolated
        margin without what is posted.
    positions : mapping of str to HeldPosition or mapping
        Open positions by instrument.
    time : str or Timestamp, optional
        When the account was read, in UTC.
    reserve : float, optional
        Money outside the account for top-ups.
    peak_equity : float, optional
        Highest equity so far, without flows.
    highest_equity : float, optional
        Highest equity at a close since the start or the last equity stop.
    paid_in : float, optional
        Capital paid in, for ``ruin_at`` and ``daily_basis="initial"``.
    day_open, week_open : float, optional
        Equity at the first open of this day, and of this week, with the flows since.
    rests : str, optional
        ``"day"`` or ``"week"`` after its limit of loss, until whose end nothing is ordered.
    paused_until : str or Timestamp, optional
        Time before which nothing is ordered after an equity stop, as the account's ``after_stop``
        says; after one that halts, ``halted`` is True instead.
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
    counted_by : str
        ``"venue"``: quantities are contracts of the venue's ``contract.size``, or of the
        ``contract_size`` of a position. ``"ccxt"``: of the latter, and ``wallet`` contains what
        isolated positions have posted.
    liquidation : str
        ``"compared"``: :meth:`backtest.Backtest.decide` does not act where a ``liquidation_price``
        of a position is far from ours; ``"ours"``: it only warns.

    Examples
    --------
    >>> import backtest as bt
    >>> held = {"BTCUSDT": {"quantity": 0.5, "entry": 30_000.0}}
    >>> bt.AccountSnapshot(wallet=10_000.0, positions=held).positions["BTCUSDT"].quantity
    0.5
    """

    wallet: Annotated[float | None, SIGNED] = None
    equity: Annotated[float | None, SIGNED] = None
    positions: Annotated[Mapping[str, HeldPosition], ByName(read_position)] = FrozenTable({})
    time: Annotated[str | None, core.Time()] = None
    reserve: Annotated[float | None, NOT_NEGATIVE] = None
    peak_equity: Annotated[float | None, NOT_NEGATIVE] = None
    highest_equity: Annotated[float | None, NOT_NEGATIVE] = None
    paid_in: Annotated[float | None, NOT_NEGATIVE] = None
    day_open: Annotated[float | None, NOT_NEGATIVE] = None
    week_open: Annotated[float | None, NOT_NEGATIVE] = None
    rests: Annotated[str | None, core.Choice(*RESTS)] = None
    paused_until: Annotated[str | None, core.Time()] = None
    bars_since_liquidation: Annotated[float | None, BARS] = None
    bars_since_stop: Annotated[float | None, BARS] = None
    started: Annotated[str | None, core.Time()] = None
    overlay: Annotated[float | None, SIGNED] = None
    collateral: Annotated[
        Mapping[str, float] | None, ByName(lambda name, x: SIGNED.check(f"collateral.{name}", x))
    ] = None
    halted: Annotated[bool, Flag()] = False
    traded_30d: Annotated[float | None, NOT_NEGATIVE] = None
    counted_by: Annotated[str, Choice("venue", "ccxt")] = "venue"
    liquidation: Annotated[str, Choice("compared", "ours")] = "compared"

    _omitted = frozenset({"counted_by", "liquidation"})

    def faults(self) -> core.Faults:
        stated = [name for name in MONEY if getattr(self, name) is not None]
        if not stated:
            yield "equity", "must be given (with unrealized profit), or wallet (without it)"
        if len(stated) > 1:
            yield stated[1], f"must be left out beside {stated[0]}"
        if self.equity is None or self.peak_equity is None:
            return
        if self.peak_equity < self.equity:
            yield "peak_equity", describe_low_peak(self.peak_equity, self.equity)

    @classmethod
    @checked
    def load(cls, path: str | Path) -> AccountSnapshot:
        """Return the snapshot in a JSON file: its fields, or the answers of ccxt.

        These are ``balance`` and ``positions``, of a whole account, with the other arguments of
        :meth:`from_ccxt` beside them: ``exchange``, ``currency``, ``names``, fields of a snapshot.
        A ``timestamp`` in ms since 1970, as ccxt has it, is read as ``time``.
        """
        file = Path(path)
        return cls.from_content(core.read_json_file(file), where=file.name)

    @classmethod
    def from_content(cls, content: Any, *, where: str) -> AccountSnapshot:
        """Return the snapshot in the content of a file, as :meth:`load` does."""
        if isinstance(content, Mapping):
            content = read_timestamp(content)
        is_of_ccxt = isinstance(content, Mapping) and {"balance", "positions"} <= {*content}
        if not is_of_ccxt:
            return cls.from_dict(content, where=where)

        arguments = dict(content)
        balance = arguments.pop("balance")
        positions = arguments.pop("positions")
        return cls.from_ccxt(balance, positions, **arguments)

    @classmethod
    @checked
    def from_ccxt(
        cls,
        balance: Mapping[str, Any],
        positions: Sequence[Mapping[str, Any]],
        *,
        exchange: str = "",
        currency: str = "USDT",
        total: str | None = None,
        collateral: str | None = None,
        names: Mapping[str, str] | None = None,
        **known: Any,
    ) -> AccountSnapshot:
        """Return the snapshot in what ccxt's ``fetch_balance`` and ``fetch_positions`` return.

        :meth:`backtest.Backtest.decide` and :meth:`backtest.Backtest.replay` convert its
        quantities, which are contracts of ``contractSize``, and compare what the rows say of
        notionals and liquidation prices with the rules of the venue.

        Raises ParameterError if a field is missing, or not known to contain unrealized profit.

        Parameters
        ----------
        balance, positions : mapping, sequence of mappings
            The unified structures of ccxt.
        exchange : str
            Its id in ccxt, ``"bybit"``: a table (``docs/live.md``) then gives ``total`` and
            ``collateral``.
        currency : str
            Settlement currency.
        total : str, optional
            What the ``total`` of the balance is: ``"equity"`` with unrealized profit, or
            ``"wallet"`` without. Default: that of the exchange.
        collateral : str, optional
            The same of the ``collateral`` of isolated positions: ``"equity"`` or ``"wallet"``.
        names : mapping of str to str, optional
            Our instruments by symbol of ccxt. Default: ``"BTC/USDT:USDT"`` is ``"BTCUSDT"``.
            Two open positions of one symbol, or two symbols of one instrument, are an error.
        **known
            Further fields of the snapshot, such as ``peak_equity``.
        """
        amounts: Any = balance.get(currency)
        if not isinstance(amounts, Mapping) or amounts.get("total") is None:
            raise ParameterError(
                f"a balance must have the total of {currency}, got {core.repr_plain(amounts)}; "
                "currency= names another"
            )

        rows = [row for row in positions if is_open(row)]
        symbols = [str(row.get("symbol")) for row in rows]
        collateral = read_collateral_meaning(rows, collateral, exchange, currency)
        names_by_symbol = name_symbols(symbols, names)
        held = {}
        for symbol, row in zip(symbols, rows, strict=True):
            held[names_by_symbol[symbol]] = read_ccxt_position(row, collateral, exchange)

        money = read_meaning("total", total, exchange, currency)
        read: dict[str, Any] = {
            money: read_total(amounts["total"], currency),
            "positions": held,
            "counted_by": "ccxt",
        }
        for name in known:
            if name in read:
                raise ParameterError(
                    f"{name} must be left out: the balance or positions contain it"
                )
        return cls(**read, **known)


def read_timestamp(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a file with ccxt's ``timestamp``, in ms, as the ``time`` in UTC."""
    fields = dict(content)
    if "timestamp" not in fields:
        return fields
    if "time" in fields:
        raise ParameterError("timestamp must be left out beside time: both say when it was read")

    stamp = fields.pop("timestamp")
    if stamp is None:
        return fields
    is_number = isinstance(stamp, int | float) and not isinstance(stamp, bool)
    if not is_number or not MS_RANGE[0] <= stamp <= MS_RANGE[1]:
        raise ParameterError(
            f"timestamp must be ms since 1970, got {core.repr_plain(stamp):.60}; give the time as "
            "'time': '2026-01-31 12:00'"
        )
    fields["time"] = core.format_time(int(stamp) * 1_000_000)
    return fields


def read_meaning(
    field: str,
    stated: str | None,
    exchange: str,
    currency: str,
) -> str:
    """Return whether a field of ccxt is with or without unrealized profit; raise if unknown."""
    if stated is not None:
        return str(Choice(WITH_PROFIT, WITHOUT_PROFIT).check(field, stated))

    meaning = find_meaning(exchange, field, currency)
    if meaning is not None:
        return meaning

    known = list[str]()
    for row in read_account_fields():
        if row.field == field:
            known.extend(row.exchanges)
    raise ParameterError(
        f"{field} must be given, 'equity' (with unrealized profit) or 'wallet' (without), for "
        f"an exchange other than {', '.join(dict.fromkeys(known))}, got exchange={exchange!r}; "
        f"give from_ccxt(..., {field}='wallet'), or 'equity'"
    )


def read_collateral_meaning(
    positions: Sequence[Mapping[str, Any]],
    stated: str | None,
    exchange: str,
    currency: str,
) -> str | None:
    """Return whether the collateral of positions contains profit; None if that may be unknown."""
    is_isolated = any(row.get("marginMode") == "isolated" for row in positions)
    if stated is not None or is_isolated:
        return read_meaning("collateral", stated, exchange, currency)

    return find_meaning(exchange, "collateral", currency)  # rows of Bybit have no mode


def name_symbols(symbols: Iterable[str], names: Mapping[str, str] | None) -> dict[str, str]:
    """Return our instruments by symbol; raise if one would have several, or one twice."""
    known_names = names or {}
    symbol_by_name: dict[str, str] = {}

    for symbol in symbols:
        name = known_names.get(symbol, name_symbol(symbol))
        if name in symbol_by_name:
            raise ParameterError(
                f"an instrument may be there once, got {symbol_by_name[name]!r} and {symbol!r} for "
                f"{name!r}; names={{{symbol!r}: ...}} distinguishes symbols, hedge mode is not "
                "supported"
            )
        symbol_by_name[name] = symbol

    return {symbol: name for name, symbol in symbol_by_name.items()}


def name_symbol(symbol: str) -> str:
    """Return our usual name of a symbol of ccxt: BTCUSDT-260327 of BTC/USDT:USDT-260327."""
    if "/" not in symbol:
        return symbol

    pair, _, settled = symbol.partition(":")
    _, dash, expiry = settled.partition("-")
    return pair.replace("/", "") + dash + expiry


NOTIONAL_IN_QUOTE = ("bitmex",)
"""Exchanges whose notional of an inverse contract is in the quote currency: ccxt 4.5.64,
``bitmex.parse_position`` takes foreignNotional."""


COUNTED_IN_UNITS = ("deribit",)
"""Exchanges that count contracts in coins, or of inverse ones in the quote currency, and whose
contractSize is the step of orders: ccxt 4.5.64, ``deribit.parse_position``: size, and the
contractSize of the market (10 USD of BTC-PERPETUAL); its notional is size_currency, in coins."""
CCXT_SIDES = {"long": 1.0, "short": -1.0}


def read_ccxt_position(
    row: Mapping[str, Any],
    collateral: str | None,
    exchange: str,
) -> dict[str, Any]:
    """Return the fields of a position; ``collateral`` says what that of ccxt contains."""
    symbol = str(row.get("symbol"))
    side = CCXT_SIDES.get(str(row.get("side")))
    if side is None:
        raise ParameterError(
            f"a position must have the side long or short, got {row.get('side')!r} ({symbol})"
        )

    mode = row.get("marginMode")
    if mode == "isolated" and row.get("collateral") is None:
        raise ParameterError(
            f"an isolated position must have its collateral, got None ({symbol}); give what is "
            "posted for it as 'collateral' of the position"
        )

    size = read_number(row, "contractSize")
    if exchange.lower() in COUNTED_IN_UNITS:
        size = 1.0
    margin = 0.0
    if mode != "cross":
        margin = read_posted(row, collateral)
    notional = None
    if is_notional_comparable(row, symbol, exchange):
        notional = abs(read_number(row, "notional")) or None
    return {
        "quantity": side * abs(read_number(row, "contracts")),
        "entry": row.get("entryPrice"),
        "margin": margin,
        "mode": mode,
        "contract_size": size or None,
        "notional": notional,
        "mark_price": read_number(row, "markPrice") or None,
        "liquidation_price": read_liquidation_price(row),
    }


def is_notional_comparable(row: Mapping[str, Any], symbol: str, exchange: str) -> bool:
    """Return whether the notional of a row is in the settlement currency, as ours is."""
    if row.get("notional") in MISSING:
        return False

    # BTC/USD:BTC settles in its base.
    pair, _, settled = symbol.partition(":")
    base = pair.partition("/")[0]
    settlement_coin = settled.partition("-")[0]
    is_inverse = settlement_coin != "" and settlement_coin == base
    if is_inverse:
        return exchange.lower() not in NOTIONAL_IN_QUOTE
    return exchange.lower() not in COUNTED_IN_UNITS


def read_posted(row: Mapping[str, Any], collateral: str | None) -> float:
    """Return what is posted for a position of ccxt, without its profit; 0 if that is unknown."""
    if collateral is None:
        return 0.0

    posted = read_number(row, "collateral")
    if collateral == WITHOUT_PROFIT:
        return posted

    if row.get("unrealizedPnl") in MISSING:
        raise ParameterError(
            "an isolated position whose collateral contains its profit must have its "
            f"unrealizedPnl, got {row.get('unrealizedPnl')!r} ({row.get('symbol')}); give it, "
            "or collateral='wallet' with what is posted"
        )
    return posted - read_number(row, "unrealizedPnl")


MISSING = (None, "")
"""What ccxt has in a field that the exchange does not send."""


def read_number(row: Mapping[str, Any], field: str) -> float:
    """Return the number in a field of a row, 0 if it is missing; raise if it is none."""
    value = row.get(field)
    if value in MISSING:
        return 0.0

    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan

    if not math.isfinite(number):
        raise ParameterError(
            f"{field} of a position must be a number, got {value!r} ({row.get('symbol')})"
        )
    return number


def read_total(value: Any, currency: str) -> float:
    """Return the total of a balance; raise if it is no number."""
    try:
        total = float(value)
    except (TypeError, ValueError):
        total = math.nan
    if not math.isfinite(total):
        raise ParameterError(f"the total of {currency} must be a number, got {value!r}")
    return total


def read_liquidation_price(row: Mapping[str, Any]) -> float | None:
    """Return the liquidation price that a row gives; None where exchanges write that none is."""
    value = row.get("liquidationPrice")
    if value in MISSING:
        return None

    # NaN is none; what is no number at all is an error of read_number.
    with contextlib.suppress(TypeError, ValueError):
        if math.isnan(float(value)):
            return None

    price = read_number(row, "liquidationPrice")
    return price if price > 0.0 else None


def is_open(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a position; raise if it is one of an unknown quantity."""
    if row.get("contracts") not in MISSING:
        return read_number(row, "contracts") != 0.0
    for field in ("notional", "initialMargin", "entryPrice"):
        if read_number(row, field) != 0.0:
            raise ParameterError(
                f"a position must have its contracts, got {row.get('contracts')!r} with {field} = "
                f"{row[field]!r} ({row.get('symbol')}); give its quantity as 'contracts', 0 if it "
                "is closed"
            )
    return False


FLAT = HeldPosition(quantity=0.0)
BEHIND = {
    "peak_equity": "peak_equity",
    "drawdown": "peak_equity",
    "reserve": "reserve",
    "bars_since_liquidation": "bars_since_liquidation",
    "bars_since_stop": "bars_since_stop",
    "days": "started",
}
"""Facts of a snapshot by the field of the account that shows them to a policy."""
OF_RULES = {
    "trailing_stop": ("best_price", "compares with it"),
    "equity_stop": ("highest_equity", "compares with it"),
    "daily_loss": ("day_open", "compares with it"),
    "weekly_loss": ("week_open", "compares with it"),
    "max_holding": ("opened", "counts from it"),
}


def check_known(setup: Setup, snapshot: AccountSnapshot) -> None:
    """Raise ParameterError if the policy or the account reads what a snapshot does not have."""
    for observed in setup.observed:
        policy = observed.policy
        if start_memory(policy):
            raise ParameterError(
                f"{type(policy).__name__} has a memory, which a snapshot does not contain; decide "
                "from the result of a run"
            )

    facts = []
    readers = []
    for fact, reader in list_needs(setup):
        if not is_known(setup, snapshot, fact):
            facts.append(fact)
            readers.append(reader)
    if facts:
        missing = dict.fromkeys(facts)
        cures = " and ".join(map(advise_fact, missing))
        raise ParameterError(
            f"state must have what the policy and the account read, got no {', '.join(missing)}: "
            f"{'; '.join(dict.fromkeys(readers))}; give {cures}"
        )
    check_entries(setup, snapshot)


def check_entries(setup: Setup, snapshot: AccountSnapshot) -> None:
    """Raise ParameterError if a stop keeps the distance of an entry that no bar is before.

    The distance of a bar is its column at the close before: of the first bar it is not known, and
    a position without a distance would have no stop.
    """
    for name, market in setup.markets.items():
        held = snapshot.positions.get(name, FLAT)
        if held.quantity == 0.0 or held.opened is None or not has_fixed_distance(setup, name):
            continue

        first = int(market.time[0])
        if core.to_nanoseconds(held.opened) <= first:
            raise ParameterError(
                f"{name} must have been opened after its first bar, as its stop keeps the distance "
                f"of the entry; got {held.opened}, and the first bar opens at "
                f"{core.format_time(first)}; give bars from before the entry"
            )


def advise_fact(name: str) -> str:
    """Return how a snapshot is given a fact; of positions, each has its own."""
    if name in ("best_price", "opened"):
        return f"{name!r} of each position"
    return f"AccountSnapshot({name}=...)"


def list_needs(setup: Setup) -> Iterator[tuple[str, str]]:
    """Yield each fact of a snapshot that is read, and what reads it."""
    for observed in setup.observed:
        fields_read = find_account_reads(observed.policy)
        for name, fact in BEHIND.items():
            if name in fields_read:
                yield fact, f"{type(observed.policy).__name__} reads account.{name}"

    for name, (fact, reader) in OF_RULES.items():
        if getattr(setup.account, name) not in (None, 0.0):
            yield fact, f"{name} {reader}"

    if setup.account.daily_basis == "initial":
        yield "paid_in", "daily_basis='initial' is a fraction of it"
    if any(has_fixed_distance(setup, name) for name in setup.markets.names):
        yield "opened", "a distance that is fixed at the entry is that of its bar"
    if setup.overlay is not None:
        yield "overlay", "the overlay keeps it where it returns NaN"


def has_fixed_distance(setup: Setup, name: str) -> bool:
    """Return whether a stop or target of an instrument keeps the distance of its entry."""
    settings = setup.account.for_instrument(name)
    distances = (settings.stop_loss, settings.take_profit, settings.trailing_stop)
    return any(map(accounts.is_fixed_distance, distances))


def find_account_reads(policy: Policy) -> frozenset[str]:
    """Return the fields of the account that the formulas of a policy may read."""
    rules: Any
    inner: tuple[Policy, ...] = ()
    if isinstance(policy, Combinator):
        inner = policy.policies
        rules = (policy.written.combine,)
    else:
        rules = (policies.formula_for(policy, ()), policies.margin_formula_for(policy, ()))

    fields_read = set[str]()
    for rule in filter(None, rules):
        for field in AccountView._fields:
            if may_read_of_account(rule, frozenset({field})):
                fields_read.add(field)
    return frozenset(fields_read).union(*map(find_account_reads, inner))


def is_known(setup: Setup, snapshot: AccountSnapshot, fact: str) -> bool:
    """Return whether a snapshot has a fact, of the account or of all positions that need it."""
    open_positions = {
        name: position for name, position in snapshot.positions.items() if position.quantity != 0.0
    }
    if fact == "best_price":
        return all(position.best_price is not None for position in open_positions.values())

    if fact == "opened":
        for name in setup.markets.names:
            needs_it = setup.account.for_instrument(name).max_holding or has_fixed_distance(
                setup, name
            )
            if needs_it and name in open_positions and open_positions[name].opened is None:
                return False
        return True

    if getattr(snapshot, fact) is not None:
        return True

    # Each instrument may say for itself how long ago its last event was.
    if fact not in ("bars_since_liquidation", "bars_since_stop"):
        return False
    positions = [snapshot.positions.get(name) for name in setup.markets.names]
    return all(position and getattr(position, fact) is not None for position in positions)


def find_traded_days(
    setup: Setup,
    snapshot: AccountSnapshot,
    bar: int,
) -> TradedDays | None:
    """Return the notional traded up to the day of a bar, None where no fee depends on it.

    A snapshot has the sum of 30 days alone. All of it is put on the last of them, the day before
    the bar, so that it counts in full for as long as the fee tiers look back.
    """
    if setup.inputs.fees is None:
        return None
    traded_by_day = np.zeros(WINDOW)
    traded_by_day[-1] = snapshot.traded_30d or 0.0
    day = int(setup.markets.time[bar]) // DAY
    return TradedDays(day, today=0.0, past=traded_by_day)


def start_account(setup: Setup, snapshot: AccountSnapshot, terms: Terms) -> AccountState:
    """Return the state of the loop at the last close of a setup, as a snapshot has it."""
    last = setup.markets.n_bars - 1
    state = start_account_state(setup._replace(first=last))
    for i, name in enumerate(setup.markets.names):
        held = snapshot.positions.get(name, FLAT)
        write_position(setup, snapshot, state, i, held)

    # The last rate of each instrument: of several settlements, the later one stays.
    feed = setup.inputs.feed
    state.positions.column("last_funding")[feed.funding_instrument] = feed.funding_rate

    if snapshot.collateral is not None:
        assets = setup.account.collateral
        state.held.amounts[:] = [snapshot.collateral.get(asset.name, 0.0) for asset in assets]
    prices = feed.asset_mark_close[:, last]
    state.held.prices[:] = prices
    state.priced[:] = prices
    write_wallet(setup, snapshot, state, terms)
    return state


def write_position(
    setup: Setup,
    snapshot: AccountSnapshot,
    state: AccountState,
    i: int,
    held: HeldPosition,
) -> None:
    """Write what a snapshot says of an instrument into its position of the state."""
    name = setup.markets.names[i]
    position = state.positions[i]
    is_open = held.quantity != 0.0

    mark = 0.0
    if setup.markets.spans[i, 1] == setup.markets.n_bars:  # it is still listed
        mark = value_price(setup, i, setup.markets[name].mark_close[-1])

    # What is closed has an entry and a best of 0.
    position.quantity = held.quantity
    position.entry = value_price(setup, i, held.entry) * is_open
    position.value = mark
    position.marked = mark
    is_isolated = setup.account.for_instrument(name).margin == "isolated"
    position.margin = held.margin if is_isolated else 0.0

    position.best = value_price(setup, i, held.best_price) * is_open
    position.factor = 1.0 if held.overlay is None else held.overlay
    position.opened = math.nan
    if is_open and held.opened is not None:
        position.opened = core.to_nanoseconds(held.opened)

    position.since = count_bars_since(snapshot, held, "bars_since_liquidation")
    position.since_stop = count_bars_since(snapshot, held, "bars_since_stop")
    position.is_halted = 1.0 if held.halted else 0.0
    if held.venue_leverage is not None:
        position.setting = held.venue_leverage


def count_bars_since(snapshot: AccountSnapshot, held: HeldPosition, fact: str) -> float:
    """Return the bars since an event of a position, else of the account; infinite: never."""
    bars = getattr(held, fact)
    if bars is None:
        bars = getattr(snapshot, fact)
    return math.inf if bars is None else float(bars)


def value_price(setup: Setup, i: int, price: float | None) -> float:
    """Return the value of one contract at a price, 0 if there is none."""
    if price is None:
        return 0.0
    contract = setup.venues[setup.markets.names[i]].contract
    return float(value_of(contract, price))


def write_wallet(
    setup: Setup,
    snapshot: AccountSnapshot,
    state: AccountState,
    terms: Terms,
) -> None:
    """Write the wallet of a state as a snapshot has it.

    The positions and the collateral of the state must be written before: cash is what they leave
    of the balance or the equity that was reported. What a snapshot does not say is as of an account
    that begins now: its equity is its peak, its highest, and the open of its day and week.
    """
    state.wallet.cash = compute_cash(setup, snapshot, state)
    equity = accounts.compute_account_equity(terms, state)

    write_equity(snapshot, state.wallet, equity)
    write_limits(snapshot, state.wallet)
    state.wallet.is_ruined = 0.0 if equity > 0.0 else 1.0
    state.wallet.is_converting = 1.0 if accounts.is_under_limit(terms, state, equity) else 0.0


def compute_cash(setup: Setup, snapshot: AccountSnapshot, state: AccountState) -> float:
    """Return the cash of an account: its balance or equity without what is held, money."""
    paid, worth = value_positions(setup, state)
    if snapshot.wallet is not None:
        return snapshot.wallet - paid

    worth_of_assets = float(np.sum(state.held.amounts * state.held.prices))
    return (snapshot.equity or 0.0) - worth - worth_of_assets


STALE_PEAK = 0.1
"""A peak may be this share under the equity of a wallet, which has risen since it was noted."""


def describe_low_peak(peak: float, equity: float) -> str:
    """Return what is wrong with a peak of the equity that is under the equity itself."""
    return (
        f"must be the highest equity so far, that of now included, got {peak:g} with an equity of "
        f"{equity:g}; give the larger of the two"
    )


def write_equity(snapshot: AccountSnapshot, wallet: Wallet, equity: float) -> None:
    """Write the equity of now and those of before, from which drawdown and limits are counted."""
    peak = snapshot.peak_equity
    if peak is not None and peak < (1.0 - STALE_PEAK) * equity:
        raise ParameterError(f"peak_equity {describe_low_peak(peak, equity)}")

    wallet.equity = equity
    wallet.peak = max(snapshot.peak_equity or equity, equity)
    wallet.highest = use_or(snapshot.highest_equity, equity)
    wallet.day_open = use_or(snapshot.day_open, equity)
    wallet.week_open = use_or(snapshot.week_open, equity)

    # The value of a unit begins at the equity. A unit is a share of the account with its reserve.
    wallet.unit = equity
    wallet.reserve = snapshot.reserve or 0.0
    wealth = equity + wallet.reserve
    wallet.scale = wallet.unit / wealth if wealth > 0.0 else 1.0
    wallet.paid_in = use_or(snapshot.paid_in, wealth)


def write_limits(snapshot: AccountSnapshot, wallet: Wallet) -> None:
    """Write what keeps the account from orders, its overlay, and the bars since its liquidation.

    ``rests`` is 0, or 1 until the next day and 2 until the next week, as :class:`.Wallet` says.
    """
    wallet.rests = 0.0
    if snapshot.rests is not None:
        wallet.rests = 1.0 + RESTS.index(snapshot.rests)
    if snapshot.paused_until is not None:
        wallet.paused_until = float(core.to_nanoseconds(snapshot.paused_until))
    wallet.is_over = 1.0 if snapshot.halted else 0.0

    if snapshot.overlay is not None:
        wallet.overlay = snapshot.overlay
    wallet.since_pool = use_or(snapshot.bars_since_liquidation, math.inf)


def use_or(stated: float | None, usual: float) -> float:
    return usual if stated is None else stated


def value_positions(setup: Setup, state: AccountState) -> tuple[float, float]:
    """Return what was paid for cross positions, and what all positions are worth at the mark.

    A cross position is bought with cash, and worth its value. An isolated one is not bought: it is
    worth the margin that was posted for it, and its profit.
    """
    paid = 0.0
    worth = 0.0

    for i, name in enumerate(setup.markets.names):
        position = state.positions[i]
        quantity = position.quantity
        if setup.account.for_instrument(name).margin == "isolated":
            worth += position.margin + quantity * (position.marked - position.entry)
        else:
            paid += quantity * position.entry
            worth += quantity * position.marked

    return paid, worth

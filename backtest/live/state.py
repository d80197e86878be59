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
from backtest.account import AccountState, Terms
from backtest.core import Choice, Declaration, Flag, FrozenTable, ParameterError, Real, checked
from backtest.engine import Setup, start_account_state
from backtest.policies import AccountView, Combinator, Policy, may_read_of_account, start_memory
from backtest.results.tables import value_of
from backtest.venue.account_fields import (
    WITH_PROFIT,
    WITHOUT_PROFIT,
    find_meaning,
    read_account_fields,
)

SIGNED, NOT_NEGATIVE, OVER_ZERO = Real(), Real(0.0), Real(0.0, open_low=True)
BARS = Real(0.0, may_be_infinite=True)
MONEY = ("wallet", "equity")


@dataclass(frozen=True)
class ByName(Declaration):
    read_one: Callable[[str, Any], Any]

    def read(self, value: Any) -> FrozenTable:
        if not isinstance(value, Mapping):
            raise core.Fault("must be a table by name")
        return FrozenTable({str(name): self.read_one(str(name), x) for name, x in value.items()})


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


def read_position(name: str, given: Any) -> HeldPosition:
    if isinstance(given, HeldPosition):
        return given
    return HeldPosition.from_dict(given, where=f"positions.{name}")


RESTS = ("day", "week")


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
        given = [name for name in MONEY if getattr(self, name) is not None]
        if not given:
            yield "equity", "must be given (with unrealized profit), or wallet (without it)"
        if given[1:]:
            yield given[1], f"must be left out beside {given[0]}"

    @classmethod
    @checked
    def load(cls, path: str | Path) -> AccountSnapshot:
        """Return the snapshot in a JSON file: its fields, or the answers of ccxt.

        These are ``balance`` and ``positions``, of a whole account, with the other arguments of
        :meth:`from_ccxt` beside them: ``exchange``, ``currency``, ``names``, fields of a snapshot.
        """
        file = Path(path)
        return cls.from_content(core.read_json_file(file), where=file.name)

    @classmethod
    def from_content(cls, content: Any, *, where: str) -> AccountSnapshot:
        """Return the snapshot in the content of a file, as :meth:`load` does."""
        is_of_ccxt = isinstance(content, Mapping) and {"balance", "positions"} <= {*content}
        if not is_of_ccxt:
            return cls.from_dict(content, where=where)
        rest = dict(content)
        balance, positions = rest.pop("balance"), rest.pop("positions")
        return cls.from_ccxt(balance, positions, **rest)

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
        own: Any = balance.get(currency)
        if not isinstance(own, Mapping) or own.get("total") is None:
            raise ParameterError(
                f"a balance must have the total of {currency}, got {core.repr_plain(own)}; "
                "currency= names another"
            )
        opened = [row for row in positions if is_open(row)]
        if collateral is not None or any(each.get("marginMode") == "isolated" for each in opened):
            collateral = read_meaning("collateral", collateral, exchange, currency)
        else:  # rows of Bybit have no mode
            collateral = find_meaning(exchange, "collateral", currency)
        named = name_symbols([str(each.get("symbol")) for each in opened], names)
        held = {
            named[str(each.get("symbol"))]: read_ccxt_position(each, collateral, exchange)
            for each in opened
        }
        read: dict[str, Any] = {
            read_meaning("total", total, exchange, currency): read_total(own["total"], currency),
            "positions": held,
            "counted_by": "ccxt",
        }
        if both := [name for name in known if name in read]:
            raise ParameterError(f"{both[0]} must be left out: the balance or positions contain it")
        return cls(**read, **known)


def read_meaning(field: str, given: str | None, exchange: str, currency: str) -> str:
    """Return whether a field of ccxt is with or without unrealized profit; raise if unknown."""
    if given is not None:
        return str(Choice(WITH_PROFIT, WITHOUT_PROFIT).check(field, given))
    meaning = find_meaning(exchange, field, currency)
    if meaning is None:
        rows = [row for row in read_account_fields() if row.field == field]
        known = ", ".join(dict.fromkeys(each for row in rows for each in row.exchanges))
        raise ParameterError(
            f"{field} must be given, 'equity' (with unrealized profit) or 'wallet' (without), for "
            f"an exchange other than {known}, got exchange={exchange!r}"
        )
    return meaning


def name_symbols(symbols: Iterable[str], names: Mapping[str, str] | None) -> dict[str, str]:
    """Return our instruments by symbol; raise if one would have several, or one twice."""
    names_by_symbol: dict[str, str] = {}
    for symbol in symbols:
        pair, _, settled = symbol.partition(":")
        _, dash, expiry = settled.partition("-")
        ours = pair.replace("/", "") + dash + expiry if "/" in symbol else symbol
        name = (names or {}).get(symbol, ours)
        if first := [known for known, each in names_by_symbol.items() if each == name]:
            raise ParameterError(
                f"an instrument may be there once, got {first[0]!r} and {symbol!r} for {name!r}; "
                f"names={{{symbol!r}: ...}} distinguishes symbols, hedge mode is not supported"
            )
        names_by_symbol[symbol] = name
    return names_by_symbol


NOTIONAL_IN_QUOTE = ("bitmex",)
"""Exchanges whose notional of an inverse contract is in the quote currency: ccxt 4.5.64,
``bitmex.parse_position`` takes foreignNotional."""


COUNTED_IN_UNITS = ("deribit",)
"""Exchanges that count contracts in coins, or of inverse ones in the quote currency, and whose
contractSize is the step of orders: ccxt 4.5.64, ``deribit.parse_position``: size, and the
contractSize of the market (10 USD of BTC-PERPETUAL); its notional is size_currency, in coins."""


def read_ccxt_position(
    given: Mapping[str, Any], collateral: str | None, exchange: str
) -> dict[str, Any]:
    """Return the fields of a position; ``collateral`` says what that of ccxt contains."""
    symbol = str(given.get("symbol"))
    side = {"long": 1.0, "short": -1.0}.get(str(given.get("side")))
    if side is None:
        raise ParameterError(
            f"a position must have the side long or short, got {given.get('side')!r} ({symbol})"
        )
    mode = given.get("marginMode")
    if mode == "isolated" and given.get("collateral") is None:
        raise ParameterError(
            f"an isolated position must have its collateral, got None ({symbol}); give what is "
            "posted for it as 'collateral' of the position"
        )
    pair, _, settled = symbol.partition(":")
    is_inverse = pair.partition("/")[0] == settled.partition("-")[0] != ""
    has_notional = given.get("notional") not in MISSING
    size = read_number(given, "contractSize")
    if is_inverse and exchange.lower() in NOTIONAL_IN_QUOTE:
        has_notional = False
    if exchange.lower() in COUNTED_IN_UNITS:
        size, has_notional = 1.0, has_notional and is_inverse
    return {
        "quantity": side * abs(read_number(given, "contracts")),
        "entry": given.get("entryPrice"),
        "margin": 0.0 if mode == "cross" else read_posted(given, collateral),
        "mode": mode,
        "contract_size": size or None,
        "notional": (abs(read_number(given, "notional")) or None) if has_notional else None,
        "mark_price": read_number(given, "markPrice") or None,
        "liquidation_price": read_liquidation_price(given),
    }


def read_posted(given: Mapping[str, Any], collateral: str | None) -> float:
    """Return what is posted for a position of ccxt, without its profit; 0 if that is unknown."""
    if collateral is None:
        return 0.0
    posted = read_number(given, "collateral")
    if collateral == WITHOUT_PROFIT:
        return posted
    if given.get("unrealizedPnl") in MISSING:
        raise ParameterError(
            "an isolated position whose collateral contains its profit must have its "
            f"unrealizedPnl, got {given.get('unrealizedPnl')!r} ({given.get('symbol')}); give it, "
            "or collateral='wallet' with what is posted"
        )
    return posted - read_number(given, "unrealizedPnl")


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
    with contextlib.suppress(TypeError, ValueError):
        if math.isnan(float(value)):
            return None
    price = read_number(row, "liquidationPrice")
    return price if price > 0.0 else None


def is_open(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a position; raise if it is one of an unknown quantity."""
    if row.get("contracts") not in MISSING:
        return read_number(row, "contracts") != 0.0
    if read_number(row, "notional") != 0.0 or read_number(row, "initialMargin") != 0.0:
        raise ParameterError(
            f"a position must have its contracts, got {row.get('contracts')!r} with a notional of "
            f"{row.get('notional')!r} ({row.get('symbol')}); give its quantity as 'contracts'"
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
    for policy in setup.observed:
        if start_memory(policy.policy):
            raise ParameterError(
                f"{type(policy.policy).__name__} has a memory, which a snapshot does not "
                "contain; decide from the result of a run"
            )
    lacking = [need for need in list_needs(setup) if not is_known(setup, snapshot, need[0])]
    if lacking:
        facts = ", ".join(dict.fromkeys(fact for fact, _ in lacking))
        readers = "; ".join(dict.fromkeys(reader for _, reader in lacking))
        raise ParameterError(
            f"state must have what the policy and the account read, got no {facts}: {readers}"
        )


def list_needs(setup: Setup) -> Iterator[tuple[str, str]]:
    for policy in setup.observed:
        reads = find_account_reads(policy.policy)
        for name, fact in BEHIND.items():
            if name in reads:
                yield fact, f"{type(policy.policy).__name__} reads account.{name}"
    for name, (fact, reader) in OF_RULES.items():
        if getattr(setup.account, name) not in (None, 0.0):
            yield fact, f"{name} {reader}"
    if setup.account.daily_basis == "initial":
        yield "paid_in", "daily_basis='initial' is a fraction of it"
    if any(find_fixed(setup, name) for name in setup.markets.names):
        yield "opened", "a distance that is fixed at the entry is that of its bar"
    if setup.overlay is not None:
        yield "overlay", "the overlay keeps it where it returns NaN"


def find_fixed(setup: Setup, name: str) -> bool:
    own = setup.account.for_instrument(name)
    return any(map(accounts.is_fixed_distance, (own.stop_loss, own.take_profit, own.trailing_stop)))


def find_account_reads(policy: Policy) -> frozenset[str]:
    rules: Any
    inner: tuple[Policy, ...] = ()
    if isinstance(policy, Combinator):
        inner, rules = policy.policies, (policy.written.combine,)
    else:
        rules = policies.formula_for(policy, ()), policies.margin_formula_for(policy, ())
    read = {field for field in AccountView._fields for rule in rules
            if rule and may_read_of_account(rule, frozenset({field}))}  # fmt: skip
    return frozenset(read).union(*map(find_account_reads, inner))


def is_known(setup: Setup, snapshot: AccountSnapshot, fact: str) -> bool:
    held = {name: each for name, each in snapshot.positions.items() if each.quantity != 0.0}
    if fact == "best_price":
        return all(each.best_price is not None for each in held.values())
    if fact == "opened":
        stopped = [
            n for n in setup.markets.names
            if setup.account.for_instrument(n).max_holding or find_fixed(setup, n)
        ]  # fmt: skip
        return all(held[name].opened is not None for name in stopped if name in held)
    if getattr(snapshot, fact) is not None:
        return True
    own = [snapshot.positions.get(name) for name in setup.markets.names]
    is_of_each = fact in ("bars_since_liquidation", "bars_since_stop")
    return is_of_each and all(each and getattr(each, fact) is not None for each in own)


def start_account(setup: Setup, snapshot: AccountSnapshot, terms: Terms) -> AccountState:
    last = setup.markets.n_bars - 1
    state = start_account_state(setup._replace(first=last))
    held = [snapshot.positions.get(name, FLAT) for name in setup.markets.names]
    is_listed = setup.markets.spans[:, 1] == setup.markets.n_bars
    for i, (each, market) in enumerate(zip(held, setup.markets.values(), strict=True)):
        is_open, position = each.quantity != 0.0, state.positions[i]
        mark = value_price(setup, i, market.mark_close[-1]) if is_listed[i] else 0.0
        position.quantity = each.quantity
        position.entry = value_price(setup, i, each.entry) * is_open
        position.value = position.marked = mark
        is_isolated = setup.account.for_instrument(setup.markets.names[i]).margin == "isolated"
        position.margin = each.margin if is_isolated else 0.0
        position.best = value_price(setup, i, each.best_price) * is_open
        position.factor = 1.0 if each.overlay is None else each.overlay
        opened = each.opened if is_open else None
        position.opened = math.nan if opened is None else core.to_nanoseconds(opened)
        for name, fact in (("since", "bars_since_liquidation"), ("since_stop", "bars_since_stop")):
            own = getattr(each, fact)
            known = getattr(snapshot, fact) if own is None else own
            setattr(position, name, math.inf if known is None else known)
        position.is_halted = 1.0 if each.halted else 0.0
        if each.venue_leverage is not None:
            position.setting = each.venue_leverage
    feed = setup.inputs.feed
    state.positions.column("last_funding")[feed.funding_instrument] = feed.funding_rate
    if snapshot.collateral is not None:
        names = [each.name for each in setup.account.collateral]
        state.held.amounts[:] = [snapshot.collateral.get(name, 0.0) for name in names]
    state.held.prices[:] = state.priced[:] = feed.asset_mark_close[:, last]
    write_wallet(setup, snapshot, state, terms)
    return state


def value_price(setup: Setup, i: int, price: float | None) -> float:
    contract = setup.venues[setup.markets.names[i]].contract
    if price is None:
        return 0.0
    return float(value_of(contract, price))


def write_wallet(
    setup: Setup, snapshot: AccountSnapshot, state: AccountState, terms: Terms
) -> None:
    wallet, whole = state.wallet, snapshot.bars_since_liquidation
    paid, worth = 0.0, 0.0
    for i, name in enumerate(setup.markets.names):
        position = state.positions[i]
        quantity, entry, mark = position.quantity, position.entry, position.marked
        if setup.account.for_instrument(name).margin == "isolated":
            worth += position.margin + quantity * (mark - entry)
        else:
            paid += quantity * entry
            worth += quantity * mark
    worth_of_assets = float(np.sum(state.held.amounts * state.held.prices))
    cash = (snapshot.equity or 0.0) - worth - worth_of_assets
    wallet.cash = cash if snapshot.wallet is None else snapshot.wallet - paid
    equity = accounts.compute_account_equity(terms, state)
    wallet.equity, wallet.reserve = equity, snapshot.reserve or 0.0
    wallet.unit = equity
    wallet.peak = max(snapshot.peak_equity or equity, equity)
    wealth = equity + wallet.reserve
    wallet.scale = wallet.unit / wealth if wealth > 0.0 else 1.0
    wallet.paid_in = wealth if snapshot.paid_in is None else snapshot.paid_in
    wallet.highest = equity if snapshot.highest_equity is None else snapshot.highest_equity
    wallet.day_open = equity if snapshot.day_open is None else snapshot.day_open
    wallet.week_open = equity if snapshot.week_open is None else snapshot.week_open
    wallet.rests = 0.0 if snapshot.rests is None else 1.0 + RESTS.index(snapshot.rests)
    if snapshot.paused_until is not None:
        wallet.paused_until = float(core.to_nanoseconds(snapshot.paused_until))
    wallet.is_ruined = 0.0 if equity > 0.0 else 1.0
    wallet.is_over = 1.0 if snapshot.halted else 0.0
    if snapshot.overlay is not None:
        wallet.overlay = snapshot.overlay
    wallet.since_pool = math.inf if whole is None else whole
    wallet.is_converting = 1.0 if accounts.is_under_limit(terms, state, equity) else 0.0

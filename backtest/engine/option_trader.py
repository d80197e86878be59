"""Rules that trade options: the chain they see, and the orders of their legs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from backtest import core
from backtest.account import AccountState, OptionFeed, Scratch
from backtest.core.code_names import pd
from backtest.core.units import TOLERANCE, YEAR_DAYS
from backtest.engine.inputs import find_prices
from backtest.engine.loop import N_SHOWN, Deciders, RunTape
from backtest.engine.policies import ObservedPolicy
from backtest.engine.run_setup import Setup
from backtest.margin import Brackets
from backtest.market import Markets, find_coin
from backtest.options import option_checks, option_inputs, option_schedule
from backtest.policies import AccountView, Policy
from backtest.policies.combinators import SCHEDULED, TOTAL
from backtest.policies.policy import BAR_FIELDS
from backtest.results.run_data import RunOptions
from backtest.venue import Option


class ListedOption(NamedTuple):
    """What a policy knows of a listed contract at a close.

    ``kind`` is "call" or "put", ``expiry`` in UTC, ``years`` of 365 days. Prices are per unit of
    the underlying in the currency of settlement ("cash" or "coin"): ``mark``, and ``bid`` and
    ``ask`` of the last row (NaN: not quoted, or no row); without a chain they are those at which an
    order would fill. ``spot`` (the mark price of the underlying) and ``forward`` are in the quote
    currency, ``volatility`` is that of the mark,
    ``delta`` N(d1), negative for a put, ``size`` units per contract, ``quantity`` the signed
    contracts that are held, and ``leg`` that which ordered them first ("": none).
    """

    name: str
    underlying: str
    kind: str
    strike: float
    expiry: pd.Timestamp
    size: float
    settlement: str
    years: float
    spot: float
    forward: float
    mark: float
    bid: float
    ask: float
    volatility: float
    delta: float
    quantity: float
    leg: str

    @property
    def days(self) -> float:
        return round(YEAR_DAYS * self.years, 9)

    @property
    def is_quoted(self) -> bool:
        return not (math.isnan(self.bid) and math.isnan(self.ask))

    @property
    def cost(self) -> float:
        """What one contract costs at its ask, in the currency of settlement."""
        return self.size * self.ask

    @property
    def delta_notional(self) -> float:
        """S dU/dS of one contract at a constant basis, in the currency of settlement.

        In cash size delta F, in coins size (delta - V / F).
        """
        if self.settlement == "cash":
            return self.size * self.delta * self.forward
        return self.size * (self.delta - self.mark)

    @property
    def notional(self) -> float:
        """What one contract is on, in the currency of settlement: in coins its size."""
        return self.size * (self.spot if self.settlement == "cash" else 1.0)


class Legs(NamedTuple):
    """What the legs of all policies ordered so far; all of it changes.

    ``owners`` has the policy and the leg of each contract by number, ``held`` the contract that
    each leg ordered last, and ``hedged`` the instruments that were ordered in contracts.
    """

    owners: dict[int, tuple[int, str]]
    held: dict[tuple[int, str], int]
    hedged: set[int]


class ListedContracts(NamedTuple):
    names: Sequence[str]
    options: Sequence[Option]
    expiries: Sequence[pd.Timestamp]
    lots: Sequence[float]
    feed: OptionFeed
    seen: option_inputs.CloseQuotes
    legs: Legs


class OptionChain(Mapping[str, ListedOption]):
    """The contracts that a policy may trade at a close, by name.

    ``coins`` is what the account holds of their underlying beside positions, in the settlement
    currency: collateral in full, and the balance of an account that is settled in the coin.
    """

    def __init__(
        self,
        listed: ListedContracts,
        contracts: Mapping[str, int],
        quantities: core.FloatArray,
        policy: int,
        instrument: str,
        coins: float,
        t: int,
    ) -> None:
        feed = listed.feed
        alive = ((feed.years_close[t] > 0.0) & np.isfinite(feed.volatilities_close[t])).tolist()
        self._listed, self._quantities, self._policy, self._t = listed, quantities, policy, t
        self._contracts = {name: k for name, k in contracts.items() if alive[k]}
        self.instrument, self.coins = instrument, coins

    def cover(self, account: AccountView) -> float:
        """Return the signed notional of the position and of the coins held beside it."""
        return account.leverage * account.equity + self.coins

    def __getitem__(self, name: str) -> ListedOption:
        k, t, feed, seen = self._contracts[name], self._t, self._listed.feed, self._listed.seen
        option = self._listed.options[k]
        return ListedOption(
            name=name,
            underlying=str(option.underlying),
            kind=str(option.kind),
            strike=float(feed.strikes[k]),
            expiry=self._listed.expiries[k],
            size=option.size,
            settlement=str(option.settlement),
            years=float(feed.years_close[t, k]),
            spot=float(seen.forwards[t, k] / feed.bases_close[t, k]),
            forward=float(seen.forwards[t, k]),
            mark=float(seen.marks[t, k]),
            bid=float(seen.bids[t, k]),
            ask=float(seen.asks[t, k]),
            volatility=float(feed.volatilities_close[t, k]),
            delta=float(seen.deltas[t, k]),
            quantity=float(self._quantities[k]),
            leg=self._listed.legs.owners.get(k, (0, ""))[1],
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._contracts)

    def __len__(self) -> int:
        return len(self._contracts)

    @property
    def is_quoted(self) -> bool:
        return any(each.is_quoted for each in self.values())

    def held(self, leg: str) -> ListedOption | None:
        k = self._listed.legs.held.get((self._policy, leg), -1)
        name = self._listed.names[k] if k >= 0 else ""
        is_held = name in self._contracts and self._quantities[k] != 0.0
        return self[name] if is_held else None

    def positions(self) -> list[ListedOption]:
        held = self._quantities.tolist()
        return [self[name] for name, k in self._contracts.items() if held[k] != 0.0]

    def choose(
        self, kind: str, delta: float, side: float, tenor: float, roll: float
    ) -> ListedOption | None:
        numbers, t = np.array([*self._contracts.values()], np.int64), self._t
        feed, seen = self._listed.feed, self._listed.seen
        days = np.round(YEAR_DAYS * feed.years_close[t, numbers], 9)  # ties, in spite of rounding
        fits = (feed.signs[numbers] == (1.0 if kind == "call" else -1.0)) & (days > roll)
        fits &= np.isfinite(seen.asks[t, numbers])
        fits &= np.isfinite(seen.bids[t, numbers]) | (side > 0.0)
        numbers, days = numbers[fits], days[fits]
        if len(np.unique(feed.instruments[numbers])) > 1:
            raise core.PolicyError(
                "a leg chooses among the contracts on one instrument, got those on several; give "
                "the rule as the policy of each instrument, not as the overlay"
            )
        if not len(numbers):
            return None
        away = np.round(np.abs(np.abs(seen.deltas[t, numbers]) - abs(delta)), 9)
        order = np.lexsort((feed.strikes[numbers], away, days, np.round(np.abs(days - tenor), 9)))
        return self[self._listed.names[int(numbers[order[0]])]]

    def roll(
        self, legs: Mapping[str, tuple[str, float, float]], tenor: float, roll: float
    ) -> dict[str, ListedOption]:
        if not self.is_quoted:
            return {}
        held = [self.held(leg) for leg in legs]
        if all(each is not None and each.days > roll and each.is_quoted for each in held):
            return {}
        found = {leg: self.choose(*spec, tenor, roll) for leg, spec in legs.items()}
        return {leg: each for leg, each in found.items() if each} if all(found.values()) else {}


class Trade(NamedTuple):
    i: int
    policy: Policy
    columns: tuple[str, ...]
    contracts: dict[str, int]


class OptionTrader:
    """Asks the policies that trade options: each when it has answered its leverage."""

    def __init__(self, setup: Setup, listed: ListedContracts, trades: Sequence[Trade]) -> None:
        self.markets, assets = setup.markets, setup.account.collateral
        self.are_assets = np.zeros((len(assets), len(self.markets)), dtype=np.bool_)
        for c, asset in enumerate(assets):  # whether it is the coin of each instrument
            prices = find_prices(asset, self.markets)
            for i, name in enumerate(self.markets.names):
                is_its_market = prices is self.markets[name]
                self.are_assets[c, i] = is_its_market or asset.name == find_coin(name)
        self.are_inverse = setup.inputs.terms.rules.brackets.are_inverse
        self.listed, self.trades = listed, trades
        self.may_sell = not isinstance(setup.account.requirement, Brackets)

    def begin(self, feed: OptionFeed, state: AccountState, scratch: Scratch, tape: RunTape) -> None:
        self.feed, self.state, self.scratch, self.cursor = feed, state, scratch, tape.cursor

    def put_back(self, kept: Sequence[Any]) -> None:
        mine: tuple[Any, ...] = self.listed.legs
        for each, before in zip(mine, kept, strict=True):
            each.clear()
            each.update(before)

    def bind(self, deciders: Deciders) -> Deciders:
        methods = list(deciders.methods)
        for trade in self.trades:
            methods[trade.i] = partial(self.answer, trade, methods[trade.i])
        return deciders._replace(methods=tuple(methods))

    def answer(
        self, trade: Trade, decide: Any, deciders: Deciders, venue: Any, i: int, time: int,
        local: int, *few: Any,
    ) -> float:  # fmt: skip
        leverage: float = decide(deciders, venue, i, time, local, *few)
        t = int(self.cursor[0])
        if i < len(self.scratch.plans):
            self.scratch.plans[i].target_contracts = np.nan
        if t + 1 < len(self.markets.time):
            rules = venue(min(i, len(self.state.positions) - 1)) if callable(venue) else venue
            account = AccountView._make((*deciders.shown[:N_SHOWN].flat, rules))
            columns = deciders.columns[deciders.columns_at[i] + local :: deciders.lengths[i]]
            seen = dict(zip(BAR_FIELDS[1:], deciders.bar, strict=True))
            seen |= dict(zip(trade.columns, columns, strict=False))
            self.order(trade, SimpleNamespace(time=time / 1e9, **seen), account, t)
        return leverage

    def order(self, trade: Trade, bar: SimpleNamespace, account: AccountView, t: int) -> None:
        state, listed, held = self.state, self.listed, self.state.held
        is_own, quantities = trade.i < len(state.positions), state.options.positions.quantities
        name = self.markets.names[trade.i] if is_own else ""
        instruments = self.feed.instruments[[*trade.contracts.values()]]
        are_own = self.are_assets[:, instruments].any(axis=1)
        coins = float((held.amounts * held.prices)[are_own].sum())
        coins += account.wallet if self.are_inverse[instruments].any() else 0.0
        chain = OptionChain(listed, trade.contracts, quantities, trade.i, name, coins, t)
        policy: Any = trade.policy
        try:
            orders = policy.option_orders(bar, account, chain)
        except core.BacktestError:
            raise
        except core.RAISED as error:
            raise core.PolicyError(
                f"{type(policy).__name__}.option_orders raised {type(error).__name__}: {error}, "
                f"at the close of the bar of {core.format_time(round(bar.time * 1e9))} UTC"
            ) from error
        try:
            for leg, contract, quantity in read_orders(orders):
                if not is_own or contract != name:
                    self.write(trade, leg, contract, quantity, chain, t)
                elif not math.isnan(quantity):
                    self.scratch.plans[trade.i].target_contracts = quantity
                    state.positions[trade.i].is_pending = 1
                    listed.legs.hedged.add(trade.i)
        except core.Fault as wrong:
            raise core.PolicyError(
                f"{type(policy).__name__}.option_orders at the close of bar {t}, "
                f"{core.format_time(int(self.markets.time[t]))} UTC: {wrong}"
            ) from None
        for each in chain.positions():  # what no leg holds any more
            k, owners = trade.contracts[each.name], listed.legs.owners
            quote = each.bid if each.quantity > 0.0 else each.ask
            is_left = k in owners and listed.legs.held[owners[k]] != k
            if is_left and math.isfinite(quote) and owners[k][0] == trade.i:
                option_schedule.check_order(self.feed, self.markets, k, t + 1)
                self.feed.targets[t + 1, k] = 0.0

    def write(
        self, trade: Trade, leg: str, contract: Any, quantity: float, chain: OptionChain, t: int
    ) -> None:
        feed, listed = self.feed, self.listed
        name = getattr(contract, "name", contract)
        if isinstance(contract, Option):
            pairs = zip(listed.names, listed.options, strict=True)
            name = next((own for own, each in pairs if each == contract), None)
        if not isinstance(name, str) or name not in trade.contracts:
            names = ", ".join([*trade.contracts][:5])
            raise core.Fault(
                f"a contract must be one of those listed on the instrument, {names}, got "
                f"{core.repr_plain(contract)}"
            )
        if math.isnan(quantity):
            return
        k = trade.contracts[name]
        owner = listed.legs.owners.setdefault(k, (trade.i, leg))
        if owner != (trade.i, leg):
            raise core.Fault(
                f"a contract is ordered by one leg, got {name!r} from {owner[1]!r} and {leg!r}; "
                "order the sum in one of them"
            )
        listed.legs.held[owner] = k
        if quantity < 0.0 and not self.may_sell:
            raise core.Fault(
                f"a quantity must be at least 0 with brackets, got {quantity:g} of {name!r}; "
                f"{option_checks.MAY_SELL}"
            )
        if name in chain:
            option_schedule.check_order(feed, self.markets, k, t + 1)
        if self.markets.time[t + 1] < feed.expiry_times[k]:
            lot = listed.lots[k]
            if lot > 0.0:
                lots = math.floor(abs(quantity) / lot * (1.0 + TOLERANCE))
                quantity = math.copysign(lots * lot, quantity)
            feed.targets[t + 1, k] = quantity


def make_trader(
    setup: Setup, observed: Sequence[ObservedPolicy], legs: Legs
) -> OptionTrader | None:
    """Return the trader of option orders with its legs in ``legs``, None without such policies."""
    markets, feed, resume = setup.markets, setup.inputs.feed.options, setup.resume
    trades = [
        Trade(i, each.policy, tuple(each.columns), list_contracts(markets, i))
        for i, each in enumerate(observed)
        if hasattr(type(each.policy), "option_orders")
    ]
    if not trades:
        return None
    options = markets.options
    listed = ListedContracts(
        names=tuple(options),
        options=tuple(options.values()),
        expiries=tuple(pd.Timestamp(str(each.expiry), tz="UTC") for each in options.values()),
        lots=option_checks.find_lots(markets, setup.venues),
        feed=feed,
        seen=option_inputs.read_close_quotes(markets, feed),
        legs=legs,
    )
    before: RunOptions | None = None if resume is None else resume.options
    if before is not None and not legs.owners:
        held = before.record.quantity
        changed = np.diff(held != 0.0, axis=0, prepend=False)
        opened = [np.flatnonzero(each)[-1] if each.any() else -1 for each in changed.T]
        for j in np.argsort(opened, kind="stable"):
            name, leg = before.terms.names[j], before.legs[j]
            owner = next((each for each in trades if name in each.contracts), None)
            if leg and owner is not None:
                k = owner.contracts[name]
                legs.owners[k] = (owner.i, leg)
                if held[-1, j] != 0.0:
                    legs.held[owner.i, leg] = k
        legs.hedged.update(before.hedged)
    return OptionTrader(setup, listed, trades)


def list_contracts(markets: Markets, i: int) -> dict[str, int]:
    owners = markets.listing.underlyings
    wanted = markets.names[i : i + 1] or markets.names
    return {name: k for k, name in enumerate(markets.options) if owners[name] in wanted}


def read_orders(orders: Any) -> list[tuple[str, Any, float]]:
    """Return the leg, the contract and the quantity of each order."""
    if not isinstance(orders, Mapping):
        raise core.Fault(
            'it must return a dict of legs, {"put": ("BTC-26JUN26-60000-P", 1.0)} for example, got '
            f"{core.repr_plain(orders)}"
        )
    found = []
    for leg, order in orders.items():
        if not isinstance(leg, str) or leg in ("", SCHEDULED, TOTAL):
            raise core.Fault(
                f"a leg must be a text other than {SCHEDULED!r} and {TOTAL!r}, got {leg!r}"
            )
        if not isinstance(order, tuple | list) or len(order) != 2:
            raise core.Fault(
                "the order of a leg must be (contract, quantity), got "
                f"{core.repr_plain(order)} for {leg!r}"
            )
        quantity = order[1]
        is_number = isinstance(quantity, int | float | np.number)
        if not is_number or isinstance(quantity, bool) or math.isinf(quantity):
            raise core.Fault(
                "a quantity must be a finite number of contracts, NaN to keep the leg, got "
                f"{core.repr_plain(quantity)} for {leg!r}"
            )
        found.append((leg, order[0], float(quantity)))
    return found

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
from backtest.engine.policies import ObservedPolicy
from backtest.engine.run_setup import Setup
from backtest.engine.shown import N_SHOWN, Deciders
from backtest.engine.tape import CURRENT_BAR, RunTape
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
        if self.settlement == "cash":
            return self.size * self.spot
        return self.size


class Legs(NamedTuple):
    """What the legs of all policies ordered so far; all of it changes.

    ``owners`` has the policy and the leg of each contract by number, ``held`` the contract that
    each leg ordered last, and ``hedged`` the instruments that were ordered in contracts.
    """

    owners: dict[int, tuple[int, str]]
    held: dict[tuple[int, str], int]
    hedged: set[int]


class ListedContracts(NamedTuple):
    """All contracts of the markets, in their order, and the legs that ordered them."""

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
        """Hold what policy ``policy`` sees of the options that live at the close of bar t.

        ``listed`` has all contracts of the markets. ``contracts`` are those that the policy may
        trade, with their numbers among all; ``quantities`` (n_contracts,) are the signed contracts
        that the account holds of all. ``instrument`` is the policy's own, "" for an overlay.
        """
        self._listed = listed
        self._quantities = quantities
        self._policy = policy
        self._t = t
        self.instrument = instrument
        self.coins = coins

        # An option lives while it has time left, if its volatility is known.
        feed = listed.feed
        are_alive = (feed.years_close[t] > 0.0) & np.isfinite(feed.volatilities_close[t])
        is_alive = are_alive.tolist()
        self._contracts = {name: number for name, number in contracts.items() if is_alive[number]}

    def cover(self, account: AccountView) -> float:
        """Return the signed notional of the position and of the coins held beside it."""
        return account.leverage * account.equity + self.coins

    def __getitem__(self, name: str) -> ListedOption:
        k = self._contracts[name]
        t = self._t
        feed = self._listed.feed
        seen = self._listed.seen
        option = self._listed.options[k]
        _, leg = self._listed.legs.owners.get(k, (0, ""))
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
            leg=leg,
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._contracts)

    def __len__(self) -> int:
        return len(self._contracts)

    @property
    def is_quoted(self) -> bool:
        return any(option.is_quoted for option in self.values())

    def held(self, leg: str) -> ListedOption | None:
        """Return the contract that a leg holds, None without one."""
        k = self._listed.legs.held.get((self._policy, leg), -1)
        if k < 0 or self._quantities[k] == 0.0:
            return None
        name = self._listed.names[k]
        return self[name] if name in self._contracts else None

    def positions(self) -> list[ListedOption]:
        quantities = self._quantities.tolist()
        return [self[name] for name, k in self._contracts.items() if quantities[k] != 0.0]

    def choose(
        self, kind: str, delta: float, side: float, tenor: float, roll: float
    ) -> ListedOption | None:
        """Return the quoted contract nearest in days to expiry, then in delta; None without one.

        ``kind`` is "call" or "put", ``tenor`` the days wanted; of ``delta`` only the size counts.
        More than ``roll`` days must be left. To buy (``side`` over 0) needs an ask, to sell needs a
        bid too. Raises PolicyError if contracts on several instruments fit.
        """
        t = self._t
        feed = self._listed.feed
        seen = self._listed.seen
        numbers = np.array([*self._contracts.values()], np.int64)
        # Rounded, so that contracts that expire together tie.
        days = np.round(YEAR_DAYS * feed.years_close[t, numbers], 9)

        sign = 1.0 if kind == "call" else -1.0
        has_ask = np.isfinite(seen.asks[t, numbers])
        has_bid = np.isfinite(seen.bids[t, numbers])
        fits = (feed.signs[numbers] == sign) & (days > roll)
        fits &= has_ask & (has_bid | (side > 0.0))
        numbers = numbers[fits]
        days = days[fits]

        if len(np.unique(feed.instruments[numbers])) > 1:
            raise core.PolicyError(
                "a leg chooses among the contracts on one instrument, got those on several; give "
                "the rule as the policy of each instrument, not as the overlay"
            )
        if not len(numbers):
            return None

        # Ties go to the earlier expiry, the nearer delta, and then the lower strike: the last key
        # of a lexsort sorts first.
        off_tenor = np.round(np.abs(days - tenor), 9)
        sizes_of_delta = np.abs(seen.deltas[t, numbers])
        off_delta = np.round(np.abs(sizes_of_delta - abs(delta)), 9)
        order = np.lexsort((feed.strikes[numbers], off_delta, days, off_tenor))
        nearest = int(numbers[order[0]])
        return self[self._listed.names[nearest]]

    def roll(
        self, legs: Mapping[str, tuple[str, float, float]], tenor: float, roll: float
    ) -> dict[str, ListedOption]:
        """Return the contracts to hold from now on, by leg; none if nothing is to be changed.

        ``legs`` has for each leg the kind, delta and side of its contract, as :meth:`choose` takes
        them. All legs are chosen anew together, once one of them holds no contract with a quote and
        more than ``roll`` days left. Nothing changes if no contract of the chain has a quote, or if
        a leg finds none.
        """
        if not self.is_quoted:
            return {}
        held = [self.held(leg) for leg in legs]
        if all(option is not None and option.days > roll and option.is_quoted for option in held):
            return {}

        chosen = {}
        for leg, (kind, delta, side) in legs.items():
            option = self.choose(kind, delta, side, tenor, roll)
            if option is not None:
                chosen[leg] = option

        # A structure with a leg missing would be another one.
        if len(chosen) < len(legs):
            return {}
        return chosen


class Trade(NamedTuple):
    """Policy i, which orders options, and the numbers of the contracts that it may order."""

    i: int
    policy: Policy
    columns: tuple[str, ...]
    contracts: dict[str, int]


def show_bar(trade: Trade, deciders: Deciders, i: int, time: int, row: int) -> SimpleNamespace:
    """Return the bar that policy i saw when it decided: its prices, and a row of its columns.

    The columns of a policy lie one after another in ``deciders.columns``, each as long as the
    market, so that a row of them is every so many numbers.
    """
    first = deciders.columns_at[i] + row
    n_bars = deciders.lengths[i]
    columns = deciders.columns[first::n_bars]

    # The array goes on with the columns of later policies: those of this one come first.
    fields = dict(zip(BAR_FIELDS[1:], deciders.bar, strict=True))
    fields |= dict(zip(trade.columns, columns, strict=False))
    return SimpleNamespace(time=time / 1e9, **fields)


class OptionTrader:
    """Asks the policies that trade options: each when it has answered its leverage."""

    def __init__(self, setup: Setup, listed: ListedContracts, trades: Sequence[Trade]) -> None:
        """Begin to trade options for some policies of a setup."""
        self.markets = setup.markets
        self.listed = listed
        self.trades = trades
        self.are_inverse = setup.inputs.terms.rules.brackets.are_inverse
        self.may_sell = not isinstance(setup.account.requirement, Brackets)

        # The collateral that is the coin of each instrument.
        assets = setup.account.collateral
        self.are_assets = np.zeros((len(assets), len(self.markets)), dtype=np.bool_)
        for c, asset in enumerate(assets):
            prices = find_prices(asset, self.markets)
            for i, name in enumerate(self.markets.names):
                is_its_market = prices is self.markets[name]
                self.are_assets[c, i] = is_its_market or asset.name == find_coin(name)

    def begin(self, feed: OptionFeed, state: AccountState, scratch: Scratch, tape: RunTape) -> None:
        """Take what a drive reads and writes; orders go into the targets of ``feed``."""
        self.feed = feed
        self.state = state
        self.scratch = scratch
        self.cursor = tape.cursor

    def put_back(self, saved: Sequence[Any]) -> None:
        """Write the legs back as they were before bars that are taken once more."""
        legs: tuple[Any, ...] = self.listed.legs
        for leg_field, before in zip(legs, saved, strict=True):
            leg_field.clear()
            leg_field.update(before)

    def bind(self, deciders: Deciders) -> Deciders:
        """Return policies of which those that trade options are asked for orders too."""
        methods = list(deciders.methods)
        for trade in self.trades:
            methods[trade.i] = partial(self.answer, trade, methods[trade.i])
        return deciders._replace(methods=tuple(methods))

    def answer(
        self,
        trade: Trade,
        decide: Any,
        deciders: Deciders,
        venue: Any,
        i: int,
        time: int,
        row: int,
    ) -> float:
        """Ask policy i for its leverage and then for its orders of options; return the leverage.

        ``decide`` is the policy's own method, called as the loop would call it. Orders fill in the
        next bar, so none are asked for at the last close. They are asked of the bar and the account
        that the policy saw when it decided: ``time`` is the open of the bar in ns, ``row`` that of
        its columns.
        """
        leverage: float = decide(deciders, venue, i, time, row)

        # A hedge that the last close ordered, in contracts, is over: else it would go before this
        # leverage. The overlay has no position to hedge.
        if i < len(self.scratch.plans):
            self.scratch.plans[i].target_contracts = np.nan

        # Orders fill in the next bar.
        t = int(self.cursor[CURRENT_BAR])
        has_next_bar = t + 1 < len(self.markets.time)
        if not has_next_bar:
            return leverage

        account = self.show_account(deciders, venue, i)
        bar = show_bar(trade, deciders, i, time, row)
        self.order(trade, bar, account, t)
        return leverage

    def show_account(self, deciders: Deciders, venue: Any, i: int) -> AccountView:
        """Return the account as policy i saw it when it decided, with the margin rules it reads.

        ``venue`` are these rules, or a function that returns those of an instrument. The overlay,
        which comes after all instruments, sees those of the last one.
        """
        margin_rules = venue
        if callable(venue):
            last = len(self.state.positions) - 1
            margin_rules = venue(min(i, last))
        return AccountView._make((*deciders.shown[:N_SHOWN].flat, margin_rules))

    def order(self, trade: Trade, bar: SimpleNamespace, account: AccountView, t: int) -> None:
        """Ask a policy for its orders of options at close t, and write them for bar t + 1.

        They become targets, signed contracts to hold. An order of the policy's own instrument is a
        hedge: it takes the place of a leverage.
        """
        chain = self.show_chain(trade, account, t)
        orders = self.ask_orders(trade, bar, account, chain)

        # The policy of the whole account, the overlay, has no instrument to hedge with.
        can_hedge = trade.i < len(self.state.positions)
        try:
            for leg, contract, quantity in read_orders(orders):
                if can_hedge and contract == chain.instrument:
                    self.order_hedge(trade, quantity)
                else:
                    self.write_target(trade, leg, contract, quantity, chain, t)
        except core.Fault as fault:
            time = core.format_time(int(self.markets.time[t]))
            raise core.PolicyError(
                f"{type(trade.policy).__name__}.option_orders at the close of bar {t}, "
                f"{time} UTC: {fault}"
            ) from None

        # A leg that ordered another contract has left its former one.
        self.close_left(trade, chain, t)

    def show_chain(self, trade: Trade, account: AccountView, t: int) -> OptionChain:
        """Return the contracts that a policy may order at close t.

        ``coins`` is what the account has of the coins of their underlyings, in money: collateral,
        and the wallet where contracts settle in coins.
        """
        is_of_instrument = trade.i < len(self.state.positions)
        name = ""
        if is_of_instrument:
            name = self.markets.names[trade.i]

        held = self.state.held
        instruments = self.feed.instruments[[*trade.contracts.values()]]
        are_coins = self.are_assets[:, instruments].any(axis=1)
        coins = float((held.amounts * held.prices)[are_coins].sum())
        if self.are_inverse[instruments].any():
            coins += account.wallet
        quantities = self.state.options.positions.quantities

        return OptionChain(
            self.listed,
            trade.contracts,
            quantities,
            trade.i,
            instrument=name,
            coins=coins,
            t=t,
        )

    def ask_orders(
        self, trade: Trade, bar: SimpleNamespace, account: AccountView, chain: OptionChain
    ) -> Any:
        """Return the orders of options of a policy; what it raises names it and the bar."""
        policy: Any = trade.policy
        try:
            return policy.option_orders(bar, account, chain)
        except core.BacktestError:
            raise
        except core.RAISED as error:
            raise core.PolicyError(
                f"{type(policy).__name__}.option_orders raised {type(error).__name__}: {error}, "
                f"at the close of the bar of {core.format_time(round(bar.time * 1e9))} UTC"
            ) from error

    def order_hedge(self, trade: Trade, quantity: float) -> None:
        """Write the contracts of the instrument itself to hold, instead of a leverage."""
        if math.isnan(quantity):
            return
        self.scratch.plans[trade.i].target_contracts = quantity
        self.state.positions[trade.i].is_pending = 1
        self.listed.legs.hedged.add(trade.i)

    def write_target(
        self, trade: Trade, leg: str, contract: Any, quantity: float, chain: OptionChain, t: int
    ) -> None:
        """Write the signed contracts that a leg orders at close t, as its target of bar t + 1.

        A leg is a named part of a policy's options, such as "put"; from now on it owns the
        contract. A quantity of NaN keeps what it holds. Raises Fault if another leg owns the
        contract, or if it is sold where that is not allowed.
        """
        feed = self.feed
        legs = self.listed.legs
        name = self.find_name(trade, contract)
        if math.isnan(quantity):
            return

        number = trade.contracts[name]
        owner = legs.owners.setdefault(number, (trade.i, leg))
        if owner != (trade.i, leg):
            _, leg_of_owner = owner
            raise core.Fault(
                f"a contract is ordered by one leg, got {name!r} from {leg_of_owner!r} and "
                f"{leg!r}; order the sum in one of them"
            )
        legs.held[owner] = number
        if quantity < 0.0 and not self.may_sell:
            raise core.Fault(
                f"a quantity must be at least 0 with brackets, got {quantity:g} of {name!r}; "
                f"{option_checks.MAY_SELL}"
            )

        # A contract that lives at this close is checked for the fill; one that has expired by the
        # next open gets no target.
        if name in chain:
            option_schedule.check_order(feed, self.markets, number, t + 1)
        if self.markets.time[t + 1] < feed.expiry_times[number]:
            feed.targets[t + 1, number] = round_to_lots(quantity, self.listed.lots[number])

    def find_name(self, trade: Trade, contract: Any) -> str:
        """Return the name of a contract given by name, as ``Option`` or from the chain."""
        name = getattr(contract, "name", contract)
        if isinstance(contract, Option):
            name = None
            for known, option in zip(self.listed.names, self.listed.options, strict=True):
                if option == contract:
                    name = known
                    break

        if not isinstance(name, str) or name not in trade.contracts:
            names = ", ".join([*trade.contracts][:5])
            raise core.Fault(
                f"a contract must be one of those listed on the instrument, {names}, got "
                f"{core.repr_plain(contract)}"
            )
        return name

    def close_left(self, trade: Trade, chain: OptionChain, t: int) -> None:
        """Order to close contracts that their leg has left for another one, in bar t + 1.

        A leg is a named part of a policy's options; it holds one contract at a time. A contract
        without a quote waits for a later close.
        """
        legs = self.listed.legs
        for option in chain.positions():
            # What no leg ordered, such as a scheduled contract, is not closed here.
            number = trade.contracts[option.name]
            if number not in legs.owners:
                continue

            owner = legs.owners[number]
            policy_of_owner, _ = owner
            is_left = legs.held[owner] != number and policy_of_owner == trade.i
            # A long is closed at the bid, a short at the ask.
            quote = option.bid if option.quantity > 0.0 else option.ask
            if is_left and math.isfinite(quote):
                option_schedule.check_order(self.feed, self.markets, number, t + 1)
                self.feed.targets[t + 1, number] = 0.0


def round_to_lots(quantity: float, lot: float) -> float:
    """Return whole lots of signed contracts, towards 0; any quantity without a lot."""
    if not lot > 0.0:
        return quantity
    lots = math.floor(abs(quantity) / lot * (1.0 + TOLERANCE))
    return math.copysign(lots * lot, quantity)


def make_trader(
    setup: Setup, observed: Sequence[ObservedPolicy], legs: Legs
) -> OptionTrader | None:
    """Return what asks policies for their orders of options; None if none of them orders any.

    ``legs`` has what the named legs of all policies ordered; parts of a run share it. For a resumed
    run, what they held in the earlier run is first written into it.
    """
    markets = setup.markets
    feed = setup.inputs.feed.options
    trades = []
    for i, own in enumerate(observed):
        if hasattr(type(own.policy), "option_orders"):
            trades.append(Trade(i, own.policy, tuple(own.columns), list_contracts(markets, i)))
    if not trades:
        return None

    options = markets.options
    listed = ListedContracts(
        names=tuple(options),
        options=tuple(options.values()),
        expiries=tuple(pd.Timestamp(str(option.expiry), tz="UTC") for option in options.values()),
        lots=option_checks.find_lots(markets, setup.venues),
        feed=feed,
        seen=option_inputs.read_close_quotes(markets, feed),
        legs=legs,
    )
    before: RunOptions | None = None if setup.resume is None else setup.resume.options
    if before is not None and not legs.owners:
        resume_legs(legs, before, trades)
    return OptionTrader(setup, listed, trades)


def resume_legs(legs: Legs, before: RunOptions, trades: Sequence[Trade]) -> None:
    """Write into ``legs`` what each leg held at the end of the run that is resumed.

    A leg is a named part of a policy's options. It owns each contract that it ever opened; of
    several, it holds the last one. So contracts are gone through in the order in which they were
    last opened or closed.
    """
    # The row at which each contract was last opened or closed, -1 if never.
    quantity = before.record.quantity  # (n_bars, n_contracts)
    has_changed = np.diff(quantity != 0.0, axis=0, prepend=False)
    last_changes = []
    for changes_of_contract in has_changed.T:
        rows = np.flatnonzero(changes_of_contract)
        last_changes.append(rows[-1] if len(rows) else -1)

    # Contracts have other numbers in the earlier run: they are found by name.
    for number_before in np.argsort(last_changes, kind="stable"):
        name = before.terms.names[number_before]
        leg = before.legs[number_before]
        trade = next((trade for trade in trades if name in trade.contracts), None)
        if not leg or trade is None:
            continue
        number = trade.contracts[name]
        legs.owners[number] = (trade.i, leg)
        if quantity[-1, number_before] != 0.0:
            legs.held[trade.i, leg] = number
    legs.hedged.update(before.hedged)


def list_contracts(markets: Markets, i: int) -> dict[str, int]:
    """Return the numbers of the contracts on instrument i; on all for an overlay."""
    underlyings = markets.listing.underlyings
    instruments = markets.names[i : i + 1] or markets.names
    numbered = enumerate(markets.options)
    return {name: k for k, name in numbered if underlyings[name] in instruments}


def read_orders(orders: Any) -> list[tuple[str, Any, float]]:
    """Return the leg, the contract and the quantity of each order."""
    if not isinstance(orders, Mapping):
        raise core.Fault(
            'it must return a dict of legs, {"put": ("BTC-26JUN26-60000-P", 1.0)} for example, got '
            f"{core.repr_plain(orders)}"
        )
    return [read_order(leg, order) for leg, order in orders.items()]


def read_order(leg: Any, order: Any) -> tuple[str, Any, float]:
    """Return the leg, the contract and the quantity of one order, checked."""
    if not isinstance(leg, str) or leg in ("", SCHEDULED, TOTAL):
        raise core.Fault(
            f"a leg must be a text other than {SCHEDULED!r} and {TOTAL!r}, got {leg!r}"
        )
    if not isinstance(order, tuple | list) or len(order) != 2:
        raise core.Fault(
            "the order of a leg must be (contract, quantity), got "
            f"{core.repr_plain(order)} for {leg!r}"
        )

    contract, quantity = order
    is_number = isinstance(quantity, int | float | np.number)
    if not is_number or isinstance(quantity, bool) or math.isinf(quantity):
        raise core.Fault(
            "a quantity must be a finite number of contracts, NaN to keep the leg, got "
            f"{core.repr_plain(quantity)} for {leg!r}"
        )
    return leg, contract, float(quantity)

"""Margin of positions and options: each, by strategies, in scenarios (docs/options-margin.md).

The cheapest pairing is the optimum of a linear program, whose first basis has every short naked.
Values of options come from the case: a function of the price
of the underlying, of the moment and of a move of volatility.
"""

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from tests.oracle.numbers import INFINITY, ONE, ZERO, Program, exact
from tests.oracle.requirement import Asset, Leg

DAYS = 365


class Moment(NamedTuple):
    """When options are valued: a bar, and whether at its close or at its open."""

    bar: int
    is_close: bool


class Holding(NamedTuple):
    """Contracts of one option at a price of its underlying; ``mark`` is that of one contract.
    ``option`` has ``sign, strike, size, is_coin``, and at a moment ``value``, ``forward``,
    ``delta`` and ``years``."""

    option: Any
    quantity: Decimal
    index: Decimal
    mark: Decimal
    moment: Moment

    @property
    def name(self) -> str:
        return self.option.underlying

    @property
    def units(self) -> Decimal:
        return self.quantity * exact(self.option.size)

    @property
    def unit_mark(self) -> Decimal:
        return self.mark / exact(self.option.size)

    @property
    def years(self) -> float:
        return self.option.years(self.moment)

    def payoff(self, price: Decimal) -> Decimal:
        return max(ZERO, self.option.sign * (price - exact(self.option.strike)))

    def otm(self, price: Decimal) -> Decimal:
        return max(ZERO, self.option.sign * (exact(self.option.strike) - price))

    def value(self, move: Decimal = ZERO, volatility: float | None = None) -> Decimal:
        """The value of one contract by the model, at a moved price and volatility."""
        moved = float(self.index * (ONE + move))
        return exact(self.option.value(self.moment, moved, volatility))

    def unit_price(self) -> Decimal:
        """What a unit of the underlying is worth in the settlement currency."""
        return ONE if self.option.is_coin else self.index


def counted_value(kind: str, held: Sequence[Holding], rule: Any) -> Decimal:
    """B2: what of the marks backs the account."""
    total = ZERO
    for each in held:
        if kind == "net":
            total += each.quantity * each.mark
        elif kind == "long":
            total += max(each.quantity, ZERO) * each.mark
        elif kind == "loan" and each.quantity > 0 and each.years * DAYS > rule.loan_days:
            is_sold = any(
                o.quantity < 0 and o.name == each.name and o.option.sign == each.option.sign
                for o in held
            )
            total += ZERO if is_sold else exact(rule.loan_value) * each.quantity * each.mark
    return total


class Standard:
    """``Brackets``: each position for itself; options hold nothing together: longs alone."""

    has_scenarios = False
    counts = "none"

    def __init__(self, rule: Any = None) -> None:
        self.rule = rule

    def nets(self, legs: Sequence[Leg]) -> dict[str, Decimal]:
        return {}

    def counted(self, held: Sequence[Holding]) -> Decimal:
        return counted_value(self.counts, held, self.rule)

    def matters(self, held: Sequence[Holding]) -> bool:
        """B6: whether an option is sold or counts."""
        return any(o.quantity < 0 or (self.counts != "none" and o.quantity != 0) for o in held)

    def needed(
        self, legs: Sequence[Leg], assets: Sequence[Asset], held: Sequence[Holding], initial: bool
    ) -> Decimal:
        found = sum((leg.initial if initial else leg.maintenance for leg in legs), ZERO)
        return found + self.of_options(legs, [o for o in held if o.quantity != 0], initial)

    def of_options(self, legs: Sequence[Leg], held: Sequence[Holding], initial: bool) -> Decimal:
        assert not any(o.quantity < 0 for o in held)
        return ZERO


class PerOption(Standard):
    """``bt.Standard``."""

    def __init__(self, rule: Any) -> None:
        super().__init__(rule)
        self.counts = rule.option_value

    def of_options(self, legs: Sequence[Leg], held: Sequence[Holding], initial: bool) -> Decimal:
        return sum((-o.units * self.of_unit(o, initial) for o in held if o.quantity < 0), ZERO)

    def of_unit(self, held: Holding, initial: bool) -> Decimal:
        """max(b, b'·mark) + mark, and initially max(a - otm, c) + mark, in units of the coin."""
        rule = self.rule
        unit = held.unit_price()
        mark = held.unit_mark
        of_mark = exact(rule.of_mark) * mark if held.option.sign < 0 else ZERO
        factor = exact(getattr(rule, "factor", 1.0))
        needed = max(exact(rule.maintenance) * unit, of_mark) * factor
        if initial:
            forward = exact(held.option.forward(held.moment, float(held.index)))
            left = max(exact(rule.initial) - held.otm(forward) / forward, exact(rule.least))
            needed = max(needed, left * factor * unit)
        return needed + mark


class Strategies(Standard):
    """``bt.Strategy``: the cheapest pairing of shorts with longs and shares."""

    def __init__(self, rule: Any) -> None:
        super().__init__(rule)
        self.counts = "loan" if rule.loan_value > 0 else "none"

    def of_options(self, legs: Sequence[Leg], held: Sequence[Holding], initial: bool) -> Decimal:
        total = ZERO
        for name in dict.fromkeys(o.name for o in held):
            shares = sum(
                (leg.quantity * leg.size for leg in legs if leg.name == name and leg.is_linear),
                ZERO,
            )
            total += self.of_group([o for o in held if o.name == name], shares)
        return total

    def naked(self, held: Holding) -> Decimal:
        rule = self.rule
        price = held.index
        is_call = held.option.sign > 0
        least = exact(rule.least_call) * price
        if not is_call:
            least = exact(rule.least_put) * exact(held.option.strike)
        return held.unit_mark + max(exact(rule.naked) * price - held.otm(price), least)

    def of_group(self, held: Sequence[Holding], shares: Decimal) -> Decimal:
        shorts = [o for o in held if o.quantity < 0]
        longs = [o for o in held if o.quantity > 0]
        prices = [ZERO, *(exact(o.option.strike) for o in held)]
        program = Program()
        for i, short in enumerate(shorts):
            program.limit(("short", i), -short.units, self.naked(short))
        for j, long in enumerate(longs):
            program.limit(("long", j), long.units)
        program.limit("shares", abs(shares))
        for i, short in enumerate(shorts):
            row = {("short", i): ONE}
            for j, long in enumerate(longs):
                if long.option.sign == short.option.sign and long.years >= short.years:
                    losses = {
                        ("at", short.years, k): short.payoff(p) - long.payoff(p)
                        for k, p in enumerate(prices)
                    }
                    program.add(row | {("long", j): ONE} | losses, ZERO)
            if short.option.sign * shares > 0:
                program.add(row | {"shares": ONE}, self.covered(short))
        self.add_pairs(program, shorts)
        for years in dict.fromkeys(o.years for o in shorts):
            program.add({("at", years, k): -ONE for k in range(len(prices))}, ONE)
        return program.least()

    def covered(self, short: Holding) -> Decimal:
        """A unit that shares cover: what it is in the money, where the rule says so."""
        return short.payoff(short.index) if self.rule.covered_itm else ZERO

    def add_pairs(self, program: Program, shorts: Sequence[Holding]) -> None:
        """Of a naked call and a naked put the larger counts, and the mark of the other."""
        for i, call in enumerate(shorts):
            for k, put in enumerate(shorts):
                if call.option.sign > 0 > put.option.sign:
                    one = self.naked(call)
                    two = self.naked(put)
                    both = one + put.unit_mark if one >= two else two + call.unit_mark
                    program.add({("short", i): ONE, ("short", k): ONE}, both)


class Row(NamedTuple):
    """A move of prices, its weight, and of options a move of volatility and a relief."""

    move: Decimal
    weight: Decimal
    of_volatility: float
    relief: Decimal


def read_row(given: Sequence[float]) -> Row:
    move, weight, of_volatility, relief = (*given, 0.0, 0.0)[:4]
    return Row(exact(move), exact(weight), of_volatility, exact(relief))


class Scenarios(Standard):
    """``ScenarioMargin``: losses under moves of each group, row by row."""

    has_scenarios = True
    counts = "net"

    def __init__(self, rule: Any) -> None:
        super().__init__(rule)
        self.rows = {group: [read_row(row) for row in rows] for group, rows in rule.moves.items()}
        groups = rule.groups or {}
        products = rule.products or {}
        self.group_of = {name: group for group, names in groups.items() for name in names}
        self.product_of = {group: name for name, owned in products.items() for group in owned}
        self.of_maintenance = (exact(rule.factor), exact(rule.contingency))
        self.of_initial = tuple(map(exact, rule.initial or (rule.factor, rule.contingency)))
        self.pair_contingency = exact(rule.pair_contingency)
        self.shocks = getattr(rule, "options", None)

    def group(self, name: str) -> str:
        """The group of an instrument: its own, where none is named."""
        return self.group_of.get(name, name)

    def shocked(self, held: Holding, move: float) -> float | None:
        """The volatility of a row: relative, by tenor, with a floor where it rises."""
        if move == 0.0:
            return None
        shocks = self.shocks
        days = held.years * DAYS
        power = shocks.power[0] if days <= shocks.days else shocks.power[1]
        scale = (shocks.days / max(days, shocks.least_days)) ** power if power else 1.0
        moved = held.option.volatility(held.moment) * max(0.0, 1.0 + move * scale)
        return max(moved, shocks.least_volatility) if move > 0.0 else moved

    def losses(
        self, legs: Sequence[Leg], assets: Sequence[Asset], held: Sequence[Holding]
    ) -> dict[str, list[Decimal]]:
        """Losses by row of each group that holds something, be it collateral alone."""
        groups = dict.fromkeys(self.group(leg.name) for leg in legs if leg.quantity != 0)
        groups |= dict.fromkeys(asset.group for asset in assets)
        groups |= dict.fromkeys(self.group(o.name) for o in held)
        if not groups:
            return {}
        most = exact(self.shocks.futures_range) if self.shocks else INFINITY
        result = {}
        for group in groups:
            inside = [leg for leg in legs if self.group(leg.name) == group]
            options = [o for o in held if self.group(o.name) == group]
            cancelling = sum((asset.value for asset in assets if asset.group == group), ZERO)
            unit = options[0].index if options and options[0].option.is_coin else ONE
            rows = self.rows.get(group, self.rows.get("*"))
            values = [o.value() for o in options]
            shocks = {row.of_volatility for row in rows}
            shocked = [{shock: self.shocked(o, shock) for shock in shocks} for o in options]
            result[group] = []
            for row in rows:
                linear = max(-most, min(most, row.move))
                gain = sum((leg.change(linear) for leg in inside), linear * cancelling)
                for o, value, volatilities in zip(options, values, shocked, strict=True):
                    moved = o.value(row.move, volatilities[row.of_volatility])
                    gain += o.quantity * (moved - value)
                loss = -row.weight * gain
                if loss > 0:
                    loss = max(ZERO, loss - row.relief / unit)
                result[group].append(loss)
        return result

    def worst(self, losses: dict[str, list[Decimal]]) -> Decimal:
        if self.rule.across != "same row":
            return sum((max(ZERO, *rows) for rows in losses.values()), ZERO)
        products: dict[str, list[list[Decimal]]] = {}
        for group, rows in losses.items():
            own = group if self.product_of else ""
            products.setdefault(self.product_of.get(group, own), []).append(rows)
        total = ZERO
        offset = exact(self.rule.offset)
        for groups in products.values():
            rows = zip(*groups, strict=True)
            total += max(ZERO, *(sum(x if x > 0 else offset * x for x in row) for row in rows))
        return total

    def nets(self, legs: Sequence[Leg]) -> dict[str, Decimal]:
        """Long less short notional of each group; where it changes sign, R is not convex."""
        nets: dict[str, Decimal] = {}
        for leg in legs if self.pair_contingency > 0 else ():
            group = self.group(leg.name)
            nets[group] = nets.get(group, ZERO) + leg.notional.copy_sign(leg.quantity)
        return nets

    def offsetting(self, legs: Sequence[Leg]) -> Decimal:
        """What offsets within each group: the smaller of its long and its short notional."""
        sides: dict[str, list[Decimal]] = {}
        for leg in legs:
            both = sides.setdefault(self.group(leg.name), [ZERO, ZERO])
            both[leg.quantity > 0] += leg.notional
        return sum((min(both) for both in sides.values()), ZERO)

    def needed(
        self, legs: Sequence[Leg], assets: Sequence[Asset], held: Sequence[Holding], initial: bool
    ) -> Decimal:
        """Factor, minimum, contingencies, and the charges on deltas and on shorts."""
        held = [o for o in held if o.quantity != 0]
        if not (legs or assets or held):
            return ZERO
        factor, contingency = self.of_initial if initial else self.of_maintenance
        gross = sum((leg.notional for leg in legs), ZERO)
        scanned = self.worst(self.losses(legs, assets, held)) + self.delta_charge(held)
        total = max(factor * scanned, exact(self.rule.minimum) * gross) + contingency * gross
        total += self.pair_contingency * self.offsetting(legs)
        charge = exact(self.shocks.short_charge[initial]) if held else ZERO
        return total + charge * self.net_short(held)

    def delta_charge(self, held: Sequence[Holding]) -> Decimal:
        least, yearly = self.shocks.delta_charge if held else (0.0, 0.0)
        sums: dict[Any, Decimal] = {}
        for o in held:
            delta = (
                o.quantity * exact(o.option.size) * exact(o.option.delta(o.moment, float(o.index)))
            )
            key = (self.group(o.name), o.years)
            sums[key] = sums.get(key, ZERO) + delta * o.unit_price()
        return sum((exact(max(least, yearly * key[1])) * abs(x) for key, x in sums.items()), ZERO)

    def net_short(self, held: Sequence[Holding]) -> Decimal:
        sums: dict[Any, Decimal] = {}
        for o in held:
            key = (self.group(o.name), o.years, o.option.strike)
            sums[key] = sums.get(key, ZERO) + o.units * o.unit_price()
        return sum((max(ZERO, -x) for x in sums.values()), ZERO)


def margin_rule(rule: Any) -> Standard:
    if hasattr(rule, "moves"):
        return Scenarios(rule)
    if hasattr(rule, "naked"):
        return Strategies(rule)
    return PerOption(rule) if hasattr(rule, "maintenance") else Standard(rule)


class OptionState:
    """What the account holds of one option."""

    def __init__(self, given: Any, rank: int) -> None:
        self.given, self.rank, self.name = given, rank, given.name
        self.quantity = self.valued_at = ZERO
        self.paid = ZERO  # the average premium of what is held
        self.realized = ZERO  # in this bar
        self.pending: Decimal | None = None
        self.is_gone = False
        self.size = exact(given.size)
        self.tick = exact(given.tick) * self.size

    def begin(self, t: int, *, is_ruined: bool) -> None:
        """What was decided at the close before bar t."""
        wanted = float(self.given.targets[t])
        is_left = is_ruined or math.isnan(wanted) or self.is_gone
        self.realized, self.pending = ZERO, None if is_left else exact(wanted)

    def expires_in(self, t: int, *, is_inside: bool) -> bool:
        return self.given.expiry_bar == t and self.given.is_inside == is_inside

    def fee(self, price: Decimal, index: Decimal, kind: str = "fee") -> Decimal:
        """Of one contract: a rate of the index, or of a coin, at most a share of the price."""
        rate, cap = (exact(getattr(self.given, f"{kind}_{name}")) for name in ("rate", "cap"))
        unit = ONE if self.given.is_coin else index
        return min(rate * unit * self.size, cap * price)

    def hold(self, quantity: Decimal, price: Decimal, value: Decimal | None = None) -> None:
        """Hold another quantity, traded at a price; the premium is averaged as an entry is. What is
        closed is realized at the price, or at the value that is given."""
        held = self.quantity
        is_turned = quantity * held <= 0
        closed = held if is_turned else held - quantity
        if is_turned or abs(quantity) < abs(held):
            self.realized += closed * ((price if value is None else value) - self.paid)
        if is_turned:
            self.paid = price if quantity else ZERO
        elif abs(quantity) > abs(held):
            self.paid += (price - self.paid) * (quantity - held) / quantity
        self.quantity = quantity

    def payoff(self, price: Decimal) -> Decimal:
        units = max(ZERO, self.given.sign * (price - exact(self.given.strike)))
        return self.size * (units / price if self.given.is_coin else units)


class OptionOrder(NamedTuple):
    """An increase of an option: what it closes first, what it adds, its price and its fee."""

    option: OptionState
    closing: Decimal
    adding: Decimal
    price: Decimal
    fee: Decimal

    def quantity(self, factor: Decimal) -> Decimal:
        return self.option.quantity + self.closing + factor * self.adding

    def paid(self, factor: Decimal) -> Decimal:
        """What it takes out of the cash: premium and fee."""
        change = self.closing + factor * self.adding
        return change * self.price + (abs(self.closing) + factor * abs(self.adding)) * self.fee

"""What a portfolio on one collateral requires: by brackets, scenarios, per option or by strategies.

Portfolio margin is the worst loss of the whole portfolio in scenarios of the price.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple, Protocol, Self, runtime_checkable

from backtest import core
from backtest.core import Fault, Faults, ParameterError, repr_plain
from backtest.core.fields import NOT_NEGATIVE, POSITIVE, SHARE
from backtest.margin import portfolio_kernels
from backtest.margin.brackets import MarginRules, compute_price
from backtest.margin.collateral import Collateral, pack_collateral
from backtest.margin.portfolio_kernels import Holdings, PortfolioRules
from backtest.margin.preset_tables import find_asset, find_margins, group_by_asset
from backtest.margin.rule_tables import pack_brackets, pack_spot
from backtest.margin.scenario_fields import (
    EVERY,
    NO_SHOCKS,
    Figures,
    Moves,
    NameGroups,
    OptionShocks,
    Row,
)
from backtest.margin.scenario_packing import check_inverse_moves, pack_scenarios
from backtest.venue.preset_files import Group

Names = Sequence[str]
Assets = Sequence[Collateral]
OWN_RULES: Any = portfolio_kernels.OWN_RULES
SLACK = 1e-12
"""Rounding by which a figure of initial margin may be under the level times that of maintenance."""


@runtime_checkable
class RequirementRule(Protocol):
    """What a requirement of one's own has: two methods, and ``level`` if it is not 1.

    ``positions`` has the signed quantity of each cross position by instrument, ``prices`` the mark
    prices. Both methods return an amount of the settlement currency, at least 0. The cross
    positions are liquidated where what backs them is at most ``level`` times ``requirement``; an
    order passes if what backs them afterwards is at least ``initial``.
    """

    def requirement(self, positions: Mapping[str, float], prices: Mapping[str, float]) -> float:
        """Return the maintenance requirement."""

    def initial(self, positions: Mapping[str, float], prices: Mapping[str, float]) -> float:
        """Return the initial margin."""


class GroupMoves(NamedTuple):
    """Which prices a rule moves together: scenarios by group, and the instruments of each group.

    ``own_rule`` is the number of a user's rule, 0 if there is none.
    """

    scenarios: ScenarioMargin | None
    groups: dict[str, tuple[str, ...]]
    own_rule: int = 0


class MarginRule(core.Value, kw_only=True):
    """Base class of the rules that compile; ``level`` is that of :class:`Brackets`."""

    level: Annotated[float, POSITIVE] = 1.0

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, where: str = "") -> Self:
        if cls is not MarginRule:
            return super().from_dict(data, where=where)
        kind: Any = find_kind(data)
        rule: Self = kind.from_dict(data, where=where)
        return rule

    def resolve(self, names: Sequence[str], underlyings: Sequence[str] = ()) -> MarginRule:  # noqa: ARG002 - of presets
        return self

    def check_names(self, names: Names, collateral: Assets, underlyings: Names = ()) -> None:  # noqa: ARG002 - of scenarios
        for asset in collateral:
            if asset.cancels_risk is not None:
                raise ParameterError(
                    "cancels_risk must be None without scenarios, only they have groups, got "
                    f"{asset.cancels_risk!r} of collateral {asset.name!r}"
                )

    def list_groups(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:  # noqa: ARG002 - of scenarios
        return {}

    def pack(
        self,
        rules: Mapping[str, MarginRules],
        collateral: Assets = (),
        width: int = 1,
        underlyings: Names = (),
    ) -> PortfolioRules:
        """Return the rule as arrays of the kernels, for some instruments and their brackets.

        ``rules`` has the brackets by instrument, which are padded to at least ``width``;
        ``underlyings`` are those of options. Raises ParameterError for names that do not fit.
        """
        names = list(rules)
        resolved = self.resolve(names, underlyings)
        if resolved is not self:
            return resolved.pack(rules, collateral, width, underlyings)
        self.check_names(names, collateral, underlyings)

        moves = self._list_moves(names, underlyings)
        packed = PortfolioRules(
            brackets=pack_brackets(list(rules.values()), width),
            scenarios=pack_scenarios(moves.scenarios, moves.groups, names),
            collateral=pack_collateral(collateral, tuple(moves.groups)),
            has_scenarios=moves.scenarios is not None,
            level=self.level,
            spot=pack_spot(),
            own=moves.own_rule,
        )
        check_inverse_moves(packed, moves.groups, rules)
        return packed

    def _list_moves(self, names: Names, underlyings: Names) -> GroupMoves:  # noqa: ARG002 - of scenarios
        """Return which prices move together; none do where brackets alone are summed."""
        return GroupMoves(scenarios=None, groups=self.list_groups(names))


def find_kind(data: Mapping[str, Any]) -> type[MarginRule]:
    """Return the rule that stored data are of, by the field that distinguishes it."""
    if isinstance(data, Mapping):
        for field, kind in KINDS.items():
            if field in data:
                return kind
    return Brackets


def number_own_rule(rule: RequirementRule, names: tuple[str, ...]) -> int:
    """Return the number of a user's rule in ``OWN_RULES``, from 1, which it joins if it is new."""
    for number, known in enumerate(OWN_RULES, start=1):
        if known.args == (rule, names):
            return number
    OWN_RULES.append(functools.partial(ask_rule, rule, names))
    return len(OWN_RULES)


class Brackets(MarginRule, kw_only=True):
    """The sum of the positions' bracket requirements: standard cross margin.

    Parameters
    ----------
    level : float
        The cross positions fail where what backs them is at most ``level`` times the requirement;
        Binance portfolio margin has 1.05.
    """


class ScenarioMargin(MarginRule, kw_only=True):
    """Portfolio margin: the worst loss of the whole portfolio in scenarios of the price.

    With S the worst loss, G the gross notional and O the notional that offsets within groups (the
    smaller side of each), the requirement is
    ``max(factor S, minimum G) + contingency G + pair_contingency O``.

    Parameters
    ----------
    moves : Mapping or list
        Scenarios by group: lists of ``(move, weight)``, the move a fraction of the price and the
        weight the share of its loss that counts. A list, or the group ``"*"``, holds for all groups
        that are not named. For options a row goes on with a relative move of their volatility, and
        with an amount that is taken off its loss.
    groups : Mapping, optional
        Names of instruments by group; the instruments of a group move together. Those in no group
        are one each, by their own name.
    products : Mapping, optional
        Names of groups by product, with ``across="same row"``. Default: one product of all.
    across : str
        ``"independent"``: each group has its own worst row, and gains count nothing. ``"same row"``
        : each product has one worst row, in which losses count in full and gains by ``offset``.
    offset : float
        The share of a group's gain that offsets losses of its product, from 0 to 1.
    factor, minimum, contingency, pair_contingency : float
        As above, at least 0.
    initial : (float, float), optional
        The factor and the contingency of initial margin. Default: those of maintenance.
    options : OptionShocks
        What is added for options.
    level : float
        The cross positions fail where what backs them is at most ``level`` times the requirement.
    """

    moves: Annotated[Mapping[str, Sequence[Row]] | Sequence[Any], Moves()]
    groups: Annotated[Mapping[str, Sequence[str]] | None, NameGroups("instrument")] = None
    products: Annotated[Mapping[str, Sequence[str]] | None, NameGroups("group")] = None
    across: Annotated[str, core.Choice("independent", "same row")] = "independent"
    offset: Annotated[float, SHARE] = 0.0
    factor: Annotated[float, NOT_NEGATIVE] = 1.0
    minimum: Annotated[float, NOT_NEGATIVE] = 0.0
    contingency: Annotated[float, NOT_NEGATIVE] = 0.0
    pair_contingency: Annotated[float, NOT_NEGATIVE] = 0.0
    initial: Annotated[Sequence[float] | None, Figures(2)] = None
    options: OptionShocks = NO_SHOCKS

    _omitted = frozenset({"options"})

    def faults(self) -> Faults:
        """Yield each field that contradicts others, and what it must be instead."""
        yield from self._find_faults_of_products()
        yield from self._find_faults_of_terms()
        yield from self._find_faults_of_rows()

    def _find_faults_of_products(self) -> Faults:
        """Yield products and offsets that are named where no gain counts: groups by themselves."""
        if self.across == "independent":
            rule = "must be left out with across='independent', in which gains count nothing"
            if self.products is not None:
                yield "products", rule
            if self.offset > 0.0:
                yield "offset", rule

    def _find_faults_of_terms(self) -> Faults:
        """Yield the faults of numbers: too low an initial margin, or a rule that asks nothing."""
        # The pool fails at level times the requirement. An order that just meets its initial margin
        # must not fail at once, so both terms of that must be at least those of maintenance, times
        # a level over 1.
        factor, contingency = self.initial_terms()
        least_factor = max(1.0, self.level) * self.factor
        least_contingency = max(1.0, self.level) * self.contingency
        if factor < least_factor - SLACK or contingency < least_contingency - SLACK:
            terms = f"({least_factor:g}, {least_contingency:g})"
            yield "initial", f"must be at least {terms}, or an order is liquidated at once"
        if not (self.factor > 0.0 or self.minimum > 0.0 or self.contingency > 0.0):
            yield "factor", "must be over 0, or minimum or contingency, or nothing is required"

    def _find_faults_of_rows(self) -> Faults:
        """Yield products whose groups have different numbers of scenarios.

        With across='same row', the losses of the groups of a product are added scenario by
        scenario, so each needs the same number of them.
        """
        if self.across != "same row":
            return
        products = self.products or {"all": tuple(self.moves)}
        for groups in products.values():
            counts = self._count_rows(groups)
            if len(set(counts.values())) > 1:
                listed = ", ".join(f"{group!r} {count}" for group, count in counts.items())
                yield (
                    "moves",
                    "must have as many scenarios for each group of a product with "
                    f"across='same row': {listed}",
                )

    def _count_rows(self, groups: Sequence[Any]) -> dict[Any, int]:
        """Return the number of scenarios of each group that has any, its own or those of EVERY."""
        moves: Any = self.moves
        counts = {}
        for group in groups:
            rows = moves.get(group, moves.get(EVERY))
            if rows is not None:
                counts[group] = len(rows)
        return counts

    def list_groups(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the instruments of each group: the declared ones, then each of the rest alone."""
        groups: dict[str, tuple[str, ...]] = {}
        grouped: set[str] = set()
        for group, members in (self.groups or {}).items():
            groups[group] = tuple(members)
            grouped.update(members)

        for name in names:
            if name not in grouped:
                groups[name] = (name,)
        return groups

    def _list_moves(self, names: Names, underlyings: Names) -> GroupMoves:
        """Return the scenarios and their groups; an underlying may have options alone."""
        groups = self.list_groups(names)
        for underlying in underlyings:
            groups.setdefault(underlying, ())
        return GroupMoves(scenarios=self, groups=groups)

    def rows_of(self, group: str) -> list[Row]:
        """Return the scenarios of a group: move, weight, move of volatility and relief."""
        moves: Any = self.moves
        rows = moves.get(group)
        if rows is None:
            rows = moves[EVERY]
        return [(*row, 0.0, 0.0)[:4] for row in rows]

    def initial_terms(self) -> tuple[float, float]:
        """Return the factor and the contingency of initial margin."""
        factor, contingency = self.initial or (self.factor, self.contingency)
        return factor, contingency

    def without(self, gone: Collection[str]) -> ScenarioMargin:
        """Return the rule without some instruments, and without groups that have no others."""
        groups = drop_names(self.groups, gone)
        # What the rule may name no more: the instruments, and the groups that had no others.
        lost = {*gone, *(self.groups or ())} - {*groups}
        all_moves = dict[str, Any](self.moves)
        moves = {group: rows for group, rows in all_moves.items() if group not in lost}
        products = drop_names(self.products, lost)
        return replace(self, moves=moves, groups=groups or None, products=products or None)

    def check_names(self, names: Names, collateral: Assets, underlyings: Names = ()) -> None:
        """Raise ParameterError for a name that is no instrument or group of the account.

        ``names`` are its instruments, ``underlyings`` those of its options, which are groups too.
        Checked are the names in the rule's groups, moves and products, and the groups whose risk
        collateral cancels. Each group must have scenarios.
        """
        groups = [*self.list_groups(names), *underlyings]
        for group, members in (self.groups or {}).items():
            core.check_names(f"groups.{group}: the account", members, names, noun="instrument")
        moved = [group for group in self.moves if group != EVERY]
        core.check_names("moves: the account", moved, groups, noun="group")
        for product, members in (self.products or {}).items():
            core.check_names(f"products.{product}: the account", members, groups, noun="group")
        for asset in collateral:
            if asset.cancels_risk is not None:
                place = f"collateral {asset.name!r}: the account"
                core.check_names(place, [asset.cancels_risk], groups, noun="group")

        missing = [group for group in groups if group not in self.moves]
        if missing and EVERY not in self.moves:
            raise ParameterError(
                f"moves must have scenarios for every group, or for all others under {EVERY!r}, "
                f"got none for {', '.join(missing)}"
            )


def drop_names(
    table: Mapping[str, Names] | None, gone: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Return a table of names without those that are ``gone``, and without rows then empty."""
    remaining = {}
    for name, members in (table or {}).items():
        others = [member for member in members if member not in gone]
        if others:
            remaining[name] = tuple(others)
    return remaining


class Standard(MarginRule, kw_only=True):
    """Margin of each option by itself, as Deribit's and OKX's standard accounts.

    A short needs ``size (max(maintenance unit, of_mark mark) factor + mark)``, the part of the mark
    only of puts, and initially at least ``size (max(least, initial - otm / forward) factor unit +
    mark)``. The unit is 1 coin, or the index for options settled in cash. Longs need nothing. All
    other positions need what their brackets say.

    Parameters
    ----------
    initial, least, maintenance, of_mark, factor : float
        As above.
    option_value : str
        ``"none"``: no option value backs the account. ``"long"``: that of longs does.
    level : float
        The cross positions fail where what backs them is at most ``level`` times the requirement.
    """

    initial: Annotated[float, NOT_NEGATIVE]
    least: Annotated[float, NOT_NEGATIVE]
    maintenance: Annotated[float, NOT_NEGATIVE]
    of_mark: Annotated[float, NOT_NEGATIVE] = 0.0
    factor: Annotated[float, POSITIVE] = 1.0
    option_value: Annotated[str, core.Choice("none", "long")] = "none"

    def faults(self) -> Faults:
        failing = self.level * self.maintenance
        if self.least < failing - SLACK:
            yield (
                "least",
                f"must be at least level times maintenance, {failing:g}, "
                "or an order is liquidated at once",
            )


class Strategy(MarginRule, kw_only=True):
    """Margin of options by strategies: spreads, covered and naked options, as Regulation T.

    Shorts are paired with longs of the same kind that expire no earlier; pairs whose shorts expire
    together need the greatest loss of their common payoff over 0 and the strikes, without premiums.
    Others need ``mark + max(naked S - otm, least_call S)``, puts ``least_put K`` in its place. Of a
    naked call and a naked put, the larger counts, and the other's mark. A short that shares cover
    needs nothing besides what the shares need. The cheapest pairing counts.

    Parameters
    ----------
    naked, least_call, least_put : float
        As above: 0.2, 0.1, 0.1 for stocks, naked 0.15 for broad indices.
    covered_itm : bool
        Whether a short that shares cover needs the amount by which it is in the money: the shares
        then count no more than the strike.
    conversion : float
        What shares need for maintenance, as a fraction of the strike, where a short and a long
        option of one strike and expiry lock their price; 0: what their brackets say.
    loan_value : float
        The share of the mark of a long that backs the account if it expires after ``loan_days``,
        and no option of its kind is sold.
    loan_days : float
        As above.
    level : float
        The cross positions fail where what backs them is at most ``level`` times the requirement.
    """

    naked: Annotated[float, NOT_NEGATIVE] = 0.2
    least_call: Annotated[float, NOT_NEGATIVE] = 0.1
    least_put: Annotated[float, NOT_NEGATIVE] = 0.1
    covered_itm: Annotated[bool, core.Flag()] = True
    conversion: Annotated[float, NOT_NEGATIVE] = 0.1
    loan_value: Annotated[float, SHARE] = 0.25
    loan_days: Annotated[float, NOT_NEGATIVE] = 273.0


def list_given(noun: str, items: Any, kind: type) -> tuple[Any, ...]:
    """Return one or several of a kind as a tuple; raise ParameterError for anything else."""
    if isinstance(items, kind):
        return (items,)
    if not isinstance(items, list | tuple) or not all(isinstance(item, kind) for item in items):
        raise ParameterError(
            f"{noun} must be bt.{kind.__name__} or a list of them, got {repr_plain(items):.80}"
        )
    return tuple(items)


class OwnMargin(MarginRule, kw_only=True):
    rule: Any

    def faults(self) -> Faults:
        try:
            POSITIVE.read(getattr(self.rule, "level", 1.0))
        except Fault as fault:
            yield "rule.level", str(fault)

    def _settle(self) -> None:
        self._set_fields(level=float(getattr(self.rule, "level", 1.0)))

    def _list_moves(self, names: Names, underlyings: Names) -> GroupMoves:  # noqa: ARG002 - of scenarios
        """Return each instrument as a group of its own: a search moves a price with its group.

        The rule says what is required, so the one scenario moves nothing.
        """
        return GroupMoves(
            scenarios=ScenarioMargin(moves=[0.0]),
            groups={name: (name,) for name in names},
            own_rule=number_own_rule(self.rule, tuple(names)),
        )

    def to_dict(self) -> dict[str, Any]:
        name = type(self.rule).__name__
        if isinstance(self.rule, StoredRule):
            name = self.rule.name
        return {"level": self.level, "own": name}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, where: str = "") -> Self:  # noqa: ARG003
        return cls(rule=StoredRule(str(data.get("own")), data.get("level", 1.0)))


@dataclass(frozen=True)
class StoredRule:
    name: str
    level: float

    def requirement(self, positions: Mapping[str, float], prices: Mapping[str, float]) -> float:  # noqa: ARG002
        raise ParameterError(
            f"account.requirement is not stored with a result: pass the {self.name} again"
        )

    initial = requirement


class Requirement(core.Declaration):
    def read(self, value: Any) -> MarginRule:
        """Return a margin rule from a rule, a preset's name, a stored table, or a user's object.

        Raises Fault for anything else.
        """
        if isinstance(value, MarginRule):
            return value
        if isinstance(value, str):
            return MarginRule.from_dict({"preset": value})
        if isinstance(value, Mapping):
            return MarginRule.from_dict(value)

        # A class has the two methods as well, but no account calls them.
        if isinstance(value, type) or not isinstance(value, RequirementRule):
            raise Fault("must have the methods requirement and initial, or be bt.Brackets()")
        return OwnMargin(rule=value)


def ask_rule(
    rule: RequirementRule, names: Names, rules: PortfolioRules, held: Holdings, is_initial: bool
) -> float:
    """Return what a user's rule requires of the positions of a pool: money.

    It is asked with quantities of the cross positions, and prices of the instruments, by name.
    Raises ParameterError where it raises, or answers something else than a number of at least 0.
    """
    brackets = rules.brackets
    positions = {}
    prices = {}
    for i, name in enumerate(names):
        value = float(held.values[i])
        # Without a position a value may be unknown.
        if not math.isnan(value):
            is_inverse = bool(brackets.are_inverse[i])
            prices[name] = compute_price(float(brackets.sizes[i]), is_inverse, value)
        if portfolio_kernels.is_in_pool(rules, held, i):
            positions[name] = float(held.quantities[i])

    method = "initial" if is_initial else "requirement"
    noun = f"{type(rule).__name__}.{method}"
    try:
        answer = getattr(rule, method)(positions, prices)
    except core.BacktestError:
        raise
    except core.RAISED as error:
        raise ParameterError(
            f"{noun} must return a number for any positions, and for none; with {positions!r:.200} "
            f"it raised {type(error).__name__}: {error}"
        ) from error
    return float(core.Real(0, may_be_infinite=True).check(noun, answer))


def make_rule(
    name: str, table: Group, groups: Mapping[str, Names], underlyings: Names = ()
) -> MarginRule:
    """Return the rule of a table of a preset for groups of instruments and of options.

    A table has scenarios by group; a group that it does not name has those of EVERY.
    """
    requirement = table["requirement"]
    # A rule without scenarios is the same for all groups.
    if "moves" not in requirement:
        return MarginRule.from_dict(requirement)

    moves = requirement["moves"]
    wanted = (*groups, *underlyings)
    check_listed(name, "moves for", wanted, moves)
    check_listed(name, "figures for options on", underlyings, table.get("underlyings", []))
    scenarios = {group: moves.get(group, moves.get(EVERY)) for group in wanted}
    return MarginRule.from_dict({**requirement, "moves": scenarios, "groups": groups or None})


def check_listed(name: str, noun: str, groups: Iterable[str], listed: Collection[str]) -> None:
    """Raise VenueError for the first group that a table of a preset does not list."""
    for group in groups:
        if group not in listed and EVERY not in listed:
            raise core.VenueError(
                f"{name} has {noun} {', '.join(listed) or 'nothing'}, got {group!r}; "
                "groups of instruments may be named, {'BTC': ['BTCUSDT']}, and "
                "bt.ScenarioMargin(...) has moves of your own"
            )


class PresetMargin(MarginRule, kw_only=True):
    """The requirement of a preset, for the instruments of whatever account it is given to.

    Parameters
    ----------
    preset : str
        The name, as in :func:`margin_preset`.
    at : str, optional
        The day whose table holds for the whole run; default: the newest.
    """

    preset: Annotated[str, core.Text()]
    at: Annotated[str | None, core.Time()] = None

    def faults(self) -> core.Faults:
        level = self._find_level()
        if self.level not in (1.0, level):
            yield "level", f"must match the preset, {level:g}"

    def _settle(self) -> None:
        self._set_fields(level=self._find_level())

    def _find_level(self) -> float:
        _, table = find_margins(self.preset, self.at)
        return float(table["requirement"].get("level", 1.0))

    def resolve(self, names: Sequence[str], underlyings: Sequence[str] = ()) -> MarginRule:
        """Return the rule for some instruments and underlyings of options."""
        _, table = find_margins(self.preset, self.at)
        assets = [*map(find_asset, underlyings)]
        return make_rule(self.preset, table, group_by_asset(names), assets)


KINDS: dict[str, type[MarginRule]] = {
    "moves": ScenarioMargin,
    "maintenance": Standard,
    "naked": Strategy,
    "own": OwnMargin,
    "preset": PresetMargin,
}
"""The rules by the field that distinguishes them in stored data."""

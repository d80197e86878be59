"""Margin rules by date: what venues and clearing houses require of a portfolio."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from backtest.base import (
    Faults,
    ParameterError,
    Text,
    TimeLike,
    VenueError,
    checked_only,
    declared,
    did_you_mean,
    repr_plain,
)
from backtest.venue.asset_names import find_asset
from backtest.venue.dated_tables import Day
from backtest.venue.option_rules import Standard, Strategy
from backtest.venue.option_shocks import OptionShocks, scenario_grid
from backtest.venue.preset_files import LATEST, read_day
from backtest.venue.requirement_rule import Brackets, MarginRule
from backtest.venue.scenario_fields import EVERY
from backtest.venue.scenario_margin import ScenarioMargin

if TYPE_CHECKING:
    from backtest.venue.collateral import Collateral
    from backtest.venue.portfolio_rules import ScenarioTables

FILE = Path(__file__).with_suffix(".toml")
STATUSES = ("read", "memory", "left out")


class Figure(NamedTuple):
    figure: str
    status: str
    source: str


@dataclass(frozen=True)
class MarginPreset:
    """The margin rules of an account at a venue, from a day on.

    Parameters
    ----------
    name, title : str
        What it is called.
    date, source : str
        The day from which this table holds (or on which it was read), and its source.
    dates : tuple of str
        The days of all tables, the oldest first.
    exact, leaves_out : str
        What a run reproduces, and what it does not.
    figures : tuple of Figure
        Every figure with its status and source.
    requirement : MarginRule
        The rule for the instruments that were asked for, or a :class:`PresetMargin` for any.
    rates : Mapping
        The rate of each collateral asset.
    slippage : float
        The slippage of an exchange of collateral.
    negative_limit : float or None
        ``Account(negative_limit=...)``.
    conversion : str or None
        ``Account(conversion=...)``.
    call_grace_days : int or None
        Days to meet a margin call: ``Venue.call_grace`` counts them in bars.
    """

    name: str
    title: str
    date: str
    source: str
    dates: tuple[str, ...]
    exact: str
    leaves_out: str
    figures: tuple[Figure, ...]
    requirement: MarginRule
    rates: Mapping[str, float]
    slippage: float
    negative_limit: float | None
    conversion: str | None
    call_grace_days: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return the preset as plain data."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return data | {
            "figures": [each._asdict() for each in self.figures],
            "requirement": self.requirement.to_dict(),
            "rates": dict(self.rates),
        }


@checked_only("name", "at")
def margin_preset(
    name: str,
    instruments: Sequence[str] | Mapping[str, Sequence[str]] = (),
    at: TimeLike | None = None,
) -> MarginPreset:
    """Return the margin rules of an account at a venue or clearing house.

    Parameters
    ----------
    name : str
        A preset: ``backtest venues --margins`` lists them with their figures and sources.
    instruments : sequence of str, or Mapping
        The instruments of the account. Those of one coin form a group: ``"BTCUSDT"``,
        ``"BTC-PERPETUAL"`` and ``"btc"`` that of ``"BTC"``. A mapping gives those of each group.
        Default: the requirement finds those of its account itself.
    at : str or Timestamp, optional
        The day in UTC. Default: the newest table. A day before the first gives the first.

    Raises
    ------
    VenueError
        If there is no such preset, or it has no moves for a group.

    Examples
    --------
    >>> preset = margin_preset("binance-multi-assets", at="2022-07-06")
    >>> preset.negative_limit, preset.rates["ADA"], preset.requirement
    (10000.0, 0.9, PresetMargin(preset='binance-multi-assets', at='2022-07-06'))
    >>> margin_preset("binance-portfolio", ["BTCUSDT"]).requirement
    Brackets(level=1.05)
    """
    content = find_content(name)
    table = choose_table(content["tables"], at)
    day = None if at is None or at == LATEST else read_day(at, where="bt.margin_preset, at")
    return MarginPreset(
        name=name,
        title=content["title"],
        date=table["date"],
        source=table["source"],
        dates=tuple(each["date"] for each in content["tables"]),
        exact=content["exact"],
        leaves_out=content["leaves_out"],
        figures=tuple(Figure(**figure) for figure in content["figures"]),
        requirement=make_rule(name, table, instruments)
        if not isinstance(instruments, Sequence | Mapping) or len(instruments)
        else PresetMargin(preset=name, at=day),
        rates=table.get("rates", {}),
        slippage=table.get("slippage", 0.0),
        negative_limit=table.get("negative_limit"),
        conversion=content.get("conversion"),
        call_grace_days=content.get("call_grace_days"),
    )


def find_content(name: str) -> dict[str, Any]:
    tables = load_presets()
    if name not in tables:
        raise VenueError(
            f"there are no margin rules {repr_plain(name)}{did_you_mean(str(name), tables)}",
            where="bt.margin_preset",
            cure=f"choose one of {', '.join(tables)}, or give bt.Brackets() or "
            "bt.ScenarioMargin(...)",
        )
    found: dict[str, Any] = tables[name]
    return found


def list_presets() -> list[MarginPreset]:
    return [margin_preset(name) for name in load_presets()]


@cache
def load_presets() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def choose_table(tables: list[dict[str, Any]], at: TimeLike | None) -> dict[str, Any]:
    if at is None or at == LATEST:
        return tables[-1]
    day = read_day(at, where="bt.margin_preset, at")
    begun = [table for table in tables if table["date"] <= day]
    return begun[-1] if begun else tables[0]


def make_rule(
    name: str,
    table: Mapping[str, Any],
    instruments: Sequence[str] | Mapping[str, Sequence[str]],
    underlyings: Sequence[str] = (),
) -> MarginRule:
    if "standard" in table:
        return Standard(**table["standard"])
    if "strategy" in table:
        return Strategy(**table["strategy"])
    if "classes" not in table:
        return Brackets(level=table["level"])
    groups = group_by_asset(instruments)
    check_underlyings(name, table["classes"], underlyings)
    assets = (*groups, *underlyings)
    moves: Any = {group: find_moves(name, table["classes"], group) for group in assets}
    terms = table["terms"] | {"options": OptionShocks(**table.get("options", {}))}
    return ScenarioMargin(moves=moves, groups=groups or None, **terms)


def group_by_asset(
    instruments: Sequence[str] | Mapping[str, Sequence[str]],
) -> dict[str, tuple[str, ...]]:
    if isinstance(instruments, Mapping):
        return {str(group): tuple(names) for group, names in instruments.items()}
    if isinstance(instruments, str) or not isinstance(instruments, Sequence):
        raise ParameterError(
            f"instruments must be a list of names, got {repr_plain(instruments)}",
            where="bt.margin_preset",
            cure=f"give [{repr_plain(instruments)}]",
        )
    groups: dict[str, tuple[str, ...]] = {}
    for each in instruments:
        name = Text().check("a name among instruments", each, where="bt.margin_preset")
        asset = find_asset(name)
        groups[asset] = (*groups.get(asset, ()), name)
    return groups


def find_moves(
    name: str, classes: Sequence[Mapping[str, Any]], group: str
) -> Sequence[Sequence[float]]:
    for each in classes:
        if group in each["assets"] or EVERY in each["assets"]:
            found = [*each["moves"], *each.get("tails", ())]
            if "volatilities" in each:
                found = scenario_grid(each["moves"], each["volatilities"], each.get("tails", ()))
            return found
    known = list_assets(classes)
    raise VenueError(
        f"{name} has moves for {', '.join(known)}, got {group!r}",
        where="bt.margin_preset, instruments",
        cure="name the groups of your instruments, as in {'BTC': ['BTCUSDT']}, or give "
        "bt.ScenarioMargin(...) with moves of your own",
    )


def list_assets(classes: Sequence[Mapping[str, Any]]) -> list[str]:
    return [asset for each in classes for asset in each["assets"]]


def check_underlyings(
    name: str, classes: Sequence[Mapping[str, Any]], underlyings: Sequence[str]
) -> None:
    known = list_assets([each for each in classes if each.get("options")])
    for each in underlyings:
        if each not in known and EVERY not in known:
            raise VenueError(
                f"{name} has figures for options on {', '.join(known) or 'nothing'}, got {each!r}",
                where="bt.margin_preset",
                cure="choose another preset, or give bt.ScenarioMargin(...) with moves of "
                "volatility of your own",
            )


@declared(kw_only=True)
class PresetMargin(MarginRule):
    """The requirement of a preset, for the instruments of whatever account it is given to.

    Parameters
    ----------
    preset : str
        The name, as in :func:`margin_preset`.
    at : str, optional
        The day whose table holds for the whole run; default: the newest.
    """

    preset: Annotated[str, Text()]
    at: Annotated[str | None, Day()] = None

    def faults(self) -> Faults:
        """Yield a level that is not that of the preset."""
        level = self._find_level()
        if self.level not in (1.0, level):
            yield "level", f"must be that of the preset, {level:g}"

    def _settle(self) -> None:
        self._set_fields(level=self._find_level())

    def _find_level(self) -> float:
        table = choose_table(find_content(self.preset)["tables"], self.at)
        return float(table.get("level", 1.0))

    def resolve(self, names: Sequence[str], underlyings: Sequence[str] = ()) -> MarginRule:
        """Return the rule for some instruments and underlyings of options."""
        table = choose_table(find_content(self.preset)["tables"], self.at)
        return make_rule(self.preset, table, names, [*map(find_asset, underlyings)])

    def check_names(
        self,
        names: Sequence[str],
        collateral: Sequence[Collateral],
        underlyings: Sequence[str] = (),
    ) -> None:
        """Check that there are moves for the instruments, and groups for the collateral."""
        self.resolve(names, underlyings).check_names(names, collateral, underlyings)

    def name_groups(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the groups of the instruments, in order."""
        return self.resolve(names).name_groups(names)

    def pack_scenarios(
        self, names: Sequence[str], underlyings: Sequence[str] = ()
    ) -> ScenarioTables | None:
        """Return the scenarios of these instruments as arrays; None under brackets."""
        return self.resolve(names, underlyings).pack_scenarios(names, underlyings)


MarginRule.kinds["preset"] = PresetMargin

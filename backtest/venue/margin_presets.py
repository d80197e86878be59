"""Margin rules by date: what venues and clearing houses require of a portfolio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from backtest import base
from backtest.base import AS_TUPLE, Choice, Text, TimeLike, Value, VenueError, declared, repr_plain
from backtest.venue.preset_files import Group, Tables, choose_table, read_choice, read_file
from backtest.venue.requirement_rule import EVERY, MarginRule, find_asset
from backtest.venue.venue import Day

FILE = Path(__file__).with_suffix(".toml")
STATUSES = ("read", "memory", "left out")
SHARED = ("title", "exact", "leaves_out", "figures", "conversion", "call_grace_days")


@declared(kw_only=True)
class Figure(Value):
    figure: Annotated[str, Text()]
    status: Annotated[str, Choice(*STATUSES)]
    source: str = ""


@declared(kw_only=True)
class MarginTables(Value):
    title: Annotated[str, Text()]
    exact: Annotated[str, Text()]
    leaves_out: Annotated[str, Text()]
    figures: Annotated[Sequence[Figure], AS_TUPLE]
    tables: Annotated[Sequence[Group], Tables()]
    conversion: str | None = None
    call_grace_days: int | None = None

    def choose(self, at: TimeLike | None) -> Group:
        return choose_table(self.tables, read_choice(at))[0]


@declared(kw_only=True)
class MarginPreset(Value):
    """The margin rules of an account at a venue, from a day on.

    ``date`` is the day from which the table holds (or on which it was read), ``dates`` those of all
    tables, the oldest first. ``exact`` and ``leaves_out`` say what a run reproduces and what not;
    ``figures`` have a status and a source each. ``requirement`` is the rule for the instruments
    that were asked for, or a :class:`PresetMargin` for any; ``rates`` are those of collateral by
    asset, ``slippage`` that of its exchange. ``negative_limit`` and ``conversion`` are for the
    :class:`Account`, ``call_grace_days`` for ``Venue.call_grace``, which counts bars.
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


@base.checked_only("name", "at")
def margin_preset(
    name: str,
    instruments: Sequence[str] | Mapping[str, Sequence[str]] = (),
    at: TimeLike | None = None,
) -> MarginPreset:
    """Return the margin rules of an account at a venue or clearing house.

    Raises VenueError if there is no such preset, or it has no moves for a group.

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

    Examples
    --------
    >>> preset = margin_preset("binance-multi-assets", at="2022-07-06")
    >>> preset.negative_limit, preset.rates["ADA"], preset.requirement
    (10000.0, 0.9, PresetMargin(preset='binance-multi-assets', at='2022-07-06'))
    """
    content = find_content(name)
    table, day = content.choose(at), read_choice(at)
    is_any = isinstance(instruments, Sequence | Mapping) and not instruments
    return MarginPreset(
        **{each: getattr(content, each) for each in SHARED},
        name=name,
        date=table["date"],
        source=table["source"],
        dates=tuple(each["date"] for each in content.tables),
        requirement=PresetMargin(preset=name, at=day)
        if is_any
        else make_rule(name, table, group_by_asset(instruments)),
        rates=table.get("rates", {}),
        slippage=table.get("slippage", 0.0),
        negative_limit=table.get("negative_limit"),
    )


def find_content(name: str) -> MarginTables:
    presets = load_presets()
    if name not in presets:
        raise VenueError(
            f"there are no margin rules {repr_plain(name)}{base.did_you_mean(str(name), presets)}; "
            f"known are {', '.join(presets)}"
        )
    return presets[name]


def list_presets() -> list[MarginPreset]:
    return [margin_preset(name) for name in load_presets()]


def load_presets() -> dict[str, MarginTables]:
    return read_file(FILE, 0, MarginTables)


def make_rule(
    name: str, table: Group, groups: Mapping[str, Sequence[str]], underlyings: Sequence[str] = ()
) -> MarginRule:
    given = table["requirement"]
    if "moves" not in given:
        return MarginRule.from_dict(given)
    moves, known = given["moves"], table.get("underlyings", [])
    for noun, asked, listed in (
        ("moves for", (*groups, *underlyings), moves),
        ("figures for options on", underlyings, known),
    ):
        missing = [each for each in asked if each not in listed and EVERY not in listed]
        if missing:
            raise VenueError(
                f"{name} has {noun} {', '.join(listed) or 'nothing'}, got {missing[0]!r}; "
                "groups of instruments may be named, {'BTC': ['BTCUSDT']}, and "
                "bt.ScenarioMargin(...) has moves of your own"
            )
    found = {each: moves.get(each, moves.get(EVERY)) for each in (*groups, *underlyings)}
    return MarginRule.from_dict({**given, "moves": found, "groups": groups or None})


def group_by_asset(
    instruments: Sequence[str] | Mapping[str, Sequence[str]],
) -> dict[str, tuple[str, ...]]:
    if isinstance(instruments, Mapping):
        return {str(group): tuple(names) for group, names in instruments.items()}
    if isinstance(instruments, str) or not isinstance(instruments, Sequence):
        raise base.ParameterError(
            f"instruments must be a list of names, got {repr_plain(instruments)}"
        )
    groups: dict[str, tuple[str, ...]] = {}
    for each in instruments:
        name = Text().check("instruments", each)
        asset = find_asset(name)
        groups[asset] = (*groups.get(asset, ()), name)
    return groups


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

    def faults(self) -> base.Faults:
        level = self._find_level()
        if self.level not in (1.0, level):
            yield "level", f"must be that of the preset, {level:g}"

    def _settle(self) -> None:
        self._set_fields(level=self._find_level())

    def _find_level(self) -> float:
        table = find_content(self.preset).choose(self.at)
        return float(table["requirement"].get("level", 1.0))

    def resolve(self, names: Sequence[str], underlyings: Sequence[str] = ()) -> MarginRule:
        """Return the rule for some instruments and underlyings of options."""
        table = find_content(self.preset).choose(self.at)
        assets = [*map(find_asset, underlyings)]
        return make_rule(self.preset, table, group_by_asset(names), assets)


MarginRule.kinds["preset"] = PresetMargin

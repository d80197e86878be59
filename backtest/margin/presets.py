"""Margin rules of an account at a venue or clearing house, from a day on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from backtest import core
from backtest.margin.preset_tables import find_margins, group_by_asset, load_margins
from backtest.margin.requirement_rule import MarginRule, PresetMargin, make_rule
from backtest.venue import preset_files


class MarginPreset(NamedTuple):
    """The margin rules of an account at a venue, from a day on.

    ``date`` is the day from which the table holds (or on which it was read), ``dates`` those of all
    tables, the oldest first. ``exact`` and ``leaves_out`` say what a run reproduces and what not.
    ``rates`` are those of collateral by asset, ``slippage`` is of its exchange. ``negative_limit``
    and ``conversion`` are for the :class:`Account`, ``call_grace_days`` for ``Venue.call_grace``,
    which counts bars.
    """

    name: str
    date: str
    source: str
    dates: tuple[str, ...]
    requirement: MarginRule
    title: str
    exact: str
    leaves_out: str
    figures: Sequence[Mapping[str, str]]
    rates: Mapping[str, float]
    slippage: float = 0.0
    negative_limit: float | None = None
    conversion: str | None = None
    call_grace_days: int | None = None


@core.checked_only("name", "at")
def margin_preset(
    name: str,
    instruments: Sequence[str] | Mapping[str, Sequence[str]] = (),
    at: core.TimeLike | None = None,
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
    content, table = find_margins(name, at)
    # Without instruments the rule finds those of its account itself.
    rule: MarginRule = PresetMargin(preset=name, at=preset_files.read_day(at))
    is_empty = isinstance(instruments, Sequence | Mapping) and not instruments
    if not is_empty:
        rule = make_rule(name, table, group_by_asset(instruments))

    # What a table says of its date stands over what the preset says of all dates.
    known = {"rates": {}, **content, **table}
    fields: dict[str, Any] = {}
    for field in MarginPreset._fields:
        if field in known:
            fields[field] = known[field]
    fields["name"] = name
    fields["dates"] = tuple(row["date"] for row in content["tables"])
    fields["requirement"] = rule
    return MarginPreset(**fields)


def list_presets() -> list[MarginPreset]:
    return [margin_preset(name) for name in load_margins()]

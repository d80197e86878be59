"""The origin of a result: the quality of its data (gaps, prices, fitness), and the command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from backtest.base import (
    BacktestError,
    describe_fault,
    describe_origin,
    format_percent,
    to_plain,
)
from backtest.market import Finding, Quality, load_again, quality, split_notes
from backtest.report.page.page import Block, Paragraph, Table, name_columns

USES = {
    "loading": "loading as they are",
    "liquidation": "liquidations inside the bar",
    "funding": "funding",
    "minutes": "studies of minutes",
}
MOST_PLACES = 3


class Examined(NamedTuple):
    found: Mapping[str, Quality]
    why_not: str = ""

    def to_dict(self) -> dict[str, Any] | None:
        found = {name: each.to_dict() for name, each in self.found.items()}
        return found.get("", found) or None


NO_SOURCES = Examined(
    {}, "A search of several markets does not keep where each came from, so their quality is not "
    "in this report: backtest data inspect reports on each."
)  # fmt: skip


def examine(data: Mapping[str, Any], source: str) -> Examined:
    parts = data.get("instruments") or {"": {**data, "source": source}}
    if not all(isinstance(each, Mapping) for each in parts.values()):
        return NO_SOURCES
    try:
        found = {
            name: quality(load_again(str(each["source"]), str(each["content_hash"])))
            for name, each in parts.items()
        }
    except (BacktestError, OSError) as error:
        reason = describe_fault(error)
        return Examined({}, f"The quality of the data is not in this report: {reason}.")
    return Examined(found)


def describe_filled(filled: Mapping[str, str]) -> str:
    return join_notes(split_notes(filled)[0])


def describe_choices(filled: Mapping[str, str]) -> str:
    return join_notes(split_notes(filled)[1])


def join_notes(notes: Mapping[str, str]) -> str:
    return "; ".join(f"{name.replace('_', ' ')}, {how}" for name, how in notes.items())


def write_quality(examined: Examined) -> Iterator[Block]:
    if not examined.found:
        yield Paragraph(examined.why_not, "note")
    for name, found in examined.found.items():
        yield from tabulate_quality(found, f" of {name}" if name else "")


def tabulate_quality(found: Quality, suffix: str) -> Iterator[Block]:
    columns = name_columns("table", "fact", "value", text=["fact", "value"])
    yield Table(f"Quality of the data{suffix}", columns, tuple(list_facts(found)))
    if found.findings:
        columns = name_columns("table", "rows that are", "count", "share", "first", "where",
                               text=["rows that are", "first", "where"])  # fmt: skip
        rows = tuple(map(list_finding, found.findings))
        yield Table(f"Rows{suffix} that break a rule", columns, rows)
    yield tabulate_fitness(found, suffix)


def list_facts(found: Quality) -> Iterator[tuple[str, str, str]]:
    for table, facts in found.facts.items():
        for name, value in facts.items():
            text = ", ".join(value[:MOST_PLACES]) if isinstance(value, list) else f"{value}"
            if isinstance(value, float):
                is_share = name == "coverage" or name.startswith("with ")
                text = format_percent(value) if is_share else f"{value:.4g}"
            elif isinstance(value, int):
                text = f"{value:,}"
            yield table, name, "" if value is None else text


def list_finding(finding: Finding) -> tuple[str, ...]:
    small = finding.share < 0.001
    share = format_percent(finding.share, 3) if small else format_percent(finding.share)
    places = "; ".join(finding.places[:MOST_PLACES])
    return finding.table, finding.rule, f"{finding.count:,}", share, finding.first, places


def tabulate_fitness(found: Quality, suffix: str) -> Table:
    columns = name_columns("use", "fit", "because", text=["fit", "because"])
    rows = tuple(
        (
            USES.get(each.use, each.use),
            each.fit,
            "; ".join(reason.replace("_", " ") for reason in each.reasons),
        )
        for each in found.verdicts
    )
    note = "This depends on the data, not on the policy. backtest data inspect shows more."
    return Table(f"What the data{suffix} are fit for", columns, rows, note)


class Background(NamedTuple):
    examined: Examined = Examined({})
    command: str = ""
    remarks: tuple[str, ...] = ()
    objective: str = "sharpe"

    def to_dict(self) -> dict[str, Any]:
        return {
            "made_by": self.command or None,
            "not_said": list(self.remarks),
            "quality": self.examined.to_dict(),
        }


NOTHING = Background()


def find_background(source: Any, objective: str) -> Background:
    manifest = to_plain(dict(source.manifest))
    if "data" not in manifest:
        return Background(objective=objective)
    origin = describe_origin(manifest, source._find_making())
    data = manifest["data"]
    examined = examine(data, str(data.get("source", "")))
    return Background(examined, origin.command, origin.remarks, objective)

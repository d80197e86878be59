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
from backtest.market import (
    BarsQuality,
    Count,
    FundingQuality,
    MarkQuality,
    Quality,
    load_again,
    quality,
    split_notes,
)
from backtest.report.page.page import Block, Paragraph, Table, name_columns

USES = {
    "loading": "loading as they are",
    "liquidation": "liquidations inside the bar",
    "funding": "funding",
    "minutes": "studies of minutes",
}
MOST_OUTLIERS = 3


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
    yield tabulate_bars(found, suffix)
    pairs = [*list_mark(found.beside), *list_funding(found.funding)]
    if pairs:
        columns = name_columns("finding", "value", text=["value"])
        yield Table(f"Quality of mark prices and funding{suffix}", columns, tuple(pairs))
    yield tabulate_fitness(found, suffix)


def tabulate_bars(found: Quality, suffix: str) -> Table:
    sides = [each for each in (found.bars, found.mark) if each is not None]
    names = ("bars", "mark bars") if found.mark is not None else ("bars",)
    rows = zip(*(list_bars(each) for each in sides), strict=True)
    texts = tuple((pairs[0][0], *(text for _, text in pairs)) for pairs in rows)
    columns, note = name_columns("finding", *names), describe_outliers(found.bars)
    return Table(f"Quality of the data{suffix}", columns, texts, note)


def list_bars(bars: BarsQuality) -> Iterator[tuple[str, str]]:
    yield "rows", f"{bars.rows:,}"
    yield "missing", f"{bars.gaps.missing:,}"
    yield "longest gap, bars", f"{bars.gaps.longest:,}"
    yield "repeated or out of order", f"{bars.duplicates + bars.disordered:,}"
    yield "impossible prices", f"{bars.bad_prices.count + bars.bad_ranges.count:,}"
    yield "one price only", format_count(bars.flat)
    yield "without volume", "" if bars.zero_volume is None else format_count(bars.zero_volume)
    yield "outliers", f"{bars.outliers.count:,}"


def format_count(count: Count) -> str:
    share = format_percent(count.share, 3) if count.share < 0.001 else format_percent(count.share)
    return f"{count.count:,} ({share})" if count.count else "0"


def describe_outliers(bars: BarsQuality | None) -> str:
    if bars is None or not bars.outliers.count:
        return ""
    furthest = [
        f"{each.price} of {each.time}, {format_percent(each.distance)} out"
        for each in bars.outliers.furthest[:MOST_OUTLIERS]
    ]
    return f"Furthest out: {'; '.join(furthest)}. An outlier is {bars.outliers.rule}."


def list_mark(beside: MarkQuality | None) -> Iterator[tuple[str, str]]:
    if beside is None:
        return
    yield "bars that have a mark", format_percent(beside.coverage)
    wicks = f"{format_count(beside.wicks)}, the longest {format_percent(beside.longest_wick)}"
    yield "wicks of the last price", f"{wicks}: {beside.wick_rule}"
    yield "stale marks", f"{format_count(beside.stale)}: {beside.stale_rule}"


def list_funding(funding: FundingQuality | None) -> Iterator[tuple[str, str]]:
    if funding is None:
        return
    cadence = ", ".join(f"every {each.every} from {each.start}" for each in funding.cadences[:3])
    left = len(funding.cadences) - 3
    more = f", and {left} more" if left > 0 else ""
    yield "settlements", f"{funding.settlements:,}, {cadence}{more}"
    yield "settlements missing", f"{funding.missing.missing:,}"
    if funding.coverage is not None:
        yield "bars within their time", format_percent(funding.coverage)
    span = f"{format_percent(funding.lowest, 3)} to {format_percent(funding.highest, 3)}"
    yield "rates", f"{span}, {funding.at_largest:,} of the largest size"


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

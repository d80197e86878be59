"""The data behind a result, looked at again: gaps, odd prices, the mark, funding, fitness."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from backtest.base.errors import BacktestError
from backtest.base.number_text import format_percent
from backtest.market.data_expression import load_again
from backtest.market.inspect.findings import Count
from backtest.market.inspect.quality_report import BarsQuality, FundingQuality, MarkQuality, Quality
from backtest.market.quality_of import quality
from backtest.report.page.page import Block, Column, Table, Text

USES = {
    "loading": "loading as they are",
    "liquidation": "liquidations inside the bar",
    "funding": "funding",
    "minutes": "studies of minutes",
}
"""What data may be fit for, in words."""
MOST_OUTLIERS = 3
WIDE = (Column("finding", is_number=False), Column("value", is_number=False))


class Examined(NamedTuple):
    """The quality of data, or why it is not known."""

    found: Quality | None
    why_not: str = ""


NOT_READ = Examined(
    None,
    "The data were not read for this page; backtest report reads them again where they still are.",
)


def examine(data: Mapping[str, Any], source: str) -> Examined:
    """Return the quality of the data that a manifest describes, where they can be loaded again.

    Parameters
    ----------
    data : mapping
        Of the manifest, with the ``content_hash`` that they must still have.
    source : str
        What the market said of itself.
    """
    try:
        return Examined(quality(load_again(source, str(data["content_hash"]))))
    except (BacktestError, OSError) as error:
        reason = error.problem if isinstance(error, BacktestError) else str(error.strerror)
        return Examined(None, f"The quality of the data could not be measured again: {reason}.")


def write_quality(examined: Examined) -> Iterator[Block]:
    """Yield the tables on the quality of data, or the sentence on why there are none."""
    found = examined.found
    if found is None:
        yield Text(examined.why_not, "note")
        return
    yield tabulate_bars(found)
    pairs = [*list_mark(found.beside), *list_funding(found.funding)]
    if pairs:
        yield Table("Quality of mark prices and funding", WIDE, tuple(pairs))
    yield tabulate_fitness(found)


def tabulate_bars(found: Quality) -> Table:
    """Return what bars and mark bars look like, side by side."""
    sides = [each for each in (found.bars, found.mark) if each is not None]
    names = ("bars", "mark bars") if found.mark is not None else ("bars",)
    columns = (Column("finding", is_number=False), *(Column(name) for name in names))
    rows = zip(*(list_bars(each) for each in sides), strict=True)
    texts = tuple((pairs[0][0], *(text for _, text in pairs)) for pairs in rows)
    return Table("Quality of the data", columns, texts, describe_outliers(found.bars))


def list_bars(bars: BarsQuality) -> Iterator[tuple[str, str]]:
    """Yield what bars look like."""
    yield "rows", f"{bars.rows:,}"
    yield "missing", f"{bars.gaps.missing:,}"
    yield "longest gap, bars", f"{bars.gaps.longest:,}"
    yield "repeated or out of order", f"{bars.duplicates + bars.disordered:,}"
    yield "impossible prices", f"{bars.bad_prices.count + bars.bad_ranges.count:,}"
    yield "one price only", in_count(bars.flat)
    yield "without volume", "" if bars.zero_volume is None else in_count(bars.zero_volume)
    yield "outliers", f"{bars.outliers.count:,}"


def in_count(count: Count) -> str:
    """Return a number of rows, with their share where there are any."""
    share = format_percent(count.share, 3) if count.share < 0.001 else format_percent(count.share)
    return f"{count.count:,} ({share})" if count.count else "0"


def describe_outliers(bars: BarsQuality | None) -> str:
    """Return which prices lie furthest out, and what that means."""
    if bars is None or not bars.outliers.count:
        return ""
    furthest = [
        f"{each.price} of {each.time}, {format_percent(each.distance)} out"
        for each in bars.outliers.furthest[:MOST_OUTLIERS]
    ]
    return f"Furthest out: {'; '.join(furthest)}. An outlier is {bars.outliers.rule}."


def list_mark(beside: MarkQuality | None) -> Iterator[tuple[str, str]]:
    """Yield how the mark stands beside the last price."""
    if beside is None:
        return
    yield "bars that have a mark", format_percent(beside.coverage)
    wicks = f"{in_count(beside.wicks)}, the longest {format_percent(beside.longest_wick)}"
    yield "wicks of the last price", f"{wicks}: {beside.wick_rule}"
    yield "stale marks", f"{in_count(beside.stale)}: {beside.stale_rule}"


def list_funding(funding: FundingQuality | None) -> Iterator[tuple[str, str]]:
    """Yield what the settlements look like."""
    if funding is None:
        return
    cadence = ", ".join(f"every {each.every} from {each.start}" for each in funding.cadences[:3])
    more = len(funding.cadences) - 3
    yield (
        "settlements",
        f"{funding.settlements:,}, {cadence}" + (f", and {more} more" if more > 0 else ""),
    )
    yield "settlements missing", f"{funding.missing.missing:,}"
    if funding.coverage is not None:
        yield "bars within their time", format_percent(funding.coverage)
    yield (
        "rates",
        f"{format_percent(funding.lowest, 3)} to {format_percent(funding.highest, 3)}, "
        f"{funding.at_largest:,} of the largest size",
    )


def tabulate_fitness(found: Quality) -> Table:
    """Return what the data are fit for, and why not."""
    columns = (
        Column("use", is_number=False),
        Column("fit", is_number=False),
        Column("because", is_number=False),
    )
    rows = tuple(
        (
            USES.get(each.use, each.use),
            each.fit,
            "; ".join(reason.replace("_", " ") for reason in each.reasons),
        )
        for each in found.verdicts
    )
    note = "Judged by the data alone, whatever the policy: backtest data inspect says more."
    return Table("What the data are fit for", columns, rows, note)

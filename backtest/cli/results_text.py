"""How the store is told: lists, one result, what verifying found, in 100 columns."""

from __future__ import annotations

import math
import shutil
import textwrap
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from backtest.report.words import in_unit, title, unit_beside, visible
from backtest.shelf import KINDS, Check, Entry, Origin, count_kinds
from backtest.shelf.choose import FIELDS
from backtest.units import format_time

WIDTH, LEAST_WIDTH = 100, 60
MEASURES = ("sharpe", "cagr", "max_drawdown")
SHOWN_ID = 8
MOST_SHOWN, MOST_NAMED = 5_000, 20
GAP = "  "
SHORT = {"comparison": "compare"}


def find_width() -> int:
    """Return how many columns are written: those of the terminal, 60 to 100."""
    return min(max(shutil.get_terminal_size((WIDTH, 24)).columns, LEAST_WIDTH), WIDTH)


def clean(text: str) -> str:
    r"""Return a text on one line, with every control character and mark of direction written out.

    Examples
    --------
    >>> clean("a\nb\x1b[31m")
    'a\\nb\\x1b[31m'
    """
    if text.isascii() and text.isprintable():
        return text
    shown = visible(text)
    return "".join(
        c if not unicodedata.category(c).startswith("C") else c.encode("unicode_escape").decode()
        for c in shown
    )


def clip(text: str, width: int) -> str:
    """Return a text cut to a width.

    Examples
    --------
    >>> clip("voltarget", 5)
    'volt…'
    """
    shown = clean(text)
    return shown if len(shown) <= width else f"{shown[: max(width - 1, 0)]}…"


def shorten_id(name: str) -> str:
    """Return what finds a folder again: the first letters of the id in its name, else the name.

    Examples
    --------
    >>> shorten_id("voltarget-0a1b2c3d4e5f6071"), shorten_id("mine")
    ('0a1b2c3d', 'mine')
    """
    tail = name.rpartition("-")[2]
    is_id = len(tail) == 16 and set(tail) <= set("0123456789abcdef") and "-" in name
    return tail[:SHOWN_ID] if is_id else name


def list_measures(sort: str, asked: Sequence[str]) -> list[str]:
    """Return the measures of a list: those sorted or filtered by, then the usual ones; up to four.

    Examples
    --------
    >>> list_measures("calmar", ["sharpe"])
    ['calmar', 'sharpe', 'cagr', 'max_drawdown']
    """
    first = [] if sort in FIELDS else [sort]
    return list(dict.fromkeys([*first, *asked, *MEASURES]))[:4]


# ------------------------------------------------------------------------------------------ tables


def write_list(
    shown: Sequence[Entry],
    measures: Sequence[str],
    unread: Sequence[Entry],
    found: int,
    folder: Path,
) -> str:
    """Return a list of results as a table, with what cannot be read beneath."""
    if not shown and not unread:
        return f"no results in {clean(str(folder))}"
    parts = ["\n".join(write_rows(shown, measures))] if shown else ["no result fits"]
    count = f"{found:,} results" if found != 1 else "1 result"
    parts.append(count if len(shown) == found else f"{len(shown):,} of {count}")
    if unread:
        parts.append(write_unread(unread))
    return "\n\n".join(parts)


def write_rows(shown: Sequence[Entry], measures: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a table: id, kind, policy, data, measures, when it was saved."""
    heads = ["id", "kind", "policy", "data", *map(title, measures), "saved"]
    rows = [
        [
            clip(shorten_id(each.name), 16),
            SHORT.get(each.kind, each.kind),
            each.policy + (f" ({each.note})" if each.note else ""),
            clip(f"{each.instrument or 'unnamed'} {each.interval}", 18),
            *(write_value(name, each.metrics.get(name, math.nan)) for name in measures),
            f"{format_time(each.saved)[:10]}",
        ]
        for each in shown
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    rest = sum(widths) - widths[2] + len(GAP) * (len(widths) - 1)
    widths[2] = max(min(widths[2], find_width() - rest), 8)
    right = range(4, 4 + len(measures))
    for row in (heads, ["-" * width for width in widths], *rows):
        cells = [clip(cell, width) for cell, width in zip(row, widths, strict=True)]
        padded = (
            cell.rjust(width) if k in right else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        yield GAP.join(padded).rstrip()


def write_value(name: str, value: float) -> str:
    """Return a measure for a table; a dash where there is none."""
    if math.isnan(value):
        return "-"
    return in_unit(name, value) if math.isfinite(value) else str(value)


def write_unread(unread: Sequence[Entry]) -> str:
    """Return what cannot be read, each with the reason."""
    damaged = [each for each in unread if each.kind != "leftover"]
    left = [each for each in unread if each.kind == "leftover"]
    lines = []
    for heading, entries in (
        ("not readable (backtest results verify says more)", damaged),
        ("left by writers (backtest results prune --damaged deletes the dead ones)", left),
    ):
        if not entries:
            continue
        lines.append(f"{heading}: {len(entries):,}")
        lines += [wrap(f"{each.name}: {each.trouble}") for each in entries[:MOST_NAMED]]
        if len(entries) > MOST_NAMED:
            lines.append(f"  and {len(entries) - MOST_NAMED:,} more: --json names all")
    return "\n".join(lines)


def wrap(text: str, indent: str = "  ") -> str:
    """Return a text in lines, the further ones indented more."""
    return "\n".join(
        textwrap.wrap(
            clean(text),
            find_width(),
            initial_indent=indent,
            subsequent_indent=f"{indent}  ",
            break_on_hyphens=False,
        )
    )


# -------------------------------------------------------------------------------------- one result


def write_entry(folder: Path, entry: Entry, facts: Mapping[str, Any], origin: Origin) -> str:
    """Return everything that is told of one result."""
    pairs = [
        ("folder", str(folder)),
        ("kind", entry.kind + (f", {entry.note}" if entry.note else "")),
        ("id", entry.id),
        ("policy", entry.policy),
        ("data", f"{entry.instrument or 'unnamed'} {entry.interval}, {entry.start} to {entry.end}"),
        ("source", entry.source),
        ("data hash", str(facts["data"]["content_hash"])),
        ("signal", str(facts["signal"])),
        ("returns", f"per {facts['sampling']}, {facts['calendar']} days a year"),
        *list_hashes(facts),
        ("versions", ", ".join(f"{k} {v}" for k, v in facts["versions"].items())),
        ("saved", f"{format_time(entry.saved)[:19]} UTC, {entry.size / 1e6:,.2f} MB"),
    ]
    wide = max(len(name) for name, _ in pairs)
    lines = [wrap(f"{name.ljust(wide)}  {value}", "").rstrip() for name, value in pairs]
    about = {"sweep": " of its best set", "study": " of the set it chose"}.get(entry.kind, "")
    about = about or (" of its best policy" if entry.kind == "comparison" else "")
    lines += ["", f"measures{about}", *write_measures(entry.metrics)]
    lines += ["", "made again by", origin.command]
    lines += [wrap(f"but: {remark}") for remark in origin.remarks]
    return "\n".join(lines)


def list_hashes(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the hashes of the policies' sources."""
    policies = facts.get("policies") or {"": facts["policy"]}
    return [(f"source hash {name}".strip(), each["source_hash"]) for name, each in policies.items()]


def write_measures(metrics: Mapping[str, float]) -> list[str]:
    """Return measures in two columns, with their units."""
    cells = []
    for name, value in metrics.items():
        try:
            unit = "" if math.isnan(value) else unit_beside(name)
            cell = f"{title(name)}  {in_unit(name, value)} {unit}".rstrip()
        except KeyError:
            cell = f"{title(name)}  {value:.6g}"
        cells.append(cell)
    half = (len(cells) + 1) // 2
    wide = find_width() // 2 - 2
    pairs = [(cells[k], cells[k + half] if k + half < len(cells) else "") for k in range(half)]
    return [f"  {clip(one, wide).ljust(wide)}{clip(two, wide)}".rstrip() for one, two in pairs]


# ------------------------------------------------------------------------------- checks and prunes


def write_checks(checks: Sequence[Check]) -> str:
    """Return what verifying found: faults by folder and file, then the count."""
    lines = []
    for each in checks:
        for word, found in (("DAMAGED", each.faults), ("note   ", each.remarks)):
            for name, what in found:
                place = "" if name == "." else f"{name} "
                lines.append(wrap(f"{word} {each.name}: {place}{what}", ""))
    bad = sum(bool(each.faults) for each in checks)
    files = sum(each.files for each in checks)
    whole = sum(not each.faults and each.kind in KINDS for each in checks)
    lines.append(f"{whole:,} whole, {bad:,} damaged; {files:,} files checked")
    return "\n".join(lines)


def write_doomed(doomed: Sequence[Entry]) -> str:
    """Return what would be deleted."""
    if not doomed:
        return "nothing to delete"
    lines = [
        wrap(f"{each.name}  {format_time(each.saved)[:10]}  {each.trouble or each.policy}")
        for each in doomed[:MOST_NAMED]
    ]
    if len(doomed) > MOST_NAMED:
        lines.append(f"  and {len(doomed) - MOST_NAMED:,} more: --json names all")
    size = sum(each.size for each in doomed) / 1e6
    return "\n".join([f"to delete: {count_kinds(doomed)}, {size:,.2f} MB", *lines])

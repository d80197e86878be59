"""Format what the results commands print: lists, one result, checks, deletions."""

from __future__ import annotations

import math
import shutil
import textwrap
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from backtest.base import (
    Checkout,
    Code,
    Making,
    Origin,
    ParameterError,
    clip,
    escape_directions,
    format_time,
)
from backtest.measures import name_measure
from backtest.report import format_measure, name_unit
from backtest.store import (
    FolderCheck,
    KeptFolder,
    StoreEntry,
    check_measure,
    count_kinds,
    describe_note,
    list_kinds,
)
from backtest.store.listing import FIELDS

WIDTH, LEAST_WIDTH, PIPED_WIDTH = 100, 60, 160
LEAST_POLICY = 16
"""Least width of the policy column; if it would be less, times are cut to days."""
LONGEST_DAY = 10
MEASURES = ("sharpe", "cagr", "max_drawdown")
SHOWN_ID = 8
MOST_NAMED = 20
GAP = "  "
SHORT = {"comparison": "compare", "walk-forward": "walk", "cross-validation": "cross"}
SHOWN_COMMIT = 12


def find_width() -> int:
    return min(max(shutil.get_terminal_size((WIDTH, 24)).columns, LEAST_WIDTH), WIDTH)


def find_table_width() -> int:
    return max(shutil.get_terminal_size((PIPED_WIDTH, 24)).columns, LEAST_WIDTH)


def clean(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    shown = escape_directions(text)
    return "".join(
        c if not unicodedata.category(c).startswith("C") else c.encode("unicode_escape").decode()
        for c in shown
    )


def fit(text: str, width: int) -> str:
    return clip(clean(text), width)


def shorten_id(name: str) -> str:
    tail = name.rpartition("-")[2]
    is_id = len(tail) == 16 and set(tail) <= set("0123456789abcdef") and "-" in name
    return tail[:SHOWN_ID] if is_id else name


def list_measures(sort: str, asked: Sequence[str]) -> list[str]:
    first = [] if sort in FIELDS else [sort]
    return list(dict.fromkeys([*first, *asked, *MEASURES]))[:4]


def read_columns(text: str) -> list[str]:
    names = [each.strip() for each in text.split(",")]
    for each in names:
        check_measure(each, where="columns", others=tuple(CELLS))
    if len(set(names)) < len(names):
        raise ParameterError(f"each of columns must be named once, got {text!r:.80}")
    return names


CELLS: dict[str, Callable[[StoreEntry], str]] = {
    "id": lambda each: fit(shorten_id(each.name), 16),
    "name": lambda each: each.name,
    "kind": lambda each: SHORT.get(each.kind, each.kind),
    "policy": lambda each: each.policy + (f" ({describe_note(each)})" if each.note else ""),
    "data": lambda each: fit(f"{each.instrument or 'unnamed'} {each.interval}", 18),
    "start": lambda each: each.start,
    "end": lambda each: each.end,
    "source": lambda each: each.source,
    "saved": lambda each: format_time(each.saved)[:16],
    "size": lambda each: f"{each.size / 1e6:,.2f} MB",
    "seconds": lambda each: "-" if each.seconds is None else f"{each.seconds:,.2f} s",
    "commit": lambda each: each.commit[:SHOWN_COMMIT] or "-",
    "backtest_commit": lambda each: each.backtest_commit[:SHOWN_COMMIT] or "-",
    "dirty": lambda each: {None: "-", True: "yes", False: "no"}[each.is_dirty],
}
USUAL = ("id", "kind", "policy", "data")
ALIGNED_RIGHT = ("size", "seconds")


def format_list(
    shown: Sequence[StoreEntry],
    columns: Sequence[str],
    unread: Sequence[StoreEntry],
    found: int,
    total: int,
    folder: Path,
) -> str:
    if not shown and not unread and not total:
        return f"no results in {clean(str(folder))}"
    parts = ["\n".join(format_rows(shown, columns))] if shown else ["no result matches"]
    count = f"{total:,} results" if total != 1 else "1 result"
    matching = count if found == total else f"{found:,} of {count} match"
    cut = "" if len(shown) == found else f"{len(shown):,} shown; "
    parts.append(cut + matching)
    if unread:
        parts.append(format_unread(unread))
    return "\n\n".join(parts)


def format_rows(shown: Sequence[StoreEntry], columns: Sequence[str]) -> Iterator[str]:
    heads = [name.replace("_", " ") if name in CELLS else name_measure(name) for name in columns]
    rows = [[format_cell(name, each) for name in columns] for each in shown]
    widths = find_widths(heads, rows)
    if "saved" in columns and find_policy_width(columns, widths) < LEAST_POLICY:
        saved = columns.index("saved")
        rows = [[*row[:saved], row[saved][:LONGEST_DAY], *row[saved + 1 :]] for row in rows]
        widths = find_widths(heads, rows)
    if "policy" in columns:
        policy = columns.index("policy")
        widths[policy] = max(min(widths[policy], find_policy_width(columns, widths)), 8)
    sides = [">" if name not in CELLS or name in ALIGNED_RIGHT else "<" for name in columns]
    for row in (heads, ["-" * width for width in widths], *rows):
        cells = zip(row, sides, widths, strict=True)
        yield GAP.join(f"{fit(cell, wide):{side}{wide}}" for cell, side, wide in cells).rstrip()


def find_widths(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(heads, *rows, strict=True)]


def find_policy_width(columns: Sequence[str], widths: Sequence[int]) -> int:
    others = [width for name, width in zip(columns, widths, strict=True) if name != "policy"]
    return find_table_width() - sum(others) - len(GAP) * (len(widths) - 1)


def format_cell(name: str, entry: StoreEntry) -> str:
    if name in CELLS:
        return clean(CELLS[name](entry))
    value = entry.metrics.get(name, math.nan)
    if math.isnan(value):
        return "-"
    return format_measure(name, value) if math.isfinite(value) else str(value)


def format_unread(unread: Sequence[StoreEntry]) -> str:
    damaged = [each for each in unread if each.kind != "leftover"]
    left = [each for each in unread if each.kind == "leftover"]
    lines = []
    for heading, entries in (
        ("not readable (see backtest results verify)", damaged),
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
    return textwrap.fill(
        clean(text),
        find_width(),
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_on_hyphens=False,
    )


def format_result(
    folder: Path,
    entry: StoreEntry,
    facts: Mapping[str, Any],
    making: Making | None,
    origin: Origin,
) -> str:
    seconds = [] if entry.seconds is None else [("made in", f"{entry.seconds:,.3f} s")]
    pairs = [
        ("folder", str(folder)),
        ("kind", entry.kind + (f", {describe_note(entry)}" if entry.note else "")),
        ("id", entry.id),
        ("policy", entry.policy),
        ("data", f"{entry.instrument or 'unnamed'} {entry.interval}, {entry.start} to {entry.end}"),
        ("source", entry.source),
        ("data hash", str(facts["data"]["content_hash"])),
        *list_terms(facts),
        *list_hashes(facts),
        ("versions", ", ".join(f"{k} {v}" for k, v in facts["versions"].items())),
        *list_code(making),
        *seconds,
        ("saved", f"{format_time(entry.saved)[:19]} UTC, {entry.size / 1e6:,.2f} MB"),
    ]
    wide = max(len(name) for name, _ in pairs)
    lines = [wrap(f"{name.ljust(wide)}  {value}", "").rstrip() for name, value in pairs]
    about = {
        "sweep": " of its best set",
        "study": " of the set it chose",
        "comparison": " of its best policy",
        "walk-forward": " of the re-tuned account",
        "cross-validation": ", medians over its paths",
    }
    if entry.metrics:
        lines += ["", f"measures{about.get(entry.kind, '')}", *format_measures(entry.metrics)]
    lines += ["", "run again by", clean(origin.command)] if origin.command else [""]
    lines += [wrap(remark, "") for remark in origin.remarks]
    return "\n".join(lines)


def list_terms(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    terms = [("signal", str(facts["signal"]))] if "signal" in facts else []
    if "sampling" in facts:
        terms.append(("returns", f"per {facts['sampling']}, {facts['calendar']} days a year"))
    return terms


def list_hashes(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    policies = facts.get("policies") or ({"": facts["policy"]} if "policy" in facts else {})
    return [(f"source hash {name}".strip(), each["source_hash"]) for name, each in policies.items()]


def list_code(making: Making | None) -> list[tuple[str, str]]:
    states = [] if making is None else [*making.earlier, making.code]
    known = [state for state in states if state]
    if not known:
        return [("code", "not known: the file of it was deleted")]
    return [("code", format_code(state)) for state in known]


def format_code(code: Code) -> str:
    places: dict[Checkout | None, list[str]] = {}
    for name, each in code.items():
        places.setdefault(each, []).append(name)
    texts = (f"{', '.join(names)} {format_checkout(each)}" for each, names in places.items())
    return "; ".join(texts)


def format_checkout(place: Checkout | None) -> str:
    if place is None:
        return "of no checkout"
    dirty = " with changes not committed" if place.is_dirty else ""
    return f"at {place.commit[:SHOWN_COMMIT] or 'no commit yet'}{dirty}"


def format_measures(metrics: Mapping[str, float]) -> list[str]:
    cells = []
    for name, value in metrics.items():
        try:
            unit = "" if math.isnan(value) else name_unit(name)
            cell = f"{name_measure(name)}  {format_measure(name, value)} {unit}".rstrip()
        except KeyError:
            cell = f"{name_measure(name)}  {value:.6g}"
        cells.append(cell)
    half = (len(cells) + 1) // 2
    wide = find_width() // 2 - 2
    pairs = zip_longest(cells[:half], cells[half:], fillvalue="")
    return [f"  {fit(one, wide):{wide}}{fit(two, wide)}".rstrip() for one, two in pairs]


def format_checks(checks: Sequence[FolderCheck]) -> str:
    lines = []
    for each in checks:
        for word, found in (("DAMAGED", each.faults), ("note   ", each.remarks)):
            for name, what in found:
                place = "" if name == "." else f"{name} "
                lines.append(wrap(f"{word} {each.name}: {place}{what}", ""))
    bad = sum(bool(each.faults) for each in checks)
    files = sum(each.files for each in checks)
    whole = sum(not each.faults and each.kind in list_kinds() for each in checks)
    lines.append(f"{whole:,} whole, {bad:,} damaged; {files:,} files checked")
    return "\n".join(lines)


def format_kept(each: KeptFolder) -> str:
    text = f"left, not known to be a result: {each.name}  {each.why}; by hand:"
    return f"{wrap(text)}\n    {clean(each.by_hand)}\n"


def format_deletions(to_delete: Sequence[StoreEntry]) -> str:
    if not to_delete:
        return "nothing to delete"
    lines = [
        wrap(f"{each.name}  {format_time(each.saved)[:10]}  {each.trouble or each.policy}")
        for each in to_delete[:MOST_NAMED]
    ]
    if len(to_delete) > MOST_NAMED:
        lines.append(f"  and {len(to_delete) - MOST_NAMED:,} more: --json names all")
    size = sum(each.size for each in to_delete) / 1e6
    return "\n".join([f"to delete: {count_kinds(to_delete)}, {size:,.2f} MB", *lines])

"""Write the pages of all results of a store, and the list that links to them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from backtest.base import BacktestError, DataError, clip
from backtest.measures import name_measure
from backtest.report.page import format_measure
from backtest.report.render import read_template, save_text, start_jinja, write_page
from backtest.report.write import build_page
from backtest.store import StoreEntry, count_kinds, describe_note, list_results, load_saved
from backtest.store.listing import LEFTOVER, name_fault

INDEX, PAGES = "index.html", "pages"
SHOWN = ("cagr", "volatility", "sharpe", "max_drawdown", "liquidations")
"""Measures of the list; results without measures say in a note what came out."""


LONGEST = 300
"""Longest title and note, in characters."""


class Row(NamedTuple):
    entry: StoreEntry
    trouble: str = ""

    @property
    def link(self) -> str:
        is_written = self.entry.is_finished and not self.trouble
        return f"{PAGES}/{quote(self.entry.name, safe='')}.html" if is_written else ""

    @property
    def name(self) -> str:
        return self.entry.name.encode("utf-8", "replace").decode()

    @property
    def title(self) -> str:
        return clip(self.entry.title or self.name, LONGEST)

    @property
    def note(self) -> str:
        said = f"damaged: {self.trouble}" if self.trouble else describe_note(self.entry)
        name = "" if self.title == self.name else self.name
        return clip(", ".join(filter(None, (said, name))), LONGEST)

    @property
    def cells(self) -> list[str]:
        metrics = {} if self.trouble else self.entry.metrics
        return [format_measure(n, metrics[n]) if n in metrics else "" for n in SHOWN]

    @property
    def saved(self) -> str:
        return f"{dt.datetime.fromtimestamp(self.entry.saved / 1e9, dt.UTC):%Y-%m-%d %H:%M}"


def write_all(
    store: Path,
    folder: Path,
    objective: str = "sharpe",
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Return what the list shows; a result that cannot be read has a trouble and no page."""
    entries = [each for each in list_results(store) if each.kind != LEFTOVER]
    if not entries:
        raise DataError(f"{store}: the folder of results must hold a result, it holds none")
    entries.sort(key=lambda each: (-each.saved, each.name))
    rows = []
    for k, entry in enumerate(entries):
        rows.append(write_one(store, folder / PAGES, entry, objective))
        if progress is not None:
            progress(k + 1, len(entries))
    write_index(rows, store, folder / INDEX)
    return rows


def write_one(store: Path, folder: Path, entry: StoreEntry, objective: str) -> Row:
    if entry.trouble or not entry.is_finished:
        return Row(entry, entry.trouble)
    try:
        page = build_page(load_saved(store / entry.name), objective)
    except (BacktestError, OSError) as error:
        return Row(entry, name_fault(error, store / entry.name))
    write_page(page, folder / f"{entry.name}.html", "html")
    return Row(entry)


def write_index(rows: Sequence[Row], store: Path, path: Path) -> None:
    text = start_jinja().get_template(INDEX).render(
        rows=rows,
        store=store.resolve().name,
        kinds=count_kinds([each.entry for each in rows if not each.trouble]),
        damaged=sum(bool(each.trouble) for each in rows),
        measures=[name_measure(name) for name in SHOWN],
        style=read_template("page.css"),
    )  # fmt: skip
    save_text(text, path)

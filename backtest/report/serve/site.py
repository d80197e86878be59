"""What is answered to each address: the list, reports made on demand, studies as they run."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

from backtest.base.errors import BacktestError, DataError, ParameterError
from backtest.engine.result import Result
from backtest.report.basis.data_and_command import Reported
from backtest.report.page.html import read_plotly, write_html
from backtest.report.page.html import read_template as read_shared
from backtest.report.page.html import write_policy as allow_scripts
from backtest.report.page.page import Code, Page
from backtest.report.serve.compare_overlay import MOST, overlay
from backtest.report.serve.live_study import RUNNING, Follower, find_state
from backtest.report.serve.pages import readable, write_index, write_live, write_message
from backtest.report.serve.results_list import (
    DAMAGED,
    RUN,
    STUDY_KIND,
    Entry,
    Store,
    choose_metrics,
    damaged,
)
from backtest.report.write import build_page, load
from backtest.tune import Study

HTML, JSON = "text/html; charset=utf-8", "application/json; charset=utf-8"
STRICT = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
MOST_PAGES = 12
MOST_BYTES = 96 * 2**20
"""Reports that are kept, by number and by size."""
MOST_FOLLOWED = 32
LONGEST = 8_192
"""Letters of an address."""


class Answer(NamedTuple):
    """A status, a body with its type, and the content security policy that it goes with."""

    status: int
    body: bytes
    kind: str = HTML
    policy: str = STRICT


class Shelf:
    """Reports that were made, by what they were made of; the ones used longest ago go first."""

    def __init__(self) -> None:
        self._pages: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, make: Callable[[], bytes]) -> bytes:
        """Return a report; one is made at a time."""
        with self._lock:
            if key not in self._pages:
                self._pages[key] = make()
                while len(self) > 1 and (len(self) > MOST_PAGES or self.size > MOST_BYTES):
                    self._pages.popitem(last=False)
            self._pages.move_to_end(key)
            return self._pages[key]

    def __len__(self) -> int:
        return len(self._pages)

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return sum(map(len, self._pages.values()))


class Site:
    """The pages of a store.

    Parameters
    ----------
    root : Path
        The folder of results.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root)
        self.shelf = Shelf()
        self._followed: OrderedDict[str, Follower] = OrderedDict()
        self._lock = threading.Lock()

    def answer(self, target: str) -> Answer:
        """Return the answer to a request for an address, as it was sent."""
        if len(target) > LONGEST:
            return say(414, "Address too long", f"It has more than {LONGEST:,} letters.")
        try:
            address = urlsplit(target)
        except ValueError:
            return say(400, "No address", "The address cannot be read.")
        if address.scheme or address.netloc or not target.startswith("/"):
            return say(400, "No address of this server", "It must begin with one slash.")
        try:
            return self._choose(address.path, address.query)
        except BacktestError as error:
            return self._explain(error, is_data=address.path.startswith("/progress/"))

    def _choose(self, path: str, query: str) -> Answer:
        if path == "/":
            return self._list()
        if path == "/compare":
            return self._compare(query)
        doors = {"result": self._report, "live": self._live, "progress": self._progress}
        first, slash, name = path[1:].partition("/")
        if first not in doors or not slash:
            return say(404, "No such page", "Nothing has this address.")
        entry = self._find(name)
        return self._missing() if entry is None else self._open(doors[first], entry)

    def _open(self, door: Callable[[Entry], Answer], entry: Entry) -> Answer:
        """Return the page of a result, which may be deleted while it is read."""
        try:
            return door(entry)
        except (BacktestError, OSError) as error:
            if not (self.root / entry.name).exists():
                return self._missing()
            if isinstance(error, BacktestError):
                raise
            raise DataError(
                f"a result must be readable: {error.strerror or error}",
                where=readable(entry.name),
                cure="load the list again: it may be being deleted",
            ) from error

    def _list(self) -> Answer:
        entries = self.store.list_entries().values()
        open_ = [entry.name for entry in entries if entry.is_unfinished]
        running = {name for name in open_ if find_state(self.root / name) == RUNNING}
        told = [self._measure(each) if each.is_unfinished else each for each in entries]
        return page(*write_index(told, str(self.root), running))

    def _measure(self, entry: Entry) -> Entry:
        """Return the entry of an unfinished study with the measures of its best set so far."""
        try:
            best = self._follow(entry).read()["best"]
        except BacktestError as error:
            return damaged(entry.name, error.problem, entry.made)
        except OSError as error:  # it is being deleted
            problem = f"a file of it cannot be read: {error.strerror or error}"
            return damaged(entry.name, problem, entry.made)
        return dataclasses.replace(entry, metrics=choose_metrics(best["metrics"] if best else {}))

    def _find(self, part: str) -> Entry | None:
        """Return the entry that a part of an address names, decoded once."""
        return self.store.find(os.fsdecode(unquote_to_bytes(part)))

    def _missing(self) -> Answer:
        return say(404, "No such result", "No folder of the store has this name.",
                   "It may have been deleted since the list was loaded.")  # fmt: skip

    def _explain(self, error: BacktestError, *, is_data: bool) -> Answer:
        """Return what went wrong, with places inside the store only."""
        where = error.where.replace(str(self.root.resolve()), self.root.name)
        where = where.replace(str(self.root), self.root.name)
        if is_data:
            return as_json({"error": f"{error.problem} ({where})"}, 422)
        return say(422, "This cannot be shown", f"{error.problem}.", f"Where: {where}",
                   f"Cure: {error.cure}")  # fmt: skip

    # -------------------------------------------------------------------------------- reports

    def _report(self, entry: Entry) -> Answer:
        check_usable(entry)
        folder = self.root / entry.name
        return self._serve(
            entry.mark, lambda: build_page(check_begun(load(folder)), reads_data=False)
        )

    def _serve(self, key: str, build: Callable[[], Page]) -> Answer:
        def make() -> bytes:
            return write_html(build(), home="/").encode("utf-8", "replace")

        policy = allow_scripts(read_shared("page.js"), read_plotly())
        return Answer(200, self.shelf.get(key, make), HTML, f"{policy}; frame-ancestors 'none'")

    def _compare(self, query: str) -> Answer:
        try:
            pairs = parse_qsl(query, max_num_fields=10 * MOST, encoding="latin-1")
        except ValueError as error:
            raise refuse_choice(f"more than {10 * MOST} were chosen") from error
        listed = self.store.list_entries()
        names = [os.fsdecode(unquote_to_bytes(value)) for key, value in pairs if key == "run"]
        if unknown := [name for name in names if name not in listed]:
            raise refuse_choice(f"{readable(unknown[0])[:80]!r} is not in the store")
        entries = [listed[name] for name in dict.fromkeys(names)]
        for entry in entries:
            check_usable(entry)
            if entry.kind != RUN:
                raise refuse_choice(f"{readable(entry.name)[:80]!r} is a {entry.kind}")
        if not 2 <= len(entries) <= MOST:
            raise refuse_choice(f"{len(entries)} {'was' if len(entries) == 1 else 'were'} chosen")
        key = " ".join(["compare", *(entry.mark for entry in entries)])
        return self._serve(key, lambda: self._overlay(entries))

    def _overlay(self, entries: list[Entry]) -> Page:
        from backtest.report.compare_page import build_comparison  # noqa: PLC0415 - seldom used

        comparison = overlay([Result.load(self.root / entry.name) for entry in entries])
        return without_command(build_comparison(comparison))

    # ---------------------------------------------------------------------------- running studies

    def _live(self, entry: Entry) -> Answer:
        check_usable(entry)
        return page(*write_live(entry, self._follow(entry).read()))

    def _progress(self, entry: Entry) -> Answer:
        check_usable(entry)
        return as_json(self._follow(entry).read())

    def _follow(self, entry: Entry) -> Follower:
        if entry.kind != STUDY_KIND:
            raise DataError(
                f"only a study can be followed, this is a {entry.kind}",
                where=readable(entry.name),
                cure="look at its report",
            )
        with self._lock:
            if entry.name not in self._followed:
                self._followed[entry.name] = Follower(self.root / entry.name)
            self._followed.move_to_end(entry.name)
            while len(self._followed) > MOST_FOLLOWED:
                self._followed.popitem(last=False)
            return self._followed[entry.name]


def check_usable(entry: Entry) -> None:
    """Refuse a damaged folder, saying why it is one.

    Raises
    ------
    DataError
        Always of a damaged one.
    """
    if entry.kind == DAMAGED:
        raise DataError(
            f"the folder is damaged: {entry.problem}",
            where=readable(entry.name),
            cure="run the experiment again, or restore the folder",
        )


def check_begun(source: Reported) -> Reported:
    """Refuse a study that has evaluated nothing yet.

    Raises
    ------
    DataError
        Of such a study.
    """
    if isinstance(source, Study) and not source.batches:
        raise DataError(
            "a study must have evaluated a set to be reported, this one has none yet",
            where="" if source.folder is None else readable(source.folder.name),
            cure="wait for its first batch",
        )
    return source


def refuse_choice(found: str) -> ParameterError:
    """Return the error of a choice that cannot be compared."""
    return ParameterError(
        f"two to {MOST} runs can be compared, {found}",
        where="compare",
        cure="tick runs in the list of results",
    )


def without_command(page: Page) -> Page:
    """Return the report of a comparison that is not saved: no command makes it again."""
    sections = [
        dataclasses.replace(
            each,
            blocks=[
                block for block in each.blocks if not isinstance(block, Code) or block.is_folded
            ],
        )
        for each in page.sections
    ]
    return dataclasses.replace(page, write_sections=lambda: sections)


# -------------------------------------------------------------------------------------- answers


def page(text: str, policy: str, status: int = 200) -> Answer:
    """Return a page as an answer; halves of letters that JSON may hold become question marks."""
    return Answer(status, text.encode("utf-8", "replace"), HTML, policy)


def say(status: int, heading: str, *sentences: str) -> Answer:
    """Return a page that says something."""
    return page(*write_message(heading, sentences), status)


def as_json(data: object, status: int = 200) -> Answer:
    """Return data as an answer."""
    return Answer(status, json.dumps(data, allow_nan=False).encode(), JSON)

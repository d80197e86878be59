"""Answer each address: the list of results, reports made on demand, running studies."""

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

from backtest.base import BacktestError, DataError, ParameterError
from backtest.report.page.formats import (
    read_plotly,
    read_template,
    write_html,
    write_security_policy,
)
from backtest.report.page.page import Page
from backtest.report.serve.pages import (
    MOST,
    RUNNING,
    Follower,
    decode_name,
    find_state,
    is_unfinished,
    write_index,
    write_live,
    write_message,
)
from backtest.report.write import build_page
from backtest.store import (
    CachedEntry,
    ServedList,
    StoreEntry,
    compare_saved,
    is_run,
    load_runs,
    load_saved,
)
from backtest.store.kinds import STUDY_KIND

HTML, JSON = "text/html; charset=utf-8", "application/json; charset=utf-8"
STRICT = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
MOST_PAGES = 12
MOST_BYTES = 96 * 2**20
"""Most reports in the cache, and their most bytes."""
MOST_FOLLOWED = 32
DRAWS = 999
"""Bootstrap draws of a comparison: half of what the command uses, for a quick answer."""
LONGEST_TROUBLE = 300
"""Longest description of a damaged folder, in characters."""
LONGEST = 8_192
"""Longest address, in characters."""


class Answer(NamedTuple):
    status: int
    body: bytes
    kind: str = HTML
    policy: str = STRICT


class PageCache:
    def __init__(self) -> None:
        self._pages: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, make: Callable[[], bytes]) -> bytes:
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
        return sum(map(len, self._pages.values()))


class Site:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.list = ServedList(root)
        self.pages = PageCache()
        self._followed: OrderedDict[str, Follower] = OrderedDict()
        self._lock = threading.Lock()

    def answer(self, target: str) -> Answer:
        if len(target) > LONGEST:
            return answer_message(414, "Address too long", f"It has more than {LONGEST:,} letters.")
        try:
            address = urlsplit(target)
        except ValueError:
            return answer_message(400, "No address", "The address cannot be read.")
        if address.scheme or address.netloc or not target.startswith("/"):
            return answer_message(400, "No address of this server", "It must begin with one slash.")
        try:
            return self._choose(address.path, address.query)
        except BacktestError as error:
            return self._explain(error, is_data=address.path.startswith("/progress/"))

    def _choose(self, path: str, query: str) -> Answer:
        if path == "/":
            return self._list()
        if path == "/compare":
            return self._compare(query)
        pages = {"result": self._report, "live": self._live, "progress": self._progress}
        first, slash, name = path[1:].partition("/")
        if first not in pages or not slash:
            return answer_message(404, "No such page", "Nothing has this address.")
        note = self._find(name)
        return self._missing() if note is None else self._open(pages[first], note)

    def _open(self, write: Callable[[CachedEntry], Answer], note: CachedEntry) -> Answer:
        entry = note.entry
        try:
            check_usable(entry)
            return write(note)
        except (BacktestError, OSError) as error:
            if not (self.root / entry.name).exists():
                return self._missing()
            if isinstance(error, BacktestError):
                raise
            raise DataError(
                f"a result must be readable: {error.strerror or error}",
                where=decode_name(entry.name),
                cure="load the list again: it may be being deleted",
            ) from error

    def _list(self) -> Answer:
        entries = [note.entry for note in self.list.read().values()]
        begun = [each.name for each in entries if not each.is_finished]
        running = {name for name in begun if find_state(self.root / name) == RUNNING}
        shown = [self._measure(each) if is_unfinished(each) else each for each in entries]
        return answer_page(*write_index(shown, str(self.root), running))

    def _measure(self, entry: StoreEntry) -> StoreEntry:
        try:
            best = self._follow(entry).read()["best"]
        except BacktestError as error:
            return dataclasses.replace(entry, trouble=error.problem)
        except OSError as error:  # it is being deleted
            trouble = f"a file of it cannot be read: {error.strerror or error}"
            return dataclasses.replace(entry, trouble=trouble)
        return dataclasses.replace(entry, metrics=best["metrics"] if best else {})

    def _find(self, part: str) -> CachedEntry | None:
        return self.list.read().get(os.fsdecode(unquote_to_bytes(part)))

    def _missing(self) -> Answer:
        return answer_message(404, "No such result", "No folder of the store has this name.",
                   "It may have been deleted since the list was loaded.")  # fmt: skip

    def _explain(self, error: BacktestError, *, is_data: bool) -> Answer:
        where = error.where.replace(str(self.root.resolve()), self.root.name)
        where = where.replace(str(self.root), self.root.name)
        if is_data:
            return answer_json({"error": f"{error.problem} ({where})"}, 422)
        return answer_message(422, "This cannot be shown", f"{error.problem}.", f"Where: {where}",
                   f"Cure: {error.cure}")  # fmt: skip

    # -------------------------------------------------------------------------------- reports

    def _report(self, note: CachedEntry) -> Answer:
        folder = self.root / note.entry.name
        return self._serve(note.mark, lambda: build_page(load_saved(folder), reads_data=False))

    def _serve(self, key: str, build: Callable[[], Page]) -> Answer:
        def make() -> bytes:
            return write_html(build(), home="/").encode("utf-8", "replace")

        policy = write_security_policy(read_template("page.js"), read_plotly())
        return Answer(200, self.pages.get(key, make), HTML, f"{policy}; frame-ancestors 'none'")

    def _compare(self, query: str) -> Answer:
        try:
            pairs = parse_qsl(query, max_num_fields=10 * MOST, encoding="latin-1")
        except ValueError as error:
            raise choice_error(f"more than {10 * MOST} were chosen") from error
        listed = self.list.read()
        names = [os.fsdecode(unquote_to_bytes(value)) for key, value in pairs if key == "run"]
        if unknown := [name for name in names if name not in listed]:
            raise choice_error(f"{decode_name(unknown[0])[:80]!r} is not in the store")
        chosen = [listed[name] for name in dict.fromkeys(names)]
        for entry in (note.entry for note in chosen):
            check_usable(entry)
            if not is_run(entry.kind):
                raise choice_error(f"{decode_name(entry.name)[:80]!r} is a {entry.kind}")
        if not 2 <= len(chosen) <= MOST:
            raise choice_error(f"{len(chosen)} {'was' if len(chosen) == 1 else 'were'} chosen")
        key = " ".join(["compare", *(note.mark for note in chosen)])
        folders = [self.root / note.entry.name for note in chosen]
        return self._serve(key, lambda: self._compare_runs(folders))

    def _compare_runs(self, folders: list[Path]) -> Page:
        from backtest.report.write import build_kind  # noqa: PLC0415 - seldom used

        named = load_runs(folders)
        return without_command(build_kind(compare_saved(named, draws=DRAWS)))

    # ---------------------------------------------------------------------------- running studies

    def _live(self, note: CachedEntry) -> Answer:
        return answer_page(*write_live(note.entry, self._follow(note.entry).read()))

    def _progress(self, note: CachedEntry) -> Answer:
        return answer_json(self._follow(note.entry).read())

    def _follow(self, entry: StoreEntry) -> Follower:
        if entry.kind != STUDY_KIND:
            raise DataError(
                f"only a study can be followed, this is a {entry.kind}",
                where=decode_name(entry.name),
                cure="look at its report",
            )
        with self._lock:
            if entry.name not in self._followed:
                self._followed[entry.name] = Follower(self.root / entry.name)
            self._followed.move_to_end(entry.name)
            while len(self._followed) > MOST_FOLLOWED:
                self._followed.popitem(last=False)
            return self._followed[entry.name]


def check_usable(entry: StoreEntry) -> None:
    if entry.trouble:
        raise DataError(
            f"the folder is damaged: {entry.trouble[:LONGEST_TROUBLE]}",
            where=decode_name(entry.name),
            cure="run the experiment again, or restore the folder",
        )


def choice_error(found: str) -> ParameterError:
    return ParameterError(
        f"two to {MOST} runs can be compared, {found}",
        where="compare",
        cure="tick runs in the list of results",
    )


def without_command(page: Page) -> Page:
    sections = [
        dataclasses.replace(each, blocks=[b for b in each.blocks if getattr(b, "is_folded", True)])
        for each in page.sections
    ]
    return dataclasses.replace(page, write_sections=lambda: sections)


# -------------------------------------------------------------------------------------- answers


def answer_page(text: str, policy: str, status: int = 200) -> Answer:
    return Answer(status, text.encode("utf-8", "replace"), HTML, policy)


def answer_message(status: int, heading: str, *sentences: str) -> Answer:
    return answer_page(*write_message(heading, sentences), status)


def answer_json(data: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(data, allow_nan=False).encode(), JSON)

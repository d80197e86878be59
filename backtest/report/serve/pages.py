"""Pages of the server other than reports: the list, messages, and a study while it runs."""

from __future__ import annotations

import datetime as dt
import math
import os
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from backtest.base import clip, escape_directions, is_lock_held, to_plain
from backtest.base.atomic_files import LOCK
from backtest.measures import name_measure
from backtest.report.page.figures import write_script_data
from backtest.report.page.formats import hash_text, read_template, start_jinja
from backtest.report.page.report_numbers import format_measure
from backtest.store import StoreEntry, is_run, list_kinds, name_kind
from backtest.store.kinds import STUDY_KIND
from backtest.tune import OUTCOME, STUDY, Batch, Journal, read_json
from backtest.tune.plateau import PART

PACKAGE = "backtest.report.serve"
FIRST_ROWS = 200
"""Rows of the list that are shown at first."""
LONGEST = 300
MOST = 12
"""Most runs in a comparison: more lines cannot be distinguished in a chart."""
DAMAGED = "damaged"
SHOWN = ("cagr", "volatility", "sharpe", "max_drawdown", "liquidations")
COLUMNS = ("policy", "kind", "data", "time", *SHOWN, "written")


def write_index(
    entries: Iterable[StoreEntry], store: str, running: Collection[str] = ()
) -> tuple[str, str]:
    rows = [describe_row(entry, entry.name in running) for entry in entries]
    counts = {kind: sum(row["kind"] == kind for row in rows) for kind in (*list_kinds(), DAMAGED)}
    runs = sum(n for kind, n in counts.items() if is_run(kind))
    columns = [
        {"title": name_measure(name) if name in SHOWN else name, "is_number": name in SHOWN}
        for name in COLUMNS
    ]
    numbers = [column["is_number"] for column in columns]
    data = {"rows": rows, "first": FIRST_ROWS, "most": MOST, "numbers": numbers}
    return render_page(
        "index.html",
        "index.js",
        data,
        heading="Results",
        store=store,
        rows=rows[:FIRST_ROWS],
        total=len(rows),
        columns=columns,
        kinds=[(kind, n) for kind, n in counts.items() if n],
        first=FIRST_ROWS,
        has_runs=runs > 1,
        has_many=len(rows) > runs + counts[DAMAGED],
        plural=name_kind,
    )


def is_unfinished(entry: StoreEntry) -> bool:
    return entry.kind == STUDY_KIND and not entry.is_finished and not entry.trouble


def describe_row(entry: StoreEntry, is_running: bool = False) -> dict[str, Any]:
    when = dt.datetime.fromtimestamp(entry.saved / 1e9, dt.UTC)
    values = [keep_finite(entry.metrics.get(name)) for name in SHOWN]
    texts = ["" if v is None else format_measure(n, v) for n, v in zip(SHOWN, values, strict=True)]
    kind = DAMAGED if entry.trouble else entry.kind
    state = "" if entry.is_finished else "running" if is_running else "unfinished"
    name = decode_name(entry.name)
    under = [entry.trouble] if entry.trouble else [state, entry.note, name]
    head = clip(name if entry.trouble else entry.title, LONGEST)
    written = f"{when:%Y-%m-%d %H:%M} UTC" if entry.saved else ""
    span = f"{entry.start}\nto {entry.end}" if entry.start else ""
    data = "" if entry.trouble else entry.instrument or "unnamed"
    words = [kind, f"{data}\n(synthetic)" if entry.is_synthetic else data, span]
    cells = [head, *(clip(each, LONGEST) for each in words), *texts, written]
    return {
        "link": link_to(entry),
        "key": encode_name(entry.name) if is_run(kind) else "",
        "kind": kind,
        "under": escape_directions(clip(", ".join(filter(None, under)), LONGEST)),
        "cells": [escape_directions(cell) for cell in cells],
        "order": [head.lower(), *words, *values, entry.saved / 1e9],
    }


def keep_finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def link_to(entry: StoreEntry) -> str:
    if entry.trouble or not (entry.is_finished or is_unfinished(entry)):
        return ""
    return f"/{'live' if is_unfinished(entry) else 'result'}/{encode_name(entry.name)}"


def encode_name(name: str) -> str:
    return quote(os.fsencode(name), safe="")


def decode_name(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "replace")


def write_live(entry: StoreEntry, facts: Mapping[str, Any]) -> tuple[str, str]:
    name = encode_name(entry.name)
    data = {"progress": f"/progress/{name}", "report": f"/result/{name}", "now": facts}
    return render_page(
        "live.html",
        "live.js",
        data,
        heading=clip(entry.title, LONGEST),
        name=decode_name(entry.name),
        entry=entry,
        report=f"/result/{name}",
        now=facts,
    )


def write_message(heading: str, sentences: Iterable[str]) -> tuple[str, str]:
    return render_page("message.html", None, {}, heading=heading, sentences=list(sentences))


# ------------------------------------------------------------------------------------ filling in


def render_page(
    template: str, own: str | None, data: Mapping[str, Any], **values: Any
) -> tuple[str, str]:
    script = read_template("theme.js", PACKAGE) + (read_template(own, PACKAGE) if own else "")
    style = read_template("page.css") + read_template("serve.css", PACKAGE)
    page = start_jinja(PACKAGE).get_template(template)
    text = page.render(style=style, script=script, data=write_script_data(data), **values)
    policy = (
        f"default-src 'none'; script-src 'sha256-{hash_text(script)}'; "
        "style-src 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    )
    return text, policy


RUNNING, FINISHED, STOPPED = "running", "finished", "stopped"
LATELY = 30.0
"""Seconds of work over which the rate is measured."""
MOST_POINTS = 400


@dataclass
class Follower:
    folder: Path
    study: str = ""
    stamp: tuple[int, int] = (0, 0)
    facts: Mapping[str, Any] = field(default_factory=dict)
    position: int = 0
    sets: int = 0
    failed: int = 0
    stage: str = ""
    best: dict[str, Any] | None = None
    score: float = -math.inf
    points: list[tuple[int, float]] = field(default_factory=list)
    pace: list[tuple[int, float]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> dict[str, Any]:
        with self.lock:
            state = find_state(self.folder)  # before the batches: a finished study is then complete
            self._reload()
            journal = Journal(self.folder, self.study)
            if journal.stored < self.position:
                self._reset()
            journal.position = self.position
            for batch in journal.read_all():
                self._add(batch)
                self.position = journal.position
            return self._summarize(state)

    def _reload(self) -> None:
        found = (self.folder / STUDY).stat()
        stamp = found.st_mtime_ns, found.st_ino
        if stamp != self.stamp:
            self.facts = read_json(self.folder / STUDY)
            self._reset()
            self.study, self.stamp = str(self.facts["id"]), stamp

    def _reset(self) -> None:
        self.position = self.sets = self.failed = 0
        self.stage, self.best, self.score = "", None, -math.inf
        self.points, self.pace = [], []

    def _add(self, batch: Batch) -> None:
        self.stage = batch.stage
        if batch.stage == PART:
            return
        n = len(batch.errors)
        score = np.where((batch.violation == 0.0)[:, None], batch.scores, np.nan)[:, 0]
        score = np.where(np.isfinite(score), score, -np.inf)
        if n and (top := int(np.argmax(score))) >= 0 and score[top] > self.score:
            self.score = float(score[top])
            self.best = describe_best(batch, top)
            self.points.append((self.sets + top + 1, self.score))
        self.sets += n
        self.failed += sum(map(bool, batch.errors))
        self.pace.append((self.sets, float(batch.seconds)))

    def _summarize(self, state: str) -> dict[str, Any]:
        budget = self.facts["budget"]
        progress: dict[str, Any] = to_plain(
            {
                "state": state,
                "sets": self.sets,
                "asked": budget.get("trials"),
                "seconds_asked": budget.get("seconds"),
                "failed": self.failed,
                "stage": self.stage,
                "seconds": self.pace[-1][1] if self.pace else 0.0,
                "rate": find_rate(self.pace),
                "objective": str(self.facts["objectives"][0]),
                "best": self.best,
                "points": self.points[-MOST_POINTS:],
            }
        )
        return progress


def describe_best(batch: Batch, row: int) -> dict[str, Any]:
    sets = {name: values[row] for name, values in batch.sets.items()}
    return {
        "score": float(batch.scores[row, 0]),
        "values": {k: v for k, v in sets.items() if v is not None and v == v},  # noqa: PLR0124 - NaN
        "metrics": {name: float(values[row]) for name, values in batch.metrics.items()},
    }


def find_rate(pace: list[tuple[int, float]]) -> float:
    if not pace:
        return 0.0
    n, now = pace[-1]
    earlier = [(0, 0.0), *(each for each in pace if each[1] < now)]
    since = [each for each in earlier if each[1] <= now - LATELY]
    sets, then = since[-1] if since else earlier[0]
    return (n - sets) / (now - then) if now > then else 0.0


def find_state(folder: Path) -> str:
    if (folder / OUTCOME).is_file():
        return FINISHED
    return RUNNING if is_lock_held(folder / LOCK) else STOPPED

"""Follow a study while it runs: read the new batches of its journal, and summarize them."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from backtest.base import is_lock_held, to_plain
from backtest.base.atomic_files import LOCK
from backtest.tune import OUTCOME, STUDY, Batch, Journal, read_json
from backtest.tune.plateau import PART

RUNNING, FINISHED, STOPPED = "running", "finished", "stopped"
LATELY = 30.0
"""Seconds of work over which the rate is measured."""
MOST_POINTS = 400


@dataclass
class Follower:
    """The progress of a study; each call reads the new batches only.

    ``points`` are the number of sets and the best score at every improvement, ``pace`` the number
    of sets and the seconds of work after each batch.
    """

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
        """Return the progress of the study as data for JSON; DataError if it is damaged."""
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
        """Read the description of the study again if its file has changed."""
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
        """Add a batch; sets on a part of the time are not counted."""
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
    """Return the parameters, the scores and the measures of a set."""
    sets = {name: values[row] for name, values in batch.sets.items()}
    return {
        "score": float(batch.scores[row, 0]),
        "values": {k: v for k, v in sets.items() if v is not None and v == v},  # noqa: PLR0124 - NaN
        "metrics": {name: float(values[row]) for name, values in batch.metrics.items()},
    }


def find_rate(pace: list[tuple[int, float]]) -> float:
    """Return sets per second of work over the last half minute.

    Examples
    --------
    >>> find_rate([(100, 10.0), (300, 20.0), (700, 40.0)]), find_rate([(50, 10.0)]), find_rate([])
    (20.0, 5.0, 0.0)
    """
    if not pace:
        return 0.0
    n, now = pace[-1]
    earlier = [(0, 0.0), *(each for each in pace if each[1] < now)]
    since = [each for each in earlier if each[1] <= now - LATELY]
    sets, then = since[-1] if since else earlier[0]
    return (n - sets) / (now - then) if now > then else 0.0


def find_state(folder: Path) -> str:
    """Return whether a study is finished, running (its lock is held) or stopped."""
    if (folder / OUTCOME).is_file():
        return FINISHED
    return RUNNING if is_lock_held(folder / LOCK) else STOPPED

"""Trials of a search: proposed by a sampler, evaluated, stored, and noted for later searches."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest._compile.object_code import COMPILING
from backtest.core.atomic_files import LOCK
from backtest.core.result_folders import MANIFEST, UNFINISHED, name_result
from backtest.results import Constraint, Objective, total_violation
from backtest.results.ranking import Knee, find_knee, is_dominated
from backtest.sweep import Evaluator, count_sets, draw_cube, find_different, take_sets
from backtest.sweep.sets import Sets, Space, take_part
from backtest.sweep.sweep_table import decode_objects, encode_objects

SamplerName = Literal["auto", "gp", "sobol", "random", "grid"]
PART = "part"
"""The stage of sets that are evaluated on a part of the time."""
TRIALS = "trials"
LOOKS, TRIED, WALKED = "looks.jsonl", "trials.jsonl", "walks.jsonl"
SET, METRIC = "set:", "metric:"
DECIDED = "decided"
"""The share of its bars on which a set decided, kept beside its measures."""
FORMAT = 1


class Batch(NamedTuple):
    """Sets evaluated together, with their results, in arrays of shape (n,).

    ``stage`` is ``"search"``, ``"neighbour"``, or ``"part"`` (of the time). ``seconds`` were spent
    on the study up to the end of this batch. ``metrics`` are NaN if a set failed. ``scores`` are
    larger for better sets, NaN if there is none. ``violation`` is by how much constraints are
    broken, 0 if they hold. ``errors`` say why a set failed, empty if it did not.
    """

    stage: str
    seconds: float
    sets: Sets
    metrics: dict[str, core.FloatArray]
    scores: core.FloatArray
    violation: core.FloatArray
    errors: list[str]


def lay_out_batch(batch: Batch, number: int) -> pd.DataFrame:
    sets = {f"{SET}{name}": encode_objects(values) for name, values in batch.sets.items()}
    metrics = {f"{METRIC}{name}": values for name, values in batch.metrics.items()}
    table = pd.DataFrame({**sets, **metrics})
    table = table.assign(score=batch.scores, violation=batch.violation)
    table["error"] = np.array(batch.errors, dtype=object)
    return table.assign(batch=number, stage=batch.stage, seconds=batch.seconds)


def read_batch(table: pd.DataFrame) -> Batch:
    columns = {str(name): table[name].to_numpy() for name in table}
    return Batch(
        stage=str(columns["stage"][0]),
        seconds=float(columns["seconds"][0]),
        sets={k: decode_objects(v) for k, v in take_part(columns, SET).items()},
        metrics=take_part(columns, METRIC),
        scores=columns["score"],
        violation=columns["violation"],
        errors=columns["error"].tolist(),
    )


class Journal:
    """The batches of an unfinished search in their order, one Parquet file each."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = None if folder is None else folder / TRIALS
        self.position = 0

    def read_next(self) -> Batch | None:
        table = self.read_table()
        return None if table is None else read_batch(table)

    def read_table(self) -> pd.DataFrame | None:
        path = self._name_next()
        if path is None or not path.is_file():
            return None
        self.position += 1
        return load_batch(path)

    def write_table(self, table: pd.DataFrame) -> None:
        if path := self._name_next():
            with writing(path):
                core.write_file(path, table.to_parquet(index=False))
        self.position += 1

    def _name_next(self) -> Path | None:
        return self.folder and self.folder / f"{self.position:06d}.parquet"


def load_batch(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # those of Arrow are of these
        raise core.DataError(
            f"{path}: cannot read trials: {str(error).partition(chr(10))[0]}; delete it and the "
            "files after it, then continue with resume=True: those are evaluated again"
        ) from error


def find_finished(store: Path | None, manifest: Mapping[str, Any], *, resume: bool) -> Path | None:
    kind = manifest["kind"]
    if store is None:
        if resume:
            raise core.ParameterError(
                f"resume needs the store that the {kind} was started in, got None"
            )
        return None
    name = name_result(manifest)
    finished, begun = store / name, store / f"{UNFINISHED}{name}"
    is_finished = (finished / MANIFEST).is_file()
    if not resume and (is_finished or (begun / MANIFEST).is_file()):
        raise core.ParameterError(
            f"{finished if is_finished else begun}: this {kind} was already started; resume=True "
            "continues it, or loads it if it is finished; another seed is another one"
        )
    if resume and not (is_finished or begun.is_dir()):
        raise core.ParameterError(
            f"{store}: there is no {kind} of {manifest['policy']['name']} of these data, policy "
            "source and settings to resume"
        )
    if is_finished and begun.is_dir():  # of a process that was killed after it saved the result
        core.discard_folder(begun)
    return finished if is_finished else None


@contextmanager
def open_folder(store: Path | None, manifest: Mapping[str, Any]) -> Iterator[Path | None]:
    """Hold the folder of what is unfinished, which a mistake of the user's discards."""
    if store is None:
        yield None
        return
    folder = store / f"{UNFINISHED}{name_result(manifest)}"
    with hold_lock(folder):
        if not (folder / MANIFEST).is_file():
            text = json.dumps(core.to_plain({"format": FORMAT, **manifest}), indent=1)
            with writing(folder / MANIFEST):
                core.write_file(folder / MANIFEST, f"{text}\n".encode())
        try:
            yield folder
        except (core.ParameterError, core.PolicyError):  # a resume would end the same way
            core.discard_folder(folder)
            raise


@contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            with writing(folder / LOCK):
                stack.enter_context(core.hold_lock_file(folder / LOCK))
        except core.LockHeldError as error:
            raise core.DataError(
                f"{folder}: another process ({error.holder}) is already running this; another "
                "seed is another folder"
            ) from error
        yield


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Make the folder of a file that is written inside; an OSError becomes a DataError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        is_blocked = isinstance(error, FileExistsError | NotADirectoryError)
        cure = "a file is in the way"
        cure = cure if is_blocked else "resume=True continues with the trials so far"
        text = f"{path}: cannot write the study: {error.strerror or error}; {cure}"
        raise core.DataError(text) from error


def add_note(store: Path, file: str, facts: Mapping[str, Any], **about: Any) -> None:
    """Note a look at the holdout, sets tried before it, or a walk, as a line of JSON, once."""
    note = {"study": facts["id"], "policy": facts["policy"]["name"], **about}
    text = json.dumps(core.to_plain({**note, **describe_bars_of(facts, file)}), sort_keys=True)
    path = store / file
    with writing(path):
        if path.is_file() and text.encode() in path.read_bytes().splitlines():
            return
        with path.open("ab", buffering=0) as sink:  # in one write, so that processes do not mix
            sink.write(f"{text}\n".encode())


def read_notes(store: Path | None, file: str, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the different notes about some of the same bars; one that is damaged is left out."""
    if store is None or not (store / file).is_file():
        return []
    here, found = describe_bars_of(facts, file), []
    for line in dict.fromkeys((store / file).read_bytes().splitlines()):
        with suppress(ValueError, KeyError, TypeError):
            note = json.loads(line)
            mine, theirs = here["prices"], note["prices"]
            is_same = bool({*mine.values()} & {*theirs.values()})  # or of one name, as data grow
            if not (here["synthetic"] or note["synthetic"]):
                is_same = is_same or bool({*filter(None, mine)} & {*filter(None, theirs)})
            if is_same and max(here["start"], note["start"]) < min(here["stop"], note["stop"]):
                found.append(note)
    return found


def describe_bars_of(facts: Mapping[str, Any], file: str) -> dict[str, Any]:
    data, split = facts["data"], facts["searched"]
    start, stop = (data["start"], split) if file == TRIED else (split, data["end"])
    parts = data.get("instruments") or {str(data["instrument"]): data}
    prices = {name: each["content_hash"] for name, each in parts.items()}
    return {"prices": prices, "synthetic": data["synthetic"], "start": start, "stop": stop}


FIRST_PIECE = 16
"""Sets in the first piece, while the rate is unknown."""
GROWTH = 16
"""Largest ratio of the next piece to the last one."""
PIECE_SECONDS = 10.0
"""Sets are evaluated and stored in pieces of about this length, which is what a kill can lose."""
LANES = 64
"""Larger pieces are multiples of this, the sets that the evaluator takes at once."""
SEARCH = "search"


class Progress(NamedTuple):
    trials: int
    total: int | None
    best_score: float
    best_values: dict[str, Any]
    seconds: float
    stage: str

    def add(self, batch: Batch) -> Progress:
        now = self._replace(seconds=batch.seconds, stage=batch.stage)
        if batch.stage == PART:
            return now
        now, best = now._replace(trials=self.trials + len(batch.errors)), find_best(batch)
        if best < 0 or batch.scores[best] <= self.best_score:
            return now
        values = take_sets(batch.sets, best)
        plain = {name: v.item() if hasattr(v, "item") else v for name, v in values.items()}
        return now._replace(best_score=float(batch.scores[best]), best_values=plain)


class Goal(NamedTuple):
    """What is maximized under which constraints; with ``others``, several objectives at once."""

    objective: Objective
    constraints: tuple[Constraint, ...]
    others: tuple[Objective, ...] = ()

    @property
    def objectives(self) -> tuple[Objective, ...]:
        return self.objective, *self.others

    def grade(self, metrics: Mapping[str, core.FloatArray]) -> core.FloatArray:
        """Return the scores of sets, of shape (n, n_objectives); NaN where one is not finite."""
        scores = np.column_stack([each.score(metrics) for each in self.objectives])
        return np.where(np.isfinite(scores), scores, np.nan)

    def score(
        self, metrics: Mapping[str, core.FloatArray], failed: core.BoolArray
    ) -> tuple[core.FloatArray, core.FloatArray]:
        """Return scores and violations, of shape (n,) each.

        The violation of a set that failed, was ruined or filled no order is infinite: it is never
        chosen. An account without fills has no drawdown, and would be the best by that alone.
        """
        scores = np.full(len(failed), np.nan)
        scores[~failed] = self.objective.score(take_sets(metrics, ~failed))

        violation = total_violation(self.constraints, metrics)
        is_lost = ~(metrics["ruined"] == 0.0)
        is_unfilled = metrics["turnover"] == 0.0
        violation[failed | is_lost | is_unfilled] = np.inf
        return scores, violation

    def list_broken(self, metrics: Mapping[str, float]) -> list[Constraint]:
        columns = {name: np.array([value]) for name, value in metrics.items()}
        known = (each for each in self.constraints if each.name in columns)
        return [each for each in known if each.violation(columns)[0] > 0.0]


def find_best(trials: Batch) -> int:
    """Return the row of the best set, the first of equals; -1 if none satisfies the constraints."""
    scores = worst_where_broken(trials)
    return int(np.argmax(scores)) if np.isfinite(scores).any() else -1


class Examiner:
    def __init__(
        self,
        evaluator: Evaluator,
        goal: Goal,
        journal: Journal,
        *,
        total: int | None = None,
        progress: Callable[[Progress], object] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.evaluator, self.goal, self.journal = evaluator, goal, journal
        self.batches: list[Batch] = []
        self.progress = progress
        self.now = Progress(0, total, math.nan, {}, 0.0, SEARCH)
        self.clock = clock
        self.stored = journal.read_next()
        self.seconds, self.since = 0.0, clock()
        self.piece, self.is_warm = FIRST_PIECE, False

    @property
    def elapsed(self) -> float:
        return self.seconds + self.clock() - self.since

    def evaluate(
        self,
        sets: Sets,
        stage: str,
        *,
        first: int | None = None,
        stop: int | None = None,
        deadline: float = math.inf,
    ) -> Batch:
        pieces: list[Batch] = []
        n, done = count_sets(sets), 0
        while done < n:
            rest, stored = take_sets(sets, slice(done, None)), self.stored
            if stored is not None:
                if deadline < math.inf and stored.stage != stage:
                    break
                self._check_stored(stored, rest, stage)
                pieces.append(stored)
                self.stored = self.journal.read_next()
                self._add(stored)
            elif self.batches and self.elapsed >= deadline:
                break
            else:
                pieces.append(self._evaluate(rest, stage, first, stop, deadline))
            done += count_sets(pieces[-1].sets)
        return join_batches(pieces, sets)

    def _check_stored(self, stored: Batch, sets: Sets, stage: str) -> None:
        mine = take_sets(sets, slice(count_sets(stored.sets)))
        is_same = stored.stage == stage and list(sets) == list(stored.sets)
        pairs = ((mine[name], each) for name, each in stored.sets.items()) if is_same else ()
        is_same &= all(np.array_equal(a, b, equal_nan=b.dtype.kind == "f") for a, b in pairs)
        if not is_same:
            raise core.DataError(
                f"{self.journal.folder}: batch {self.journal.position - 1:06d} does not hold the "
                "sets that the sampler proposes now; resume with the versions in its manifest"
            )

    def _evaluate(
        self, sets: Sets, stage: str, first: int | None, stop: int | None, deadline: float
    ) -> Batch:
        if deadline < math.inf and not self.is_warm:
            began = self.clock()
            self.evaluator.evaluate(take_sets(sets, slice(2)), first=first, stop=stop).finish()
            self.since += self.clock() - began
            self.is_warm = True
        began = self.clock()
        asked = take_sets(sets, slice(self.piece))
        compiled = COMPILING.seconds
        rows = self.evaluator.evaluate(asked, first=first, stop=stop)
        if deadline < math.inf:  # compiling does not count
            compiled = COMPILING.seconds - compiled
            began, self.since = began + compiled, self.since + compiled
        n = count_sets(asked) if rows.done.all() else int(np.argmin(rows.done))
        failed = np.array([error != "" for error in rows.errors[:n]], dtype=np.bool_)
        asked, metrics = take_sets(asked, slice(n)), take_sets(rows.metrics, slice(n))
        metrics[DECIDED] = rows.shares[:n]
        scores, violation = self.goal.score(metrics, failed)
        batch = Batch(stage, self.elapsed, asked, metrics, scores, violation, rows.errors[:n])
        if n > 0:
            self.journal.write_table(lay_out_batch(batch, self.journal.position))
            self._add(batch)
            seconds = self.clock() - began
            left = min(PIECE_SECONDS, max(0.0, deadline - self.elapsed))
            affordable = n * left / seconds if seconds > 0.0 else math.inf
            size = int(min(affordable, max(GROWTH * n, self.piece)))
            self.piece = max(1, size if size < LANES else size // LANES * LANES)
        rows.finish()
        return batch

    def search(self, sets: Sets, deadline: float, patience: Any) -> Batch:
        """Evaluate sets in their order until time or a :class:`frontier.Patience` is up."""
        if patience is None:
            return self.evaluate(sets, SEARCH, deadline=deadline)
        parts: list[Batch] = []
        done, n = 0, count_sets(sets)
        while done < n and patience.left > 0:
            asked = take_sets(sets, slice(done, done + patience.left))
            part = self.evaluate(asked, SEARCH, deadline=deadline)
            if not part.errors:
                break
            parts.append(part)
            patience.count(part)
            done += len(part.errors)
            if len(part.errors) < count_sets(asked):
                break
        return join_batches(parts, sets)

    def _add(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.seconds, self.since = batch.seconds, self.clock()
        self.now = self.now.add(batch)
        if self.progress is not None:
            self.progress(self.now)


def join_batches(pieces: Sequence[Batch], sets: Sets | None = None) -> Batch:
    if not pieces:
        none = take_sets(sets, slice(0)) if sets else {}
        return Batch("", 0.0, none, {}, np.empty(0), np.empty(0), [])
    return Batch(
        stage=pieces[-1].stage,
        seconds=pieces[-1].seconds,
        sets=join_columns([piece.sets for piece in pieces]),
        metrics=join_columns([piece.metrics for piece in pieces]),
        scores=np.concatenate([piece.scores for piece in pieces]),
        violation=np.concatenate([piece.violation for piece in pieces]),
        errors=[error for piece in pieces for error in piece.errors],
    )


def join_columns(parts: list[Any]) -> dict[str, Any]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def gather(batches: Sequence[Batch]) -> Batch:
    return join_batches([batch for batch in batches if batch.stage != PART])


def is_feasible(trials: Batch) -> core.BoolArray:
    return np.asarray((trials.violation == 0.0) & np.isfinite(trials.scores))


def grade_feasible(goal: Goal, trials: Batch) -> core.FloatArray:
    """Return the scores of sets, of shape (n, n_objectives); NaN if ruined or not feasible."""
    scores = goal.grade(trials.metrics)
    scores[~is_feasible(trials)] = np.nan
    return scores


def find_knee_row(goal: Goal, trials: Batch) -> Knee:
    """Return the row of the trials that several objectives choose."""
    scores = grade_feasible(goal, trials)
    front = np.flatnonzero(~is_dominated(scores))
    knee = find_knee(scores[front])
    return knee._replace(row=int(front[knee.row]))


def find_distinct(sets: Sets) -> core.IntArray:
    return find_different(sets)[0] if sets else np.empty(0, dtype=np.int64)


def spread_sample(
    space: Space, sets: Sets, places: core.IntArray, n: int, rng: np.random.Generator
) -> core.IntArray:
    if len(places) <= n:
        return places
    cube = space.encode(take_sets(sets, places))
    nearest = core.sp.spatial.KDTree(cube).query(draw_cube(cube.shape[1], n, rng))[1]
    return places[np.unique(nearest)]


def worst_where_broken(trials: Batch) -> core.FloatArray:
    return np.where(is_feasible(trials), trials.scores, -np.inf)

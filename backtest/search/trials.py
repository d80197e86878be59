"""Trials of a search: proposed by a sampler, evaluated, stored, and noted for later searches."""

from __future__ import annotations

import itertools
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
from backtest.sweep import Evaluator, Rows, count_sets, draw_cube, find_different, take_sets
from backtest.sweep.sets import Sets, Space, take_part
from backtest.sweep.sweep_table import decode_objects, encode_objects

SamplerName = Literal["auto", "gp", "sobol", "random", "grid"]
PART = "part"
"""The stage of sets that are evaluated on a part of the time."""
TRIALS = "trials"
LOOKS = "looks.jsonl"
TRIED = "trials.jsonl"
WALKED = "walks.jsonl"
SET = "set:"
METRIC = "metric:"
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
    """Return a batch as a table, as it is stored."""
    columns: dict[str, Any] = {}
    for name, values in batch.sets.items():
        columns[f"{SET}{name}"] = encode_objects(values)
    for name, values in batch.metrics.items():
        columns[f"{METRIC}{name}"] = values

    columns |= {
        "score": batch.scores,
        "violation": batch.violation,
        "error": np.array(batch.errors, dtype=object),
    }
    table = pd.DataFrame(columns)
    return table.assign(batch=number, stage=batch.stage, seconds=batch.seconds)


def read_batch(table: pd.DataFrame) -> Batch:
    columns = {str(name): table[name].to_numpy() for name in table}
    return Batch(
        stage=str(columns["stage"][0]),
        seconds=float(columns["seconds"][0]),
        sets={name: decode_objects(values) for name, values in take_part(columns, SET).items()},
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
        path = self._name_next()
        if path is not None:
            with writing(path):
                core.write_file(path, table.to_parquet(index=False))
        self.position += 1

    def _name_next(self) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / f"{self.position:06d}.parquet"


def load_batch(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # those of Arrow are of these
        reason = str(error).partition("\n")[0]
        raise core.DataError(
            f"{path}: cannot read trials: {reason}; delete it and the "
            "files after it, then continue with resume=True: those are evaluated again"
        ) from error


def find_finished(
    store: Path | None,
    manifest: Mapping[str, Any],
    *,
    resume: bool | None,
) -> Path | None:
    """Return the folder of a finished search of the same manifest; None if there is none.

    Raises ParameterError if it was started and ``resume`` is False, or if ``resume`` is True and
    there is nothing to go on with. None goes on where there is something, and else starts. What an
    unfinished folder of a finished search still holds is deleted.
    """
    kind = manifest["kind"]
    if store is None:
        if resume:
            raise core.ParameterError(
                f"resume needs the store that the {kind} was started in, got None"
            )
        return None

    name = name_result(manifest)
    finished = store / name
    begun = store / f"{UNFINISHED}{name}"
    is_finished = (finished / MANIFEST).is_file()
    if resume is not None and not resume and (is_finished or (begun / MANIFEST).is_file()):
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
    """Hold the folder of an unfinished search under its lock, made with its manifest if new.

    Yields None without a store. The caller deletes the folder once the result is saved. After an
    error of a parameter or a policy it is deleted here: a resume would end the same way.
    """
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
        except (core.ParameterError, core.PolicyError):
            core.discard_folder(folder)
            raise


@contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; raise DataError if another process has it."""
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
        cure = "resume=True continues with the trials so far"
        if isinstance(error, FileExistsError | NotADirectoryError):
            cure = "a file is in the way"
        raise core.DataError(
            f"{path}: cannot write the study: {error.strerror or error}; {cure}"
        ) from error


def add_note(
    store: Path,
    file: str,
    facts: Mapping[str, Any],
    **about: Any,
) -> None:
    """Note a look at the holdout, sets tried before it, or a walk, as a line of JSON, once."""
    note = {
        "study": facts["id"],
        "policy": facts["policy"]["name"],
        **about,
        **describe_bars_of(facts, file),
    }
    text = json.dumps(core.to_plain(note), sort_keys=True)

    path = store / file
    with writing(path):
        if path.is_file() and text.encode() in path.read_bytes().splitlines():
            return
        with path.open("ab", buffering=0) as sink:  # in one write, so that processes do not mix
            sink.write(f"{text}\n".encode())


def read_notes(
    store: Path | None,
    file: str,
    facts: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return the different notes about some of the same bars; one that is damaged is left out."""
    if store is None or not (store / file).is_file():
        return []

    bars = describe_bars_of(facts, file)
    notes = []
    for line in dict.fromkeys((store / file).read_bytes().splitlines()):
        with suppress(ValueError, KeyError, TypeError):
            note = json.loads(line)
            if is_about(note, bars):
                notes.append(note)
    return notes


def is_about(note: Mapping[str, Any], bars: Mapping[str, Any]) -> bool:
    """Return whether a note is about some of the same bars: of the same prices and time."""
    if max(bars["start"], note["start"]) >= min(bars["stop"], note["stop"]):
        return False
    prices = bars["prices"]
    noted = note["prices"]
    is_synthetic = bars["synthetic"] or note["synthetic"]
    if {*prices.values()} & {*noted.values()}:
        return True

    # Data that grow have another hash and the same name.
    return not is_synthetic and any(name and name in noted for name in prices)


def describe_bars_of(facts: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Return the bars that a kind of note is about: before the split, or after it."""
    data = facts["data"]
    instruments = data.get("instruments") or {str(data["instrument"]): data}
    start = facts["searched"]
    stop = data["end"]
    if file == TRIED:
        start = data["start"]
        stop = facts["searched"]

    return {
        "prices": {name: part["content_hash"] for name, part in instruments.items()},
        "synthetic": data["synthetic"],
        "start": start,
        "stop": stop,
    }


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
    """How far a search is: sets evaluated, the best of them, and the seconds so far."""

    trials: int
    total: int | None
    best_score: float
    best_values: dict[str, Any]
    seconds: float
    stage: str

    def add(self, batch: Batch) -> Progress:
        """Return the progress after a batch.

        Sets that are evaluated on a part of the time were trials before: they add none, and none of
        them is the best.
        """
        now = self._replace(seconds=batch.seconds, stage=batch.stage)
        if batch.stage == PART:
            return now

        now = now._replace(trials=self.trials + len(batch.errors))
        best = find_best(batch)
        if best < 0 or batch.scores[best] <= self.best_score:
            return now

        values = {}
        for name, value in take_sets(batch.sets, best).items():
            values[name] = value.item() if hasattr(value, "item") else value
        return now._replace(best_score=float(batch.scores[best]), best_values=values)


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
        scores = np.column_stack([objective.score(metrics) for objective in self.objectives])
        return np.where(np.isfinite(scores), scores, np.nan)

    def score(
        self,
        metrics: Mapping[str, core.FloatArray],
        failed: core.BoolArray,
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
        """Return the constraints that an account breaks; those of unknown measures are left out."""
        columns = {name: np.array([value]) for name, value in metrics.items()}
        known = [constraint for constraint in self.constraints if constraint.name in columns]
        return [constraint for constraint in known if constraint.violation(columns)[0] > 0.0]


def find_best(trials: Batch) -> int:
    """Return the row of the best set, the first of equals; -1 if none satisfies the constraints."""
    scores = worst_where_broken(trials)
    return int(np.argmax(scores)) if np.isfinite(scores).any() else -1


class Examiner:
    """Evaluates sets in pieces, stores each, and takes those that a journal has from there.

    ``batches`` are all pieces so far. ``stored`` is the next batch of the journal, None once all of
    it was repeated. ``seconds`` were spent up to the last batch, ``since`` is when the clock began
    after it; time that does not count moves it on. ``piece`` is the size of the next piece,
    ``is_warm`` whether the first sets have set everything up.
    """

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
        self.evaluator = evaluator
        self.goal = goal
        self.journal = journal
        self.batches: list[Batch] = []
        self.progress = progress
        self.now = Progress(
            trials=0,
            total=total,
            best_score=math.nan,
            best_values={},
            seconds=0.0,
            stage=SEARCH,
        )
        self.clock = clock

        self.stored = journal.read_next()
        self.seconds = 0.0
        self.since = clock()
        self.piece = FIRST_PIECE
        self.is_warm = False

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
        """Evaluate sets in their order until the deadline; those that are left out have no row.

        Each piece becomes a batch of the examiner. As long as the journal has batches, these are
        taken in place of an evaluation: a resumed study must ask for the same sets again.
        """
        pieces: list[Batch] = []
        n_sets = count_sets(sets)
        done = 0

        while done < n_sets:
            left = take_sets(sets, slice(done, None))
            stored = self.stored
            if stored is not None:
                # The study that is resumed stopped this stage at the deadline.
                if deadline < math.inf and stored.stage != stage:
                    break
                piece = self._repeat_stored(stored, left, stage)
            elif self.batches and self.elapsed >= deadline:
                break
            else:
                piece = self._evaluate(
                    left,
                    stage,
                    first=first,
                    stop=stop,
                    deadline=deadline,
                )

            pieces.append(piece)
            done += count_sets(piece.sets)
        return join_batches(pieces, sets)

    def _repeat_stored(
        self,
        stored: Batch,
        sets: Sets,
        stage: str,
    ) -> Batch:
        """Return a stored batch, counted, and read the next one; it must have the next sets."""
        proposed = take_sets(sets, slice(count_sets(stored.sets)))
        if stored.stage != stage or not has_same_sets(proposed, stored.sets):
            raise core.DataError(
                f"{self.journal.folder}: batch {self.journal.position - 1:06d} does not hold the "
                "sets that the sampler proposes now; resume with the versions in its manifest"
            )

        self.stored = self.journal.read_next()
        self._add(stored)
        return stored

    def _evaluate(
        self,
        sets: Sets,
        stage: str,
        *,
        first: int | None,
        stop: int | None,
        deadline: float,
    ) -> Batch:
        """Evaluate the first piece of some sets, store it, and plan the next piece.

        If the evaluator was stopped, what it has done is stored before KeyboardInterrupt goes on.
        """
        is_timed = deadline < math.inf
        if is_timed and not self.is_warm:
            self._warm_up(sets, first=first, stop=stop)

        began = self.clock()
        compiled_before = COMPILING.seconds
        asked = take_sets(sets, slice(self.piece))
        rows = self.evaluator.evaluate(asked, first=first, stop=stop)
        if is_timed:  # compiling does not count
            compiled = COMPILING.seconds - compiled_before
            began += compiled
            self.since += compiled

        batch = self._score_done(asked, rows, stage)
        n_done = len(batch.errors)
        if n_done > 0:
            self.journal.write_table(lay_out_batch(batch, self.journal.position))
            self._add(batch)
            self.piece = self._plan_piece(n_done, self.clock() - began, deadline)
        rows.finish()
        return batch

    def _score_done(self, asked: Sets, rows: Rows, stage: str) -> Batch:
        """Return the sets that an evaluator has done, those before the first that it has not."""
        n_done = count_sets(asked)
        if not rows.done.all():
            n_done = int(np.argmin(rows.done))

        errors = rows.errors[:n_done]
        metrics = take_sets(rows.metrics, slice(n_done))
        metrics[DECIDED] = rows.shares[:n_done]
        failed = np.array([error != "" for error in errors], dtype=np.bool_)
        scores, violation = self.goal.score(metrics, failed)
        return Batch(
            stage=stage,
            seconds=self.elapsed,
            sets=take_sets(asked, slice(n_done)),
            metrics=metrics,
            scores=scores,
            violation=violation,
            errors=errors,
        )

    def _warm_up(
        self,
        sets: Sets,
        *,
        first: int | None,
        stop: int | None,
    ) -> None:
        """Evaluate two sets without counting their time: the first ones set everything up."""
        began = self.clock()
        self.evaluator.evaluate(take_sets(sets, slice(2)), first=first, stop=stop).finish()
        self.since += self.clock() - began
        self.is_warm = True

    def _plan_piece(
        self,
        n_done: int,
        seconds: float,
        deadline: float,
    ) -> int:
        """Return how many sets to evaluate next, by the seconds that the last ones took."""
        left = min(PIECE_SECONDS, max(0.0, deadline - self.elapsed))
        affordable = n_done * left / seconds if seconds > 0.0 else math.inf
        size = int(min(affordable, max(GROWTH * n_done, self.piece)))
        if size >= LANES:
            size = size // LANES * LANES
        return max(1, size)

    def search(
        self,
        sets: Sets,
        deadline: float,
        patience: Any,
    ) -> Batch:
        """Evaluate sets in their order until time or a :class:`.Patience` is up.

        ``patience`` counts what is evaluated; None is patient without end.
        """
        if patience is None:
            return self.evaluate(sets, SEARCH, deadline=deadline)

        parts: list[Batch] = []
        n_sets = count_sets(sets)
        done = 0
        while done < n_sets and patience.left > 0:
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
        """Count a batch that was evaluated or repeated, and start the clock after it anew."""
        self.batches.append(batch)
        self.seconds = batch.seconds
        self.since = self.clock()
        self.now = self.now.add(batch)
        if self.progress is not None:
            self.progress(self.now)


def has_same_sets(sets: Sets, others: Sets) -> bool:
    """Return whether two columns of sets have the same values; NaN is the same as NaN."""
    if list(sets) != list(others):
        return False
    for name, values in others.items():
        is_float = values.dtype.kind == "f"
        if not np.array_equal(sets[name], values, equal_nan=is_float):
            return False
    return True


def join_batches(pieces: Sequence[Batch], sets: Sets | None = None) -> Batch:
    """Return batches as one; without any, an empty one of these ``sets``."""
    if not pieces:
        return Batch(
            stage="",
            seconds=0.0,
            sets=take_sets(sets, slice(0)) if sets else {},
            metrics={},
            scores=np.empty(0),
            violation=np.empty(0),
            errors=[],
        )
    return Batch(
        stage=pieces[-1].stage,
        seconds=pieces[-1].seconds,
        sets=join_columns([piece.sets for piece in pieces]),
        metrics=join_columns([piece.metrics for piece in pieces]),
        scores=np.concatenate([piece.scores for piece in pieces]),
        violation=np.concatenate([piece.violation for piece in pieces]),
        errors=list(itertools.chain.from_iterable(piece.errors for piece in pieces)),
    )


def join_columns(parts: list[Any]) -> dict[str, Any]:
    """Return tables of the same columns as one, in their order."""
    columns = {}
    for name in parts[0]:
        columns[name] = np.concatenate([part[name] for part in parts])
    return columns


def gather(batches: Sequence[Batch]) -> Batch:
    """Return all sets that were evaluated on the whole time."""
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
    space: Space,
    sets: Sets,
    places: core.IntArray,
    n: int,
    rng: np.random.Generator,
) -> core.IntArray:
    """Return the places of n sets that are spread evenly over the space, or all if they are few."""
    if len(places) <= n:
        return places
    cube = space.encode(take_sets(sets, places))
    nearest = core.sp.spatial.KDTree(cube).query(draw_cube(cube.shape[1], n, rng))[1]
    return places[np.unique(nearest)]


def worst_where_broken(trials: Batch) -> core.FloatArray:
    return np.where(is_feasible(trials), trials.scores, -np.inf)

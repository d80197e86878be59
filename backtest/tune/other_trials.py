"""The sets that searches in a store tried, and how many on some of the same bars."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from backtest.base import BoolArray, DataError, FloatArray, from_plain, to_plain
from backtest.tune.holdout import name_data, shares_bars
from backtest.tune.journal import (
    SET,
    encode_objects,
    load_table,
    read_stored_sets,
    write_study_file,
)
from backtest.tune.study_identity import find_studies

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from backtest.sweep import Sets


ALIKE = 2.0
"""Spans compare if neither is longer than the other by more than this factor: the Sharpe ratios of
shorter ones scatter more, which says nothing about the luck of longer ones."""


class OtherTrials(NamedTuple):
    """Distinct sets that other searches tried on some of the same bars, and this one did not.

    ``policies`` are those of these searches, in alphabetical order. ``sharpes`` of shape (k,) are
    the Sharpe ratios per sqrt(year) of the sets that kept the constraints of their search, on spans
    that compare with the search's; ``n_alike`` of the ``n_sets`` sets were tried on such spans.
    """

    n_sets: int
    policies: tuple[str, ...]
    sharpes: FloatArray
    n_alike: int

    def describe(self) -> dict[str, Any]:
        return {"other_trials": self.n_sets, "other_policies": list(self.policies)}


CountTries: TypeAlias = Callable[[int, int], OtherTrials]
NO_TRIALS = OtherTrials(0, (), np.empty(0), 0)


def find_other_trials(store: Path | None, facts: Mapping[str, Any]) -> OtherTrials:
    return NO_TRIALS if store is None else count_other_trials(read_tries(store), facts)


def count_other_trials(tries: Iterable[Tries], facts: Mapping[str, Any]) -> OtherTrials:
    groups: defaultdict[str, list[pd.DataFrame]] = defaultdict(list)
    policies = set()
    for each in tries:
        is_own = each.facts.get("id") == facts["id"]
        found = join_spans(each, facts, is_own=is_own)
        if len(found):
            groups[describe_terms(each.facts)].append(found)
            if not is_own:
                policies.add(str(each.facts["policy"]["name"]))
    others = [keep_other_sets(tables) for tables in groups.values()]
    alike = [table[table["is_alike"]] for table in others]
    sharpes = [table["sharpe"].to_numpy(np.float64)[table["is_kept"]] for table in alike]
    known = np.concatenate([np.empty(0), *sharpes])
    return OtherTrials(
        n_sets=sum(map(len, others)),
        policies=tuple(sorted(policies)),
        sharpes=known[np.isfinite(known)],
        n_alike=sum(map(len, alike)),
    )


def join_spans(tries: Tries, facts: Mapping[str, Any], *, is_own: bool) -> pd.DataFrame:
    spans = [k for k, span in enumerate(tries.spans) if is_own or shares_search(facts, tries, span)]
    alike = [k for k in spans if is_alike(facts, tries.spans[k])]
    table = tries.table[tries.table["span"].isin(spans)]
    table = table.assign(is_own=is_own, is_alike=table["span"].isin(alike))
    names = [name for name in table.columns if str(name).startswith(SET)]
    if len(tries.spans) == 1 or not len(table) or not names:
        return table
    known = table["sharpe"].where(table["is_kept"] & table["is_alike"])
    by_set = table.assign(sharpe=known).groupby(names, sort=False, dropna=False)
    wanted = {"is_kept": "any", "is_own": "first", "is_alike": "any", "sharpe": "mean"}
    joined: pd.DataFrame = by_set.agg(wanted).reset_index()
    return joined


def shares_search(facts: Mapping[str, Any], tries: Tries, span: tuple[str, str]) -> bool:
    try:
        here = facts["data"]["start"], facts["searched"]
        is_named = bool(tries.facts["policy"]["name"])
        return is_named and shares_bars(facts["data"], here, tries.facts["data"], span)
    except (KeyError, TypeError):
        return False


def is_alike(facts: Mapping[str, Any], span: tuple[str, str]) -> bool:
    here = measure_span(facts["data"]["start"], facts["searched"])
    there = measure_span(*span)
    return max(here, there) <= ALIKE * min(here, there)


def measure_span(start: str, stop: str) -> float:
    try:
        times = np.array([start, stop], dtype="datetime64[s]")
    except ValueError:
        return np.nan
    return float(np.diff(times).astype(np.float64)[0])


def describe_terms(facts: Mapping[str, Any]) -> str:
    terms = {name: facts.get(name) for name in TERMS}
    fixed = facts.get("space", {}).get("fixed")
    return json.dumps(to_plain({**terms, "fixed": fixed}), sort_keys=True)


def keep_other_sets(tables: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415 - loads where it is used

    whole = pd.concat(tables, ignore_index=True)
    # of duplicates, those of this search are kept, then those on spans that compare
    whole = whole.sort_values(["is_own", "is_alike"], ascending=False, kind="stable")
    names = [name for name in whole.columns if str(name).startswith(SET)]
    different = whole.drop_duplicates(subset=names) if names else whole
    return different[~different["is_own"]]


def count_independent(n: float, n_sets: int, others: OtherTrials) -> float:
    return n * (1.0 + others.n_sets / n_sets)


def pool_deviation(
    deviation: float, sharpes: FloatArray, n_sets: int, others: OtherTrials
) -> float:
    if not len(others.sharpes):
        return deviation
    share = n_sets / (n_sets + others.n_alike)
    gap = float(np.mean(sharpes) - np.mean(others.sharpes))
    within = share * deviation**2 + (1.0 - share) * float(np.var(others.sharpes))
    return float(np.sqrt(within + share * (1.0 - share) * gap * gap))


TRIED = "tried-sets"
TERMS = (
    "data", "policy", "venue", "account", "signal", "overlay", "sampling", "calendar", "searched",
)  # fmt: skip
SEAL = "backtest_seal"


class SpanTries(NamedTuple):
    """Sets tried on one span of time, from ``start`` to ``stop`` as text in UTC.

    ``sharpes`` of shape (n,) are per sqrt(year), NaN if unknown. ``is_kept`` of shape (n,) marks
    the sets that keep the constraints.
    """

    start: str
    stop: str
    sets: Sets
    sharpes: FloatArray
    is_kept: BoolArray


class Tries(NamedTuple):
    facts: Mapping[str, Any]
    spans: tuple[tuple[str, str], ...]
    table: pd.DataFrame


def record_tries(store: Path, facts: Mapping[str, Any], spans: Sequence[SpanTries]) -> None:
    import pyarrow as pa  # noqa: PLC0415 - loads where it is used
    from pyarrow import parquet  # noqa: PLC0415 - as above

    known = [each for each in spans if len(each.sharpes)]
    if not known:
        return
    columns = {
        f"{SET}{name}": encode_objects(np.concatenate([each.sets[name] for each in known]))
        for name in known[0].sets
    }
    numbers = np.repeat(np.arange(len(known)), [len(each.sharpes) for each in known])
    columns |= {
        "sharpe": np.concatenate([each.sharpes for each in known]),
        "is_kept": np.concatenate([each.is_kept for each in known]),
        "span": numbers,
    }
    kept = {name: facts[name] for name in (*TERMS, "id", "space") if name in facts}
    note = to_plain({"facts": kept, "spans": [[each.start, each.stop] for each in known]})
    table = pa.table({name: pa.array(column) for name, column in columns.items()})
    sealed = {"backtest": json.dumps(note, sort_keys=True), SEAL: hash_tries(table, note)}
    table = table.replace_schema_metadata(sealed)
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd", write_page_checksum=True)
    path = store / TRIED / name_tries(facts)
    write_study_file(path, sink.getvalue().to_pybytes())


def hash_tries(table: pa.Table, note: Mapping[str, Any]) -> str:
    text = json.dumps(to_plain([note, table.to_pydict()]), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def find_damaged_tries(store: Path) -> Iterator[tuple[str, str]]:
    for path in sorted((store / TRIED).glob("*.parquet")):
        try:
            table, note = load_table(path)
            seal = (table.schema.metadata or {}).get(SEAL.encode(), b"").decode()
            is_whole = seal in ("", hash_tries(table, note)) and path.name == name_tries(
                note["facts"]
            )
        except (DataError, KeyError, TypeError, ValueError):
            is_whole = False
        if not is_whole:
            yield path.name, "was changed or truncated: its tried sets may not be counted"


def name_tries(facts: Mapping[str, Any]) -> str:
    return f"{name_data(facts)}-{facts['id']}.parquet"


def read_tries(store: Path) -> Iterator[Tries]:
    for folder, facts in find_studies(store):
        try:
            span = (str(facts["data"]["start"]), str(facts["searched"]))
        except (KeyError, TypeError):
            continue
        yield Tries(facts, (span,), read_stored_sets(folder).assign(span=0))
    for path in sorted((store / TRIED).glob("[0-9a-f]*.parquet")):
        try:
            stored, note = load_table(path)
            spans = tuple((str(start), str(stop)) for start, stop in note["spans"])
            tries = Tries(from_plain(note["facts"]), spans, stored.to_pandas())
        except (DataError, KeyError, TypeError, ValueError):
            continue
        if {"sharpe", "is_kept", "span"} <= {*tries.table.columns}:
            yield tries

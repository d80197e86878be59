"""Find the sets that other studies in a store tried on some of the same bars."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.base.json_values import to_plain
from backtest.base.units import FloatArray
from backtest.tune.holdout import shares_bars
from backtest.tune.journal import SET, read_stored_sets
from backtest.tune.study_identity import find_studies

if TYPE_CHECKING:
    import pandas as pd

TERMS = ("data", "searched", "policy", "venue", "account", "signal", "sampling", "calendar")
"""Entries of a study that decide the result of a set."""


class OtherTrials(NamedTuple):
    """Distinct sets that other studies tried on some of the same bars, and this study did not.

    ``policies`` are those of these studies, in alphabetical order. ``sharpes`` of shape (k,) are
    the Sharpe ratios per sqrt(year) of the sets that kept the constraints of their study.
    """

    n_sets: int
    policies: tuple[str, ...]
    sharpes: FloatArray


NO_TRIALS = OtherTrials(0, (), np.empty(0))


def find_other_trials(store: Path | None, facts: Mapping[str, Any]) -> OtherTrials:
    """Return what other studies in the store, of any policy, tried on bars of this search.

    A set of the same policy on the same data and terms counts once, whatever the seed, sampler or
    objective. Sweeps and single runs do not count, as they may not have been used to choose.
    """
    if store is None:
        return NO_TRIALS
    groups: defaultdict[str, list[pd.DataFrame]] = defaultdict(list)
    policies = set()
    for folder, other in find_studies(store):
        is_own = other.get("id") == facts["id"]
        if is_own or shares_search(facts, other):
            found = read_stored_sets(folder)
            groups[describe_terms(other)].append(found.assign(is_own=is_own))
            if len(found) and not is_own:
                policies.add(str(other["policy"]["name"]))
    others = [keep_other_sets(tables) for tables in groups.values()]
    sharpes = [table["sharpe"].to_numpy(np.float64)[table["is_kept"]] for table in others]
    known = np.concatenate([np.empty(0), *sharpes])
    return OtherTrials(sum(map(len, others)), tuple(sorted(policies)), known[np.isfinite(known)])


def shares_search(facts: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether another study searched some of the same bars; False for a damaged one."""
    try:
        spans = [(each["data"]["start"], each["searched"]) for each in (facts, other)]
        is_other = other["id"] != facts["id"] and bool(other["policy"]["name"])
        return is_other and shares_bars(facts["data"], spans[0], other["data"], spans[1])
    except (KeyError, TypeError):
        return False


def describe_terms(facts: Mapping[str, Any]) -> str:
    """Return the entries that decide the result of a set, as text."""
    terms = {name: facts.get(name) for name in TERMS}
    fixed = facts.get("space", {}).get("fixed")
    return json.dumps(to_plain({**terms, "fixed": fixed}), sort_keys=True)


def keep_other_sets(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the distinct sets of studies on the same terms, without those of this study."""
    import pandas as pd  # noqa: PLC0415 - loads where it is used

    whole = pd.concat(tables, ignore_index=True)
    # of duplicates, those of this study are kept
    whole = whole.sort_values("is_own", ascending=False, kind="stable")
    names = [name for name in whole.columns if str(name).startswith(SET)]
    different = whole.drop_duplicates(subset=names) if names else whole
    return different[~different["is_own"]]


def pool_deviation(sharpes: FloatArray, n_sets: int, others: OtherTrials) -> float:
    """Return the standard deviation of the Sharpe ratios of this study and of others.

    ``sharpes`` are those of a sample of the ``n_sets`` sets of this study, per sqrt(year). The
    variance is that within both groups, weighted by their numbers, plus that between their means.
    """
    own = float(np.var(sharpes, ddof=1)) if len(sharpes) > 1 else 0.0
    if not len(others.sharpes):
        return float(np.sqrt(own))
    share = n_sets / (n_sets + others.n_sets)
    gap = float(np.mean(sharpes) - np.mean(others.sharpes))
    within = share * own + (1.0 - share) * float(np.var(others.sharpes))
    return float(np.sqrt(within + share * (1.0 - share) * gap * gap))

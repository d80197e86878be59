"""Facts in a baseline of a walk besides its account: figures, search and winners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backtest.base import ParameterError, Place
from backtest.engine import Result
from backtest.regress.run_identity import gather_facts, hash_data, hash_wings, shorten_lists
from backtest.validation import read_figures

if TYPE_CHECKING:
    from backtest.validation import WalkForward

WALK = "walk"
"""The group of facts that a baseline of a walk has, and one of a run has not."""
WINNERS = "winners"
"""The group of facts with the parameters of each fold, which the search found."""
SEARCHED_BY = ("sweep", "tune", "validation")
"""The folders of the package whose files choose parameters."""
SEARCH = ("space", "objective", "constraints", "trials", "seed", "sampler", "robust")
FIGURES = {
    "walk_growth": ("growth_out_of_sample", 1),
    "walk_growth_in_sample": ("growth_in_sample", 0),
    "walk_growth_fixed": ("growth_fixed", 0),
    "walk_efficiency": ("efficiency", 1),
    "walk_efficiency_difference": ("efficiency_difference", 1),
    "walk_mean_rank": ("mean_rank", 1),
    "walk_deflated_sharpe": ("deflated_sharpe", 1),
}
"""Measures of a walk: their names among its figures, and 1 where more is better."""
OVERFIT = "walk_pbo"
BETTER_IF = {**{name: sign for name, (_, sign) in FIGURES.items()}, OVERFIT: -1}
"""All measures of a walk, with 1 where more is better, -1 where less is, and 0 for neither."""


def require_account(walk: WalkForward) -> Result:
    """Return the re-tuned account of a walk; raise if it has none."""
    if walk.result is None:
        raise ParameterError(
            "a baseline of a walk records one account, this walk opened a new one in every fold",
            where=Place("carry", of="bt.walk_forward"),
            cure="leave carry=False out",
        )
    if not isinstance(walk.result, Result):
        raise ParameterError(
            f"a baseline of a walk records one account, this walk has {len(walk.result.results)}",
            where=Place("accounts", of="bt.walk_forward"),
            cure="record each market by itself: bt.record(walk.result.results['BTC'], ...)",
        )
    return walk.result


def measure_walk(walk: WalkForward) -> dict[str, float]:
    """Return the measures of the re-tuned account and of the walk, ``walk_...``, by name."""
    metrics = {name: float(value) for name, value in require_account(walk).metrics.items()}
    figures = {name: read_figures(walk.figures, key) for name, (key, _) in FIGURES.items()}
    return {**metrics, **figures, OVERFIT: float(walk.pbo)}


def gather_walk_facts(walk: WalkForward) -> dict[str, Any]:
    """Return the inputs of a walk as plain data, with the winner of each fold."""
    manifest, facts = walk.manifest, gather_facts(require_account(walk))
    names = [name for name in manifest["spans"]["columns"] if name in walk.folds]
    winners = walk.folds.drop(columns=names).loc[:, :"in_sample"].drop(columns="in_sample")
    kept = ("name", "source_hash", "file_hash")
    search = {
        **{name: manifest[name] for name in SEARCH},
        "folds": len(walk.folds),
        "spans": hash_data(manifest["spans"]),
        "source_hash": hash_wings(SEARCHED_BY),
    }
    return {
        **facts,
        "policy": {name: facts["policy"][name] for name in kept},
        WALK: shorten_lists(search),
        WINNERS: shorten_lists(winners.to_dict("records")),
    }

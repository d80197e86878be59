"""Exponential tilting: models under which log prices are pushed in a direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from backtest.base import FloatArray
from backtest.risk.paths.diffusions import GBM
from backtest.risk.paths.path_model import PathModel, count_per_year

if TYPE_CHECKING:
    from backtest.risk.paths.path_set import Paths


def tilt_models(paths: Paths, force: FloatArray) -> tuple[dict[str, PathModel], float] | None:
    """Return the models under exponential tilting, and the log moment function per bar.

    ``force`` (n,) is that on the log price of each instrument. Under the tilted models,
    ``exp(-force x + t psi)`` is the likelihood ratio of a path whose log moves in t bars are x.
    None if there is no such model: several instruments need Brownian motions, because jumps that
    are common to them in some bars and not in others leave the family when they are tilted.
    """
    members = [*paths.members.items()]
    if len(members) == 1:
        name, own = members[0]
        found = own.model.tilt(float(force[0]), count_per_year(own.history))
        return None if found is None else ({name: found[0]}, found[1])
    if not all(isinstance(own.model, GBM) for _, own in members):
        return None
    per_year = np.array([count_per_year(own.history) for _, own in members])
    terms = np.array(
        [own.model.terms(count) for (_, own), count in zip(members, per_year, strict=True)]
    )
    mean, deviation = terms[:, 0], np.sqrt(terms[:, 1])
    shift = paths.factor @ (paths.factor.T @ (deviation * force)) * deviation
    drifts = np.array([own.model.drift for _, own in members]) + shift * per_year
    moved = {
        name: own.model.override(drift=float(drift))
        for (name, own), drift in zip(members, drifts, strict=True)
    }
    return moved, float(force @ mean + 0.5 * force @ shift)


def can_tilt(paths: Paths) -> bool:
    return tilt_models(paths, np.full(len(paths.names), 1e-9)) is not None

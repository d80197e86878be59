"""The manifest and the warnings of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from backtest.base import compute_id, find_version, find_versions, to_plain
from backtest.compare.equal_risk import NEAR, ScaledAccount
from backtest.compare.pairs import LEAST_SAMPLES

if TYPE_CHECKING:
    from backtest.engine import Result
    from backtest.measures import Sampled

SHARED = ("venue", "account", "signal", "sampling", "calendar")


def find_cautions(n: int, scaled: Mapping[str, ScaledAccount] | None) -> list[str]:
    """Return the warnings of a comparison, one sentence each."""
    found = []
    if n < LEAST_SAMPLES:
        found.append(
            f"{n} returns are too few for intervals, which need {LEAST_SAMPLES}: give a longer "
            "market, or a shorter sampling"
        )
    for name, each in (scaled or {}).items():
        if not each.distance <= NEAR:
            got = float(each.result.metrics["volatility"])
            how = (
                f"was scaled to a volatility of {got:.4g}, not"
                if got
                else "held nothing, and cannot be scaled"
            )
            found.append(f"{name} {how} to {each.target:.4g}: its risk is not equal")
    return found


def build_manifest(
    shared: Mapping[str, Any],
    results: Mapping[str, Result],
    scaled: Mapping[str, ScaledAccount] | None,
    sampled: Sampled,
    facts: Mapping[str, Any],
    terms: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return everything that the numbers of a comparison depend on, with an ``id`` of it.

    ``terms`` are those of each account where they differ; the shared ones are the baseline's.
    """
    manifest: dict[str, Any] = to_plain(
        {
            "kind": "comparison",
            "data": shared["data"],
            "policies": {
                name: {
                    "text": result.manifest["policy"]["text"],
                    "source_hash": result.manifest["policy"]["source_hash"],
                    "result": result.manifest["id"],
                    "scale": 1.0 if scaled is None else scaled[name].scale,
                    "rest": 1.0 if scaled is None else scaled[name].rest,
                    **(terms or {}).get(name, {}),
                }
                for name, result in results.items()
            },
            **{name: shared[name] for name in SHARED},
            **{name: shared[name] for name in ("overlay", "accounts") if name in shared},
            "samples": {
                "n": sampled.returns.shape[1],
                "per_year": sampled.per_year,
                "periods": sampled.periods,
            },
            **facts,
            "versions": {**find_versions(), "arch": find_version("arch")},
        }
    )
    return {"id": compute_id(manifest), **manifest}

"""Compare policies: run each on one market under the same terms, then compare the results."""

from collections.abc import Mapping
from typing import Any

import backtest as bt

RULES = ("baseline", "equal_risk", "confidence", "draws", "seed", "progress")
"""Arguments of the comparison; the others are those of the runs."""


def compare_policies(market: Any, policies: Mapping[str, Any], **settings: Any) -> bt.Comparison:
    """Return the comparison of policies, or of results among them, by name."""
    rules = {name: settings.pop(name) for name in RULES if name in settings}
    results = {
        name: each if isinstance(each, bt.Result) else bt.run(market, each, **settings)
        for name, each in policies.items()
    }
    return bt.compare(results, **{"draws": 99, **rules})

"""The options of a run in the files of a saved result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.engine.record import OptionFields
from backtest.engine.run_options import RunOptions
from backtest.measures import OptionQuotes, OptionTerms
from backtest.venue import Option

if TYPE_CHECKING:
    import pandas as pd

    from backtest.base import FloatArray

BY_BAR = ("opened", "entries", "settled", "ages")
DTYPES: Mapping[str, Any] = {
    "are_coin": np.bool_, "instruments": np.int64, "expiries": np.int64,
}  # fmt: skip


def list_arrays(options: RunOptions) -> dict[str, FloatArray]:
    """Return the arrays of shape (n_bars, K) by name."""
    own = {name: getattr(options, name) for name in BY_BAR}
    return {**options.record._asdict(), **options.quotes._asdict(), **own}


def list_option_columns(options: RunOptions | None) -> dict[str, FloatArray]:
    if options is None:
        return {}
    arrays = list_arrays(options)
    return {
        f"{name} {field}": each[:, k]
        for k, name in enumerate(options.terms.names)
        for field, each in arrays.items()
    }


def pack_options(options: RunOptions | None) -> dict[str, Any]:
    if options is None:
        return {}
    terms = {
        name: each.tolist() for name, each in options.terms._asdict().items() if name != "names"
    }
    contracts = [each.to_dict() for each in options.contracts]
    own = {"names": options.terms.names, "legs": options.legs, "hedged": options.hedged}
    owners = options.owners.tolist()
    return {"options": {**own, "owners": owners, "contracts": contracts, **terms}}


def read_options(stored: Mapping[str, Any] | None, wide: pd.DataFrame) -> RunOptions | None:
    if stored is None:
        return None
    names = tuple(stored["names"])
    known = {name: stored[name] for name in OptionTerms._fields if name != "names"}
    terms = {
        name: np.array(each, dtype=DTYPES.get(name, np.float64)) for name, each in known.items()
    }
    return RunOptions(
        contracts=tuple(Option.from_dict(each) for each in stored["contracts"]),
        legs=tuple(stored["legs"]),
        owners=np.array(stored["owners"], dtype=np.int64),
        hedged=tuple(stored.get("hedged", ())),
        terms=OptionTerms(names=names, **terms),
        record=OptionFields(*gather(wide, names, OptionFields._fields)),
        quotes=OptionQuotes(*gather(wide, names, OptionQuotes._fields)),
        **dict(zip(BY_BAR, gather(wide, names, BY_BAR), strict=True)),
    )


def gather(wide: pd.DataFrame, names: Sequence[str], fields: Sequence[str]) -> list[FloatArray]:
    """Return the arrays of some fields, of shape (n_bars, K)."""
    return [wide[[f"{name} {field}" for name in names]].to_numpy() for field in fields]

"""The numbers of a tally by name, as results store them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backtest.account import Ledger
from backtest.measures.tally import Decay, Drawdown, Exposure, Sample, Tally

if TYPE_CHECKING:
    from collections.abc import Mapping


def flatten_tally(tally: Tally) -> dict[str, float]:
    flat: dict[str, Any] = {}
    for name, value in tally._asdict().items():
        flat |= value._asdict() if hasattr(value, "_asdict") else {name: value}
    return flat


def read_tally(flat: Mapping[str, Any]) -> Tally:
    def read(record: Any) -> Any:
        return record(**{name: flat[name] for name in record._fields})

    parts = {
        "drawdown": read(Drawdown),
        "sample": read(Sample),
        "money": read(Ledger),
        "exposure": read(Exposure),
        "decay": read(Decay),
    }
    return Tally(**parts, **{name: flat[name] for name in Tally._fields if name not in parts})

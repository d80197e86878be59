"""Inspection of a chain: what is wrong with its quotes, counted by snapshot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from backtest.base import count_nouns
from backtest.options.pricing import price

KEYS = ["time", "underlying"]
AGREEMENT = 1e-4
"""Largest difference between a mark and the price of its volatility, in coins or parts of the
forward, and between forwards of one expiry, relative."""
STALE = pd.Timedelta("5min")


class Check(NamedTuple):
    """What is wrong with a row, where, and how it is shown; see :func:`add_bounds`."""

    text: str
    find: Callable[[pd.DataFrame], pd.Series]
    pattern: str


CHECKS = {
    "crossed": Check(
        "the bid is above the ask",
        lambda r: r["bid"] > r["ask"],
        "bid {bid:g}, ask {ask:g}",
    ),
    "outside_bounds": Check(
        "a bid is at or above the largest value, or an ask at the intrinsic value",
        lambda r: (r["bid"] >= r["most"]) | (r["ask"] <= r["least"]) & (r["least"] > 0.0),
        "bid {bid:g}, ask {ask:g}, between {least:g} and {most:g}",
    ),
    "disagrees": Check(
        "mark, forward and volatility do not agree to 1e-4",
        lambda r: (r["mark"] - r["model"]).abs() * r["per_coin"] > AGREEMENT,
        "mark {mark:g}, its volatility gives {model:g}",
    ),
    "duplicated": Check(
        "the same contract stands twice",
        lambda r: r.duplicated([*KEYS, "expiry", "strike", "kind"]),
        "strike {strike:g}",
    ),
    "no_future": Check(
        "the expiry has no future: its forward is from put-call parity or the index",
        lambda r: r["forward_source"].isin(["parity", "index"]),
        "forward {forward:g} by {forward_source}",
    ),
    "no_forward": Check(
        "the expiry has no forward at all",
        lambda r: r["forward"].isna(),
        "expiry {expiry:%Y-%m-%d}",
    ),
    "forward_differs": Check(
        "the forward differs from that of its expiry by over 1e-4",
        lambda r: (r["forward"] / r["usual"] - 1.0).abs() > AGREEMENT,
        "forward {forward:g}, of its expiry {usual:g}",
    ),
    "stale": Check(
        "the row was quoted over five minutes before the snapshot",
        lambda r: r["time"] - r["quoted"] > STALE,
        "quoted {quoted:%Y-%m-%d %H:%M}",
    ),
    "expired": Check(
        "the expiry is not after the snapshot",
        lambda r: r["years"] <= 0.0,
        "expiry {expiry:%Y-%m-%d %H:%M}",
    ),
}
"""Every check of a quote."""


@dataclass(frozen=True, eq=False, repr=False)
class Inspection:
    """What is wrong with the quotes of a chain.

    Parameters
    ----------
    table : DataFrame
        A row per snapshot and underlying: ``quotes``, ``two_sided``, and the number of rows for
        each of the checks.
    rows : DataFrame
        A row per defect: time, underlying, name, ``check`` and ``found``.
    """

    table: pd.DataFrame
    rows: pd.DataFrame

    @property
    def is_clean(self) -> bool:
        """Whether no check found anything."""
        return self.rows.empty

    @property
    def total(self) -> pd.Series:
        """The number of rows for each check, over all snapshots."""
        return self.table[[*CHECKS]].sum()

    def __repr__(self) -> str:
        counts = self.table[["quotes", "two_sided"]].sum()
        snapshots = count_nouns(self.table["time"].nunique(), "snapshot")
        lines = [
            f"{count_nouns(counts['quotes'], 'quote')} in {snapshots}, "
            f"{counts['two_sided']:,} with bid and ask"
        ]
        for name, count in self.total.items():
            if count:
                first = self.rows[self.rows["check"] == name].iloc[0]
                share = count / counts["quotes"]
                text = CHECKS[str(name)].text
                lines.append(
                    f"{count:>8,} ({share:.1%}): {text}; first {first['name']} at "
                    f"{first['time']:%Y-%m-%d %H:%M}, {first['found']}"
                )
        return "\n".join(lines if len(lines) > 1 else [*lines, "no defect found"])


def inspect_quotes(rows: pd.DataFrame, settlement: str) -> Inspection:
    counts = rows[KEYS].assign(quotes=1, two_sided=(rows["bid"].notna() & rows["ask"].notna()) * 1)
    shown, parts = add_bounds(rows, settlement), []
    for name, check in CHECKS.items():
        bad = check.find(shown)
        counts[name] = bad.astype(int)
        found = [check.pattern.format_map(row) for row in shown[bad].to_dict("records")]
        parts.append(rows.loc[bad, [*KEYS, "name"]].assign(check=name, found=found))
    table = counts.groupby(KEYS, sort=True).sum().reset_index()
    return Inspection(table, pd.concat(parts, ignore_index=True))


def add_bounds(rows: pd.DataFrame, settlement: str) -> pd.DataFrame:
    """Return quotes with what the checks compare: bounds, model price and usual forward.

    ``least`` and ``most`` are the bounds of a price, ``model`` is that of the quoted volatility,
    ``usual`` the median forward of the expiry; ``per_coin`` makes parts of the forward of a price.
    """
    is_coin = settlement == "coin"
    sign = np.where(rows["kind"] == "call", 1.0, -1.0)
    unit = rows["forward"] if is_coin else 1.0
    known = rows[["mark", "iv", "forward"]].notna().all(axis=1) & (rows["years"] > 0.0)
    model, given = np.full(len(rows), np.nan), rows[known]
    model[known] = price(
        given["kind"].to_numpy(dtype=str), given["forward"].to_numpy(), given["strike"].to_numpy(),
        given["years"].to_numpy(), given["iv"].to_numpy(), settlement=settlement,  # type: ignore[arg-type]
    )  # fmt: skip
    return rows.assign(
        least=np.maximum(sign * (rows["forward"] - rows["strike"]), 0.0) / unit,
        most=np.where(sign > 0.0, rows["forward"], rows["strike"]) / unit,
        model=model,
        per_coin=1.0 if is_coin else 1.0 / rows["forward"],
        usual=rows.groupby([*KEYS, "expiry"])["forward"].transform("median"),
    )

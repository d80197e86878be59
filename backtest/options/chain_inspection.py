"""Inspection of a chain: what is wrong with its quotes, counted by snapshot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from backtest.base import count_nouns
from backtest.options.pricing import price

KEYS = ["time", "underlying"]
AGREEMENT = 1e-4
"""Largest difference between a mark and the price of its volatility, in coins or parts of the
forward, and between forwards of one expiry, relative."""
STALE = pd.Timedelta("5min")

CHECKS: dict[str, str] = {
    "crossed": "the bid is above the ask",
    "outside_bounds": "a bid is at or above the largest value, or an ask at the intrinsic value",
    "disagrees": "mark, forward and volatility do not agree to 1e-4",
    "duplicated": "the same contract stands twice",
    "no_future": "the expiry has no future: its forward is from put-call parity or the index",
    "no_forward": "the expiry has no forward at all",
    "forward_differs": "the forward differs from that of its expiry by over 1e-4",
    "stale": "the row was quoted over five minutes before the snapshot",
    "expired": "the expiry is not after the snapshot",
}


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
                lines.append(
                    f"{count:>8,} ({share:.1%}): {CHECKS[str(name)]}; first {first['name']} at "
                    f"{first['time']:%Y-%m-%d %H:%M}, {first['found']}"
                )
        return "\n".join(lines if len(lines) > 1 else [*lines, "no defect found"])


def inspect_quotes(rows: pd.DataFrame, settlement: str) -> Inspection:
    found = {name: check(rows, settlement) for name, check in FINDERS.items()}
    counts = rows[KEYS].assign(quotes=1, two_sided=(rows["bid"].notna() & rows["ask"].notna()) * 1)
    for name, (bad, _) in found.items():
        counts[name] = bad.astype(int)
    table = counts.groupby(KEYS, sort=True).sum().reset_index()
    parts = [
        rows.loc[bad, [*KEYS, "name"]].assign(check=name, found=text[bad])
        for name, (bad, text) in found.items()
    ]
    return Inspection(table, pd.concat(parts, ignore_index=True))


Found = tuple[pd.Series, pd.Series]


def is_crossed(rows: pd.DataFrame, settlement: str) -> Found:
    del settlement
    return rows["bid"] > rows["ask"], write(rows, "bid {bid:g}, ask {ask:g}")


def is_outside(rows: pd.DataFrame, settlement: str) -> Found:
    sign = np.where(rows["kind"] == "call", 1.0, -1.0)
    unit = rows["forward"] if settlement == "coin" else 1.0
    least = np.maximum(sign * (rows["forward"] - rows["strike"]), 0.0) / unit
    most = np.where(sign > 0.0, rows["forward"], rows["strike"]) / unit
    bad = (rows["bid"] >= most) | (rows["ask"] <= least) & (least > 0.0)
    shown = rows.assign(least=least, most=most)
    return bad, write(shown, "bid {bid:g}, ask {ask:g}, between {least:g} and {most:g}")


def disagrees(rows: pd.DataFrame, settlement: str) -> Found:
    known = rows[["mark", "iv", "forward"]].notna().all(axis=1) & (rows["years"] > 0.0)
    model = np.full(len(rows), np.nan)
    given = rows[known]
    model[known] = price(
        given["kind"].to_numpy(dtype=str), given["forward"].to_numpy(), given["strike"].to_numpy(),
        given["years"].to_numpy(), given["iv"].to_numpy(), settlement=settlement,  # type: ignore[arg-type]
    )  # fmt: skip
    unit = 1.0 if settlement == "coin" else rows["forward"]
    bad = (rows["mark"] - model).abs() / unit > AGREEMENT
    return bad, write(rows.assign(model=model), "mark {mark:g}, its volatility gives {model:g}")


def is_duplicated(rows: pd.DataFrame, settlement: str) -> Found:
    del settlement
    keys = [*KEYS, "expiry", "strike", "kind"]
    return rows.duplicated(keys), write(rows, "strike {strike:g}")


def has_no_future(rows: pd.DataFrame, settlement: str) -> Found:
    del settlement
    bad = rows["forward_source"].isin(["parity", "index"])
    return bad, write(rows, "forward {forward:g} by {forward_source}")


def has_no_forward(rows: pd.DataFrame, settlement: str) -> Found:
    del settlement
    return rows["forward"].isna(), write(rows, "expiry {expiry:%Y-%m-%d}")


def has_other_forward(rows: pd.DataFrame, settlement: str) -> Found:
    del settlement
    usual = rows.groupby([*KEYS, "expiry"])["forward"].transform("median")
    bad = (rows["forward"] / usual - 1.0).abs() > AGREEMENT
    return bad, write(rows.assign(usual=usual), "forward {forward:g}, of its expiry {usual:g}")


def is_stale(rows: pd.DataFrame, settlement: str) -> Found:
    del settlement
    return rows["time"] - rows["quoted"] > STALE, write(rows, "quoted {quoted:%Y-%m-%d %H:%M}")


def is_expired(rows: pd.DataFrame, settlement: str) -> Found:
    del settlement
    return pd.Series(rows["years"] <= 0.0), write(rows, "expiry {expiry:%Y-%m-%d %H:%M}")


def write(rows: pd.DataFrame, pattern: str) -> pd.Series:
    return LazyTexts(rows, pattern)  # type: ignore[return-value]


class LazyTexts:
    def __init__(self, rows: pd.DataFrame, pattern: str) -> None:
        self.rows = rows
        self.pattern = pattern

    def __getitem__(self, bad: pd.Series) -> list[str]:
        return [self.pattern.format_map(row) for row in self.rows[bad].to_dict("records")]


FINDERS: dict[str, Callable[[pd.DataFrame, str], Found]] = {
    "crossed": is_crossed,
    "outside_bounds": is_outside,
    "disagrees": disagrees,
    "duplicated": is_duplicated,
    "no_future": has_no_future,
    "no_forward": has_no_forward,
    "forward_differs": has_other_forward,
    "stale": is_stale,
    "expired": is_expired,
}

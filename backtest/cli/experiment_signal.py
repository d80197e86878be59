"""Build the signal of an experiment: a number, a column or a rule, or weights of instruments."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pandas as pd

from backtest.base import ParameterError
from backtest.cli.experiment_draft import Draft, DraftTable, flatten, located
from backtest.cli.named_weights import read_allocation
from backtest.engine import read_named, read_rule, signals
from backtest.engine.indicator_rules import RULES
from backtest.market import Market, Markets, as_markets, find_clock, read_weight_file
from backtest.weights import WeightRule


def read_signal(draft: Draft, market: Market | Markets) -> Any:
    """Return what ``[run]`` describes: weights, or a constant, a column of the bars, or a rule.

    They are of the bars that policies see.
    """
    market = find_clock(market).seen
    run = draft.section("run")
    settings = flatten(run.entries.get("signal_settings", {}))
    if run.entries.get("signal") is None and not settings:
        return read_weights(draft, as_markets(market))
    check_direction(run, market)
    signal, (first, *_) = run.entries.get("signal"), as_markets(market).values()
    if isinstance(signal, str):
        with suppress(ValueError):
            signal = float(signal)
    if not settings:
        return read_named(signal, market, where=run.where)
    if not isinstance(signal, str) or signal in first.columns:
        raise ParameterError(
            f"signal.{next(iter(settings))} is a parameter of a rule, the signal is "
            f"{'not given' if signal is None else repr(signal)}",
            where=run.where,
            cure="name a rule, such as --signal rsi, or leave signal.NAME out",
        )
    return read_rule(signal, settings, columns=first.columns, where=run.where)


def check_direction(run: DraftTable, market: Market | Markets) -> None:
    """Refuse a signal beside weights, and for several instruments one that is not a rule."""
    signal = run.entries.get("signal")
    others = [name for name in ("weights", "allocate") if name in run.entries]
    is_rule = isinstance(signal, str) and signal.partition(":")[0] in RULES
    if others or not (is_rule or len(as_markets(market)) == 1):
        found = f" beside {others[0]}" if others else ""
        raise ParameterError(
            f"the signal of several instruments must be weights or a rule, got {signal!r}{found}",
            where=run.where,
            cure="give --weights FILE, a table by time and instrument, --allocate RULE, or a rule, "
            "--signal ma-cross:20:50; leave all out for 1/n",
        )


def read_weights(draft: Draft, markets: Markets) -> pd.DataFrame | WeightRule | None:
    """Return the weights of a file by the bars of the markets, or their rule; None for 1/n."""
    run = draft.section("run", path="weights")
    if "allocate" in run.entries or "allocate_settings" in run.entries:
        return read_weight_rule(draft, run)
    carries = bool(run.entries.get("carry_weights", False))
    if "weights" not in run.entries:
        if carries:
            raise ParameterError(
                "carry_weights is for weights of a file, got none",
                where=run.where,
                cure="give --weights FILE too",
            )
        return None
    zone = draft.tables.get("data", {}).get("timezone")
    where = draft.locate("run", ("weights",))
    with located(where):
        frame = read_weight_file(run.folder / run.entries["weights"], zone)
        return signals.from_frame(markets, frame, carry=carries)


def read_weight_rule(draft: Draft, run: DraftTable) -> WeightRule:
    """Return the rule that gives the weights."""
    where = draft.locate("run", ("allocate", "allocate_settings"))
    others = [name for name in ("weights", "carry_weights") if name in run.entries]
    if others or "allocate" not in run.entries:
        found = f"allocate and {others[0]}" if others else "settings without a rule"
        raise ParameterError(
            f"weights must come from a rule or a file, got {found}",
            where=draft.locate("run", ("allocate", "allocate_settings", *others)),
            cure="give --allocate RULE or --weights FILE; allocate_settings belong to a rule",
        )
    with located(where):
        settings = flatten(run.entries.get("allocate_settings", {}))
        return read_allocation(run.entries["allocate"], settings, where=where)

"""The signal of an experiment: a rule, a file of weights, or an allocation over instruments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backtest import core
from backtest.experiments.draft import Draft, flatten
from backtest.market import Market, Markets, as_markets, find_clock
from backtest.market.weight_frame import read_weight_file
from backtest.signals import from_frame, from_series, read_named, read_rule
from backtest.signals.rules import RULES

KINDS = ("signal", "weights", "allocate")
"""Keys of ``[run]`` that say what a signal is; at most one of them is there."""

NEEDED = {"carry_weights": "weights", "allocate_settings": "allocate"}
"""Keys of ``[run]`` that belong to another one."""

ALLOCATION_SETTINGS: dict[str, tuple[str, ...]] = {
    "equal": (),
    "inverse-volatility": ("half_life", "every"),
    "risk-budget": ("half_life", "every", "budgets"),
}


def read_signal(draft: Draft, market: Market | Markets) -> Any:
    """Return the signal of ``[run]``, as ``bt.Backtest`` takes it; None without one."""
    run = draft.table("run")
    seen = find_clock(market).seen
    markets = as_markets(seen)

    kinds = [name for name in KINDS if run.get(name) is not None]
    if len(kinds) > 1:
        raise core.ParameterError(f"give one of run.{' and run.'.join(kinds)}")
    for name, needed in NEEDED.items():
        if run.get(name) and needed not in run:
            raise core.ParameterError(f"run.{name} needs run.{needed}, got none")

    if "allocate" in kinds:
        # A sweep writes its varied settings under the signal's: signal.half_life and so on.
        settings = flatten(run.get("allocate_settings", {}))
        varied = flatten(run.get("signal_settings", {}))
        return allocate(run["allocate"], {**settings, **varied}, markets)
    if "weights" in kinds:
        return read_weights_entry(draft, markets)
    return read_rule_entry(run, seen)


def read_weights_entry(draft: Draft, markets: Markets) -> Any:
    """Return the weights of a file as the signal of one instrument, or of each."""
    run = draft.table("run")
    frame = read_weight_file(Path(run["weights"]), draft.table("data").get("timezone"))
    carry = run.get("carry_weights", False)

    if len(markets) == 1 and frame.shape[1] == 1:
        (market,) = markets.values()
        return from_series(market, frame.iloc[:, 0], carry=carry)
    return from_frame(markets, frame, carry=carry)


def read_rule_entry(run: Mapping[str, Any], seen: Market | Markets) -> Any:
    """Return the signal that a text or a number in ``[run]`` names, with its settings."""
    markets = as_markets(seen)
    signal = run.get("signal")
    settings = flatten(run.get("signal_settings", {}))

    is_rule = isinstance(signal, str) and signal.partition(":")[0] in RULES
    if signal is not None and not is_rule and len(markets) > 1:
        raise core.ParameterError(
            "run.signal of several instruments must be a rule, ma-cross:20:50 for example, or "
            f"weights or allocate in its place, got {signal!r}"
        )
    if not settings:
        return signal if len(markets) == 1 else read_named(signal, seen)

    columns = next(iter(markets.values())).columns
    if not isinstance(signal, str) or signal in columns:
        raise core.ParameterError(
            f"run.signal_settings are of a rule, such as rsi, got {next(iter(settings))} for the "
            f"signal {signal!r}"
        )
    return read_rule(signal, settings, columns=columns)


def allocate(rule: str, settings: Mapping[str, Any], markets: Markets) -> Any:
    """Return the weights of instruments by a rule of ``run.allocate``."""
    from backtest.signals import RiskBudget, equal, inverse_volatility  # noqa: PLC0415 - seldom

    core.Choice(*ALLOCATION_SETTINGS).check("run.allocate", rule)
    heads = [name.partition(".")[0] for name in settings]
    core.check_names(
        f"run.allocate_settings: {rule}", heads, ALLOCATION_SETTINGS[rule], noun="setting"
    )
    if len(markets) == 1:
        raise core.ParameterError("run.allocate is for several instruments, got one")

    if rule == "equal":
        return equal(markets)
    if rule == "inverse-volatility":
        return inverse_volatility(markets, **settings)
    if "budgets" in heads:
        return RiskBudget.from_settings(dict(settings))
    equal_budgets = dict.fromkeys(markets.names, 1.0)
    return RiskBudget.from_settings({**settings, "budgets": equal_budgets})

"""A run in parts is the whole run, bit for bit; its ledger agrees with its table of bars."""

import math
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from tests.kit import every_nth
from tests.scenes import (
    INF,
    TRADES,
    account_of,
    bracket,
    happened,
    is_,
    market_of,
    measured,
    series,
    total,
    venue_of,
    walk,
)

# --------------------------------------------------------------------- the whole equals its parts


class Wealth(NamedTuple):
    """What a Ratchet remembers."""

    floor: float
    calls: float


class Ratchet(bt.Policy):
    """Lever the distance to a floor that only rises, sometimes leave the position alone."""

    multiple: Annotated[float, bt.Range(0.5, 20.0, "turns")] = 6.0

    def observe(self, market):
        close = pd.Series(market.close)
        return {"trend": close.ewm(halflife=12).mean().to_numpy()}

    def start(self):
        return Wealth(0.7, 0.0)

    def leverage(self, bar, account, memory):
        unit = account.peak_equity / 1000.0
        floor = max(memory.floor, 0.7 * unit, memory.floor * (1 + 1e-5))
        after = Wealth(floor, memory.calls + 1.0)
        if after.calls % 5 == 0:
            return math.nan, after
        tilt = 1.2 if bar.close > bar.trend else 0.8
        cushion = max(account.equity / 1000.0 - 0.5 * floor, 0.05)
        return self.multiple * tilt * cushion, after


FEES = {"taker": 0.0006, "maker": 0.0002, "maker_share": 0.3}
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "cross, all costs": (
        {
            "fees": FEES,
            "slippage": {"rate": 0.0002, "impact": 0.3, "impact_window": "6h"},
            "interest_on": "balance",
            "cash_rate": 0.03,
            "borrow_rate": 0.08,
            "margin_multiplier": series({0: 1.0, 50: 1.5, 100: 1.0}),
        },
        {
            "band": 0.2,
            "stop_loss": 0.06,
            "flows": series({30.5: 150.0, 60: 90.0, 61: -400.0}),
            "margin_call": 0.19,
            "reserve": 300.0,
            "top_up_to": 0.12,
        },
    ),
    "isolated, partial, loan": (
        {
            "fees": FEES,
            "slippage": {"rate": 0.0002, "max_participation": 0.2, "impact_window": "6h"},
            "interest_on": "loan",
            "borrow_rate": series({0: 0.05, 70: 0.2}),
            "short_rate": 0.04,
            "brackets": [bracket(0.0, 4000.0, 16.0, 0.04), bracket(4000.0, INF, 9.0, 0.09)],
            "liquidation": {
                "mode": "partial",
                "step": 0.3,
                "fee": 0.01,
                "slippage": 0.002,
                "impact": 0.2,
            },
        },
        {"margin": "isolated", "venue_leverage": 12.0, "margin_call": 0.5},
    ),
    "inverse, graced": (
        {
            "contract": {"kind": "inverse", "lot": 10.0},
            "fees": FEES,
            "call_grace": 2,
            "liquidation": {"mode": "takeover"},
        },
        {"margin_call": 0.22, "flows": series({40: -200.0})},
    ),
    "ruined at a line": (
        {
            "fees": FEES,
            "slippage": {"rate": 0.0002},
            "interest_on": "loan",
            "borrow_rate": 0.05,
            "cash_rate": 0.02,
        },
        {
            "ruin_at": 0.8,
            "flows": series({20: 300.0, 25: -150.0, 110: 100.0}),
            "margin_call": 0.19,
            "reserve": 200.0,
            "top_up_to": 0.12,
        },
    ),
    "isolated, guarded by its wallet": (
        {
            "fees": FEES | {"per_order": series({0: 0.5, 60: 2.0})},
            "slippage": {"rate": 0.0002},
            "brackets": [bracket(0.0, 4000.0, 16.0, 0.045), bracket(4000.0, INF, 15.0, 0.055)],
            "profit_counts": 0.5,
            "call_grace": 8,
        },
        {
            "capital": 600.0,
            "margin": "isolated",
            "venue_leverage": 14.0,
            "margin_call": 0.7,
            "reserve": 15.0,
            "top_up_to": 0.65,
            "auto_margin": True,
        },
    ),
}


def lived(setting, *, seed=4):
    """Return a market with mark prices and funding, and the other arguments of a run."""
    n = 140
    bars = walk(n, seed=seed, sigma=0.012, gap=0.003)
    marks = [tuple(p * (1 + 0.0004 * math.sin(t)) for p in bar) for t, bar in enumerate(bars)]
    stamps = [(h + 0.001 * math.sin(h), 0.0005 * math.cos(h)) for h in range(4, n, 4)]
    stamps += [(h + 0.4, 0.0002, 99.0) for h in range(6, n, 16)]
    market = market_of(*bars, mark=marks, funding=sorted(stamps), volume=400.0)
    venue, account = SETTINGS[setting]
    signal = pd.Series([1.0 if t % 40 < 25 else -0.7 for t in range(n)], index=market.times)
    return market, {
        "policy": Ratchet(),
        "venue": venue_of(**venue),
        "account": account_of(**account),
        "signal": signal,
        "compile": False,
    }


def assert_same_bits(whole, head, tail):
    """The recorded bars and events of two parts, put together, are those of the whole."""
    both = np.concatenate([head.record.values, tail.record.values])
    assert both.tobytes() == whole.record.values.tobytes()
    assert np.concatenate([head.entries, tail.entries]).tobytes() == whole.entries.tobytes()
    assert tail.memory.tobytes() == whole.memory.tobytes()
    mine, theirs = (each.state._replace(cursor=0) for each in (tail, whole))  # of the feed of each
    assert repr(mine) == repr(theirs)
    assert pd.concat([head.bars, tail.bars])["equity"].equals(whole.bars["equity"])


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("overlap", every_nth([0, 1, 20], 4))
def test_a_run_equals_its_parts_bit_for_bit(setting, overlap):
    market, settings_ = lived(setting)
    whole = bt.run(market, **settings_)
    held = whole.bars["position"].to_numpy() != 0.0
    cuts = [2, 31, 61, 62, 99, 138] if overlap == 0 else [41, 101]
    assert any(held[k - 1] for k in cuts)
    for k in cuts:
        edge = market.times[k]
        head = bt.run(market.between(None, edge), **settings_ | slice_signal(settings_, None, edge))
        later = market.times[max(k - overlap, 1)]
        rest = market.between(later, None)
        tail = bt.run(rest, **settings_ | slice_signal(settings_, later, None), resume=head)
        assert_same_bits(whole, head, tail)


def slice_signal(settings_, start, end):
    signal = settings_["signal"]
    if end is not None:
        signal = signal[signal.index < end]
    if start is not None:
        signal = signal[signal.index >= start]
    return {"signal": signal}


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_scenes_of_the_parts_are_lively(setting):
    market, settings_ = lived(setting)
    result = bt.run(market, **settings_)
    kinds = set(result.events["kind"])
    wanted = {
        "cross, all costs": {"impact", "interest", "margin_call", "top_up", "flow", "stop"},
        "isolated, partial, loan": {"interest", "margin_call", "liquidation", "funding"},
        "inverse, graced": {"margin_call", "funding", "flow"},
        "ruined at a line": {"ruin", "flow", "top_up", "interest"},
        "isolated, guarded by its wallet": {
            "margin_call",
            "call_met",
            "call_partly_met",
            "call_failed",
            "margin_added",
            "top_up",
        },
    }[setting]
    assert wanted <= kinds
    assert result.metrics["ruined"] == float(setting == "ruined at a line")


def test_resuming_in_three_parts_and_on_the_whole_market_gives_the_same_bits():
    market, settings_ = lived("cross, all costs")
    whole = bt.run(market, **settings_)
    part = bt.run(market.between(None, market.times[50]), **settings_ | slice_signal(
        settings_, None, market.times[50]))  # fmt: skip
    middle = bt.run(market.between(None, market.times[90]), **settings_ | slice_signal(
        settings_, None, market.times[90]), resume=part)  # fmt: skip
    last = bt.run(market, **settings_, resume=middle)
    pieces = np.concatenate([part.record.values, middle.record.values, last.record.values])
    assert pieces.tobytes() == whole.record.values.tobytes()


# --------------------------------------------------------------------------- ledger, save, load
COLUMN_OF_KIND = {
    "fee": "fees",
    "slippage": "slippage",
    "impact": "impact",
    "funding": "funding",
    "interest": "interest",
    "liquidation_loss": "liquidation_loss",
    "bad_debt": "bad_debt",
    "top_up": "top_up",
}


def lively(name):
    if name == "measured":
        return measured(2, leverage=9.0, liquidated=True)
    market, settings_ = lived(name)
    return bt.run(market, **settings_)


@pytest.mark.parametrize("name", [*SETTINGS, "measured"])
def test_the_ledger_and_the_table_of_bars_agree(name):
    result = lively(name)
    bars = result.bars
    for kind, column in COLUMN_OF_KIND.items():
        by_bar = happened(result, kind).groupby("time")["amount"].sum()
        found = by_bar.reindex(bars.index, fill_value=0.0).to_numpy()
        assert found == pytest.approx(bars[column].to_numpy(), rel=1e-9, abs=1e-9), kind
    flows = total(result, "flow") + total(result, "top_up")
    assert flows == is_(bars["flows"].sum(), 1e-9)
    trades = result.events[result.events["kind"].isin(TRADES)]
    moved = trades.groupby("time")["quantity"].sum().reindex(bars.index, fill_value=0.0)
    assert moved.cumsum().to_numpy() == pytest.approx(bars["position"].to_numpy(), abs=1e-6)
    for measure_name in ("fees", "slippage", "impact", "funding", "interest", "bad_debt"):
        assert result.metrics[measure_name] == is_(bars[measure_name].sum(), 1e-9)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_saved_result_is_loaded_whole_and_can_be_resumed(name, tmp_path):
    market, settings_ = lived(name)
    whole = bt.run(market, **settings_)
    edge = market.times[70]
    head = bt.run(market.between(None, edge), **settings_ | slice_signal(settings_, None, edge))
    loaded = bt.Result.load(head.save(tmp_path))
    pd.testing.assert_frame_equal(loaded.bars, head.bars)
    pd.testing.assert_frame_equal(loaded.events, head.events)
    assert repr(dict(loaded.metrics)) == repr(dict(head.metrics))
    tail = bt.run(market, **settings_, resume=loaded)
    assert_same_bits(whole, head, tail)


@pytest.mark.parametrize(("change", "named"), [
    ({"venue": venue_of(contract={"size": 0.01})}, "venue.contract"),
    ({"account": account_of(band=0.5)}, "account.band"),
    ({"account": account_of(flows=series({1: 5.0}))}, "account.flows"),
    ({"policy": Ratchet(multiple=5.0)}, "policy"),
])  # fmt: skip
def test_resuming_under_other_rules_is_refused_naming_what_differs(change, named):
    market, _ = lived("cross, all costs")
    rules = {"policy": Ratchet(), "venue": venue_of(), "account": account_of()}
    part = bt.run(market.between(None, market.times[50]), **rules, compile=False)
    with pytest.raises(bt.ParameterError, match=named):
        bt.run(market, **(rules | change), resume=part, compile=False)

"""The engine against the oracle, on one account with one position or several.

What is compared is money, to 1e-9 of the larger of equity and turnover so far: every column of the
bars that both have, quantities (by their notional), margins, the margin ratio (by the backing), the
price of liquidation (by what it means in money), the ledger by kind, and the calls.
"""

import functools
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.account.money import TERMS
from backtest.market import rules
from backtest.policies import lookahead, observing
from tests.cases import OBSERVED, PortfolioCase, Swing, Tape
from tests.draws import HOUR, START, list_columns, utc
from tests.kit import flat
from tests.oracle import Outcome, simulate
from tests.scenes import GROUPS, PLAIN_ACCOUNT
from tests.scenes import TERMS as VENUE_TERMS

TOLERANCE = 1e-9
MONEY = (
    "equity", "reserve", *TERMS, "top_up", "cash", "available", "initial_margin", "realized_pnl",
    "unrealized_pnl",
)  # fmt: skip
KINDS_OF_EVENTS = (
    "fill", "fee", "slippage", "impact", "funding", "interest", "expense", "stop", "liquidation",
    "liquidation_loss", "top_up", "bad_debt", "flow", "withdrawal_refused", "ruin", "margin_added",
    "margin_returned", "margin_refused", "time_stop",
    "trailing_stop", "equity_stop", "daily_loss", "weekly_loss", "take_profit", "delisted",
    "conversion", "expiry", "pause",
)  # fmt: skip
AT_EDGES = ("available", "initial_margin")
"""What a bracket sets, which rounding chooses where the notional is its cap."""
CALLS = ("margin_call", "call_met", "call_partly_met", "call_failed")
FLAT = flat(100.0)


class Scripted(bt.Policy):
    def observe(self, market):
        return {name: market.columns[name] for name in OBSERVED if name in market.columns}

    def leverage(self, bar, account):
        return bar.target


class ScriptedMargin(Scripted):
    def venue_leverage(self, bar, account):
        return bar.setting


class Count(NamedTuple):
    asked: float


class Counting(Scripted):
    """Answer as :func:`divide_by_count` does."""

    def start(self):
        return Count(asked=0.0)

    def leverage(self, bar, account, memory):
        asked = memory.asked + 1.0
        return bar.target / asked, Count(asked=asked)


class CountingMargin(Counting):
    def venue_leverage(self, bar, account):
        return bar.setting


def choose_policy(case: PortfolioCase, tape: Tape) -> bt.Policy:
    if "setting" in tape.bars:
        return CountingMargin() if case.counts else ScriptedMargin()
    return Counting() if case.counts else Scripted()


class Swinging(bt.Policy):
    """Answer as :class:`Swing` does, from the time of the bar alone."""

    level: Annotated[float, bt.Range(0.0, 10.0)] = 1.0
    hours: Annotated[float, bt.Range(0.0, 1000.0)] = 1.0

    def observe(self, market):
        every = round(self.hours * 3_600_000_000_000)
        return {"asked": Swing(self.level, every).answers(market.time)}

    def leverage(self, bar, account):
        return bar.asked


def trust_data(monkeypatch: Any) -> None:
    """Leave out the check that columns do not look ahead: they are the market's own. Rates of
    funding are larger here than anywhere."""
    sound = lookahead.Causality(cuts=1_000_000, has_columns=True)
    trusted = SimpleNamespace(
        causality=sound, run=lambda observe: observe(), run_briefly=lambda observe, _: observe()
    )
    monkeypatch.setattr(observing, "start_check", lambda *_: trusted)
    monkeypatch.setattr(rules, "HIGHEST_RATE", 1.0)


def run_engine(
    case: PortfolioCase,
    *,
    is_compiled: bool = True,
    stop: int | None = None,
    resume: Any = None,
    terms: Mapping[str, Any] | None = None,
) -> Any:
    """Run a case through the engine, compiled where it is in the cache, or in plain Python. Up to a
    bar of the clock, or on from where an earlier run ended. Runs of one case may share its terms.
    """
    overlay = None
    if case.overlay is not None:
        overlay = Swinging(level=case.overlay.level, hours=case.overlay.every / 3_600_000_000_000)
    policies: Any = {name: choose_policy(case, tape) for name, tape in case.tapes.items()}

    with warnings.catch_warnings(), case.feeding():
        warnings.simplefilter("ignore")
        given = dict(case.for_engine(bt) if terms is None else terms)
        if stop is not None:
            given["market"] = given["market"].prefix(stop)
            given["signal"] = given["signal"].iloc[:stop]
        return bt.run(policy=policies, overlay=overlay, compile=is_compiled, resume=resume, **given)


def assert_agrees(case: PortfolioCase, label: str, *, is_compiled: bool = True) -> Outcome:
    """Run a case through both; the engine must equal the oracle to 1e-9."""
    out = simulate(*case.for_oracle())
    wrong = differences(case, out, run_engine(case, is_compiled=is_compiled))
    assert not wrong, f"{label}:\n" + "\n".join(wrong[:12])
    return out


def floats(values: Any) -> np.ndarray:
    return np.array([math.nan if value is None else float(value) for value in values])


def scales(out: Outcome) -> np.ndarray:
    """The larger of equity and turnover, so far: what rounding is measured by."""
    largest = np.maximum(floats(out.equity), floats(out.traded))
    return np.maximum(np.maximum.accumulate(largest), float(out.capital))


def differences(case: PortfolioCase, out: Outcome, result: Any) -> list[str]:
    """Return where the engine differs from the oracle, first bars first."""
    scale = scales(out)
    last = find_horizon(case, out, result, scale)

    faults: list[tuple[int, str]] = []
    for name, values, expected, weight in compare_columns(case, out, result):
        is_off = ~(np.abs(values - expected) * weight <= TOLERANCE * scale)
        faults += [
            (int(t), f"bar {t} {name}: {values[t]!r}, oracle {expected[t]!r}")
            for t in np.flatnonzero(is_off[:last])[:2]
        ]

    is_spot = any(venue["contract"]["kind"] == "spot" for venue in case.venues.values())
    if result.has_one_position and case.requirement is None and not is_spot:
        faults += compare_prices(case, out, result.bars, scale, last)

    texts = [text for _, text in sorted(faults)]
    if last == len(scale):
        texts += compare_ledger(out, result.events, scale)
        texts += compare_counts(out, result.metrics)
    return texts


def find_horizon(case: PortfolioCase, out: Outcome, result: Any, scale: np.ndarray) -> int:
    """How many bars to compare: up to a fill, or an isolated equity, that is rounding dust. A
    wallet that an order or a withdrawal spent to the last bit holds 0 or some 1e-17 of what it
    held. Whether that buys anything, and whether the account is ruined when its margin is lost too,
    is then decided by rounding."""
    is_dust = np.zeros(len(scale), dtype=bool)
    margins = case.account["margin"]
    modes = margins.values() if isinstance(margins, dict) else [margins]
    if "isolated" in modes:
        for equity in (floats(out.equity), result.bars["equity"].to_numpy()):
            is_dust[1:] |= ((equity != 0) & (np.abs(equity) <= 1e-12 * scale))[:-1]

    events = result.events
    is_fill = read_kinds(events) == "fill"
    stamps = events["time"].array.asi8[is_fill]
    bars = np.searchsorted(result.bars.index.asi8, stamps, side="right") - 1
    amounts = events["amount"].to_numpy()[is_fill]
    is_dust[bars[(amounts > 0) & (amounts <= 1e-12 * scale[bars])]] = True
    return int(np.argmax(is_dust)) if is_dust.any() else len(scale)


def read_kinds(events: pd.DataFrame) -> np.ndarray:
    """Return the kind of each event as an array of words, which compares faster than a column."""
    kinds = events["kind"].array
    return kinds.categories.to_numpy(dtype=object)[kinds.codes]


def compare_columns(
    case: PortfolioCase, out: Outcome, result: Any
) -> Iterator[tuple[str, np.ndarray, np.ndarray, Any]]:
    """Yield name, values of the engine and of the oracle, and the money that a unit of it is."""
    columns = list_columns(result.bars)
    names = [name for name in MONEY if name in columns]
    weight_at_edges = off_edges(case, result)
    for name in names:
        rows = getattr(out, name)
        if isinstance(rows[0], tuple):  # of instruments
            rows = [sum(row) for row in rows]
        weight = weight_at_edges if name in AT_EDGES else 1.0
        yield name, columns[name], floats(rows), weight

    yield compare_ratio(out, columns["margin_ratio"])
    if "option_quantity" in out.columns:
        yield from compare_options(case, out, result)

    held = read_positions(case, result)
    for i, name in enumerate(out.names):
        quantity = floats([row[i] for row in out.quantity])
        margin = floats([row[i] for row in out.margin])
        yield f"quantity of {name}", held["quantity"][i], quantity, value_contracts(case, name)
        yield f"margin of {name}", held["margin"][i], margin, 1.0


def compare_options(
    case: PortfolioCase, out: Outcome, result: Any
) -> Iterator[tuple[str, np.ndarray, np.ndarray, Any]]:
    record = result.record.options
    for k, option in enumerate(case.options):
        quantity = floats([row[k] for row in out.option_quantity])
        mark = floats([row[k] for row in out.option_mark])
        unit = option.size * (1.0 if option.is_coin else option.rows["index_close"])
        yield f"quantity of {option.name}", record.quantity[:, k], quantity, unit
        yield f"mark of {option.name}", record.value[:, k], mark, np.abs(quantity)


def compare_ratio(out: Outcome, values: np.ndarray) -> tuple[str, np.ndarray, np.ndarray, Any]:
    """Return the margin ratio, whose unit is the backing; equal ones, also infinite, as 0."""
    expected = floats(out.margin_ratio)
    backing = floats(out.backing)
    with np.errstate(invalid="ignore"):
        is_same = values == expected
        weight = np.abs(backing) / np.maximum(1.0, expected)

    return (
        "margin_ratio",
        np.where(is_same, 0.0, values),
        np.where(is_same, 0.0, expected),
        np.where(is_same, 0.0, weight),
    )


def off_edges(case: PortfolioCase, result: Any) -> np.ndarray:
    """Return 0 at closes where a notional is the edge of a bracket but for rounding, else 1."""
    off = np.ones(len(result.bars))
    for i, name in enumerate(result.names):
        notional = np.abs(result.notionals[:, i, None])
        caps = np.array([row["cap"] for row in case.venues[name]["brackets"]])
        off[np.any(np.abs(notional / caps - 1.0) <= TOLERANCE, axis=1)] = 0.0
    return off


def compare_prices(
    case: PortfolioCase, out: Outcome, bars: pd.DataFrame, scale: np.ndarray, last: int
) -> list[tuple[int, str]]:
    """Compare the notional at the price of liquidation, or put the price into its equation. A
    position of nothing may have any price; a price at a notional of nothing may be none."""
    (name,) = out.names
    venue = case.venues[name]
    contract = venue["contract"]
    prices = bars["liquidation_price"].to_numpy(float)
    closes = close_of(case, name)

    faults = []
    for t in range(last):
        quantity = float(out.quantity[t][0])
        allowed = TOLERANCE * float(scale[t])
        notional = quantity * value_of(contract, closes[t])
        if abs(notional) <= allowed:
            continue

        expected = out.liquidation_price[t][0]
        known = [float(p) for p in (expected, prices[t]) if p is not None and not math.isnan(p)]
        notionals = [abs(quantity * value_of(contract, price)) for price in known]
        if len(known) < 2:
            is_same = max(notionals, default=0.0) <= allowed
        else:
            # What backs it there, less what it needs there, is 0; or both prices are one.
            change = quantity * (value_of(contract, prices[t]) - value_of(contract, closes[t]))
            needed = out.table[t][0].requirement(Decimal(notionals[1]))
            if venue["venue"]["maintenance_at"] == "entry":
                needed = out.requirement[t]
            left = abs(float(out.backing[t]) + change - float(needed))
            is_same = min(left, abs(notionals[0] - notionals[1])) <= allowed

        if not is_same:
            faults.append((t, f"bar {t} liquidation_price: {prices[t]!r}, oracle {expected}"))
    return faults


def compare_ledger(out: Outcome, events: pd.DataFrame, scale: np.ndarray) -> list[str]:
    """Return the kinds whose totals differ; calls carry no money and are counted."""
    tolerance = TOLERANCE * max(float(sum(out.traded)), float(scale[-1]))
    kinds = read_kinds(events)
    amounts = events["amount"].to_numpy()
    counts = Counter(kinds.tolist())
    expected_counts = Counter(event.kind for event in out.events)

    faults = []
    for kind in KINDS_OF_EVENTS:
        if not (counts[kind] or expected_counts[kind]):
            continue
        total = float(amounts[kinds == kind].sum())
        expected = float(out.total(kind))
        if not abs(total - expected) <= tolerance:
            faults.append(f"ledger {kind}: {total!r}, oracle {expected!r}")
    return faults + [
        f"ledger {kind}: {counts[kind]}, oracle {expected_counts[kind]}"
        for kind in CALLS
        if counts[kind] != expected_counts[kind]
    ]


def compare_counts(out: Outcome, metrics: Any) -> list[str]:
    waits = floats(out.waits)
    expected = {
        "margin_calls": out.count("margin_call"),
        "calls_met": out.count("call_met"),
        "calls_failed": out.count("call_failed"),
        "liquidated_after_call": len(waits),
        "time_to_liquidation_after_call": waits.mean() if len(waits) else math.nan,
        "ambiguous_bars": sum(out.ambiguous),
        "both_reached": sum(out.both_reached),
    }
    faults = []
    for name, value in expected.items():
        found = float(metrics[name])
        is_nan = math.isnan(found) and math.isnan(value)
        is_same = is_nan or math.isclose(found, value, rel_tol=1e-12)
        if not is_same:
            faults.append(f"{name}: {metrics[name]!r}, oracle {value!r}")
    return faults


def read_positions(case: PortfolioCase, result: Any) -> dict[str, np.ndarray]:
    """Return quantities and margins on the clock, by instrument; 0 without a bar."""
    table = result.positions
    codes = table["instrument"].cat.codes.to_numpy()
    positions = {}
    for column in ("quantity", "margin"):
        values = table[column].to_numpy()
        rows = np.zeros((len(case.tapes), len(case.clock)))
        for i, name in enumerate(case.tapes):
            rows[i, place_of(case, name)] = values[codes == i]
        positions[column] = rows
    return positions


def place_of(case: PortfolioCase, name: str) -> slice:
    index = case.tapes[name].bars.index
    first = int(np.searchsorted(case.clock.asi8, index.asi8[0]))
    return slice(first, first + len(index))


def close_of(case: PortfolioCase, name: str) -> np.ndarray:
    tape = case.tapes[name]
    return tape.marks["close"]


def value_of(contract: dict[str, Any], price: Any) -> Any:
    """Return the value of one contract (§1)."""
    size = contract["size"]
    return size * price if contract["kind"] != "inverse" else -size / price


def value_contracts(case: PortfolioCase, name: str) -> np.ndarray:
    """Return the notional of one contract at each close of the clock, 0 without a bar."""
    unit = np.zeros(len(case.clock))
    values = value_of(case.venues[name]["contract"], close_of(case, name))
    unit[place_of(case, name)] = np.abs(values)
    return unit


Bar = tuple[float, float, float, float]
FREE: dict[str, dict[str, Any]] = {**GROUPS, "venue": VENUE_TERMS}
ACCOUNT: dict[str, Any] = {
    **PLAIN_ACCOUNT, "intrabar": "path", "max_gross_leverage": math.inf, "max_overlay": math.inf,
    "negative_limit": None, "conversion": "listed",
}  # fmt: skip


def bracket(rate: float = 0.05, leverage: float = 20.0) -> dict[str, Any]:
    """Return one bracket for any notional: 5 % maintenance, 20 x."""
    return {"floor": 0.0, "cap": 1e12, "max_leverage": leverage, "maintenance_rate": rate}


def tape(
    bars: Sequence[Bar],
    target: Sequence[float] = (),
    funding: Sequence[tuple[float, float, float]] = (),
    first: int = 0,
    columns: Mapping[str, Sequence[float]] | None = None,
) -> Tape:
    """Return hourly bars; the last target is repeated, funding is (hours, rate, own price), and
    the policy observes the columns too, if :data:`tests.cases.OBSERVED` has their names."""
    index = utc(START + HOUR * (first + np.arange(len(bars))))
    frame = pd.DataFrame(bars, columns=["open", "high", "low", "close"], index=index)
    frame = frame.astype(float).assign(volume=1e9)
    if target:
        frame["target"] = [*target, *[target[-1]] * (len(bars) - len(target))]
    frame = frame.assign(**(columns or {}))

    settlements = None
    if funding:
        stamps = utc([round(START + hours * HOUR) for hours, _, _ in funding])
        rows = [(rate, price) for _, rate, price in funding]
        settlements = pd.DataFrame(rows, columns=["rate", "mark"], index=stamps)
    return Tape(frame, None, settlements, HOUR)


def scene(
    tapes: Mapping[str, Tape],
    signal: Mapping[str, float | Sequence[float]],
    *,
    venues: Mapping[str, Mapping[str, Any]] | None = None,
    requirement: dict[str, Any] | None = None,
    collateral: Sequence[tuple[dict[str, Any], Tape]] = (),
    **account: Any,
) -> PortfolioCase:
    """Return an account without costs and with one bracket, but for what is said. ``venues`` has
    changes by group for each instrument, or under ``"*"`` for all."""
    clock: set[int] = set()
    for one in tapes.values():
        clock.update(one.bars.index.asi8)
    columns = {name: np.broadcast_to(signal[name], len(clock)).copy() for name in tapes}
    signals = pd.DataFrame(columns, index=utc(sorted(clock)), dtype=float)

    changes = venues or {}
    of_all = changes.get("*", {})
    return PortfolioCase(
        seed=-1,
        tapes=dict(tapes),
        venues={name: venue_of(of_all, changes.get(name, {})) for name in tapes},
        account=ACCOUNT | account,
        requirement=requirement,
        collateral=list(collateral),
        signal=signals,
        overlay=None,
    )


def make_scene(
    *legs: tuple[Any, ...], signal: Sequence[Any] = (1.0, 1.0, 1.0), **terms: Any
) -> PortfolioCase:
    """Return a scene of A, B and C: bars and targets of each; a tuple has a term of each."""
    tapes = {name: tape(*leg) for name, leg in zip("ABC", legs, strict=False)}
    for term, value in terms.items():
        if type(value) is tuple:
            terms[term] = dict(zip(tapes, value, strict=True))
    return scene(tapes, dict(zip(tapes, signal, strict=False)), **terms)


def venue_of(*changes: Mapping[str, Any]) -> dict[str, Any]:
    venue: dict[str, Any] = {name: dict(group) for name, group in FREE.items()}
    venue["brackets"] = [bracket()]
    for change in changes:
        for name, group in change.items():
            venue[name] = group if name == "brackets" else venue[name] | group
    return venue


def asset(name: str, amount: float, **terms: Any) -> dict[str, Any]:
    plain = {"rate": None, "tiers": None, "slippage": 0.0, "cancels_risk": None}
    return {"name": name, "amount": amount, **plain, **terms}


def play(
    *bars: Bar,
    targets: Sequence[float],
    signals: float | Sequence[float] = 1.0,
    venue: Mapping[str, Any] | None = None,
    funding: Sequence[tuple[float, float, float]] = (),
    **account: Any,
) -> Outcome:
    changes = {"brackets": [bracket(leverage=16.0)]} | (venue or {})
    tapes = {"TEST": tape(bars, targets, funding)}
    case = scene(tapes, {"TEST": signals}, venues={"*": changes}, **account)
    return assert_agrees(case, "by hand").alone()


def later(*bars: Bar, **terms: Any) -> Callable[[], Outcome]:
    return functools.partial(play, *bars, **terms)


def near(value: Any, expected: float | Fraction) -> bool:
    assert float(value) == pytest.approx(float(expected), rel=1e-12, abs=1e-12)
    return True


def scenarios(**terms: Any) -> dict[str, Any]:
    """Return a rule of scenarios: 1 % either way, of each instrument by itself."""
    plain = {
        "level": 1.0, "moves": {"*": [(-0.01, 1.0), (0.01, 1.0)]}, "groups": None, "products": None,
        "across": "independent", "offset": 0.0, "factor": 1.0, "minimum": 0.0, "contingency": 0.0,
        "pair_contingency": 0.0, "initial": None,
    }  # fmt: skip
    return plain | terms


def play_case(case: PortfolioCase) -> Outcome:
    return assert_agrees(case, "by hand")


def play_legs(*legs: tuple[Any, ...], **terms: Any) -> Outcome:
    return play_case(make_scene(*legs, **terms))


def check_outcome(out: Outcome, numbers: Mapping[str, Any]) -> None:
    """Compare what is worked by hand: "equity 2" is of bar 2, "quantity 2 0" of its first position.
    "stop.price" are the prices of all stops, "stop.price 0" is the first, "stop.n" counts them;
    "events.kind" are the kinds of all events."""
    for name, wanted in numbers.items():
        head, *places = name.split()
        kind, _, what = head.partition(".")
        events = out.events if kind == "events" else out.of_kind(kind)
        if not what:
            value = getattr(out, head)
        elif what == "n":
            value = len(events)
        elif what == "total":
            value = out.total(kind)
        else:
            value = [getattr(event, what) for event in events]

        for place in places:
            value = value[int(place)]
        if what in ("kind", "instrument"):
            assert value == wanted, name
        else:
            assert plain(value) == pytest.approx(plain(wanted), rel=1e-12, abs=1e-12), name


def plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return float(value) if isinstance(value, Decimal | Fraction) else value

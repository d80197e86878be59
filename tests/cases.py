"""Accounts as constructor arguments, and random ones: one seed, one case.

Wild on purpose: position sizes reach several brackets, bars move by a good part of the margin, and
opens gap, so that stops, partial liquidations, bad debt and ruin are common. Every random amount is
continuous, so that an exact tie (a size exactly on a lot, an equity exactly at the requirement)
has probability 0.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from tests import draws

PRICES = ("open", "high", "low", "close")


PARTS = ("contract", "fees", "slippage", "liquidation")
DATED = (
    ("fees", "taker"), ("fees", "maker"), ("slippage", "rate"), ("slippage", "spread"),
    ("liquidation", "fee"), ("liquidation", "slippage"),
)  # fmt: skip
GROUP = "pair"
OBSERVED = ("target", "slow", "never", "setting")
"""Columns that the policy of an instrument observes, those of them that its bars have."""


@dataclass(frozen=True, eq=False)
class Tape:
    """The bars, marks and funding of an instrument; two tapes are the same if they are one."""

    bars: pd.DataFrame  # open, high, low, close, volume, and target for an instrument
    mark: pd.DataFrame | None
    funding: pd.DataFrame | None
    interval: int
    root: Tape | None = field(default=None, init=False)  # the same without further columns

    def with_columns(self, **columns: Any) -> Tape:
        """Return the tape with further columns of its bars, which is read from that without."""
        bars = draws.tabulate(self.columns | columns, self.bars.index)
        tape = replace(self, bars=bars)
        object.__setattr__(tape, "root", self.root or self)
        return tape

    @functools.cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """The columns of the bars as arrays, which nobody writes into."""
        return draws.list_columns(self.bars)

    @functools.cached_property
    def marks(self) -> dict[str, np.ndarray]:
        """The columns of the marks, or of the bars if they are their own marks."""
        return self.columns if self.mark is None else draws.list_columns(self.mark)

    def for_oracle(self) -> SimpleNamespace:
        return list_tape(self)

    def for_engine(self, bt: Any, name: str) -> Any:
        return read_tape(self, bt, name)


SHARED = 512
"""Tapes that are kept read: kinds of accounts of one seed have the same, and follow each other."""


@functools.lru_cache(SHARED)
def list_tape(tape: Tape) -> SimpleNamespace:
    """Return the arrays of a tape, which nobody writes into."""
    columns = tape.columns
    paid: dict[str, Any] = dict.fromkeys(("time", "rate", "mark"), np.empty(0))
    if tape.funding is not None:
        paid = draws.list_columns(tape.funding)
        paid["time"] = tape.funding.index.asi8

    return SimpleNamespace(
        time=tape.bars.index.asi8,
        interval=tape.interval,
        **{name: columns[name] for name in (*PRICES, "volume")},
        **{f"mark_{name}": tape.marks[name] for name in PRICES},
        **{f"funding_{name}": values for name, values in paid.items()},
        columns=columns,
        observed=[name for name in OBSERVED if name in columns],
    )


@functools.lru_cache(SHARED)
def read_tape(tape: Tape, bt: Any, name: str) -> Any:
    """Return the market of a tape; the runs of a case share it, for reading it takes their half."""
    if tape.root is not None:
        market = read_tape(tape.root, bt, name)
        known = tape.root.columns
        further = {column: tape.columns[column] for column in tape.columns if column not in known}
        return replace(market, columns={**market.columns, **further})
    return bt.Market.from_frames(
        tape.bars,
        funding=tape.funding,
        mark=tape.mark,
        instrument=name,
        funding_gaps=None if tape.funding is None else "zero",  # stamps anywhere
    )


@functools.lru_cache(SHARED // 4)
def read_tapes(tapes: tuple[tuple[str, Tape], ...], bt: Any) -> Any:
    """Return the markets of tapes by name, with the indices that follow from them."""
    markets = {name: tape.for_engine(bt, name) for name, tape in tapes}
    return bt.Markets(markets, currency="TEST")


@dataclass(frozen=True)
class PortfolioCase:
    seed: int
    tapes: dict[str, Tape]
    venues: dict[str, dict[str, Any]]  # groups of a venue by name, and its own fields under "venue"
    account: dict[str, Any]
    requirement: dict[str, Any] | None  # of ScenarioMargin, or level of Brackets alone
    collateral: list[tuple[dict[str, Any], Tape]]
    signal: pd.DataFrame
    overlay: Swing | None
    counts: bool = False  # whether the policies divide their targets by how often they were asked

    @property
    def clock(self) -> pd.DatetimeIndex:
        return self.signal.index

    def for_oracle(self) -> tuple[Any, ...]:
        markets = {name: tape.for_oracle() for name, tape in self.tapes.items()}
        columns = draws.list_columns(self.signal)
        signals = {name: columns[name] for name in self.tapes}
        venues = {name: plain_venue(venue) for name, venue in self.venues.items()}

        targets: dict[str, Any] = dict.fromkeys(self.tapes, divide_by_count)
        if not self.counts:
            for name, tape in self.tapes.items():
                targets[name] = tape.columns["target"]
                if not tape.bars.index.equals(self.clock):
                    targets[name] = tape.bars["target"].reindex(self.clock).to_numpy()

        requirement = None
        if self.requirement is not None:
            requirement = SimpleNamespace(**self.requirement)
        collateral = [
            SimpleNamespace(**asset, prices=tape.for_oracle()) for asset, tape in self.collateral
        ]
        account = SimpleNamespace(**self.account, requirement=requirement, collateral=collateral)
        return markets, targets, signals, venues, account, self.answer_overlay()

    def answer_overlay(self) -> np.ndarray | None:
        """Return what the overlay answers at each close: NaN before the first weight."""
        if self.overlay is None:
            return None
        answers = self.overlay.answers(self.clock.asi8)
        is_weighted = np.any(self.signal.fillna(0.0).to_numpy() != 0.0, axis=1)
        answers[: int(np.argmax(is_weighted))] = np.nan
        return answers

    def make_rule(self, bt: Any) -> Any:
        rule = self.requirement or {}
        kind = bt.ScenarioMargin if "moves" in rule else bt.Brackets
        return kind(**rule)

    def feeding(self) -> Any:
        return nullcontext()

    def make_markets(self, bt: Any) -> Any:
        """Return the markets of the tapes, those of an earlier case if it had the same tapes."""
        return read_tapes(tuple(self.tapes.items()), bt)

    def for_engine(self, bt: Any) -> dict[str, Any]:
        """Return the keyword arguments ``market``, ``venue``, ``account``, ``signal`` of bt.run."""
        collateral = [
            bt.Collateral(**asset, prices=tape.for_engine(bt, asset["name"]))
            for asset, tape in self.collateral
        ]
        account = bt.Account(**self.account, requirement=self.make_rule(bt), collateral=collateral)
        return {
            "market": self.make_markets(bt),
            "venue": {name: make_venue(bt, venue) for name, venue in self.venues.items()},
            "account": account,
            "signal": self.signal,
        }


def divide_by_count(observed: Mapping[str, float], count: int | None) -> tuple[float, int]:
    """Answer the target over how often the policy was asked, which is its memory."""
    count = (count or 0) + 1
    return observed["target"] / count, count


def plain_venue(venue: dict[str, Any]) -> SimpleNamespace:
    parts = {name: SimpleNamespace(**venue[name]) for name in PARTS}
    brackets = [SimpleNamespace(**row) for row in venue["brackets"]]
    return SimpleNamespace(**parts, brackets=brackets, **venue["venue"])


def make_venue(bt: Any, venue: dict[str, Any]) -> Any:
    tiers = [bt.FeeTier(t.volume, t.taker, t.maker) for t in venue["fees"].get("tiers", ())]
    return bt.Venue(
        contract=bt.Contract(**venue["contract"]),
        brackets=[bt.Bracket(**row) for row in venue["brackets"]],
        fees=bt.Fees(**venue["fees"] | {"tiers": tiers}),
        slippage=bt.Slippage(**venue["slippage"]),
        liquidation=bt.Liquidation(**venue["liquidation"]),
        **dict(venue["venue"]),
    )


@dataclass(frozen=True)
class Swing:
    """An overlay's answers, a function of the time alone: NaN now and then, 0 rarely."""

    level: float
    every: int  # ns

    def answers(self, time: np.ndarray) -> np.ndarray:
        draw = (time // self.every * 2_654_435_761 % 2**32) / 2**32
        answer = self.level * (0.4 + draw)
        answer[draw < 0.15] = np.nan
        answer[draw > 0.96] = 0.0
        return answer


def draw_costs(
    rng: np.random.Generator, tape: Tape, venue: dict[str, Any]
) -> tuple[Tape, dict[str, Any]]:
    """Draw costs of one instrument over time; a requirement with a closing fee has one taker."""
    groups = {name: dict(venue[name]) for name in ("fees", "slippage", "liquidation")}
    stamps = tape.bars.index.asi8
    n = len(stamps)
    groups = {name: dict(venue[name]) for name in ("fees", "slippage", "liquidation")}
    columns = {}
    for group, name in DATED:
        if rng.random() < 0.3 or (name == "taker" and venue["venue"]["includes_close_fee"]):
            continue

        values = max(abs(groups[group].get(name, 0.0)), 1e-4) * rng.uniform(0.1, 3.0, n)
        if rng.random() < 0.5:  # a series
            changes = np.sort(rng.choice(stamps, 3, replace=False)) + 1
            index = draws.utc(np.r_[draws.START - draws.DAY, changes])
            groups[group][name] = pd.Series(np.resize(values, 4), index=index)
        else:  # a column
            values[1:][rng.random(n - 1) < 0.2] = np.nan
            groups[group][name] = f"{group}_{name}"
            columns[f"{group}_{name}"] = values

        groups["fees"].pop("tiers", None)
    return tape.with_columns(**columns), venue | groups


def draw_spot(rng: np.random.Generator, venue: dict[str, Any]) -> dict[str, Any]:
    """Return the venue of a spot leg in the place of one of a perpetual."""
    haircut = 0.0 if rng.random() < 0.15 else float(rng.uniform(0.01, 0.3))
    most = float(rng.uniform(0.2, 0.95)) / max(haircut, 0.04)
    cap = 10.0 ** float(rng.uniform(3.5, 12))
    bracket = {"floor": 0.0, "cap": cap, "max_leverage": most, "maintenance_rate": 0.0}
    terms = venue["venue"] | {
        "maintenance_at": "mark", "includes_close_fee": False, "margin_multiplier": 1.0,
        "profit_counts": "all",
    }  # fmt: skip

    liquidation = dict(venue["liquidation"])
    if liquidation["step"] == "bracket":
        liquidation["step"] = float(rng.uniform(0.1, 0.7))
    spot = {"kind": "spot", "haircut": haircut, "borrow_rate": float(rng.uniform(0.0, 3.0))}
    return venue | {
        "contract": venue["contract"] | spot,
        "brackets": [bracket],
        "venue": terms,
        "liquidation": liquidation,
    }


def draw_holding(rng: np.random.Generator, case: PortfolioCase) -> dict[str, Any]:
    """Draw the longest holding time of each instrument, some without one; or none at all."""
    if rng.random() > 0.4:
        return {}

    hours = next(iter(case.tapes.values())).interval // draws.HOUR
    longest: dict[str, str | None] = {}
    for name in case.tapes:
        is_timed = rng.random() < 0.7
        longest[name] = f"{int(rng.integers(1, 4)) * hours}h" if is_timed else None
    return {"max_holding": longest}


def measure_moves(tape: Tape) -> np.ndarray:
    """Return how far each bar goes from its open to its close, as a logarithm."""
    return np.abs(np.log(tape.columns["close"] / tape.columns["open"]))


def draw_terms(
    rng: np.random.Generator,
    case: PortfolioCase,
    tape: Tape,
    venue: dict[str, Any],
    has_scenarios: bool,
) -> tuple[Tape, dict[str, Any]]:
    """Draw what an instrument may have besides: columns of the market, terms of the venue."""
    capital = case.account["capital"]
    bars = tape.columns
    moves = measure_moves(tape) + 1e-4
    width = np.where(rng.random(len(moves)) < 0.1, np.nan, moves * bars["close"])
    tape = tape.with_columns(sigma=moves, width=width)

    terms = dict(venue["venue"])
    fees = dict(venue["fees"])
    contract = dict(venue["contract"])
    if rng.random() < 0.4:
        fees["per_order"] = capital * float(np.exp(rng.uniform(np.log(1e-5), np.log(0.01))))
    if rng.random() < 0.3 and not terms["includes_close_fee"]:
        volumes = capital * np.cumsum(rng.uniform(0.5, 20.0, 2))
        fees["tiers"] = [
            SimpleNamespace(volume=float(volume), taker=fees["taker"] * cut, maker=-1e-4)
            for volume, cut in zip(volumes, (0.7, 0.4), strict=True)
        ]
    if rng.random() < 0.3:
        contract |= {"round_to_tick": True, "tick": float(bars["low"].min()) * 0.003}
    if not has_scenarios and rng.random() < 0.3:
        terms["margin_multiplier"] = 1.0
        terms["maintenance_multiplier"] = float(rng.uniform(0.8, 2.0))
        terms["initial_multiplier"] = float(rng.uniform(0.5, 2.0))

    return tape, venue | {"fees": fees, "contract": contract, "venue": terms}


def draw_expenses(seed: int, venues: dict[str, dict[str, Any]]) -> None:
    """Let some of the instruments cost something a year: writes into their contracts."""
    rng = np.random.default_rng([seed, 37])
    for venue in venues.values():
        if rng.random() < 0.3:
            venue["contract"]["expense"] = float(rng.uniform(0.001, 1.0))


def make_stage(
    rng: np.random.Generator, settles: str | None = None, *, is_alone: bool = False
) -> draws.Scene:
    """Draw what all instruments share; bars move by a good part of what the leverage bears. An
    account of one instrument lives longer, and is in coins as often as not."""
    is_linear_at = 0.5 if is_alone else 0.85
    low, high = (0.03, 1.0) if is_alone else (0.1, 1.5)
    is_linear = bool(rng.random() < is_linear_at) if settles is None else settles == "cash"
    leverage = float(np.exp(rng.uniform(np.log(1.0), np.log(25))))
    reach = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    n_bars = int(rng.integers(30, 61) if is_alone else rng.integers(6, 13))
    interval = int(rng.choice([draws.HOUR, 4 * draws.HOUR, 8 * draws.HOUR, draws.DAY]))
    capital = float(rng.uniform(5_000, 50_000) if is_linear else rng.uniform(0.5, 5))
    return draws.Scene(
        rng=rng,
        n_bars=n_bars,
        interval=interval,
        price=1.0,
        capital=capital,
        leverage=leverage,
        sigma=min(0.2, reach / max(leverage, 1.0)),
        is_linear=is_linear,
    )


def make_moves(scene: draws.Scene) -> np.ndarray:
    """Draw fat-tailed moves of bars: row 0 inside the bars, row 1 between them."""
    rng = scene.rng
    n = scene.n_bars
    sigma = scene.sigma
    inside = np.clip(rng.standard_t(3, n) * 0.6 * sigma, -0.6, 0.6)
    gaps = np.where(rng.random(n) < scene.pick(0.0, 0.1, 0.4), rng.normal(0, 2 * sigma, n), 0.0)
    gaps[0] = 0.0
    return np.stack([inside, gaps])


def make_tape(scene: draws.Scene, common: np.ndarray) -> Tape:
    rng = scene.rng
    sigma = scene.sigma
    share = scene.pick(0.0, 0.6, 0.95, -0.5)
    moves, gaps = share * common + math.sqrt(1.0 - share**2) * make_moves(scene)
    close = np.log(scene.price) + np.cumsum(moves + gaps)
    start = close - moves

    columns = draws.draw_prices(scene, start, close, sigma)
    mark = None
    if scene.chance(0.5):
        shift = rng.normal(0, sigma * scene.pick(0.02, 0.3), (2, scene.n_bars))
        marks = draws.draw_prices(scene, start + shift[0], close + shift[1], sigma)
        mark = draws.tabulate(marks, scene.clock)

    columns["volume"] = draws.make_volume(scene, columns["close"], {"size": 1.0})
    columns["target"] = draws.make_targets(scene)
    bars = draws.tabulate(columns, scene.clock)
    return Tape(bars, mark, draws.make_funding(scene, columns["close"]), scene.interval)


def list_and_delist(scene: draws.Scene, tapes: dict[str, Tape]) -> dict[str, Tape]:
    """Cut some of the instruments; one stays whole."""
    whole = scene.pick(*tapes)
    result = {}
    for name, tape in tapes.items():
        n = len(tape.bars)
        first = 0
        last = n
        if name != whole and scene.chance(0.25):
            first = int(scene.rng.integers(0, n // 2))
        if name != whole and scene.chance(0.25):
            last = int(scene.rng.integers(n // 2 + 2, n + 1))
        result[name] = cut(tape, first, last)
    return result


def cut(tape: Tape, first: int, last: int) -> Tape:
    bars = tape.bars.iloc[first:last]
    mark = None if tape.mark is None else tape.mark.iloc[first:last]
    funding = tape.funding
    if funding is not None:
        start = bars.index.asi8[0]
        end = bars.index.asi8[-1] + tape.interval
        low, high = np.searchsorted(funding.index.asi8, [start, end])
        funding = funding.iloc[low:high] if high > low else None
    return replace(tape, bars=bars, mark=mark, funding=funding)


def make_overlay(scene: draws.Scene, tapes: Mapping[str, Tape]) -> Swing | None:
    """Draw an overlay now and then, where no short of a portfolio of 1x is lost within a bar."""
    swing = None
    if scene.chance(0.3):
        swing = Swing(scene.uniform(0.3, 1.3), scene.interval)

    for tape in tapes.values():
        opens = tape.columns["open"]
        highest = tape.columns["high"].copy()
        highest[:-1] = np.fmax(highest[:-1], opens[1:])
        if np.max(highest / opens) >= 1.9:
            return None
    return swing


def make_signal(
    scene: draws.Scene, tapes: Mapping[str, Tape], weights: Mapping[str, float]
) -> pd.DataFrame:
    """Draw direction x weight by bar and instrument; some flips, some cells empty."""
    rng = scene.rng
    columns = {}
    for name in tapes:
        n = scene.n_bars
        flips = np.cumprod(np.where(rng.random(n) < scene.pick(0.0, 0.1, 0.3), -1.0, 1.0))
        signal = scene.pick(1.0, -1.0) * weights[name] * flips
        if scene.chance(0.3):
            signal = signal * rng.uniform(0.2, 1.0, n)
        signal[rng.random(n) < scene.pick(0.0, 0.1)] = np.nan
        columns[name] = signal
    return draws.tabulate(columns, scene.clock)


def make_shared(scene: draws.Scene) -> dict[str, Any]:
    return {
        **draws.make_carry(scene),
        "call_grace": int(scene.rng.integers(0, 3)) if scene.chance(0.3) else None,
        "mode": scene.pick("close", "takeover", "partial", "partial", "partial"),
    }


def make_one_venue(scene: draws.Scene, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Draw the venue of one instrument; what all share is given."""
    fees = draws.make_fees(scene)
    liquidation = draws.make_liquidation(scene) | {"mode": shared["mode"], "impact": 0.0}
    if shared["mode"] != "partial":
        liquidation["full_below"] = 0.0
    if shared["mode"] != "takeover" and scene.chance(0.2):
        liquidation["impact"] = scene.uniform(0.05, 0.4) / (draws.DAY // scene.interval) ** 0.5

    kind = scene.pick("one", "one", "scalar", "series")
    scalar = scene.uniform(1.0, 2.0)  # drawn for all kinds
    terms = {name: value for name, value in shared.items() if name != "mode"}
    terms["maintenance_at"] = "entry" if scene.chance(0.15) else "mark"
    terms["includes_close_fee"] = scene.chance(0.25)
    terms["margin_multiplier"] = 1.0
    if kind == "scalar":
        terms["margin_multiplier"] = scalar
    elif kind == "series":
        terms["margin_multiplier"] = draws.make_series(scene, 1.0, 2.0)
    terms["profit_counts"] = scene.pick("all", "all", "losses", scene.uniform(0.0, 1.0))

    return {
        "contract": draws.make_contract(scene),
        "brackets": draws.make_brackets(scene, fees["taker"]),
        "fees": fees,
        "slippage": draws.make_slippage(scene),
        "liquidation": liquidation,
        "venue": terms,
    }


def make_case(seed: int) -> PortfolioCase:
    """Return the random account of one instrument of a seed, some with a least leverage."""
    rng = np.random.default_rng([seed, 17])
    scene = make_stage(rng, is_alone=True)
    case = draw_case(seed, scene, ["TEST"])
    least = scene.sometimes(0.15, 0.0, 0.5) * scene.leverage
    return replace(case, account=case.account | {"min_leverage": least})


Maker = Callable[..., PortfolioCase]


def drawn_once(make: Maker) -> Maker:
    """Keep the last cases that a function has drawn. What is made of a case writes into its terms:
    it gets a copy of them, with the same tapes."""
    draw = functools.lru_cache(maxsize=64)(make)

    @functools.wraps(make)
    def make_copy(*seed: Any, **terms: Any) -> PortfolioCase:
        case = draw(*seed, **terms)
        return replace(
            case,
            tapes=dict(case.tapes),
            venues=copy_terms(case.venues),
            account=copy_terms(case.account),
            requirement=copy_terms(case.requirement),
            collateral=[(copy_terms(asset), tape) for asset, tape in case.collateral],
        )

    return make_copy


def copy_terms(terms: Any) -> Any:
    """Return tables and lists within each other as new ones, with the same values."""
    if isinstance(terms, dict):
        return {name: copy_terms(each) for name, each in terms.items()}
    if isinstance(terms, list):
        return [copy_terms(each) for each in terms]
    return terms


@drawn_once
def make_portfolio_case(seed: int, settles: str | None = None) -> PortfolioCase:
    """Return the random account of a seed; all of it settles in "cash" or in a "coin" if said."""
    rng = np.random.default_rng([seed, 18])
    scene = make_stage(rng, settles)
    names = [f"I{k}" for k in range(int(rng.integers(1, 6)))]
    return draw_case(seed, scene, names, settles)


def draw_case(
    seed: int, scene: draws.Scene, names: list[str], settles: str | None = None
) -> PortfolioCase:
    """Draw the parts of a case, each for all instruments before the next."""
    rng = scene.rng
    weights = rng.dirichlet(np.full(len(names), 2.0)) if len(names) > 1 else np.ones(1)
    common = make_moves(scene)

    scenes = {}
    for name, weight in zip(names, weights, strict=True):
        price = scene.spread(10, 50_000)
        is_alike = scene.chance(0.95) or settles
        scenes[name] = replace(
            scene,
            price=price,
            capital=scene.capital * float(weight),
            is_linear=scene.is_linear if is_alike else not scene.is_linear,
        )

    shared = make_shared(scene)
    tapes = {name: make_tape(one, common) for name, one in scenes.items()}
    if len(names) > 1:
        tapes = list_and_delist(scene, tapes)
    venues = {name: make_one_venue(one, shared) for name, one in scenes.items()}

    requirement = make_requirement(scene, names, venues)
    has_scenarios = requirement is not None and "moves" in requirement
    collateral = make_collateral(scene, common, requirement)
    account = make_account(scene, names, venues, has_collateral=bool(collateral))

    order = make_order(scene, names, is_scenario=has_scenarios)
    for venue in venues.values():
        venue["liquidation"]["order"] = order
        if venue["liquidation"]["step"] == "bracket" and has_scenarios:
            venue["liquidation"]["step"] = scene.uniform(0.1, 0.7)

    signal = make_signal(scene, tapes, dict(zip(names, weights, strict=True)))
    return PortfolioCase(
        seed=seed,
        tapes=tapes,
        venues=venues,
        account=account,
        requirement=requirement,
        collateral=collateral,
        signal=signal,
        overlay=make_overlay(scene, tapes),
    )


def make_mode_case(seed: int, make: Maker = make_portfolio_case) -> PortfolioCase:
    """Return the account of a seed with a fill mode, and an equity stop or a health factor. A
    health factor needs partial liquidations under brackets."""
    case = make(seed)
    rng = np.random.default_rng([seed, 19])
    stop = float(rng.uniform(0.05, 0.6)) if rng.random() < 0.6 else None
    fill = str(rng.choice(["next_open", "next_close", "same_close"], p=[0.2, 0.4, 0.4]))

    has_scenarios = case.requirement is not None and "moves" in case.requirement
    for venue in case.venues.values():
        is_partial = venue["liquidation"]["mode"] == "partial" and not has_scenarios
        if is_partial and rng.random() < 0.6:
            venue["liquidation"]["full_below_health"] = float(rng.uniform(0.9, 1.0))
    return replace(case, account={**case.account, "fill": fill, "equity_stop": stop})


@drawn_once
def make_full_case(seed: int, make: Maker = make_portfolio_case) -> PortfolioCase:
    """Return the account of a seed with terms that few accounts have, and stops of every kind.
    Fixed fees, tiers, ticks, automatic margin, two multipliers, open interest, exits by columns."""
    case = make_mode_case(seed, make)
    rng = np.random.default_rng([seed, 20])
    account = dict(case.account)
    is_isolated = set(account["margin"].values()) == {"isolated"}
    account["auto_margin"] = is_isolated and bool(rng.random() < 0.6)

    moves = [np.mean(measure_moves(tape)) for tape in case.tapes.values()]
    sigma = float(np.mean(moves))
    account |= draws.draw_exits(rng, sigma + 1e-4, "trailing_stop", "take_profit")

    has_scenarios = case.requirement is not None and "moves" in case.requirement
    tapes = {}
    venues = {}
    for name, tape in case.tapes.items():
        tapes[name], venues[name] = draw_terms(rng, case, tape, case.venues[name], has_scenarios)
    draw_expenses(seed, venues)
    return replace(case, tapes=tapes, venues=venues, account=account)


def make_exit_case(seed: int) -> PortfolioCase:
    """Return the same with one instrument."""
    return make_full_case(seed, make_case)


def make_margin_case(seed: int) -> PortfolioCase:
    """Return the account of a seed whose isolated positions have a setting for each bar. Now and
    then NaN, infinite, over what the venue allows or under what the wallet can post. Also with time
    stops."""
    case = make_full_case(seed)
    rng = np.random.default_rng([seed, 36])
    account = dict(case.account) | draw_holding(rng, case)
    account["margin"] = dict(account["margin"])
    account["venue_leverage"] = {}
    for venue in case.venues.values():
        venue["fees"].pop("tiers", None)

    tapes = {}
    for name, tape in case.tapes.items():
        most = case.venues[name]["brackets"][0]["max_leverage"]
        usual = float(min(most, max(1.0, most ** rng.uniform(0.1, 1.0))))
        setting = case.account["venue_leverage"][name]
        is_isolated = account["margin"][name] == "isolated" or rng.random() < 0.7
        account["margin"][name] = "isolated" if is_isolated else "cross"
        account["venue_leverage"][name] = usual if is_isolated and setting is None else setting

        tapes[name] = tape
        if is_isolated:
            n = len(tape.bars)
            asked = usual * rng.choice([0.3, 0.7, 1.0, 1.0, 1.5, 4.0, np.inf], n)
            asked[rng.random(n) < 0.3] = np.nan
            tapes[name] = tape.with_columns(setting=asked)

    return replace(case, tapes=tapes, account=account)


def make_cold_case(seed: int) -> PortfolioCase:
    """Return the account of a seed whose policies observe columns that begin late, break off or
    never come, and every second time remember how often they were asked. Settings begin late too,
    where there are any."""
    make = (make_exit_case, make_full_case, make_margin_case, make_limit_case)[seed % 4]
    case = make(seed)
    rng = np.random.default_rng([seed, 38])
    tapes = {}
    for name, tape in case.tapes.items():
        n = len(tape.bars)
        slow = rng.normal(0.0, 1.0, n)
        slow[rng.random(n) < 0.2] = np.nan
        slow[: int(rng.integers(0, n // 2))] = np.nan

        columns = {"slow": slow}
        if rng.random() < 0.3:
            columns["never"] = np.full(n, np.nan)
        if "setting" in tape.bars:
            setting = tape.columns["setting"].copy()
            setting[: int(rng.integers(0, n // 2))] = np.nan
            columns["setting"] = setting

        tapes[name] = tape.with_columns(**columns)
    return replace(case, tapes=tapes, counts=seed // 4 % 2 == 1)


@drawn_once
def make_dated_case(seed: int) -> PortfolioCase:
    """Return the account of a seed with costs that change over time: series, columns, spreads."""
    case = make_full_case(seed)
    rng = np.random.default_rng([seed, 21])
    tapes = {}
    venues = {}
    for name, tape in case.tapes.items():
        tapes[name], venues[name] = draw_costs(rng, tape, case.venues[name])
    return replace(case, tapes=tapes, venues=venues)


def make_limit_case(seed: int) -> PortfolioCase:
    """Return the account of a seed whose orders rest at limits."""
    case = make_dated_case(seed)
    rng = np.random.default_rng([seed, 22])
    account = {**case.account, "fill": "limit", "intrabar": "path"}

    spans = [np.mean(tape.bars["high"] / tape.bars["low"] - 1.0) for tape in case.tapes.values()]
    typical = np.mean(spans)
    offsets = {name: float(typical * rng.uniform(0.0, 0.6)) for name in case.tapes}
    account["offset"] = offsets if rng.random() < 0.5 else offsets[min(offsets)]
    account["closing"] = str(rng.choice(["market", "limit"]))
    if rng.random() < 0.3:
        hours = int(rng.integers(1, 5)) * next(iter(case.tapes.values())).interval // draws.HOUR
        account["max_holding"] = f"{max(hours, 1)}h"

    venues = {}
    for name, venue in case.venues.items():
        venues[name] = venue | {"fees": venue["fees"] | {"maker_share": 0.0}}
    return replace(case, account=account, venues=venues)


def make_spot_case(seed: int) -> PortfolioCase:
    """Return the account of a seed with some of its linear instruments as spot legs. The next
    seed's, if all of its instruments are inverse."""
    case = make_mode_case(seed)
    rng = np.random.default_rng([seed, 21])
    linear = [name for name, venue in case.venues.items() if venue["contract"]["kind"] == "linear"]
    if not linear:
        return make_spot_case(seed + 1)

    legs = [name for name in linear if rng.random() < 0.4] or linear[:1]
    account = dict(case.account)
    account["margin"] = dict(account["margin"])
    account["venue_leverage"] = dict(account["venue_leverage"])
    venues = {}
    for name, venue in case.venues.items():
        terms = venue["venue"] | {"interest_on": "balance", "short_rate": 0.0}
        liquidation = dict(venue["liquidation"])
        liquidation.pop("full_below_health", None)
        venues[name] = venue | {"venue": terms, "liquidation": liquidation}
        if name not in legs:
            continue

        venues[name] = draw_spot(rng, venues[name])
        account["margin"][name] = "cross"
        setting = account["venue_leverage"][name]
        if setting is not None:
            most = venues[name]["brackets"][0]["max_leverage"]
            account["venue_leverage"][name] = min(setting, most)

    for name in case.venues:  # the pool is liquidated in one mode
        if account["margin"][name] == "cross":
            assert venues[name]["liquidation"]["mode"] == venues[legs[0]]["liquidation"]["mode"]
    draw_expenses(seed, venues)
    return replace(case, venues=venues, account=account)


def make_order(scene: draws.Scene, names: list[str], *, is_scenario: bool) -> Any:
    kind = scene.pick(
        None, "most_relief", "largest_loss", "largest_requirement", "largest_notional", "names"
    )
    if kind == "names":
        return tuple(scene.rng.permutation(names))
    return kind


def make_requirement(
    scene: draws.Scene, names: list[str], venues: dict[str, dict[str, Any]]
) -> dict[str, Any] | None:
    """Draw a rule of scenarios, a level of brackets, or None; writes multipliers of 1."""
    level = scene.sometimes(0.4, 0.9, 1.3, 1.0)
    if scene.chance(0.5):
        return None if level == 1.0 else {"level": level}

    for venue in venues.values():
        venue["venue"]["margin_multiplier"] = 1.0
    grouped = [name for name in names if scene.chance(0.5)]
    groups = {GROUP: grouped} if len(grouped) > 1 else {}
    free = [name for name in names if not groups or name not in grouped]
    across = scene.pick("independent", "same row")
    is_same_row = across == "same row"

    # Moves up and down, none too small, of which each group has its own scale.
    reach = min(0.5, scene.spread(0.02, 0.5) / scene.leverage**0.5)
    steps = reach * np.linspace(-1.0, 1.0, int(scene.rng.integers(2, 6)))
    rows = [(float(step), scene.uniform(0.7, 1.0)) for step in steps if abs(step) > 1e-3]
    moves = {}
    for group in (*groups, *free):
        scale = scene.uniform(0.5, 1.5)
        moves[group] = [(move * scale, weight) for move, weight in rows]

    factor = scene.uniform(0.7, 1.1)
    contingency = scene.sometimes(0.4, 0.0, 0.02)
    more = scene.uniform(1.05, 1.6)
    fixed = contingency + scene.sometimes(0.4, 0.0, 0.02)
    least = max(1.0, level)  # accounts fail at the level times the requirement
    initial = (max(more, least) * factor, max(fixed, least * contingency))
    in_products = is_same_row and len(moves) > 1 and scene.chance(0.4)
    return {
        "level": level,
        "moves": moves,
        "groups": groups or None,
        "products": {"first": list(moves)[:-1]} if in_products else None,
        "across": across,
        "offset": scene.pick(0.0, 1.0, scene.uniform(0.0, 1.0)) if is_same_row else 0.0,
        "factor": factor,
        "minimum": scene.sometimes(0.4, 0.0, 0.03),
        "contingency": contingency,
        "pair_contingency": scene.sometimes(0.3, 0.0, 0.03),
        "initial": initial if scene.chance(0.8) or level > 1.0 else None,
    }


def make_collateral(
    scene: draws.Scene, common: np.ndarray, requirement: dict[str, Any] | None
) -> list[tuple[dict[str, Any], Tape]]:
    if not scene.chance(0.35):
        return []

    result = []
    for k in range(int(scene.rng.integers(1, 3))):
        tape = make_tape(replace(scene, price=scene.spread(1.0, 1000.0)), common)
        columns = {name: values for name, values in tape.columns.items() if name != "target"}
        tape = replace(tape, funding=None, bars=draws.tabulate(columns, scene.clock))

        worth = scene.capital * scene.spread(0.05, 1.5)
        rate = scene.uniform(0.5, 1.0)
        cap = worth * scene.uniform(0.4, 1.2)
        tiers = [(0.0, cap, rate), (cap, 3.0 * cap, rate * scene.uniform(0.2, 0.95))]
        has_tiers = scene.chance(0.5)

        cancels = None
        if requirement is not None and "moves" in requirement and scene.chance(0.5):
            cancels = scene.pick(*requirement["moves"])
        asset = {
            "name": f"C{k}",
            "amount": worth / float(columns["open"][0]),
            "rate": None if has_tiers else rate,
            "tiers": tiers if has_tiers else None,
            "slippage": scene.sometimes(0.7, 0.0, 0.02),
            "cancels_risk": cancels,
        }
        result.append((asset, tape))
    return result


def make_account(
    scene: draws.Scene,
    names: list[str],
    venues: Mapping[str, dict[str, Any]],
    *,
    has_collateral: bool,
) -> dict[str, Any]:
    """Draw the account: margin modes and settings by instrument, or one for all."""
    call = scene.spread(0.05, 0.9) if scene.chance(0.5) else None
    if call is None:
        for venue in venues.values():
            venue["venue"]["call_grace"] = None
    has_reserve = call is not None and scene.chance(0.6)

    kind = scene.pick("cross", "cross", "cross", "mixed", "mixed", "isolated")
    margin = {}
    for name in names:
        margin[name] = scene.pick("cross", "isolated") if kind == "mixed" else kind

    settings = {}
    for name in names:
        most = venues[name]["brackets"][0]["max_leverage"]
        settings[name] = min(most, max(1.0, scene.leverage * scene.spread(0.5, 4.0)))
    if scene.chance(0.6):  # cross positions have no setting
        for name in names:
            if margin[name] == "cross":
                settings[name] = None

    stops = {name: min(0.9, scene.uniform(0.5, 4.0) * scene.sigma) for name in names}
    return {
        "capital": scene.capital,
        "margin": margin,
        "venue_leverage": settings,
        "min_leverage": 0.0,
        "max_leverage": scene.sometimes(0.3, 0.6, 2.0, np.inf) * scene.leverage,
        "band": scene.sometimes(0.4, 0.0, 0.25) * scene.leverage,
        "stop_loss": stops if scene.chance(0.35) else None,
        "margin_call": call,
        "reserve": scene.uniform(0.0, 1.5) * scene.capital if has_reserve else 0.0,
        "top_up_to": call * scene.uniform(0.3, 0.9) if has_reserve else None,
        "after_liquidation": "halt" if scene.chance(0.15) else "continue",
        "flows": draws.make_flows(scene) if scene.chance(0.4) else None,
        "ruin_at": scene.sometimes(0.3, 0.02, 0.6, None),
        "intrabar": scene.pick("path", "path", "worst"),
        "max_gross_leverage": scene.sometimes(0.5, 0.15, 1.2, np.inf) * scene.leverage,
        "max_overlay": scene.sometimes(0.3, 0.5, 1.5, np.inf),
        "negative_limit": scene.pick(0.0, 0.2) * scene.capital if has_collateral else None,
        "conversion": scene.pick("listed", "pro_rata") if has_collateral else "listed",
    }

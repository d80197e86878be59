"""Accounts as constructor arguments, and random ones of one instrument: one seed, one case.

Wild on purpose: position sizes reach several brackets, bars move by a good part of the margin, and
opens gap, so that stops, partial liquidations, bad debt and ruin are common. Every random amount is
continuous, so that an exact tie (a size exactly on a lot, an equity exactly at the requirement)
has probability 0.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from tests import draws
from tests.draws import DAY, START, Scene, utc

PRICES = ("open", "high", "low", "close")
PARTS = ("contract", "fees", "slippage", "liquidation")


@dataclass(frozen=True)
class Tape:
    """The market of one instrument, or of collateral."""

    bars: pd.DataFrame  # open, high, low, close, volume, and target for an instrument
    mark: pd.DataFrame | None
    funding: pd.DataFrame | None
    interval: int

    def for_oracle(self) -> SimpleNamespace:
        """Return the arrays that the oracle takes."""
        mark = self.bars if self.mark is None else self.mark
        empty = pd.DataFrame({"rate": [], "mark": []}, index=utc([]))
        funding = empty if self.funding is None else self.funding
        return SimpleNamespace(
            time=self.bars.index.asi8,
            interval=self.interval,
            **{name: self.bars[name].to_numpy() for name in (*PRICES, "volume")},
            **{f"mark_{name}": mark[name].to_numpy() for name in PRICES},
            funding_time=funding.index.asi8,
            funding_rate=funding["rate"].to_numpy(),
            funding_mark=funding["mark"].to_numpy(),
            columns={name: self.bars[name].to_numpy() for name in self.bars},
        )

    def for_engine(self, bt: Any, name: str) -> Any:
        """Return a Market."""
        return bt.Market.from_frames(
            self.bars,
            funding=self.funding,
            mark=self.mark,
            instrument=name,
            funding_gaps=None if self.funding is None else "zero",  # stamps anywhere
        )


@dataclass(frozen=True)
class PortfolioCase:
    """Constructor arguments of one random account."""

    seed: int
    tapes: dict[str, Tape]
    venues: dict[str, dict[str, Any]]  # groups of a venue by name, and its own fields under "venue"
    account: dict[str, Any]
    requirement: dict[str, Any] | None  # of ScenarioMargin, or level of Brackets alone
    collateral: list[tuple[dict[str, Any], Tape]]
    signal: pd.DataFrame
    overlay: Swing | None

    @property
    def clock(self) -> pd.DatetimeIndex:
        """The union of the open times."""
        return self.signal.index

    def for_oracle(self) -> tuple[Any, ...]:
        """Return what ``oracle.simulate`` takes."""
        markets = {name: tape.for_oracle() for name, tape in self.tapes.items()}
        targets = {
            name: tape.bars["target"].reindex(self.clock).to_numpy()
            for name, tape in self.tapes.items()
        }
        signals = {name: self.signal[name].to_numpy() for name in self.tapes}
        venues = {name: plain_venue(venue) for name, venue in self.venues.items()}
        requirement = None
        if self.requirement is not None:
            requirement = SimpleNamespace(**self.requirement)
        collateral = [
            SimpleNamespace(**asset, prices=tape.for_oracle()) for asset, tape in self.collateral
        ]
        terms = self.account
        account = SimpleNamespace(**terms, requirement=requirement, collateral=collateral)
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
        """Return the margin rule."""
        rule = self.requirement or {}
        return (bt.ScenarioMargin if "moves" in rule else bt.Brackets)(**rule)

    def feeding(self) -> Any:
        """What a run of the engine happens in."""
        return nullcontext()

    def for_engine(self, bt: Any) -> dict[str, Any]:
        """Return the keyword arguments ``market``, ``venue``, ``account``, ``signal`` of bt.run."""
        terms = self.account
        collateral = [
            bt.Collateral(**asset, prices=tape.for_engine(bt, asset["name"]))
            for asset, tape in self.collateral
        ]
        return {
            "market": bt.Markets(
                {name: tape.for_engine(bt, name) for name, tape in self.tapes.items()},
                currency="TEST",
            ),
            "venue": {name: make_venue(bt, venue) for name, venue in self.venues.items()},
            "account": bt.Account(**terms, requirement=self.make_rule(bt), collateral=collateral),
            "signal": self.signal,
        }


def plain_venue(venue: dict[str, Any]) -> SimpleNamespace:
    """Return the parts of a venue as the oracle takes them."""
    parts = {name: SimpleNamespace(**venue[name]) for name in PARTS}
    brackets = [SimpleNamespace(**row) for row in venue["brackets"]]
    return SimpleNamespace(**parts, brackets=brackets, **venue["venue"])


def make_venue(bt: Any, venue: dict[str, Any]) -> Any:
    """Return the parts of a venue as a Venue."""
    tiers = [bt.FeeTier(t.volume, t.taker, t.maker) for t in venue["fees"].get("tiers", ())]
    own = dict(venue["venue"])
    if own.get("open_interest_margin") is not None:
        own["open_interest_margin"] = bt.OpenInterestMargin(**vars(own["open_interest_margin"]))
    return bt.Venue(
        contract=bt.Contract(**venue["contract"]),
        brackets=[bt.Bracket(**row) for row in venue["brackets"]],
        fees=bt.Fees(**venue["fees"] | {"tiers": tiers}),
        slippage=bt.Slippage(**venue["slippage"]),
        liquidation=bt.Liquidation(**venue["liquidation"]),
        **own,
    )


@dataclass(frozen=True)
class Swing:
    """An overlay's answers, a function of the time alone: NaN now and then, 0 rarely."""

    level: float
    every: int  # ns

    def answers(self, time: np.ndarray) -> np.ndarray:
        """Return the leverage at the close of each bar."""
        draw = (time // self.every * 2_654_435_761 % 2**32) / 2**32
        answer = self.level * (0.4 + draw)
        answer[draw < 0.15] = np.nan
        answer[draw > 0.96] = 0.0
        return answer


@dataclass(frozen=True)
class Case:
    """Constructor arguments of one random run of one instrument."""

    seed: int
    interval: int
    bars: pd.DataFrame  # open, high, low, close, volume, target
    mark: pd.DataFrame | None
    funding: pd.DataFrame | None  # rate, mark
    signal: pd.Series
    contract: dict[str, Any]
    brackets: list[dict[str, Any]]
    fees: dict[str, Any]
    slippage: dict[str, Any]
    liquidation: dict[str, Any]
    venue: dict[str, Any]
    account: dict[str, Any]

    def whole(self) -> PortfolioCase:
        """Return it as an account of one instrument, TEST."""
        parts = {name: getattr(self, name) for name in (*PARTS, "brackets", "venue")}
        return PortfolioCase(
            seed=self.seed,
            tapes={"TEST": Tape(self.bars, self.mark, self.funding, self.interval)},
            venues={"TEST": parts},
            account=self.account,
            requirement=None,
            collateral=[],
            signal=self.signal.to_frame("TEST"),
            overlay=None,
        )

    def for_engine(self, bt: Any) -> dict[str, Any]:
        """Return the keyword arguments ``market``, ``venue``, ``account``, ``signal`` of bt.run."""
        case = self.whole()
        return {
            "market": case.tapes["TEST"].for_engine(bt, "TEST"),
            "venue": make_venue(bt, case.venues["TEST"]),
            "account": bt.Account(**self.account),
            "signal": self.signal,
        }


def make_case(seed: int) -> Case:
    """Return the random case of a seed."""
    scene = draws.make_scene(np.random.default_rng(seed))
    bars, mark = draws.make_prices(scene)
    contract = draws.make_contract(scene)
    bars["volume"] = draws.make_volume(scene, bars, contract)
    bars["target"] = draws.make_targets(scene)
    fees = draws.make_fees(scene)
    brackets = draws.make_brackets(scene, fees["taker"])
    case = Case(
        seed=seed,
        interval=scene.interval,
        bars=bars,
        mark=mark,
        funding=draws.make_funding(scene, bars),
        signal=pd.Series(draws.make_signals(scene), index=bars.index),
        contract=contract,
        brackets=brackets,
        fees=fees,
        slippage=draws.make_slippage(scene),
        liquidation=draws.make_liquidation(scene),
        venue=draws.make_terms(scene),
        account=draws.make_account(scene, brackets),
    )
    case = with_ruin(case, np.random.default_rng([seed, 1]))
    return with_terms(replace(scene, rng=np.random.default_rng([seed, 2])), case)


def with_ruin(case: Case, rng: np.random.Generator) -> Case:
    """Return a case with a line of ruin, or a liquidation that takes all, now and then.

    A fee of exactly the maintenance rate leaves nothing but rounding where one bracket holds.
    """
    if rng.random() < 0.3:
        case = replace(case, account={**case.account, "ruin_at": float(rng.uniform(0.02, 0.95))})
    if rng.random() < 0.2:
        first = case.brackets[0]
        whole = {**first, "cap": np.inf}
        fee = {"fee": first["maintenance_rate"], "slippage": 0.0}
        case = replace(case, brackets=[whole], liquidation={**case.liquidation, **fee})
    return case


def with_two_multipliers(case: Case, rng: np.random.Generator) -> Case:
    """Return a case with a multiplier for each kind of margin, or one from open interest."""
    venue = {**case.venue, "margin_multiplier": 1.0}
    if rng.random() < 0.5:
        venue["maintenance_multiplier"] = float(rng.uniform(0.8, 2.5))
    n = len(case.bars)
    if rng.random() < 0.5:
        stamps = np.unique(np.r_[START - DAY, rng.integers(START, START + n * case.interval, 6)])
        values = pd.Series(rng.uniform(0.5, 4.0, stamps.size), index=utc(stamps))
        return replace(case, venue={**venue, "initial_multiplier": values})
    venue["open_interest_margin"] = SimpleNamespace(column="open_interest", lower=2e7, upper=5e7)
    most = case.brackets[-1]["max_leverage"]
    if most < max(1.0, case.account["venue_leverage"] or 0.0, case.account["min_leverage"]):
        return case
    brackets = [{**row, "max_leverage": most} for row in case.brackets]
    bars = case.bars.assign(open_interest=rng.uniform(0.0, 7e7, n))
    return replace(case, bars=bars, brackets=brackets, venue=venue)


def with_limits(case: Case, rng: np.random.Generator) -> Case:
    """Return a case with a limit of leverage by date: none, some of the targets, or a ban."""
    stamps = np.unique(
        np.r_[START - DAY, rng.integers(START, START + len(case.bars) * case.interval, 6)]
    )
    most = np.nanmax(np.where(np.isfinite(case.bars["target"]), case.bars["target"], 0.0))
    values = rng.uniform(0.1, 1.0, stamps.size) * most + 0.01
    values[rng.random(stamps.size) < 0.2] = np.inf
    values[rng.random(stamps.size) < 0.15] = 0.0
    limit = pd.Series(values, index=utc(stamps))
    account = {**case.account, "max_leverage": limit, "min_leverage": 0.0}
    return replace(case, account=account)


def with_terms(scene: Scene, case: Case) -> Case:
    """Return a case with a fixed fee, profits that do not count, calls with a grace, and so on."""
    fees, liquidation = dict(case.fees), dict(case.liquidation)
    account, venue = dict(case.account), dict(case.venue)
    fee = scene.capital * scene.spread(1e-5, 0.02)
    kind = scene.pick("none", "none", "one", "series")
    fees["per_order"] = {"none": 0.0, "one": fee}.get(kind)
    if kind == "series":
        fees["per_order"] = draws.make_series(scene, 0.0, fee)
    liquidation["impact"] = 0.0
    if case.liquidation["mode"] != "takeover" and scene.chance(0.3):
        liquidation["impact"] = scene.uniform(0.05, 0.4) / (DAY // scene.interval) ** 0.5
    venue["profit_counts"] = scene.pick("all", "all", "losses", scene.uniform(0.0, 1.0))
    if account["margin_call"] is not None and scene.chance(0.35):
        venue["call_grace"] = int(scene.rng.integers(0, 4))
    account["auto_margin"] = scene.is_isolated and scene.chance(0.4)
    return replace(case, fees=fees, liquidation=liquidation, venue=venue, account=account)


def make_exit_case(seed: int) -> Case:
    """Return the case of a seed with a fill mode, and stops of every kind now and then."""
    case, rng = make_case(seed), np.random.default_rng([seed, 2])
    bars = case.bars
    moves = np.abs(np.log(bars["close"] / bars["open"])).rolling(5).mean().to_numpy() + 1e-4
    width = moves * bars["close"].to_numpy()
    width[rng.random(len(width)) < 0.1] = np.nan
    exits = {
        "fill": str(rng.choice(["next_open", "next_close", "same_close"])),
        "equity_stop": float(rng.uniform(0.05, 0.6)) if rng.random() < 0.4 else None,
    }
    typical = float(np.nanmean(moves))
    exits |= draws.draw_exits(rng, typical, "stop_loss", "trailing_stop", "take_profit")
    bars = bars.assign(width=width, sigma=moves)
    return replace(case, bars=bars, account={**case.account, **exits})

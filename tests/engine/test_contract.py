"""The contract of policies: kept by all of ours, and broken by each of these in its own way."""

import functools
import inspect
import math
import random
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import Market, Policy, Range, strategies
from backtest.baselines import policy_contract
from backtest.baselines.contract_trial import ACCOUNTS, Terms
from backtest.baselines.policy_contract import CHECKS, Finding, check_policy
from backtest.experiments.policy_names import built_in_policies
from backtest.indicators import ewma_volatility
from backtest.policies import trades_options
from backtest.policies.lookahead import rewrite_after

pytestmark = pytest.mark.peeks
OURS = built_in_policies()
NAMES = [check.name for check in CHECKS]


@functools.cache
def findings_of(cls: type[Policy], bars: int | None = None) -> dict[str, Finding]:
    """Return the findings on a policy, by name."""
    market = None if bars is None else Market.sample(bars=bars)
    return {finding.name: finding for finding in check_policy(cls, market, accounts=("cross",))}


def account_of(cls: type[Policy]) -> str:
    """Return the account that a policy of ours is compiled in: the library covers all of them."""
    if cls is strategies.FixedRisk:  # which holds nothing at 20x, liquidated before its stop
        return "cross"
    return ACCOUNTS[OURS.index(cls) % len(ACCOUNTS)]


@pytest.mark.slow
@pytest.mark.parametrize("cls", OURS)
def test_our_policies_keep_the_contract(cls: type[Policy]):
    """All of it, that they compile, and that they decide at every bar once they are warm."""
    # Options are slow in plain Python: 22 days, in which those of the first expiry end.
    market = Market.sample(bars=528) if trades_options(cls) else None
    findings = check_policy(cls, market, accounts=[account_of(cls)])
    by_name = {finding.name: finding for finding in findings}
    kinds = [finding.name.partition(":")[0] for finding in findings]
    assert list(dict.fromkeys(kinds)) == NAMES
    assert not [f"{finding.name}: {finding.detail}" for finding in findings if not finding.passed]
    assert by_name["compiled equals plain"].detail.startswith("compiled; the same bits in")

    # Inside its band a policy leaves its position alone, by its rule.
    in_bands = (
        strategies.DeltaHedge, strategies.FixedRisk, strategies.HealthTarget,
        strategies.LeverageLoop, strategies.MarginBuffer,
    )  # fmt: skip
    decides_always = by_name["decisions are finite"].detail.startswith("finite at all")
    assert decides_always is (cls not in in_bands)


class HidesNaN(Policy):
    """Target a volatility."""

    def observe(self, market):
        return {"sigma": ewma_volatility(market, 24.0), "side": np.sign(market.signal)}

    def leverage(self, bar, account):
        return min(2.0, 0.3 / bar.sigma)


class KeepsNaN(HidesNaN):
    """Target a volatility."""

    def leverage(self, bar, account):
        return min(0.3 / bar.sigma, 2.0) * (1.0 if bar.side >= 0.0 else 0.5)


@pytest.mark.parametrize(("cls", "warns"), [(HidesNaN, True), (KeepsNaN, False)])
def test_a_formula_that_hides_an_unknown_column_is_warned_of(cls, warns):
    """Known from the close of bar 24 on, and taken away at that of bar 25: 2 is no decision."""
    trial = policy_contract.ContractTrial(cls, Market.sample(bars=300), ("cross",))
    (finding,) = policy_contract.check_gaps(trial)

    assert finding.name == "no decision without a column"
    assert finding.passed
    assert finding.warns is warns
    if warns:
        words = "where sigma is NaN, at bar 25, 2023-01-02 01:00, the leverage is 2"
        assert words in finding.detail


@pytest.mark.parametrize("has_mark", [True, False])
def test_a_rewritten_market_is_a_valid_one_and_equal_up_to_the_cut(has_mark: bool):
    sample = Market.sample(bars=300)
    bars = sample.bars().assign(implied=np.arange(300.0))
    mark = sample.mark() if has_mark else None
    market = Market.from_frames(bars, funding=sample.funding(), mark=mark)
    other = rewrite_after(market, 120, np.random.default_rng(0))

    # It is valid: the door takes it.
    again = Market.from_frames(other.bars(), funding=other.funding(), mark=other.mark())
    assert again.n_bars == 300

    assert other.prefix(121) == market.prefix(121)
    assert other.prefix(122) != market.prefix(122)
    for name in ("open", "high", "low", "close", "volume", "mark_close"):
        assert not (getattr(other, name)[122:] == getattr(market, name)[122:]).any()
    assert not (other.columns["implied"][121:] == market.columns["implied"][121:]).all()
    assert (other.funding_rate != market.funding_rate).any()


class Memory(NamedTuple):
    """What the wrong ones remember."""

    word: Any


def wrong(name: str, **parts: Any) -> type[Policy]:
    """Return a policy that always asks for 1x, but for these parts."""
    methods = {"leverage": lambda self, bar, account: 1.0, **parts}
    defined = {part: method for part, method in methods.items() if method is not None}
    return type(name, (Policy,), defined)


def watch(name: str, column: Callable[[Market], Any]) -> type[Policy]:
    """Return a policy that observes a column and asks for it over the close."""
    return wrong(
        name,
        observe=lambda self, market: {"next": column(market)},
        leverage=lambda self, bar, account: bar.next / bar.close,
    )


def leave(self: Any, bar: Any, account: Any) -> float:
    raise SystemExit(3)


def change(self: Any, market: Market) -> dict[str, Any]:
    return {"next" if market.n_bars == 1200 else "other": market.close}


def take_bar(self: Any, bar: Any) -> float:
    return 1.0


class NoDefault(Policy):
    """Need a parameter."""

    target: Annotated[float, Range(0.0, 1.0)]

    def leverage(self, bar: Any, account: Any) -> float:
        return self.target


Ahead = watch("Ahead", lambda market: pd.Series(market.close).shift(-1).to_numpy())
Peeking = watch("Peeking", lambda m: pd.Series(m.close).diff().rolling(30).std().bfill().to_numpy())
Drawn = watch("Drawn", lambda market: np.random.default_rng().random(market.n_bars))
Late = watch("Late", lambda market: pd.Series(market.close).rolling(100_000).mean().to_numpy())
Raising = wrong("Raising", leverage=lambda self, bar, account: 1 / 0)
Word = wrong(
    "Word", start=lambda self: Memory("none"), leverage=lambda self, bar, acc, memory: (1.0, memory)
)
BROKEN = [  # the policy, the check that it breaks, and words of the finding
    (Ahead, "columns use only the past", "looks ahead: column 'next'"),
    (Peeking, "columns use only the past", "looks ahead: column 'next'"),
    (wrong("Changing", observe=change), "columns use only the past",
     "looks ahead: column 'next' at bar 0, 2023-01-01 differs when the market ends with bar"),
    (wrong("Negative", leverage=lambda self, bar, account: bar.open - bar.close), "runs",
     "a leverage must be at least 0"),
    (Raising, "runs", "Raising.leverage raised ZeroDivisionError"),
    (wrong("Leaving", leverage=leave), "runs", "SystemExit: 3"),
    (wrong("Nothing", leverage=lambda self, bar, account: print), "runs",
     "leverage and memory must be numbers, got"),
    (wrong("Random", leverage=lambda self, bar, account: random.random()), "repeats to the bit",
     "the leverage at bar 0"),
    (Drawn, "columns are numbers", "differs between two calls: use no random"),
    (Word, "constructs from its defaults", "start must return a NamedTuple of floats"),
    (wrong("NoMemoryTaken", start=lambda self: Memory(1.0)), "is a policy",
     "the arguments (self, bar, account, memory), got"),
    (wrong("WrongArguments", leverage=take_bar), "is a policy",
     "the arguments (self, bar, account), got (self: Any, bar: Any)"),
    (wrong("NoLeverage", leverage=None), "is a policy", "defines no leverage"),
    (wrong("Anonymous", __repr__=lambda self: "dict()"), "text and settings make it again",
     "dict() makes {}"),
    (NoDefault, "constructs from its defaults", "target"),
    (Late, "columns are numbers", "next never known in 9600 bars"),
    (watch("Short", lambda market: np.diff(market.close)), "columns are numbers",
     "got an array of shape (1199,)"),
    (int, "is a policy", "must be a subclass of bt.Policy"),
]  # fmt: skip
Waiting = wrong(
    "Waiting", leverage=lambda self, bar, account: 1.0 if int(bar.close) % 10 == 0 else math.nan
)
Endless = wrong("Endless", leverage=lambda self, bar, account: math.inf)
Silent = wrong("Silent", leverage=lambda self, bar, account: math.nan)


@pytest.mark.parametrize(("cls", "name", "text"), BROKEN)
def test_a_broken_policy_is_told_so(cls: Any, name: str, text: str):
    finding = findings_of(cls)[name]

    assert not finding.passed
    assert text in finding.detail
    assert "np." not in finding.detail  # numbers as a reader writes them


@pytest.fixture
def without_compiling(monkeypatch):
    """Leave out the checks that compile."""
    kept = tuple(check for check in CHECKS if not check.name.startswith("compiled"))
    monkeypatch.setattr(policy_contract, "CHECKS", kept)


def check_by_name(cls: type[Policy], bars: int = 300) -> dict[str, Finding]:
    """Return the findings on a policy in all accounts, by name."""
    return {finding.name: finding for finding in check_policy(cls, Market.sample(bars=bars))}


@pytest.mark.usefixtures("without_compiling")
@pytest.mark.parametrize(("cls", "passed", "text"), [
    (Waiting, True, "NaN (no change) at the others"),
    (Endless, False, "decisions, first at bar 0, 2023-01-01: return a finite leverage"),
    (Silent, False, "it never decides: its leverage is NaN at all"),
])  # fmt: skip
def test_decisions_may_be_withheld_but_not_infinite_nor_all_of_them(cls, passed, text):
    finding = check_by_name(cls)["decisions are finite"]

    assert finding.passed is passed
    assert text in finding.detail


class Idle(Policy):
    """Hold nothing. L = level. Source: caution."""

    level: Annotated[float, Range(0.0, 2.0)] = 0.0

    def leverage(self, bar, account):
        return self.level


class Small(Idle):
    """Hold what the least order of a linear account is under, but no coin is."""

    def leverage(self, bar, account):
        return 0.1 if account.equity > 100.0 else 1e-7


@pytest.mark.usefixtures("without_compiling")
def test_an_account_that_held_nothing_is_not_tried():
    seen = []
    findings = check_policy(Idle, Market.sample(bars=300), progress=seen.append)
    assert findings == seen

    by_name = {finding.name: finding for finding in findings}
    holds = by_name["runs: holds a position"]
    assert not holds.passed
    assert "may_hold_nothing = True" in holds.detail
    assert not any(finding.tried for finding in findings if finding.name.endswith("margin"))


@pytest.mark.usefixtures("without_compiling")
def test_a_policy_may_say_that_it_may_hold_nothing(monkeypatch):
    monkeypatch.setattr(Idle, "may_hold_nothing", True)
    by_name = check_by_name(Idle)

    assert all(finding.passed for finding in by_name.values())
    for name, finding in by_name.items():
        if name.startswith(("runs", "decisions")):
            assert not finding.tried


@pytest.mark.usefixtures("without_compiling")
def test_each_account_is_tried_by_what_is_held_in_it():
    by_name = check_by_name(Small)

    assert by_name["runs: cross margin"].tried
    assert not by_name["runs: inverse contract"].tried
    assert by_name["decisions use only the past"].tried


class Bare(Waiting):
    """Count without an annotation. L = 1. Source: haste."""

    window = 24
    NAMES = ("a", "b")


def test_an_attribute_without_an_annotation_is_said_to_be_no_parameter(monkeypatch):
    """The check said nothing, and a sweep of it "there is nothing named 'window' to vary"."""
    (kept,) = (check for check in CHECKS if "default" in check.name)
    monkeypatch.setattr(policy_contract, "CHECKS", (kept,))

    (finding,) = check_policy(Bare, Market.sample(bars=300))
    assert finding.passed
    assert finding.detail.count("is no parameter") == 1
    assert "window: Annotated[int, bt.Range(low, high)] = 24 would be one" in finding.detail


class Foreseeing(strategies.LongVolatility):
    """Buy more straddles the lower the market that it was shown ends."""

    fall: ClassVar[float] = 0.0

    def observe(self, market):
        Foreseeing.fall = 1.0 - float(market.close[-1]) / float(market.close[0])
        return {}

    def orders(self, bar, account, chain):
        orders = super().orders(bar, account, chain)
        return {
            name: (contract, quantity * (1.0 + self.fall))
            for name, (contract, quantity) in orders.items()
        }


@pytest.mark.parametrize(
    ("cls", "is_causal"), [(strategies.LongVolatility, True), (Foreseeing, False)]
)
def test_orders_of_options_that_look_ahead_are_found(cls, is_causal):
    """They have no leverage and no column that shows it: what the account holds does."""
    whole = policy_contract.complete_class(cls)
    trial = policy_contract.ContractTrial(whole, Market.sample(bars=72), ("cross",))
    if is_causal:
        assert policy_contract.check_causal_decisions(trial).startswith("the same decisions")
        return
    with pytest.raises(bt.PolicyError, match="looks ahead: the options held up to bar"):
        policy_contract.check_causal_decisions(trial)


@pytest.mark.parametrize("policy", OURS, ids=lambda cls: cls.__name__)
def test_a_policy_of_the_library_states_its_formula_and_its_source(policy):
    lines = inspect.getdoc(policy).splitlines()
    assert any("=" in line for line in lines[1:])
    assert any("Source:" in line for line in lines[1:])


class Bold(bt.Policy):
    """Asks for twelve times its equity, which an account may forbid."""

    def leverage(self, bar, account):
        return 12.0


def test_a_policy_is_checked_on_the_terms_that_are_given():
    """12x in an account of 0.5x at most: its mean leverage is near 0.5."""
    account = bt.Account(max_leverage=0.5)
    terms = Terms(bt.Venue.preset("binance-usdm", "BTCUSDT"), account)
    findings = check_policy(Bold, Market.sample(bars=300), terms=terms)
    assert all(finding.passed for finding in findings)

    (run,) = (finding for finding in findings if finding.name.startswith("runs: "))
    assert run.name == "runs: the account as given"
    leverage = float(run.detail.rpartition(" ")[2])
    assert 0.4 < leverage < 0.6

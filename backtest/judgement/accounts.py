"""The accounts that a judgement looks at: one a market, each with its test and its benchmark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from backtest import core, engine
from backtest.account.account import WHOLE, Account
from backtest.engine import AnyPolicy, Conditions, plain
from backtest.engine.checks import list_misfits
from backtest.engine.run import run
from backtest.market import Market, as_markets
from backtest.policies import Policy
from backtest.results import Result
from backtest.results.result import Lack
from backtest.risk.leverage_sizes import scale_policy
from backtest.search.equal_risk import ScaledAccount, explain_lack, hold_at_equal_risk
from backtest.search.problem import Search
from backtest.search.timing import cut_test, read_decided
from backtest.search.walk_forward import read_segments, walk_forward
from backtest.venue import Venue
from backtest.venue.symbols import find_preset_symbol, names_symbol

AnyMarkets = Mapping[str, Market] | Sequence[Market] | Market | None


@dataclass
class JudgedTest:
    """What one market is judged on: the test of an account of its own, and its policy.

    ``caution`` says where its venue has the rules of another instrument.
    """

    name: str
    test: Conditions
    policy: AnyPolicy
    caution: str = ""


@dataclass
class JudgedAccount:
    """The account of a policy on one market, and the constant leverage at its risk.

    ``policy`` and ``test`` are what goes on from the last close: of a walk the policy of its last
    span, and the test from its first test span on. ``segments`` are the policies of all its spans.
    """

    name: str
    test: Conditions
    policy: AnyPolicy
    result: Result
    benchmark: ScaledAccount | Lack
    segments: Sequence[engine.Segment] = ()

    def run(self, test: Conditions, *, compile: bool) -> Result:  # noqa: A002 - the word of bt.run
        """Return the account under other conditions; of a walk each span keeps its policy."""
        if self.segments:
            return engine.run_switched(test, self.segments, compile=compile)
        return run(test, self.policy, compile=compile)

    def run_scaled(self, factor: float, *, compile: bool) -> Result:  # noqa: A002 - as above
        """Return the account with all that its policy decides times a factor."""
        if not self.segments:
            return run(self.test, scale_policy(self.policy, factor), compile=compile)

        scaled = []
        for segment in self.segments:
            policy: Any = scale_policy(segment.policy, factor)
            scaled.append(segment._replace(policy=policy))
        return engine.run_switched(self.test, scaled, compile=compile)

    @property
    def is_ruined(self) -> bool:
        return bool(self.result.metrics["ruined"])

    @property
    def misfits(self) -> list[str]:
        """Where the margin tables of its venue are not of the dates of its run."""
        markets = as_markets(self.test.market)
        venues = engine.read_venues(self.test.venue, markets)
        labels = dict.fromkeys(markets.names, self.name)
        return [*list_misfits(markets, venues, labels, self.result.span.start)]

    @property
    def leverage_today(self) -> float:
        """The gross leverage at the last close; NaN of an account that has nothing left."""
        if self.is_ruined:
            return math.nan
        return float(self.result.exposures.iloc[-1].abs().sum())


def plan_tests(conditions: Conditions, policy: AnyPolicy, markets: AnyMarkets) -> list[JudgedTest]:
    """Return the test of each market, in an account of its own.

    Without ``markets`` those of the conditions are judged; with them the conditions say venue,
    account and signal alone.
    """
    if conditions.overlay is not None:
        raise core.ParameterError(
            "overlay must be left out of a judgement: it scales a portfolio, and each market is "
            "judged in an account of its own"
        )
    if markets is None:
        return split_conditions(plain(conditions), policy)

    if conditions.detail is not None:
        raise core.ParameterError("detail must be left out where markets are given: it is of one")
    named = name_markets(markets)
    return [choose_test(conditions, policy, name, market) for name, market in named.items()]


def split_conditions(test: Conditions, policy: AnyPolicy) -> list[JudgedTest]:
    """Return a test for each market of the conditions, with what they say of that market."""
    market = test.market
    if isinstance(market, Market):
        return [JudgedTest(market.instrument or "market", test, policy)]
    if len(market) == 1 or market.options:  # options are valued beside their underlying
        return [JudgedTest(", ".join(market.names), test, policy)]

    tests = []
    for name, instrument in market.items():
        alone = test.replace(
            market=instrument,
            venue=pick_one(test.venue, name, "venue"),
            account=test.account.for_instrument(name),
            signal=pick_signal(test.signal, name),
        )
        tests.append(JudgedTest(name, alone, pick_one(policy, name, "policy")))
    return tests


def describe_separation(conditions: Conditions, n_tests: int) -> str:
    """Say that the account which several markets share is not judged; empty of one market."""
    if n_tests < 2:
        return ""
    weight = ""
    if isinstance(conditions.signal, pd.DataFrame | Mapping):
        weight = ", times its own weight"
    text = (
        f"Each of these {n_tests} markets is judged in an account of its own with all of the "
        f"capital{weight}: one cross account of them all, where they share margin, is not judged"
    )

    account = conditions.account
    unused = [name for name in WHOLE if getattr(account, name) != getattr(Account, name)]
    if unused:
        verb = "is" if len(unused) == 1 else "are"
        text = f"{text}, and {', '.join(unused)} {verb} not used"
    return f"{text}. A run has that account."


def name_markets(markets: AnyMarkets) -> dict[str, Market]:
    """Return markets by name: their own names, or those of their instruments."""
    if isinstance(markets, Market):
        return {markets.instrument or "market": markets}

    if not isinstance(markets, Mapping):
        markets = name_listed(markets or ())
    if not markets:
        raise core.ParameterError("markets must be one or more, got none")
    for name, market in markets.items():
        if not isinstance(market, Market):
            raise core.ParameterError(f"{name} must be a Market, got {core.repr_plain(market):.60}")
    return dict(markets)


def name_listed(markets: Iterable[Any]) -> dict[str, Any]:
    """Return what is listed by its instruments, or by its places where it has none."""
    listed = [*markets]
    named = {}
    for k, market in enumerate(listed, 1):
        name = getattr(market, "instrument", "") or f"market {k}"
        named[name] = market

    if len(named) < len(listed):
        raise core.ParameterError(
            "markets must be of different instruments, or have names, "
            f"{{'BTC old': market, ...}}, got {len(listed)} of {', '.join(named)}"
        )
    return named


def choose_test(conditions: Conditions, policy: AnyPolicy, name: str, market: Market) -> JudgedTest:
    """Return the test of one market that is given beside those of the conditions."""
    venue, caution = choose_venue(pick_one(conditions.venue, name, "venue"), market)
    test = conditions.replace(
        market=market,
        venue=venue,
        account=conditions.account.for_instrument(name),
        signal=pick_signal(conditions.signal, name),
    )
    return JudgedTest(name, plain(test), pick_one(policy, name, "policy"), caution)


def pick_one(given: Any, name: str, what: str) -> Any:
    """Return what is given for all markets, or of what is given by name that of one market."""
    if isinstance(given, Mapping) and name not in given:
        raise core.ParameterError(
            f"{what} must be one for all markets, or one for each; {name} has none, got "
            f"{', '.join(map(str, given))}"
        )
    return core.pick_value(given, name)


def pick_signal(signal: Any, name: str) -> Any:
    if isinstance(signal, pd.DataFrame):
        return signal[name]
    return pick_one(signal, name, "signal")


def choose_venue(venue: Any, market: Market) -> tuple[Any, str]:
    """Return a venue with the rules of a market's instrument, and a caution where it has none.

    A preset of another symbol becomes that of the instrument. What the caller changed of the one
    is changed of the other too.
    """
    instrument = market.instrument
    if not isinstance(venue, Venue) or not instrument or market.synthetic:
        return venue, ""

    # Rules that come from no preset or listing, or are those of the instrument, stay.
    terms = venue.in_force
    if terms is None or names_symbol(terms.symbol, instrument):
        return venue, ""
    if terms.like:
        return venue, f"{instrument} is judged by the listing of {terms.symbol}"

    preset, _, symbol = terms.preset.rpartition(":")
    own_symbol = find_preset_symbol(preset.partition("@")[0], instrument)
    if own_symbol is None:
        return venue, f"{instrument} is judged by the rules of {symbol}, its venue lists none of it"

    # What the caller changed of the preset is changed of the instrument's own, too.
    usual = Venue.preset(preset, symbol).to_dict()
    settings = venue.to_dict()
    changed = {name: value for name, value in settings.items() if value != usual[name]}
    return Venue.preset(preset, own_symbol).override(changed), ""


def run_accounts(judged: JudgedTest, tune: int | None, seed: int, **how: Any) -> JudgedAccount:
    """Run the account of a policy, or of its walk, and the constant leverage at its risk.

    ``how`` are ``threads``, ``compile`` and ``store`` of a search.
    """
    if tune is None:
        result = run(judged.test, judged.policy, compile=how["compile"])
        return JudgedAccount(
            name=judged.name,
            test=judged.test,
            policy=judged.policy,
            result=result,
            benchmark=find_benchmark(result),
        )

    if not isinstance(judged.policy, Policy | type):
        raise core.ParameterError("a policy that is re-optimized must be one for all markets")
    # A judgement that is made again, or goes on after it was stopped, finds its walk in the store.
    search = Search(trials=tune, seed=seed, resume=None, **how)
    walk = walk_forward(judged.test, judged.policy, search)
    segments = read_segments(judged.test, judged.policy, search, walk.folds)
    test = judged.test.replace(start=walk.folds["test_start"].iloc[0])

    # The accounts of a walk that was read from files cannot go on: they are run again.
    result = walk.result
    fixed = walk.fixed
    if result.setup is None:
        result = engine.run_switched(test, segments, compile=how["compile"])
        fixed = run(test, segments[0].policy, compile=how["compile"])

    # What goes on from the last close is the policy of the last span.
    last: Any = segments[-1].policy
    return JudgedAccount(
        name=judged.name,
        test=test,
        policy=last,
        result=result,
        benchmark=hold_at_equal_risk(fixed, like=result),
        segments=segments,
    )


def find_benchmark(result: Result) -> ScaledAccount | Lack:
    """Return the constant leverage at the risk of an account: itself, if its leverage is one."""
    if why := explain_lack(result):
        return Lack(why)
    if not is_constant(result):
        return hold_at_equal_risk(result)

    volatility = float(result.metrics["volatility"])
    return ScaledAccount(result, 1.0, volatility, target=volatility)


def is_constant(result: Result) -> bool:
    """Return whether an account decided one leverage at each close from its first decision on."""
    if result.options is not None:
        return False

    leverage = read_leverage(result)
    is_decided = ~np.isnan(leverage)
    first = int(np.argmax(is_decided.any(axis=1)))
    if not is_decided[first:].all():
        return False
    return bool(np.ptp(leverage[first:], axis=0).max() == 0.0)


def has_one_value(result: Result) -> bool:
    """Return whether all decisions of an account are of one leverage; NaN keeps the position."""
    if result.options is not None:
        return False
    leverage = pd.DataFrame(read_leverage(result))
    return bool((leverage.nunique() <= 1).all())


def read_leverage(result: Result) -> core.FloatArray:
    """Return the leverage decided at each close, (n_bars, n_instruments), NaN where none was."""
    return read_decided(result, cut_test(result).market).leverage


def fix_direction(account: JudgedAccount) -> Conditions:
    """Return the test with the direction of the last close, as paths have no columns or rules."""
    test = account.test
    if test.signal is None or isinstance(test.signal, int | float):
        return test

    result = account.result
    directions = np.broadcast_to(result.quotes.signal, result.marks.shape)
    return test.replace(signal=float(directions[-1, 0]))

"""Set a run up: from its start, or resumed after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from backtest import core
from backtest.account import Account
from backtest.core.code_names import is_frame, pd
from backtest.engine import checks, driver
from backtest.engine.conditions import (
    AnyPolicy,
    Conditions,
    check_panel,
    find_kept,
    plain,
    setting,
)
from backtest.engine.inputs import ON_CLOCK, AccountInputs, read_inputs
from backtest.engine.policies import ObservedPolicy, assign_policies, observe_policies, show_terms
from backtest.market import Market, Markets, find_clock, label_names, read_weights, remake
from backtest.market.tables import MARK_PRICES, PRICES
from backtest.options.option_checks import check_traders, warn_of_options
from backtest.policies import Policy, sets_margin
from backtest.results.benchmark import Benchmark, BenchmarkLike, index_traded, read_benchmark
from backtest.results.manifest import describe_policies, describe_policy
from backtest.results.run_record import RunRecord
from backtest.signals import join_checks, resolve_signal, warn_of_weights
from backtest.signals.directions import describe_weights, read_signal
from backtest.venue import Venue, find_charged

# The markets of a resumed run.


def join_resumed(resume: RunRecord, markets: Markets) -> tuple[Markets, int]:
    """Return the markets of a resumed run with the earlier bars, and the bar at which it goes on.

    Raises ParameterError for other instruments. Raises DataError if the markets lack the last bar
    of the earlier run, or have another mark there than the one that it ended on.
    """
    if not is_same_account(markets.names, resume.names):
        raise core.ParameterError(
            f"a resumed run must have the same instruments in the same order, "
            f"{', '.join(resume.names)}, got {', '.join(markets.names)}"
        )
    markets = join_histories(resume, markets)
    first = find_resumed_bar(resume, markets)

    # A position whose history ends where the run goes on is closed in that bar, so its market gets
    # one bar more. The span of an instrument is its first bar and the one after its last.
    last_quantities = resume.of_positions("quantity")[-1].tolist()
    last_marks = resume.marks[-1].tolist()
    longer = {}
    for i, (name, market) in enumerate(markets.items()):
        listed, gone = markets.spans[i].tolist()
        if gone == first and last_quantities[i] != 0.0:
            longer[name] = append_last_bar(market, int(markets.time[first]))

        # One that has a bar before must have ended on the mark that the earlier run had.
        if not listed < first <= gone:
            continue
        mark = float(market.mark_close[first - 1 - listed])
        if mark != last_marks[i]:
            raise core.DataError(
                f"the mark close of {name} at {core.format_time(resume.last_time)} UTC must be the "
                f"one the earlier run ended on, {last_marks[i]!r}, got {mark!r}; resume on the "
                "same data"
            )
    if longer:
        markets = remake(markets, {**markets, **longer})
    return markets, first


def join_histories(resume: RunRecord, markets: Markets) -> Markets:
    """Return markets that begin with the bars of the earlier run, where they are a continuation.

    A market continues if it begins after that of the earlier run, and at the latest with the bar
    after the last one of that run. If the earlier run has lost its markets, these stand for them.
    """
    earlier = markets if resume.markets is None else resume.markets
    joined = {}
    for (name, market), before in zip(markets.items(), earlier.values(), strict=True):
        next_open = resume.last_time + market.interval
        if before.start < market.start <= next_open:
            joined[name] = concatenate(before, market)
    if not joined:
        return markets
    return remake(markets, {**markets, **joined})


def find_resumed_bar(resume: RunRecord, markets: Markets) -> int:
    """Return the bar with which a resumed run begins: the one after the last of the earlier run.

    It must open one interval later; in a market with sessions any time later. Raises DataError if
    the markets lack either of the two bars.
    """
    last = resume.last_time
    first = int(np.searchsorted(markets.time, last, side="right"))
    is_inside = 0 < first < markets.n_bars and int(markets.time[first - 1]) == last
    is_next = is_inside and int(markets.time[first]) == last + markets.interval
    if is_next or (is_inside and markets.sessions):
        return first
    raise core.DataError(
        f"the markets of a resumed run must hold the bar of {core.format_time(last)} UTC, the "
        "last one of the earlier run, the history that the policy's columns need, and bars "
        f"after it, got {core.format_time(markets.start)} to "
        f"{core.format_time(markets.end)} UTC"
    )


def is_same_account(names: tuple[str, ...], others: tuple[str, ...]) -> bool:
    return names == others or len(names) == len(others) == 1


def concatenate(before: Market, after: Market) -> Market:
    """Join two markets of one instrument: ``before`` up to the first bar of ``after``, then that.

    Raises DataError if their intervals or columns differ.
    """
    if after.interval != before.interval or set(after.columns) != set(before.columns):
        raise core.DataError(
            "the market of a resumed run must have the interval and columns of the earlier one, "
            f"{core.format_duration(before.interval)} and {sorted(before.columns)}, got "
            f"{core.format_duration(after.interval)} and {sorted(after.columns)}"
        )

    n_before = int(np.searchsorted(before.time, after.start))
    bars: dict[str, Any] = {}
    for name in ("time", *ON_CLOCK):
        bars[name] = np.concatenate([getattr(before, name)[:n_before], getattr(after, name)])
    columns = {}
    for name, values in after.columns.items():
        columns[name] = np.concatenate([before.columns[name][:n_before], values])

    return replace(
        after,
        **bars,
        **join_funding(before, after),
        has_mark=before.has_mark and after.has_mark,
        columns=columns,
        synthetic=before.synthetic or after.synthetic,
        filled={**before.filled, **after.filled},
        source=f"{before.source} then {after.source}",
    )


def join_funding(before: Market, after: Market) -> dict[str, Any]:
    """Join the settlements of funding of two markets: those of ``before``, then of ``after``."""
    # A settlement shortly before the first open of `after` is its own: stamps have jitter.
    first = int(np.searchsorted(after.funding_time, after.start - after.interval // 4))
    first_time = after.end
    if first < len(after.funding_time):
        first_time = int(after.funding_time[first])
    n_before = int(np.searchsorted(before.funding_time, first_time))

    joined = {}
    for name in ("funding_time", "funding_rate", "funding_mark"):
        settled_before = getattr(before, name)[:n_before]
        joined[name] = np.concatenate([settled_before, getattr(after, name)[first:]])
    return joined


def append_last_bar(
    market: Market, time: int, price: float | None = None, mark: float | None = None
) -> Market:
    """Return a market with one bar more, at ``time`` (ns), without volume.

    Its prices are the last ones, or ``price`` and ``mark`` where they are given.
    """
    last = float(market.close[-1]) if price is None else price
    last_mark = float(market.mark_close[-1]) if mark is None else mark
    bar: dict[str, Any] = {"time": time, "volume": 0.0}
    bar.update(dict.fromkeys(PRICES, last))
    bar.update(dict.fromkeys(MARK_PRICES, last_mark))
    longer: dict[str, Any] = {
        name: np.append(getattr(market, name), value) for name, value in bar.items()
    }
    return replace(
        market,
        **longer,
        columns={name: np.append(values, values[-1]) for name, values in market.columns.items()},
        source=f"{market.source} and its last prices",
    )


# What a resumed run must keep.


def read_resume(resume: object, start: core.TimeLike | None) -> RunRecord | None:
    """Return the result whose account goes on; ParameterError if it is none."""
    if resume is None:
        return None
    if not isinstance(resume, RunRecord):
        raise core.ParameterError(f"resume must be the result of a run, got {resume!r:.60}")
    if start is not None:
        raise core.ParameterError(
            f"start must be left out with resume, which goes on where it ended, got {start}"
        )
    return resume


def check_rules(resume: RunRecord, setup: Setup) -> None:
    """Raise ParameterError if a resumed run has another policy, account or venue than before.

    Both are compared as plain values by name, in the form that a manifest has.
    """
    overlay = None
    if setup.overlay is not None:
        overlay = describe_policy(setup.overlay)
    policies = {"policy": describe_policies(setup.policies), "overlay": overlay}
    present: Any = core.to_plain(policies)
    present |= list_rules(setup.account, setup.venues, resume.last_time)

    manifest = resume.manifest
    policies_before = {"policy": manifest["policy"], "overlay": manifest.get("overlay")}
    past: Any = core.to_plain(policies_before)
    past |= list_rules(resume.account, resume.venues, resume.last_time)

    names = {**past, **present}
    differing = [name for name in names if past.get(name) != present.get(name)]
    if differing:
        raise core.ParameterError(
            f"a resumed run must keep the same rules, got another {', '.join(differing)}; flows "
            "after the end of the earlier run may be added"
        )


def list_rules(account: Account, venues: Mapping[str, Venue], until: int) -> dict[str, Any]:
    """Return the settings of account and venues as plain values by dotted name, to be compared.

    What makes no difference to the account is left out, or written in one way. Of the flows of
    money, those up to the time ``until`` (ns) count: later ones may be added.
    """
    settings = replace(account, flows=None).to_dict()

    # Collateral priced by a market is named by its instrument, as the bars may go on.
    for asset in settings.get("collateral", ()):
        if isinstance(asset["prices"], Mapping):
            asset["prices"] = asset["prices"]["instrument"]

    # Later flows may be added, so only those that were due by then count.
    settings["flows"] = list_flows(account, until)
    rules = {f"account.{name}": value for name, value in settings.items()}

    # Who pays interest makes no difference at a venue that charges none.
    for instrument, label in label_names(venues).items():
        venue = venues[instrument]
        suffix = f" of {label}" if label else ""
        for name, value in venue.to_dict().items():
            rules[f"venue.{name}{suffix}"] = value
        if not find_charged(venue):
            rules.pop(f"venue.interest_on{suffix}", None)
    plain: dict[str, Any] = core.to_plain(rules)
    return plain


def list_flows(account: Account, until: int) -> list[tuple[int, float]]:
    """Return time, ns, and amount of each flow up to a time."""
    if account.flows is None:
        return []
    stamps = pd.DatetimeIndex(account.flows.index).as_unit("ns").asi8.tolist()
    flows = zip(stamps, account.flows.tolist(), strict=True)
    return [(stamp, amount) for stamp, amount in flows if stamp <= until]


# Setting up.


def set_up_run(
    test: Conditions, policy: AnyPolicy, *, resume: Any = None, benchmark: BenchmarkLike = None
) -> Setup:
    """Return the checked setup of a run, and warn of what is odd in its data and terms.

    ``resume`` is an earlier result whose account goes on.
    """
    earlier = read_resume(resume, test.start)
    setup = set_up(test, policy, resume=earlier, benchmark=benchmark)
    if earlier is not None:
        check_rules(earlier, setup)

    checks.warn_of_market(setup.markets, setup.venues, setup.first)
    warn_of_weights(setup.given, setting(plain(test))[0])
    checks.warn_of_flows(setup.account, setup.markets, setup.started)
    warn_of_options(setup.markets, setup.inputs.feed.options, setup.policies, setup.overlay)
    return setup


class Setup(NamedTuple):
    """An account ready for the loop: a test with a policy, and what follows from both.

    ``signal`` (n_instruments, n_bars) are the weights, ``given`` where they come from, ``first`` is
    the account's first bar, ``started`` the time at which it began (ns), ``periods`` are samples a
    year.
    """

    test: Conditions
    markets: Markets
    policies: dict[str, Policy]
    overlay: Policy | None
    venues: dict[str, Venue]
    account: Account
    signal: core.FloatArray
    observed: list[ObservedPolicy]
    inputs: Any
    first: int
    periods: float
    resume: RunRecord | None = None
    benchmark: Benchmark | None = None
    given: Any = None
    started: int = 0
    is_compiled: bool = False

    def find_benchmark(self) -> Benchmark | None:
        """Return what a result is compared with: of several markets, their index."""
        if self.benchmark is not None or len(self.markets) == 1:
            return self.benchmark
        return index_traded(self.markets, self.venues, self.signal, self.first)

    def join_checks(self, columns: str) -> str:
        return join_checks(columns, self.given)

    def describe_signal(self) -> str:
        return describe_weights(self.given, find_clock(self.markets).pick(self.signal))

    def change(self, *, like: AccountInputs | None = None, **changes: Any) -> Setup:
        """Return the setup with other fields, and the inputs that follow from them."""
        changed = self._replace(**changes)
        observed = show_terms(changed.observed, changed.account, changed.venues)
        changed = changed._replace(observed=observed)
        return changed._replace(inputs=read_inputs(changed, like=like))

    def scale(self, scale: float) -> Setup:
        """Return the setup with its signal times a factor."""
        signal = self.signal * scale
        given: Any = signal
        if signal.size == 1:
            given = float(signal[0])
        return self.change(signal=signal, given=given)

    def measure_closes(self, run: Any, rows: slice) -> Any:
        return driver.measure_closes(self, run, rows)

    def begin_at(self, started: int) -> Setup:
        return self._replace(inputs=self.inputs._replace(started=started), started=started)


def set_up(
    test: Conditions,
    policy: AnyPolicy,
    *,
    observed: list[ObservedPolicy] | None = None,
    resume: RunRecord | None = None,
    benchmark: BenchmarkLike = None,
) -> Setup:
    """Check a test with a policy, and return it in the form that the loop reads.

    ``observed`` are the policies with their columns, if the caller has them; else they are computed
    here. ``resume`` is the earlier run whose account goes on, ``benchmark`` what a result is
    compared with.
    """
    is_alone = isinstance(test.market, Market)
    conditions = plain(test)
    markets, venues, account = setting(conditions)
    policies, overlay = assign_policies(policy, markets, conditions.overlay)
    check_margin_policies(policies, account)
    check_traders(policies, overlay, markets)

    # The signal is of the markets as the test has them, one or several.
    decided_on: Market | Markets = markets
    if is_alone:
        (decided_on,) = markets.values()
    signal = resolve_signal(conditions.signal, decided_on)

    # A resumed run goes on after its last bar, and keeps the time at which it began.
    if resume is not None:
        markets, first = join_resumed(resume, markets)
        started = resume.started
    else:
        first = find_first_bar(markets, conditions.start)
        check_bars_left(markets, conditions.start)
        started = int(markets.time[first])

    # Policies decide at the closes of the markets that they see: the same, or those of longer bars.
    clock = find_clock(markets)
    seen = clock.seen
    weights = read_signals(signal, seen, clock.at(first), is_alone=is_alone)
    if not observed:
        # Policies observe the weights of the whole history, those of the earlier run too.
        weights_observed = weights
        if resume is not None:
            weights_observed = recall_weights(resume, markets, weights, first)
        observed = observe_policies(policies, overlay, seen, venues, weights_observed)
    setup = Setup(
        test=test,
        markets=markets,
        policies=policies,
        overlay=overlay,
        venues=venues,
        account=account,
        signal=clock.hold(weights),
        observed=observed,
        inputs=None,
        first=first,
        periods=checks.count_periods(conditions.calendar, conditions.sampling, markets, first),
        resume=resume,
        benchmark=read_benchmark(benchmark, markets, venues, first),
        given=signal,
        started=started,
    )

    # What follows from the other fields of the setup.
    observed = show_terms(setup.observed, account, venues)
    return setup._replace(observed=observed, inputs=find_inputs(setup))


MOST_KEPT = 100_000
"""Bars times instruments up to which a test keeps the inputs of its last run, about 24 MB."""


class KeptInputs(NamedTuple):
    """The inputs of the last run of a test, and what they follow from."""

    markets: Markets
    venues: Mapping[str, Venue]
    account: Account
    signal: core.FloatArray
    started: int
    inputs: AccountInputs

    def fits(self, setup: Setup) -> bool:
        """Return whether a setup of the same test has these inputs."""
        is_same = (
            self.markets is setup.markets
            and self.venues is setup.venues
            and self.account is setup.account
            and self.started == setup.started
        )
        return is_same and np.array_equal(self.signal, setup.signal, equal_nan=True)


def find_inputs(setup: Setup) -> AccountInputs:
    """Return the inputs of a setup, read-only; a small test keeps them for its next run.

    Inputs are the arrays that the loop reads. They follow from the test, but for two things: the
    signal, whose array the user may have changed since, and the bar at which a resumed account goes
    on. So kept inputs are compared with the setup. Those of a resumed run, of options, or of many
    bars are not kept.
    """
    n_values = setup.markets.n_bars * len(setup.markets)
    if setup.resume is not None or setup.markets.options or n_values > MOST_KEPT:
        return seal(read_inputs(setup))

    memory = find_kept(setup.test)
    kept: KeptInputs | None = memory.get("inputs")
    if kept is None or not kept.fits(setup):
        kept = KeptInputs(
            markets=setup.markets,
            venues=setup.venues,
            account=setup.account,
            signal=setup.signal.copy(),
            started=setup.started,
            inputs=seal(read_inputs(setup)),
        )
        memory["inputs"] = kept
    return kept.inputs


def seal(inputs: AccountInputs) -> AccountInputs:
    """Return inputs whose arrays of instruments are read-only: runs and results share them."""
    for array in (*inputs.feed, *inputs.clock, inputs.log_returns):
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    return inputs


def recall_weights(
    resume: RunRecord, markets: Markets, weights: core.FloatArray, first: int
) -> core.FloatArray:
    """Return weights in which the bars before ``first`` have those of the earlier run.

    ``weights`` (n, n_seen) are at the bars that policies see, which may be longer than those of the
    markets. So they are spread over all bars, the past is written, and the bars that policies see
    are picked again.
    """
    if resume.setup is None or resume.markets is None:
        return weights

    clock = find_clock(markets)
    by_bar = np.array(clock.hold(weights))

    # The bars of the markets before ``first`` that the earlier run had, and their places in it.
    begin = int(np.searchsorted(markets.time, resume.markets.start))
    past = markets.time[begin:first]
    places = np.searchsorted(resume.markets.time, past)
    by_bar[:, begin:first] = resume.setup.signal[:, places]
    return clock.pick(by_bar)


def find_first_bar(market: Market | Markets, start: core.TimeLike | None) -> int:
    """Return the bar with which an account begins: the first that opens at ``start`` or later."""
    if start is None:
        return 0
    return int(np.searchsorted(market.time, core.to_nanoseconds(start, "start")))


def check_bars_left(market: Market | Markets, start: core.TimeLike | None) -> None:
    """Raise ParameterError if fewer than two bars are left for a run."""
    left = market.n_bars - find_first_bar(market, start)
    if left >= 2:
        return
    place = f"of {market!r}"
    if start is not None:
        place = f"from start {start} on"
    raise core.ParameterError(
        f"a run needs at least 2 bars, for the first never trades, got {left} {place}"
    )


def read_signals(signal: Any, seen: Markets, first: int, *, is_alone: bool) -> core.FloatArray:
    """Return the weights decided at each close, (n, n_bars).

    A test of one market (``is_alone``) has a signal: a number for all bars, or one for each. Any
    other signal, and that of several markets, is a table of weights.
    """
    is_table = isinstance(signal, Mapping) or is_frame(signal) or np.ndim(signal) == 2
    if is_table or not is_alone:
        return read_weights(signal, seen, first=first)
    (market,) = seen.values()
    values = np.broadcast_to(read_signal(signal, market, first), seen.n_bars)
    return np.ascontiguousarray(values)[None, :]


def set_up_like(
    other: Setup,
    venue: Venue | Mapping[str, Venue],
    account: Account,
    observed: list[ObservedPolicy],
) -> Setup:
    """Return the setup of another one with other venues, account and policies, which are checked.

    It shares the signal and the clock of the other.
    """
    venues, account = check_panel(other.markets, account, venue)
    check_margin_policies(other.policies, account)
    names = other.markets.names
    policies = {name: own.policy for name, own in zip(names, observed, strict=False)}
    return other.change(
        like=other.inputs, policies=policies, venues=venues, account=account, observed=observed
    )


def set_up_policies(other: Setup, observed: list[ObservedPolicy]) -> Setup:
    """Return the setup of another one with other policies, which are not checked.

    It shares all inputs: venues and account are the same.
    """
    names = other.markets.names
    policies = {name: own.policy for name, own in zip(names, observed, strict=False)}
    shown = show_terms(observed, other.account, other.venues)
    return other._replace(policies=policies, observed=shown)


def check_margin_policies(policies: Mapping[str, Policy], account: Account) -> None:
    """Raise ParameterError if a policy sets a venue leverage in cross margin."""
    for name, policy in policies.items():
        if sets_margin(policy) and account.for_instrument(name).margin != "isolated":
            raise core.ParameterError(
                f"margin of {name} must be 'isolated' under {type(policy).__name__}, which defines "
                "venue_leverage: in cross margin all money backs the position already, got 'cross'"
            )


def set_up_again(
    setup: Setup, markets: Markets, weights: core.FloatArray, *, first: int, started: int
) -> Setup:
    """Return the setup of the same account on other markets, such as simulated ones.

    ``weights`` (n_instruments, n_bars) are the signal on these markets. The account decides from
    bar ``first`` on, and began at the time ``started`` (ns). Policies compute their columns anew;
    they were checked for looking ahead on the markets before.
    """
    clock = find_clock(markets)
    signal_at_closes = clock.pick(weights)
    observed = observe_policies(
        setup.policies,
        setup.overlay,
        clock.seen,
        setup.venues,
        signal_at_closes,
        is_checked=False,
    )

    # A test may have asked for another sampling of its measures. On the new markets they are daily.
    test = setup.test
    if test.sampling != "1d":
        test = test.replace(sampling="1d")
    return setup.change(
        test=test,
        markets=markets,
        signal=weights,
        observed=observed,
        first=first,
        started=started,
        benchmark=None,
    )

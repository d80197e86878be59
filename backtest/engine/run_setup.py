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
from backtest.engine.conditions import AnyPolicy, Conditions, check_panel, plain, setting
from backtest.engine.inputs import ASSET, ON_CLOCK, AccountInputs, read_inputs
from backtest.engine.policies import ObservedPolicy, assign_policies, observe_policies, show_terms
from backtest.market import Market, Markets, find_clock, label_names, read_weights, remake
from backtest.options.option_checks import check_traders, warn_of_options
from backtest.policies import Policy, sets_margin
from backtest.results import run_record
from backtest.results.manifest import describe_policies, describe_policy
from backtest.results.run_record import Benchmark, BenchmarkLike, RunRecord
from backtest.signals import join_checks, resolve_signal, warn_of_weights
from backtest.signals.directions import describe_weights, read_signal
from backtest.venue import Venue, find_charged


def join_resumed(resume: RunRecord, markets: Markets) -> tuple[Markets, int]:
    """Return the markets of a resumed run, and the bar at which it goes on."""
    if not is_same_account(markets.names, resume.names):
        raise core.ParameterError(
            f"a resumed run must have the same instruments in the same order, "
            f"{', '.join(resume.names)}, got {', '.join(markets.names)}"
        )
    last, joined = resume.last_time, {}
    earlier = markets if resume.markets is None else resume.markets
    for (name, market), before in zip(markets.items(), earlier.values(), strict=True):
        if before.start < market.start <= last + market.interval:
            joined[name] = concatenate(before, market)
    markets = remake(markets, {**markets, **joined}) if joined else markets
    first = int(np.searchsorted(markets.time, last, side="right"))
    is_inside = 0 < first < markets.n_bars and int(markets.time[first - 1]) == last
    is_next = is_inside and int(markets.time[first]) == last + markets.interval
    if not (is_next or (is_inside and markets.sessions)):
        raise core.DataError(
            f"the markets of a resumed run must hold the bar of {core.format_time(last)} UTC, the "
            "last one of the earlier run, the history that the policy's columns need, and bars "
            f"after it, got {core.format_time(markets.start)} to "
            f"{core.format_time(markets.end)} UTC"
        )
    held, ended = resume.of_positions("quantity")[-1].tolist(), {}
    for mark, quantity, (name, market), (listed, gone) in zip(
        resume.marks[-1].tolist(), held, markets.items(), markets.spans.tolist(), strict=True
    ):
        if gone == first and quantity != 0.0:
            ended[name] = append_last_bar(market, int(markets.time[first]))
        if not listed < first <= gone:
            continue
        found = float(market.mark_close[first - 1 - listed])
        if found != mark:
            raise core.DataError(
                f"the mark close of {name} at {core.format_time(last)} UTC must be the one the "
                f"earlier run ended on, {mark!r}, got {found!r}; resume on the same data"
            )
    return (remake(markets, {**markets, **ended}) if ended else markets), first


def is_same_account(names: tuple[str, ...], others: tuple[str, ...]) -> bool:
    return names == others or len(names) == len(others) == 1


def concatenate(before: Market, after: Market) -> Market:
    kept = int(np.searchsorted(before.time, after.start))
    if after.interval != before.interval or set(after.columns) != set(before.columns):
        raise core.DataError(
            "the market of a resumed run must have the interval and columns of the earlier one, "
            f"{core.format_duration(before.interval)} and {sorted(before.columns)}, got "
            f"{core.format_duration(after.interval)} and {sorted(after.columns)}"
        )
    later = int(np.searchsorted(after.funding_time, after.start - after.interval // 4))
    ours = np.concatenate([after.funding_time[later:], [after.end]])
    funded = int(np.searchsorted(before.funding_time, ours[0]))
    cuts = dict.fromkeys(("time", *ON_CLOCK), (kept, 0))
    cuts |= dict.fromkeys(("funding_time", "funding_rate", "funding_mark"), (funded, later))
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(before, name)[:stop], getattr(after, name)[start:]])
        for name, (stop, start) in cuts.items()
    }
    columns = {
        name: np.concatenate([before.columns[name][:kept], after.columns[name]])
        for name in after.columns
    }
    return replace(
        after,
        **joined,
        has_mark=before.has_mark and after.has_mark,
        columns=columns,
        synthetic=before.synthetic or after.synthetic,
        filled={**before.filled, **after.filled},
        source=f"{before.source} then {after.source}",
    )


def append_last_bar(
    market: Market, time: int, price: float | None = None, mark: float | None = None
) -> Market:
    last = float(market.close[-1]) if price is None else price
    marked = float(market.mark_close[-1]) if mark is None else mark
    rows = {"time": time, "volume": 0.0, **dict.fromkeys(ASSET[:4], last)}
    rows |= dict.fromkeys(ASSET[4:], marked)
    longer: dict[str, Any] = {name: np.append(getattr(market, name), x) for name, x in rows.items()}
    return replace(
        market,
        **longer,
        columns={name: np.append(each, each[-1]) for name, each in market.columns.items()},
        source=f"{market.source} and its last prices",
    )


def read_resume(resume: object, start: core.TimeLike | None) -> RunRecord | None:
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
    above = None if setup.overlay is None else describe_policy(setup.overlay)
    present: Any = core.to_plain({"policy": describe_policies(setup.policies), "overlay": above})
    past: Any = core.to_plain(
        {"policy": resume.manifest["policy"], "overlay": resume.manifest.get("overlay")}
    )
    present |= list_rules(setup.account, setup.venues, resume.last_time)
    past |= list_rules(resume.account, resume.venues, resume.last_time)
    differing = [name for name in {**past, **present} if past.get(name) != present.get(name)]
    if differing:
        raise core.ParameterError(
            f"a resumed run must keep the same rules, got another {', '.join(differing)}; flows "
            "after the end of the earlier run may be added"
        )


def list_rules(account: Account, venues: Mapping[str, Venue], until: int) -> dict[str, Any]:
    own = replace(account, flows=None).to_dict()
    for each in own.get("collateral", ()):
        if isinstance(each["prices"], Mapping):
            each["prices"] = each["prices"]["instrument"]
    flows: list[tuple[int, float]] = []  # up to a time, ns
    if account.flows is not None:
        stamps = pd.DatetimeIndex(account.flows.index).as_unit("ns").asi8.tolist()
        pairs = zip(stamps, account.flows.tolist(), strict=True)
        flows = [(stamp, amount) for stamp, amount in pairs if stamp <= until]
    rules = {f"account.{name}": x for name, x in {**own, "flows": flows}.items()}
    for instrument, label in label_names(venues).items():
        venue, of = venues[instrument], f" of {label}" * bool(label)
        rules |= {f"venue.{name}{of}": x for name, x in venue.to_dict().items()}
        if not find_charged(venue):
            rules.pop(f"venue.interest_on{of}", None)
    plain: dict[str, Any] = core.to_plain(rules)
    return plain


def set_up_run(
    test: Conditions, policy: AnyPolicy, *, resume: Any = None, benchmark: BenchmarkLike = None
) -> Setup:
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
        if self.benchmark is not None or len(self.markets) == 1:
            return self.benchmark
        return run_record.index_traded(self.markets, self.venues, self.signal, self.first)

    def join_checks(self, columns: str) -> str:
        return join_checks(columns, self.given)

    def describe_signal(self) -> str:
        return describe_weights(self.given, find_clock(self.markets).pick(self.signal))

    def change(self, *, like: AccountInputs | None = None, **changes: Any) -> Setup:
        """Return the setup with other fields, and the inputs that follow from them."""
        own = self._replace(**changes)
        own = own._replace(observed=show_terms(own.observed, own.account, own.venues))
        return own._replace(inputs=read_inputs(own, like=like))

    def scale(self, scale: float) -> Setup:
        signal = self.signal * scale
        return self.change(signal=signal, given=float(signal[0]) if signal.size == 1 else signal)

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
    """Return a test with a policy as the loop takes it; ``observed`` has its columns, if known."""
    is_alone = isinstance(test.market, Market)
    own = plain(test)
    markets, venues, account = setting(own)
    policies, above = assign_policies(policy, markets, own.overlay)
    check_margin_policies(policies, account)
    check_traders(policies, above, markets)
    (alone,) = [*markets.values()] if is_alone else [markets]
    signal = resolve_signal(own.signal, alone)
    if resume is not None:
        markets, first = join_resumed(resume, markets)
    else:
        first = find_first_bar(markets, own.start)
        check_bars_left(markets, own.start)
    clock = find_clock(markets)
    seen = clock.seen
    weights = read_signals(signal, seen, clock.at(first), is_alone=is_alone)
    known = weights
    if resume is not None and resume.setup is not None and resume.markets is not None:
        held = np.array(clock.hold(weights))  # before its first bar those of the earlier run
        begin = int(np.searchsorted(markets.time, resume.markets.start))
        places = np.searchsorted(resume.markets.time, markets.time[begin:first])
        held[:, begin:first] = resume.setup.signal[:, places]
        known = clock.pick(held)
    setup = Setup(
        test=test,
        markets=markets,
        policies=policies,
        overlay=above,
        venues=venues,
        account=account,
        signal=clock.hold(weights),
        observed=observed or observe_policies(policies, above, seen, venues, known),
        inputs=None,
        first=first,
        periods=checks.count_periods(own.calendar, own.sampling, markets, first),
        resume=resume,
        benchmark=run_record.read_benchmark(benchmark, markets, venues, first),
        given=signal,
        started=int(markets.time[first]) if resume is None else resume.started,
    )
    return setup.change()


def find_first_bar(market: Market | Markets, start: core.TimeLike | None) -> int:
    """Return the bar with which an account begins: the first that opens at ``start`` or later."""
    if start is None:
        return 0
    return int(np.searchsorted(market.time, core.to_nanoseconds(start, "start")))


def check_bars_left(market: Market | Markets, start: core.TimeLike | None) -> None:
    left = market.n_bars - find_first_bar(market, start)
    if left >= 2:
        return
    place = f"of {market!r}" if start is None else f"from start {start} on"
    raise core.ParameterError(
        f"a run needs at least 2 bars, for the first never trades, got {left} {place}"
    )


def read_signals(signal: Any, seen: Markets, first: int, *, is_alone: bool) -> core.FloatArray:
    """Return the weights decided at each close, (n, n_bars); one market's signal is a number."""
    if not is_alone or isinstance(signal, Mapping) or is_frame(signal) or np.ndim(signal) == 2:
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
    venues, account = check_panel(other.markets, account, venue)
    check_margin_policies(other.policies, account)
    policies = {x: own.policy for x, own in zip(other.markets.names, observed, strict=False)}
    changes = {"policies": policies, "venues": venues, "account": account, "observed": observed}
    return other.change(like=other.inputs, **changes)


def check_margin_policies(policies: Mapping[str, Policy], account: Account) -> None:
    for name, policy in policies.items():
        if sets_margin(policy) and account.for_instrument(name).margin != "isolated":
            raise core.ParameterError(
                f"margin of {name} must be 'isolated' under {type(policy).__name__}, which defines "
                "venue_leverage: in cross margin all money backs the position already, got 'cross'"
            )


def set_up_again(
    setup: Setup, markets: Markets, weights: core.FloatArray, *, first: int, started: int
) -> Setup:
    """Return the setup of the same account on other markets, from another bar.

    ``weights`` (n, n_bars) are the signal. Columns are not checked for looking ahead again.
    """
    clock = find_clock(markets)
    seen = clock.pick(weights)
    observed = observe_policies(
        setup.policies, setup.overlay, clock.seen, setup.venues, seen, is_checked=False
    )
    test = setup.test if setup.test.sampling == "1d" else setup.test.replace(sampling="1d")
    return setup.change(
        test=test,
        markets=markets,
        signal=weights,
        observed=observed,
        first=first,
        started=started,
        benchmark=None,
    )

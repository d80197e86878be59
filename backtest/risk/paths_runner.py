"""One account on simulated paths: its arguments, and its lives on them, a block at a time."""

from __future__ import annotations

import functools
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import starmap
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backtest import base
from backtest.account import Account
from backtest.engine import (
    BatchLoop,
    Laid,
    LaneFault,
    ObservedPolicy,
    Progress,
    Result,
    Setup,
    assign_policies,
    check_run,
    describe_venue,
    is_same_account,
    join_resumed,
    lay_alike,
    lay_each,
    observe,
    read_venues,
    run,
    set_up,
    set_up_again,
)
from backtest.market import Market, Markets, as_given, find_clock, read_weights, weights_to_frame
from backtest.policy import Policy, trades_options
from backtest.risk.paths import MARKS, PRICES, PathBars, Paths
from backtest.venue import Venue, check_no_column, list_dated, pick_cost

AnyPolicy: TypeAlias = Policy | Mapping[str, Policy]
AnyVenue: TypeAlias = Venue | Mapping[str, Venue]
AnyAccount: TypeAlias = Account | Result

OWN_BLOCK = 16
"""Paths lived at once where each is prepared by itself."""
WARMUP = 2000
"""Bars of history in front of a path, for the columns of a policy."""
DEPENDENT = ("multiplier", "initial", "sigma", "adv", "stop_scale", "profit_scale", "trail_scale")
"""Fields of a feed that have a row for each bar where they depend on its prices."""


class PathLives(NamedTuple):
    """Outcomes of an account on some paths, for the bars after history.

    All have shape (n_paths, n_bars): wealth at closes, counts of liquidations and margin calls, bad
    debt, and whether the account is ruined. ``first`` is the number of the first path. ``closes``
    (n, n_paths, n_bars) are last prices by instrument.
    """

    first: int
    wealth: base.FloatArray
    liquidations: base.FloatArray
    bad_debt: base.FloatArray
    calls: base.FloatArray
    is_ruined: base.FloatArray
    closes: base.FloatArray


class Prepared(NamedTuple):
    """The account at the start of each path.

    ``seen`` are the markets that policies see on the first path, ``first`` its bar from which the
    account lives. Where paths differ in more than prices, funding and columns, ``is_own``, each is
    set up by itself, with history in front.
    """

    setup: Setup
    seen: Markets
    first: int
    is_own: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class PathsRunner:
    paths: Paths
    policy: AnyPolicy
    venue: AnyVenue
    account: AnyAccount
    signal: float | Mapping[str, float] | None = None
    overlay: Policy | None = None
    compile: bool = True

    @property
    def resume(self) -> Result | None:
        return None if isinstance(self.account, Account) else self.account

    @property
    def terms(self) -> Account:
        return self.account if isinstance(self.account, Account) else self.account.account

    @functools.cached_property
    def venues(self) -> dict[str, Venue]:
        start = self.paths.calendar.time[:1]
        found = read_venues(self.venue, self.paths.markets)
        for venue in found.values():
            for name in list_dated(venue):
                check_no_column(pick_cost(venue, name), f"venue.{name}", "on simulated paths")
        return {name: each.with_table(each.in_use(start)[0]) for name, each in found.items()}

    @property
    def last(self) -> base.FloatArray:
        """The last closes of history, of shape (n,)."""
        return np.array([each.close[-1] for each in self.paths.markets.values()])

    def check(self) -> None:
        markets = self.paths.markets
        check_run(markets, read_venues(self.venue, markets), self.terms)
        if self.terms.collateral:
            raise base.ParameterError(
                "simulated paths have no prices of account.collateral; count it as capital"
            )
        if self.resume is not None and (self.overlay is None) != (self.resume.overlay is None):
            raise base.ParameterError(
                f"overlay must be that of the result, {self.resume.overlay!r}, got {self.overlay!r}"
            )

    def list_weights(self, markets: Markets) -> base.FloatArray:
        """Return the signal on the bars of a path, of shape (n, n_bars)."""
        names, chosen = self.paths.names, self.signal
        if chosen is None and self.resume is not None:
            last = self.resume.state.signal
            chosen = dict(zip(names, map(float, last), strict=True))
        elif isinstance(chosen, float):
            chosen = dict.fromkeys(names, chosen)
        return read_weights(chosen, markets, first=0)

    # --------------------------------------------------------------------------- one path

    def run_path(self, i: int) -> Result:
        paths = self.paths
        number = i % paths.count
        path = paths.markets_of(paths.draw_all(number, number + 1), 0, number)
        joined = paths.join_history(path, WARMUP)
        start = np.datetime64(int(joined.time[joined.n_bars - paths.width]), "ns")
        given: dict[str, Any] = {"policy": self.policy, "venue": self.venues, "signal": self.signal}
        if isinstance(paths.history, Market):
            (given["venue"],) = self.venues.values()
        else:
            seen = find_clock(joined).seen
            given["signal"] = weights_to_frame(self.list_weights(seen), seen)
        began: dict[str, Any] = {"start": start}
        if self.resume is not None:
            venues = dict(zip(self.resume.names, self.venues.values(), strict=True))
            manifest = {**self.resume.manifest, "venue": describe_venue(venues)}
            began = {"resume": replace(self.resume, venues=venues, manifest=manifest)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Result = run(
                as_given(joined, paths.history),
                account=self.terms,
                overlay=self.overlay,
                calendar="252" if joined.sessions else "365",
                compile=self.compile,
                **given,
                **began,
            )
        return found

    # --------------------------------------------------------------------------- all paths

    def run_chunks(
        self, *, count: int | None = None, threads: int = 1, progress: Progress | None = None
    ) -> Iterator[PathLives]:
        self.prepare()  # compiled before threads start
        total, size = self.paths.count if count is None else count, self.paths.block
        blocks = [(k, min(k + size, total)) for k in range(0, total, size)]
        for lives in map_in_order(self.run_block, blocks, threads):
            if progress is not None:
                progress(lives.first + len(lives.wealth), total)
            yield lives

    def prepare(self) -> None:
        self.loop  # noqa: B018 - it is kept

    @functools.cached_property
    def loop(self) -> BatchLoop:
        return BatchLoop(self.prepared.setup, is_compiled=self.compile)

    @property
    def has_columns(self) -> bool:
        return any(each.columns for each in self.prepared.setup.observed)

    @functools.cached_property
    def prepared(self) -> Prepared:
        paths = self.paths
        path = paths.markets_of(paths.draw_all(0, 1), 0, 0)
        seen = self.join(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            setup = set_up(
                seen,
                self.policy,
                venue=self.venues,
                account=replace(self.terms, flows=None),
                signal=self.list_weights(find_clock(seen).seen).T,
                overlay=self.overlay,
                sampling="1d",
                start=None,
            )
        account = replace(setup.account, flows=self.terms.flows)
        resume = self.resume
        setup = setup._replace(account=account, resume=resume)
        first = 0 if resume is None else 1
        is_own = self.overlay is not None or seen.decide > 0
        is_own |= any(getattr(setup.inputs.feed, name).shape[0] > 1 for name in DEPENDENT)
        if not is_own:
            begun = self.begin_on(path, setup, first)
            if self.has_all_stamps(begun):
                return Prepared(begun, seen, first, is_own=False)
        return Prepared(self.set_up_on(seen, setup), seen, seen.n_bars - paths.width + first, True)

    def join(self, path: Markets) -> Markets:
        joined: Markets = self.paths.join_history(path, WARMUP)
        return joined if self.resume is None else join_resumed(self.resume, joined)[0]

    def begin_on(self, path: Markets, setup: Setup, first: int) -> Setup:
        """Return the setup on a path alone, whose policies have seen history in front of it."""
        weights, started = self.list_weights(path), int(path.time[0])
        if setup.resume is not None:
            started = setup.resume.span.start
        pairs = zip(setup.observed, path.values(), strict=True)
        observed = [own._replace(market=market) for own, market in pairs]
        return setup.change(
            markets=path, signal=weights, observed=observed, first=first, started=started
        )

    def set_up_on(self, joined: Markets, setup: Setup) -> Setup:
        """Return the setup on a path with history in front of it."""
        first = joined.n_bars - self.paths.width
        started, weights = int(joined.time[first]), self.list_weights(joined)
        if setup.resume is not None:
            first, started = first + 1, setup.resume.span.start
        return set_up_again(setup, joined, weights, first=first, started=started)

    def has_all_stamps(self, setup: Setup) -> bool:
        feed = setup.inputs.feed
        drawn = feed.funding_instrument[feed.funding_bar > 0]
        return all(
            int(np.sum(drawn == i)) == len(each.calendar.stamps)
            for i, (name, each) in enumerate(self.paths.members.items())
            if not setup.venues[name].contract.is_spot
        )

    def run_block(self, first: int, stop: int) -> PathLives:
        paths, prepared = self.paths, self.prepared
        bars, n = paths.draw_all(first, stop), stop - first
        size, parts = OWN_BLOCK if prepared.is_own else n, []
        for k in range(0, n, size):
            part = {name: own.select(slice(k, k + size)) for name, own in bars.items()}
            laid = self.lay(part, min(size, n - k), first + k)
            try:
                parts.append(self.loop.live(laid, prepared.first)[:, :, -paths.n_bars :])
            except LaneFault as fault:
                replace(self, compile=False).run_path(first + k + fault.lane)  # it says what
                raise
        closes = np.array([each.prices[3, :, 1:] for each in bars.values()])
        return PathLives(first, *np.concatenate(parts, axis=1), closes=closes)  # type: ignore[misc] # its fields

    def lay(self, bars: Mapping[str, PathBars], n: int, first: int) -> Laid:
        paths, prepared = self.paths, self.prepared
        if prepared.is_own:
            markets = [paths.markets_of(bars, k, first + k) for k in range(n)]
            return lay_each([self.set_up_on(self.join(each), prepared.setup) for each in markets])
        columns = [
            self.observe(own, name, bars[name])
            for name, own in zip(paths.names, prepared.setup.observed, strict=True)
        ]
        fields = self.draw_fields(bars, n)
        return lay_alike(prepared.setup, self.loop.deciders, n, columns, **fields)

    def observe(self, own: ObservedPolicy, name: str, bars: PathBars) -> dict[str, base.FloatArray]:
        """Return the columns of a policy along some paths, end to end."""
        member, width = self.paths.members[name], self.paths.width
        if not own.columns:
            return {}
        found = {column: np.empty((len(bars.volume), width)) for column in own.columns}
        signal = self.list_weights(self.prepared.seen)[self.paths.names.index(name)]
        pattern = self.prepared.seen[name].with_signal(np.clip(signal, -1.0, 1.0))
        for k, path in enumerate(member.put_at_end(pattern, bars)):
            columns = observe(own.policy, path)
            for column, rows in found.items():
                rows[k] = columns[column][-width:]
        return {column: rows.ravel() for column, rows in found.items()}

    def draw_fields(self, bars: Mapping[str, PathBars], n: int) -> dict[str, base.FloatArray]:
        """Return prices and volumes of some paths, (bars, n), and their rates of funding."""
        each, feed = [*bars.values()], self.prepared.setup.inputs.feed
        fields = [(*own.prices, *own.marks, own.volume) for own in each]
        found = {
            name: np.stack([values.ravel() for values in columns], axis=1)
            for name, columns in zip(
                (*PRICES, *MARKS, "volume"), zip(*fields, strict=True), strict=True
            )
        }
        rates = np.tile(feed.funding_rate, (n, 1))
        for i, own in enumerate(each):
            paid = np.flatnonzero(feed.funding_instrument == i)
            if own.rates.shape[1] and len(paid):  # a spot leg pays none
                rates[:, paid[-own.rates.shape[1] :]] = own.rates
        return found | {"funding_rate": rates.ravel()}


def map_in_order(
    work: Callable[[int, int], PathLives], blocks: list[tuple[int, int]], threads: int
) -> Iterator[PathLives]:
    if threads == 1:
        yield from starmap(work, blocks)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="paths") as pool:
        waiting: deque[Future[PathLives]] = deque()
        for block in blocks:
            waiting.append(pool.submit(work, *block))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def make_runner(
    paths: Paths,
    policy: AnyPolicy,
    *,
    venue: AnyVenue,
    account: AnyAccount,
    signal: Any = None,
    overlay: Policy | None = None,
    compile: bool = True,  # noqa: A002 - the word of bt.run
) -> PathsRunner:
    check_start(account, paths)
    names = paths.names
    refuse_options(policy, overlay, account)
    assign_policies(policy, paths.markets, overlay)
    read_venues(venue, paths.markets)
    runner = PathsRunner(
        paths=paths,
        policy=unwrap_only(policy, names),
        venue=unwrap_only(venue, names),
        account=account,
        signal=read_constant_signal(signal, paths),
        overlay=overlay,
        compile=compile,
    )
    runner.check()
    return runner


def refuse_options(policy: AnyPolicy, overlay: Policy | None, account: AnyAccount) -> None:
    found = [repr(each) for each in (policy, overlay) if trades_options(each)]
    options = None if isinstance(account, Account) else account.options
    if options is not None:
        last = zip(options.terms.names, options.record.quantity[-1].tolist(), strict=True)
        found = [f"a result that holds {name}" for name, held in last if held != 0.0] + found
    if found:
        raise base.ParameterError(
            "no risk is simulated of accounts that hold or trade options, got "
            f"{found[0]}; bt.stress answers for them"
        )


def unwrap_only(given: Any, names: tuple[str, ...]) -> Any:
    is_only = isinstance(given, Mapping) and names == tuple(given) and len(names) == 1
    return given[names[0]] if is_only else given


def check_start(account: object, paths: Paths) -> None:
    if isinstance(account, Account):
        return
    if not isinstance(account, Result):
        raise base.ParameterError(
            f"account must be an Account or a Result, got {base.repr_plain(account)}"
        )
    if not is_same_account(account.names, paths.names):
        raise base.ParameterError(
            f"paths must be of the instruments of the result, {', '.join(account.names)}, "
            f"got {', '.join(paths.names)}"
        )
    begins = int(paths.calendar.time[0])
    if account.last_time != begins:
        raise base.DataError(
            f"paths must begin where the result ended, {base.format_time(account.last_time)}, "
            f"got {base.format_time(begins)}; start='now' begins at the end of the market"
        )


def read_constant_signal(signal: Any, paths: Paths) -> float | dict[str, float] | None:
    is_one = len(paths.names) == 1
    if signal is None:
        return 1.0 if is_one else None
    given = base.name_values(signal, paths.names)
    if set(given) != set(paths.names):
        raise base.ParameterError(
            f"signal must name each of {', '.join(paths.names)}, got {', '.join(map(str, given))}"
        )
    bound = base.Range(-1.0, 1.0) if is_one else base.Number()
    found = {
        name: float(bound.check("signal" if is_one else f"signal of {name}", given[name]))
        for name in paths.names
    }
    return found[paths.names[0]] if is_one else found

"""``replay()``: the account of somebody who really traded, by the accounting of a run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backtest import _compile, core, engine
from backtest import account as accounts
from backtest.account import AccountBar, balance, log_costs, log_event, payments
from backtest.account import bar as bar_steps
from backtest.account import records as r
from backtest.account.events import Event
from backtest.core import DataError, FloatArray, IntArray, ParameterError, format_time, repr_plain
from backtest.core.code_names import is_series, pd
from backtest.engine import Conditions, Counts, Drive, LoopPart, Setup, finish, new_cuts
from backtest.live.contracts import count_as_venue, name_as_markets
from backtest.live.fills import ENTRIES, TOLERANCE, list_owners, open_table, place_fills
from backtest.live.state import AccountSnapshot, start_account
from backtest.market import Panel, as_markets
from backtest.options import refuse_options
from backtest.policies import Policy
from backtest.results import Outcome, Result, start_tally
from backtest.venue import Venue

CHUNK = 4_096
COSTS = ("fees", "funding", "interest", "expense", "liquidation_loss")
TERMS = {**dict.fromkeys(COSTS, -1.0), "flows": 1.0}
LEVELS = ("equity", "balance")
DECIDED = {r.EARLY: 0, r.AT_OPEN: 5, r.LATE: 8, r.RESTING: 5}
"""The step of fills that say none."""
DUST = 1e-9
"""A position is closed if less than this share of it or of the fill would be left."""


class Replayed(Policy):
    def leverage(self, bar: Any, account: Any) -> float:  # noqa: ARG002 - as of any policy
        return float("nan")

    def __repr__(self) -> str:
        return "Replay of fills"


@dataclass(frozen=True, eq=False, repr=False)
class Replay(Result):
    def reconcile(
        self,
        ledger: pd.DataFrame | pd.Series | AccountSnapshot | str | Path,
        *,
        tolerance: float = 1e-6,
        timezone: str | None = None,
    ) -> pd.DataFrame:
        """Return where a venue's ledger differs, by bar; rows outside the replay are counted.

        Parameters
        ----------
        ledger : DataFrame, Series, AccountSnapshot, str or Path
            A table, or its file: columns ``time``, ``term`` (fees, funding, interest, expense,
            flows, liquidation_loss, or other, which is not compared) and ``amount`` (positive is
            received); or the ``equity`` or the ``balance`` by ``time``, stamped with the close of
            a bar; or a Series of the equity. A snapshot is compared with the last close up to its
            time, by default the last one: its equity, and its quantities in the contracts of the
            venue.
        tolerance : float
            Differences up to this share of the equity are none.
        timezone : str, optional
            The time zone of stamps without one; if omitted, such stamps are refused.

        Returns
        -------
        DataFrame
            ``term``, ``ours``, ``theirs`` and ``difference`` (theirs less ours) by the open of the
            bar, the first difference first; empty if nothing differs.
        """
        core.Real(0.0, 1.0).check("tolerance", tolerance)
        if isinstance(ledger, AccountSnapshot):
            return compare_snapshot(self, ledger, tolerance)

        source: Any = ledger
        if is_series(source):
            source = source.rename("equity").rename_axis("time").to_frame()
        entries = read_ledger(source, timezone)

        tables = []
        for term, bars, ours, theirs in compare(self, entries):
            # A level is as large as itself, an amount of money is measured by the equity.
            scale = np.abs(self.of_account("equity"))[bars]
            if term in LEVELS:
                scale = np.maximum(np.abs(ours), np.abs(theirs))
            differs = np.abs(theirs - ours) > tolerance * (scale + 1e-300)  # 0 is not over 0
            index = core.utc_index(self.time[bars[differs]]).rename("time")
            rows = {
                "term": term,
                "ours": ours[differs],
                "theirs": theirs[differs],
            }
            tables.append(pd.DataFrame(rows, index=index))

        whole = pd.concat(tables) if tables else pd.DataFrame(columns=["term", "ours", "theirs"])
        whole["difference"] = whole["theirs"] - whole["ours"]
        return whole.sort_index(kind="stable")


def read_ledger(source: Any, timezone: str | None) -> pd.DataFrame:
    """Return the rows of a ledger: stamp, term and amount; the term of a level is its name."""
    table, is_file = open_table(source, "a ledger", ("time", "term", "amount"))
    column = next((name for name in (*LEVELS, "amount") if name in table), "amount")
    needed = ("time", column) if column in LEVELS else ("time", "term", "amount")
    missing = [name for name in needed if name not in table]
    if missing:
        raise ParameterError(
            "a ledger must have time, term and amount, or time and equity, got no "
            f"{', '.join(missing)} in {', '.join(map(str, table.columns))}"
        )

    amounts = read_amounts(table, column, "a ledger")
    terms: Any = column
    if column == "amount":
        terms = table["term"].astype(str)
        check_terms(terms)
    stamps = core.read_stamps(
        table["time"],
        name="a ledger",
        timezone=timezone,
        is_file=is_file,
        error=ParameterError,
    )
    return pd.DataFrame({"stamp": stamps, "term": terms, "amount": amounts})


def read_amounts(table: pd.DataFrame, column: str, what: str) -> FloatArray:
    """Return the numbers in a column; raise ParameterError where a cell is none."""
    amounts = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64)
    if np.isfinite(amounts).all():
        return amounts

    k = int(np.argmin(np.isfinite(amounts)))
    cell = repr_plain(table[column].iloc[k])
    raise ParameterError(f"{column} must be a finite number, got {cell} (row {k} of {what})")


def check_terms(terms: Iterable[str]) -> None:
    """Raise ParameterError if a term of a ledger is not one of those that are known."""
    for term in sorted({*terms}):
        core.Choice(*TERMS, "other").check("term", term)


def compare_snapshot(
    replay: Replay,
    snapshot: AccountSnapshot,
    tolerance: float,
) -> pd.DataFrame:
    """Return where the quantities and the equity of a snapshot differ, as ``reconcile`` does.

    It is compared with the last close up to its time; one without a time, with the end. A row for
    each difference over ``tolerance`` times the larger of both amounts.
    """
    names = [*replay.names]
    if replay.markets is not None:
        snapshot = name_as_markets(replay.markets, snapshot)

    closes = replay.span.closes
    stamp = int(closes[-1])
    if snapshot.time is not None:
        stamp = core.to_nanoseconds(snapshot.time)
    bar = int(np.searchsorted(closes, stamp, side="right")) - 1
    if bar < 0 or stamp >= int(closes[-1]) + replay.interval:
        raise ParameterError(
            f"a snapshot must be of a time within the replay, from {format_time(int(closes[0]))} "
            f"to {format_time(int(closes[-1]))}, got {format_time(stamp)}"
        )
    core.check_names(
        "a snapshot: the replay",
        snapshot.positions,
        names,
        noun="instrument",
    )

    counted = count_and_warn(replay.account, replay.venues, snapshot)
    pairs = []
    for name, ours in zip(names, replay.of_positions("quantity")[bar].tolist(), strict=True):
        theirs = 0.0
        if name in counted.positions:
            theirs = counted.positions[name].quantity
        pairs.append((f"quantity of {name}", ours, theirs))
    if counted.equity is not None:
        pairs.append(("equity", float(replay.of_account("equity")[bar]), counted.equity))

    table = pd.DataFrame(pairs, columns=["term", "ours", "theirs"])
    table["difference"] = table["theirs"] - table["ours"]
    table.index = core.utc_index(replay.time[[bar] * len(table)]).rename("time")

    largest = table[["ours", "theirs"]].abs().max(axis=1)
    is_different = table["difference"].abs() > tolerance * largest
    return table[is_different.to_numpy()]


def count_and_warn(
    account: accounts.Account,
    venues: Mapping[str, Venue],
    snapshot: AccountSnapshot,
) -> AccountSnapshot:
    """Return a snapshot in the contracts of the venues; warn of what was converted or assumed."""
    counted, cautions = count_as_venue(account, venues, snapshot)
    for caution in cautions:
        core.warn_caller(caution.text)
    return counted


class ComparedTerm(NamedTuple):
    """A term of a ledger: our amounts and those of the ledger at some bars, (n,) each."""

    term: str
    bars: IntArray
    ours: FloatArray
    theirs: FloatArray


def compare(replay: Replay, table: pd.DataFrame) -> Iterator[ComparedTerm]:
    """Yield the terms of a ledger beside those of a replay; rows outside of it are warned of.

    An amount of money is compared by bar, a level, as the equity, at each of its stamps: the last
    close before it.
    """
    is_level = table["term"].isin(LEVELS).any()
    edges = replay.span.closes if is_level else replay.time
    first = int(edges[0])
    end = int(edges[-1]) + replay.interval

    bars: IntArray = np.searchsorted(edges, table["stamp"], side="right") - 1
    is_inside = (bars >= 0) & (table["stamp"] < end)
    if not is_inside.any():
        raise ParameterError(
            f"a ledger must have rows within the replay, from {format_time(first)} to "
            f"{format_time(end)}, got {len(table)} outside"
        )
    what = "rows of the ledger lie outside the replay and are not compared"
    core.warn_of_outside(what, table["stamp"].to_numpy(), first, end)

    table = table[is_inside]
    bars = bars[is_inside]
    amounts = table["amount"].to_numpy()

    n_bars = replay.record.n_bars
    for term in dict.fromkeys(table["term"]):
        if is_level:
            ours = replay.of_account("equity") if term == "equity" else replay.closes.balance
            yield ComparedTerm(term, bars, ours[bars], amounts)
        elif term in TERMS:
            is_term = (table["term"] == term).to_numpy()
            theirs: Any = np.bincount(
                bars[is_term],
                weights=amounts[is_term],
                minlength=n_bars,
            )
            ours = TERMS[term] * replay.of_account(term)
            yield ComparedTerm(term, np.arange(n_bars, dtype=np.int64), ours, theirs)


@core.record_making
@core.checked_only("fills", "start")
def replay(
    conditions: Conditions,
    fills: pd.DataFrame,
    *,
    start: AccountSnapshot | core.TimeLike | None = None,
    range_tolerance: float = TOLERANCE,
) -> Replay:
    """Answer :meth:`backtest.Backtest.replay`, which documents it."""
    core.Real(0.0, 1.0).check("range_tolerance", range_tolerance)
    test = engine.plain(conditions)
    if start is None:
        start = test.start
    markets = as_markets(test.market)
    refuse_options(markets, "a replay of fills")

    # Open positions are valued at the close before the first bar.
    begin: Any = start
    if isinstance(start, AccountSnapshot):
        begin = start.time
        if begin is None and start.positions:
            begin = pd.Timestamp(int(markets.time[1]), tz="UTC")
    setup = engine.set_up(test.replace(start=begin, signal=None, overlay=None), Replayed())
    if isinstance(start, AccountSnapshot):
        named = name_as_markets(setup.markets, start)
        start = count_and_warn(setup.account, setup.venues, named)

    facts = place_fills(setup, fills, range_tolerance)
    state = find_start(setup, start)
    replayer = Replayer(
        list_owners(setup),
        len(setup.markets),
        facts,
        time=setup.markets.time,
        due=find_due(setup),
    )

    # The loop of a run, in which the bars are those of the replay, and nothing is decided.
    bound = _compile.bind_functions(
        engine.loop,
        process_bar=replayer.process_bar,
        begin_bars=lambda *_: False,
        decide_all=lambda *_: True,
        ask=None,
    )
    room = 8 * (len(setup.markets) * CHUNK + sum(map(len, facts.values())))
    no_fills = "" if facts else "the table of fills has no rows"
    result = pass_bars(setup, state, bound["simulate_account"], room, no_fills=no_fills)

    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(Result)}
    return Replay(**fields)


def find_panel(setup: Setup) -> Panel:
    """Return the prices and settlements of a setup, as its account reads them."""
    jitter = setup.venues[setup.markets.names[0]].funding_jitter
    return setup.markets.panel(core.parse_duration(jitter, "funding_jitter"))


def find_due(setup: Setup) -> IntArray:
    """Return the stamps of the settlements of funding from the first bar on, ns."""
    panel = find_panel(setup)
    return np.asarray(panel.funding_time[panel.funding_bar >= setup.first])


def pass_bars(
    setup: Setup,
    state: accounts.AccountState,
    simulate: Callable[..., Any],
    room: int,
    *,
    no_fills: str | None = None,
) -> Result:
    """Take a state through all bars of a setup by a loop in plain Python; return its result.

    ``simulate`` is ``engine.loop.simulate_account``, bound to the functions that it is to call.
    ``state`` is written into. ``room`` are the rows of the log at first. ``no_fills`` says why
    nothing was filled where no policy decides.
    """
    n = len(setup.markets)
    first = setup.first
    total = setup.markets.n_bars
    deciders = engine.gather_deciders(setup, setup.observed)
    tape = engine.new_tape(n, total - first, first, room)
    tally = start_tally(float(state.wallet.unit), float(state.wallet.equity), first)

    counts = Counts(tally, None, new_cuts(n))
    part = LoopPart(simulate, None, deciders, bound=deciders)
    drive = Drive(
        setup.inputs,
        state,
        part,
        counts=counts,
        tape=tape,
        first=first,
        chunk=CHUNK,
    )
    drive.advance(total)

    outcome = Outcome(
        state=state,
        tally=drive.counts.tally,
        traded=drive.counts.traded,
        record=tape.record,
        entries=drive.take_entries(),
        memory=deciders.memory,
        plain_because="",
        cuts=drive.counts.cuts,
    )
    return finish(setup, outcome, no_fills)


def find_start(setup: Setup, start: Any) -> accounts.AccountState:
    """Return the state at the start of a replay: that of a snapshot, or flat with the capital."""
    if not isinstance(start, AccountSnapshot):
        return engine.start_account_state(setup)

    # A snapshot is of the close before the first bar, at whose marks its positions are valued.
    if setup.first > 0:
        setup = setup._replace(markets=setup.markets.prefix(setup.first))
    elif any(held.quantity != 0.0 for held in start.positions.values()):
        raise ParameterError(
            "a replay with open positions needs the bar before them, got a market that begins "
            "with them"
        )
    return start_account(setup, start, setup.inputs.terms)


class Replayer:
    """The bars of a replay: flows, funding and interest as in a run, and fills that are facts.

    ``names`` are those of the n instruments, then of the collateral. ``facts`` are the fills by
    bar, in the order of time. ``time`` has the opens of the bars and ``due`` the stamps of the
    settlements, ns.

    The steps are those of a run, in plain Python, with some of their functions replaced: nothing is
    liquidated, delisted or ended but by a fill, and every withdrawal is paid out.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        n: int,
        facts: dict[int, list[Any]],
        *,
        time: IntArray,
        due: IntArray,
    ) -> None:
        self.names = names
        self.n = n
        self.facts = facts
        self.time = time
        self.due = due
        self._allowed = 0  # settlements that the next call of settle_funding may pay
        self._t = 0
        self._stopped: set[int] = set()  # instruments whose last fill in this bar is of a stop
        self._default = DECIDED[r.AT_OPEN]

        pay = _compile.bind_functions(
            payments,
            liquidate_isolated=lambda *_, **__: False,
            is_funding_due=self._is_next_due,
            compute_withdrawable=lambda *_: math.inf,
        )
        close = _compile.bind_functions(
            bar_steps,
            settle_debt=self._check_debt,
            delist=lambda *_: None,  # what is delisted or ruined is closed by its fill
            end_account=lambda *_: None,
        )
        self.settle_funding = pay["settle_funding"]
        self.take_flows = pay["take_flows"]
        self.close_bar = close["close_bar"]

    def process_bar(self, bar: AccountBar, t: int) -> None:
        """Take the account through bar t as a run does, with the fills that were made in it.

        Writes into the bar's state, ledger and log. The numbers of the steps are those of
        docs/accounting.md, section 2, and ``bar.log.step`` is set before what a step logs. There is
        no step 4, for liquidations and stops come as fills too. Each step enters the fills that
        belong to it, and the others are left to later steps.
        """
        terms = bar.terms
        state = bar.state
        quotes = bar.quotes

        # What the methods below read of this bar.
        self._t = t
        self._default = DECIDED[terms.fill]
        self._stopped.clear()

        # The wealth before the bar is read before any step moves money.
        bar_steps.set_quotes(terms, bar.feed, quotes, t)
        accounts.clear_ledger(bar.ledger)
        equity_before = state.wallet.equity
        wealth_before = equity_before + state.wallet.reserve
        fills = list(self.facts.get(t, ()))

        # 0. Fills at the close before the bar. What is held gains from that close to the fill.
        if terms.fill == r.EARLY and t > 0:
            self._mark_to_fills(bar)
        fills = self._enter_some(bar, fills, lambda fact: fact.step == 0)

        # 1. Deposits and withdrawals, which leave the unit value as it was.
        bar.log.step[0] = 1
        self.take_flows(bar, t)
        fills = self._enter_some(bar, fills, lambda fact: fact.step == 1)
        bar_steps.rescale_unit(state, bar.ledger, equity_before)

        # 2. Funding at the open, on what was carried into the bar.
        fills = self._pay(bar, fills, is_open=1)

        # 3. Interest since the open before.
        bar.log.step[0] = 3
        if terms.has_interest and t > 0:
            accounts.charge_interest(bar, t)
        accounts.value_at(state, quotes.mark_open, quotes.asset_mark_open)

        # 5. Fills at the open.
        opened = int(self.time[t])
        fills = self._enter_some(bar, fills, lambda fact: fact.time == opened)

        # 6. Funding inside the bar, each settlement after the fills before it.
        fills = self._pay(bar, fills, is_open=0)

        # 7. All other fills of the bar.
        self._enter_some(bar, fills, lambda _: True)

        # 8. The close.
        bar_steps.follow_bests(bar)
        bar.log.step[0] = 8
        self.close_bar(bar, t, wealth_before)

    def _mark_to_fills(self, bar: AccountBar) -> None:
        """Enter into the ledger what held positions gain up to the price of an early fill."""
        for i in range(self.n):
            if accounts.is_held(bar.state, i):
                price = bar.quotes.instruments[i].fill
                accounts.mark_to_ledger(bar.state, i, price, bar.ledger)

    def _is_next_due(self, *place: Any) -> bool:
        """Return whether a settlement is due, in place of what a run asks before it pays one.

        Counts ``_allowed`` down. A run pays all that are due in one call; a replay allows one at a
        time, so that fills can come between them.
        """
        self._allowed -= 1
        return self._allowed >= 0 and payments.is_funding_due(*place)

    def _pay(
        self,
        bar: AccountBar,
        left: list[Any],
        *,
        is_open: int,
    ) -> list[Any]:
        """Pay the settlements that are due one by one, each after the fills before it.

        Fills of the step of a settlement are those that it forced. Returns the fills left.
        """
        # Step 2 of a bar settles funding at its open, step 6 inside it.
        step = 2 if is_open else 6
        while payments.is_funding_due(bar.feed, bar.state, self._t, is_open):
            event = int(bar.state.cursor[r.FUNDING_NEXT])
            name = self.names[bar.feed.funding_instrument[event]]
            due = int(self.due[event])
            if not is_open:
                left = self._enter_some(bar, left, lambda fact, due=due: fact.time < due)

            self._allowed = 1
            bar.log.step[0] = step
            self.settle_funding(bar, self._t, is_open)
            while left and is_forced_by(left[0], name, step=step, due=due):
                self._enter(bar, left.pop(0))
        return left

    def _enter_some(
        self,
        bar: AccountBar,
        fills: list[Any],
        is_due: Callable[..., bool],
    ) -> list[Any]:
        """Enter the fills that are due, and return the others."""
        left = []
        for fact in fills:
            if is_due(fact):
                self._enter(bar, fact)
            else:
                left.append(fact)
        return left

    def _enter(self, bar: AccountBar, fact: Any) -> None:
        """Write a fill, a sale of collateral or a bad debt into the account, ledger and log."""
        bar.log.step[0] = fact.step if fact.step >= 0 else self._default

        if fact.kind == "bad_debt":
            balance.write_off(bar, self._t, debt=-fact.fee)
        elif fact.place >= self.n:
            self._enter_conversion(bar, fact)
        else:
            enter_fill(bar, self._t, fact)
            self._count_stop(bar, fact)

    def _count_stop(self, bar: AccountBar, fact: Any) -> None:
        """Count a stop once, however many fills in a row its order had."""
        if fact.kind != "stop":
            self._stopped.discard(fact.place)
        elif fact.place not in self._stopped:
            self._stopped.add(fact.place)
            bar.ledger[fact.place].stops += 1.0

    def _enter_conversion(self, bar: AccountBar, fact: Any) -> None:
        """Write a sale of collateral into the account, its ledger and the log."""
        state = bar.state
        ledger = bar.ledger[self.n]
        asset = fact.place - self.n
        sold = -fact.quantity
        ledger.collateral_pnl += sold * (fact.reference - state.priced[asset])
        ledger.conversion += sold * (fact.reference - fact.price)
        ledger.fees += fact.fee

        amount = state.held.amounts[asset] - sold
        if abs(amount) <= DUST * abs(sold):
            amount = 0.0
        state.held.amounts[asset] = amount

        paid = sold * fact.price
        state.wallet.cash += paid - fact.fee
        log_event(
            bar.log,
            self._t,
            fact.place,
            Event.CONVERTED,
            fact.price,
            -sold,
            paid,
        )

    def _check_debt(self, bar: AccountBar, t: int) -> None:
        """Raise DataError if the account owes more than rounding; else write that off in cash."""
        state = bar.state
        equity = accounts.compute_account_equity(bar.terms, state)
        scale = max(abs(state.wallet.cash), float(abs(state.wallet.equity)), 1e-300)
        if equity < -DUST * scale:
            raise DataError(
                f"the equity of a replay must not fall below 0, got {equity:.10g} in bar {t}, "
                f"{format_time(int(self.time[t]))}; add a row of the kind bad_debt with the fee "
                "-amount after the fill that left the debt"
            )
        state.wallet.cash -= min(equity, 0.0)


def is_forced_by(
    fact: Any,
    name: str,
    *,
    step: int,
    due: int,
) -> bool:
    """Return whether a fill is one that the settlement of an instrument forced."""
    if fact.instrument != name and fact.kind != "bad_debt":
        return False
    if fact.step != step:
        return False
    return step == 2 or fact.time == due


def enter_fill(bar: AccountBar, t: int, fact: Any) -> None:
    """Write a fill of an instrument into the account, its ledger and the log."""
    terms = bar.terms
    state = bar.state
    i = fact.place
    rules = accounts.pick_instrument(terms, i)
    before = accounts.pick_balances(terms, state, i)
    position = before.position

    # What is left of two quantities that cancel but for rounding is no position.
    quantity = position.quantity + fact.quantity
    larger = max(abs(position.quantity), abs(fact.quantity))
    if abs(quantity) <= DUST * larger:
        quantity = 0.0
    change = quantity - position.quantity
    entry = accounts.compute_entry(position, quantity, fact.filled)

    # An isolated position moves margin; a cross one is bought with cash.
    if accounts.is_isolated(terms, i):
        initial = bar.quotes.instruments[i].initial
        cash, margin = accounts.move_margin(
            rules,
            before,
            quantity,
            fact.filled,
            initial,
        )
    else:
        cash = before.cash - change * fact.filled
        margin = 0.0

    filled = accounts.Balances(cash, accounts.Position(quantity, entry, margin, fact.value))
    after = accounts.charge(rules, filled, fact.fee)

    ledger = bar.ledger[i]
    ledger.price_pnl += position.quantity * (fact.value - position.marked)
    ledger.traded += abs(change) * abs(fact.filled)
    accounts.put_balances(terms, state, i, before, after)
    log_fill(bar, t, fact, change)


def log_fill(
    bar: AccountBar,
    t: int,
    fact: Any,
    change: float,
) -> None:
    """Write a fill, which changed a position by ``change`` contracts, into ledger and log.

    What a liquidation costs is one loss, at the price of the market; of other fills it is a fee
    and slippage.
    """
    i = fact.place
    ledger = bar.ledger[i]
    slippage = change * (fact.filled - fact.value)
    if fact.kind in ("liquidation", "takeover"):
        price_shown = fact.value
        costs = (fact.fee + slippage, 0.0, 0.0)
        ledger.liquidation_loss += costs[0]
        ledger.liquidations += 1.0
    else:
        price_shown = fact.filled
        costs = (fact.fee, slippage, 0.0)
        ledger.fees += fact.fee
        ledger.slippage += slippage
        if change != 0.0 and fact.kind != "ruin":  # a run does not count what ruin closes
            ledger.fills += 1.0

    notional = abs(change) * abs(price_shown)
    log_event(
        bar.log,
        t,
        i,
        ENTRIES[fact.kind],
        price_shown,
        change,
        notional,
    )
    log_costs(bar.log, *costs)

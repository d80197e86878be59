"""``replay()``: the account of somebody who really traded, by the accounting of a run."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backtest import _compile, core, engine
from backtest import account as accounts
from backtest.account import AccountBar, log_event, payments
from backtest.account import bar as bar_steps
from backtest.account import records as r
from backtest.account.events import Event
from backtest.core import DataError, FloatArray, IntArray, ParameterError, format_time, repr_plain
from backtest.core.code_names import is_frame, is_series, pd
from backtest.engine import Conditions, Counts, Drive, LoopPart, Setup, finish, new_cuts
from backtest.live.contracts import count_as_venue, count_fills
from backtest.live.state import AccountSnapshot, name_symbols, start_account
from backtest.market import as_markets, read_file, rename_known
from backtest.options import refuse_options
from backtest.policies import Policy
from backtest.results import Outcome, Result, start_tally
from backtest.results.tables import value_of

NEEDED = ("time", "instrument", "quantity", "price", "fee")
COLUMNS = (*NEEDED, "fee_currency", "kind", "reference", "step", "traded")
CCXT = ("timestamp", "symbol", "side", "amount", "price")
KNOWN = (*COLUMNS, *CCXT, "fees", "term", "amount", "equity", "balance")
SIDES = {"buy": 1.0, "sell": -1.0}
ENTRIES = {
    "order": Event.FILL, "stop": Event.STOPPED, "liquidation": Event.LIQUIDATED,
    "takeover": Event.LIQUIDATED, "expiry": Event.DELISTED, "delisting": Event.DELISTED,
    "ruin": Event.FILL, "conversion": Event.CONVERTED,
}  # fmt: skip
KINDS = (*ENTRIES, "bad_debt")
WITHOUT_RANGE = ("bad_debt", "takeover", "liquidation", "expiry", "delisting", "ruin")


@core.checked_only("names", "timezone")
def read_fills(
    source: str | Path | pd.DataFrame | Sequence[Mapping[str, Any]],
    *,
    names: Mapping[str, str] | None = None,
    timezone: str | None = None,
) -> pd.DataFrame:
    """Return fills as :meth:`backtest.Backtest.replay` takes them.

    Raises DataError if columns are missing, a row cannot be read, a trade is there twice, or its
    fees are in several currencies; ParameterError if two symbols would be one instrument.

    Parameters
    ----------
    source : str, Path, DataFrame or sequence of mappings
        A CSV or JSON file, a table, or a list: of the columns ``time``, ``instrument``,
        ``quantity``, ``price`` and ``fee``, with what else :attr:`Result.fills` has; or of what
        ccxt's ``fetch_my_trades`` returns, whose ``cost`` becomes ``traded``.
    names : mapping of str to str, optional
        Our instruments by the symbol of the source. Default: ``BTC/USDT:USDT`` is ``BTCUSDT``.
    timezone : str, optional
        The time zone of stamps without one; if omitted, such stamps are refused.
    """
    table, is_file = open_table(source, "fills")
    is_of_ccxt = set(CCXT) <= set(table.columns)
    if not is_of_ccxt and not {"time", "quantity", "price"} <= set(table.columns):
        raise DataError(
            f"fills must have the columns {', '.join(NEEDED)} (instrument and fee may be left "
            f"out), or ccxt's {', '.join(CCXT)}, got {', '.join(map(str, table.columns))}"
        )
    if not is_of_ccxt and "fee" not in table and "fees" in table:
        raise DataError("the column of fees must be called 'fee', got 'fees'")
    try:
        rows = read_trades(table) if is_of_ccxt else table[[x for x in COLUMNS if x in table]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"a row of fills cannot be read: {error}") from error
    stamps = core.read_stamps(rows["time"], name="fills", timezone=timezone, is_file=is_file)
    rows = rows.assign(time=core.utc_index(stamps))
    if "instrument" in rows:
        symbols = rows["instrument"].astype(str)
        rows["instrument"] = symbols.map(name_symbols(symbols.unique(), names))
    return rows.sort_values("time", kind="stable", ignore_index=True)


def open_table(source: Any, what: str) -> tuple[pd.DataFrame, bool]:
    """Return a file, table or list of mappings as a table, and whether it was a file."""
    is_file = isinstance(source, str | Path)
    if is_frame(source):
        table = source.reset_index() if source.index.name is not None else source.copy()
    elif is_file and Path(source).suffix.lower() == ".json":
        try:
            table = pd.DataFrame(core.read_json_file(Path(source)))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{what} must be a readable file, got {core.describe_fault(error)} ({source})"
            ) from error
    elif is_file:
        table = read_file(Path(source))
    elif isinstance(source, Sequence) and all(isinstance(each, Mapping) for each in source):
        table = pd.DataFrame([dict(each) for each in source], columns=None if source else CCXT)
    else:
        raise DataError(
            f"{what} must be a file, a table or a list of mappings, got {repr_plain(source)}"
        )
    return rename_known(table, KNOWN, what), is_file


def read_trades(table: pd.DataFrame) -> pd.DataFrame:
    amounts = table["amount"].astype("float64")
    if (amounts < 0.0).any():
        raise DataError(
            f"the amount of a trade must be at least 0, beside its side, got {amounts.min():g}"
        )
    if "id" in table:
        own = table.loc[table["id"].notna(), ["symbol", "side", "id"]].astype(str)
        twice = own[own.duplicated()]
        if len(twice):
            symbol, _, number = twice.iloc[0]
            raise DataError(
                f"a trade may have one row, got {number!r} of {symbol} again (row "
                f"{twice.index[0]} of fills); leave out the {len(twice):,} rows that are there "
                "twice"
            )
    nothing = [None] * len(table)
    listed, single = (table.get(x, nothing) for x in ("fees", "fee"))
    fees = [read_fee(*each, k) for k, each in enumerate(zip(listed, single, strict=True))]
    warn_without_fees(sum(each is None for each in fees))
    return pd.DataFrame({
        "time": table["timestamp"],
        "instrument": table["symbol"],
        "quantity": amounts * [SIDES[side] for side in table["side"]],
        "price": table["price"].astype("float64"),
        "fee": [each[0] if each else 0.0 for each in fees],
        "fee_currency": [each[1] if each else "" for each in fees],
        "traded": pd.to_numeric(table.get("cost", math.nan)),
    })  # fmt: skip


def read_fee(listed: Any, single: Any, row: int) -> tuple[float, str] | None:
    """Return the cost of a trade of ccxt and its currency, or None if it says none.

    Of ``fees`` and ``fee`` the first that has a cost counts, never both.
    """
    for given in (listed, single):
        entries = given if isinstance(given, list | tuple) else [given]
        if odd := [x for x in entries if not isinstance(x, Mapping) and not pd.isna(x)]:
            raise DataError(
                "the fee of a trade must be a mapping of cost and currency, got "
                f"{repr_plain(odd[0])} (row {row} of fills); save trades of ccxt as JSON"
            )
        known = [x for x in entries if isinstance(x, Mapping) and x.get("cost") is not None]
        paid = [(float(x["cost"]), str(x.get("currency") or "")) for x in known]
        currencies = dict.fromkeys(currency for cost, currency in paid if cost != 0.0)
        if len(currencies) > 1:
            raise DataError(
                "the fees of a trade must be in one currency, got "
                f"{' and '.join(map(repr, currencies))} (row {row} of fills)"
            )
        if known:
            return math.fsum(cost for cost, _ in paid), next(iter(currencies), "")
    return None


def place_fills(setup: Setup, given: pd.DataFrame, tolerance: float) -> dict[int, list[Any]]:
    """Return the rows of fills by bar, with bar, place of the instrument, and values as traded."""
    names = (*setup.markets.names, *(each.name for each in setup.account.collateral))
    settled = engine.check_settlement(setup.markets, setup.venues)
    table = complete_fills(given, names, settled)
    if "traded" in given:
        table = count_fills(setup, table)
    stamps = core.read_stamps(table["time"], name="fills", error=ParameterError)
    time, start = setup.markets.time, int(setup.markets.time[setup.first])
    bars, end = np.searchsorted(time, stamps, "right") - 1, int(time[-1]) + setup.markets.interval
    outside: core.BoolArray = (bars < setup.first) | (stamps >= end)
    if outside.any():
        k = int(np.argmax(outside))
        raise DataError(
            f"a fill must lie within the replay, from {format_time(start)} to {format_time(end)}, "
            f"got {format_time(int(stamps[k]))} (row {k} of fills)"
        )
    if setup.account.fill == "same_close":
        is_late = (table["step"] < 0) & (stamps == time[bars]) & (table["kind"] == "order")
        table["step"] = table["step"].mask(is_late, 0)
    places = pd.Index(names).get_indexer(pd.Index(table["instrument"])).clip(min=0)
    table = table.assign(time=stamps, bar=bars, place=places)
    facts: dict[int, list[Any]] = defaultdict(list)
    for k, row in enumerate(table.itertuples(index=False)):
        fact: Any = row
        if fact.place < len(setup.markets) and fact.kind != "bad_debt":
            contract, prices = setup.venues[fact.instrument].contract, (fact.reference, fact.price)
            value, filled = (float(value_of(contract, each)) for each in prices)
            fact = fact._replace(value=value, filled=filled)
        check_range(setup, fact, k, tolerance)
        facts[fact.bar].append(fact)
    return {bar: sorted(own, key=lambda fact: fact.time) for bar, own in facts.items()}


def complete_fills(given: pd.DataFrame, names: tuple[str, ...], settled: str) -> pd.DataFrame:
    missing = [name for name in ("time", "quantity", "price") if name not in given]
    if missing:
        raise ParameterError(
            f"fills must have the columns {', '.join(NEEDED)}, got no {', '.join(missing)}; "
            "bt.read_fills reads ccxt's fetch_my_trades"
        )
    warn_without_fees(0 if "fee" in given else len(given))
    usual: Any = {"instrument": names[0], "fee": 0.0, "kind": "order", "step": -1}
    usual |= {"fee_currency": "", "reference": np.nan, "traded": np.nan}
    lacking = {name: x for name, x in usual.items() if name not in given}
    table = given.reset_index(drop=True).assign(**lacking)
    for name in ("quantity", "price", "reference", "fee", "step", "traded"):
        table[name] = pd.to_numeric(table[name], errors="coerce").astype("float64")
    table["reference"] = table["reference"].fillna(table["price"])
    table["step"] = table["step"].fillna(-1.0).astype("int64")
    # an empty cell of a file is the settlement currency
    table["fee_currency"] = table["fee_currency"].astype(object).fillna("")
    for name in ("instrument", "kind", "fee_currency"):
        table[name] = table[name].astype(str)
    check_rows(given, table, names, settled)
    table["traded"] = table["traded"].abs()
    return table.assign(value=table["reference"], filled=table["price"])


def check_rows(given: pd.DataFrame, table: pd.DataFrame, names: Any, settled: str) -> None:
    is_debt = table["kind"] == "bad_debt"
    sizes, fees = table["quantity"], table["fee"]
    is_settled = table["fee_currency"].isin(["", settled])
    currency_rule = f"fees must be in the settlement currency, {settled}"
    if not settled:
        currency_rule = (
            "fees with a currency need a known settlement currency, which neither the venue nor "
            "the name states; give venue.override({'contract.settles': 'USDT'}) or leave "
            "fee_currency empty"
        )
    rules: list[tuple[str, str, Any]] = [
        ("instrument", f"a fill must be of an instrument of the market, {', '.join(names)} "
         f"(read_fills(..., names={{symbol: {names[0]!r}}}) maps symbols)",
         table["instrument"].isin(names) | is_debt),
        ("kind", f"kind must be one of {', '.join(KINDS)}", table["kind"].isin(KINDS)),
        ("quantity", "quantity must be finite and not 0",
         np.isfinite(sizes) & ((sizes != 0.0) | is_debt)),
        ("fee", "fee must be a finite number", np.isfinite(fees)),
        ("fee_currency", currency_rule, is_settled | (fees == 0.0)),
    ]  # fmt: skip
    for name in ("price", "reference"):
        is_good = (table[name] > 0.0) & np.isfinite(table[name])
        rules.append((name, f"{name} must be over 0", is_good | is_debt))
    near = {"instrument": names, "kind": KINDS}
    for name, rule, is_good in rules:
        if not is_good.all():
            k = int(np.argmin(is_good))
            cell = given[name].iloc[k]
            hint = core.did_you_mean(str(cell), near[name]) if name in near else ""
            raise ParameterError(f"{rule}, got {repr_plain(cell)}{hint} (row {k} of fills)")


def warn_without_fees(count: int) -> None:
    if count:
        warnings.warn(f"{count:,} fills have no fee, and pay none", stacklevel=2)


def check_range(setup: Setup, fact: Any, k: int, tolerance: float) -> None:
    is_resting = fact.step == 7 and fact.kind == "order"  # fills at a limit that the open passed
    if fact.kind in WITHOUT_RANGE or fact.place >= len(setup.markets) or is_resting:
        return
    feed, bar, i = setup.inputs.feed, fact.bar, fact.place
    low, high = float(feed.low[bar, i]), float(feed.high[bar, i])
    if bar > 0 and fact.time == int(feed.time[bar]):
        last = feed.close[bar - 1, i]
        low, high = float(np.nanmin([low, last])), float(np.nanmax([high, last]))
    room = 1e-9 if fact.reference != fact.price else tolerance
    if not low * (1.0 - room) <= fact.reference <= high * (1.0 + room):
        raise DataError(
            f"a fill must lie in the range of its bar, {low:.10g} to {high:.10g}, got "
            f"{fact.reference:.10g} (row {k} of fills, {fact.instrument} at "
            f"{format_time(fact.time)}); give the price before slippage as reference, or raise "
            "range_tolerance"
        )


TOLERANCE = 0.005
"""How far a price may lie outside its bar, a fraction, where no reference is given."""
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
        given: Any = ledger
        if is_series(given):
            given = given.rename("equity").rename_axis("time").to_frame()
        table, is_file = open_table(given, "a ledger")
        column = next((name for name in (*LEVELS, "amount") if name in table), "amount")
        needed = ("time", column) if column in LEVELS else ("time", "term", "amount")
        missing = [name for name in needed if name not in table]
        if missing:
            raise ParameterError(
                "a ledger must have time, term and amount, or time and equity, got no "
                f"{', '.join(missing)} in {', '.join(map(str, table.columns))}"
            )
        amounts = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64)
        if not np.isfinite(amounts).all():
            k = int(np.argmin(np.isfinite(amounts)))
            cell = f"{repr_plain(table[column].iloc[k])} (row {k} of a ledger)"
            raise ParameterError(f"{column} must be a finite number, got {cell}")
        terms = table["term"].astype(str) if column == "amount" else column
        for name in sorted({*terms}) if column == "amount" else ():
            core.Choice(*TERMS, "other").check("term", name)
        stamps = core.read_stamps(
            table["time"], name="a ledger", timezone=timezone, is_file=is_file, error=ParameterError
        )
        read = pd.DataFrame({"stamp": stamps, "term": terms, "amount": amounts})
        tables = []
        for term, bars, ours, theirs in compare(self, read):
            scale = np.abs(self.of_account("equity"))[bars]
            if term in LEVELS:
                scale = np.maximum(np.abs(ours), np.abs(theirs))
            off = np.abs(theirs - ours) > tolerance * (scale + 1e-300)
            index = core.utc_index(self.time[bars[off]]).rename("time")
            rows = {"term": term, "ours": ours[off], "theirs": theirs[off]}
            tables.append(pd.DataFrame(rows, index=index))
        whole = pd.concat(tables) if tables else pd.DataFrame(columns=["term", "ours", "theirs"])
        whole["difference"] = whole["theirs"] - whole["ours"]
        return whole.sort_index(kind="stable")


def compare_snapshot(replay: Replay, snapshot: AccountSnapshot, tolerance: float) -> pd.DataFrame:
    """Return where the quantities and the equity of a snapshot differ, as ``reconcile`` does."""
    names, closes = [*replay.names], replay.span.closes
    stamp = int(closes[-1]) if snapshot.time is None else core.to_nanoseconds(snapshot.time)
    bar = int(np.searchsorted(closes, stamp, side="right")) - 1
    if bar < 0 or stamp >= int(closes[-1]) + replay.interval:
        raise ParameterError(
            f"a snapshot must be of a time within the replay, from {format_time(int(closes[0]))} "
            f"to {format_time(int(closes[-1]))}, got {format_time(stamp)}"
        )
    core.check_names("a snapshot: the replay", snapshot.positions, names, noun="instrument")

    counted, cautions = count_as_venue(replay.account, replay.venues, snapshot)
    for caution in cautions:
        core.warn_caller(caution.text)
    pairs = []
    for name, ours in zip(names, replay.of_positions("quantity")[bar].tolist(), strict=True):
        held = counted.positions.get(name)
        pairs.append((f"quantity of {name}", ours, 0.0 if held is None else held.quantity))
    if counted.equity is not None:
        pairs.append(("equity", float(replay.of_account("equity")[bar]), counted.equity))

    table = pd.DataFrame(pairs, columns=["term", "ours", "theirs"])
    table["difference"] = table["theirs"] - table["ours"]
    scale = table[["ours", "theirs"]].abs().max(axis=1)
    table.index = core.utc_index(replay.time[[bar] * len(table)]).rename("time")
    return table[(table["difference"].abs() > tolerance * scale.to_numpy()).to_numpy()]


def compare(
    replay: Replay, table: pd.DataFrame
) -> Iterator[tuple[str, IntArray, FloatArray, FloatArray]]:
    is_level = table["term"].isin(LEVELS).any()
    edges = replay.span.closes if is_level else replay.time
    bars: IntArray = np.searchsorted(edges, table["stamp"], side="right") - 1
    first, last = int(edges[0]), int(edges[-1]) + replay.interval
    inside = (bars >= 0) & (table["stamp"] < last)
    if not inside.any():
        raise ParameterError(
            f"a ledger must have rows within the replay, from {format_time(first)} to "
            f"{format_time(last)}, got {len(table)} outside"
        )
    what = "rows of the ledger lie outside the replay and are not compared"
    core.warn_of_outside(what, table["stamp"].to_numpy(), first, last)
    table, bars = table[inside], bars[inside]
    for term in dict.fromkeys(table["term"]):
        amounts = table["amount"].to_numpy()
        if is_level:
            ours = replay.of_account("equity") if term == "equity" else replay.closes.balance
            yield term, bars, ours[bars], amounts
        elif term in TERMS:
            own, n = (table["term"] == term).to_numpy(), replay.record.n_bars
            theirs: Any = np.bincount(bars[own], weights=amounts[own], minlength=n)
            yield term, np.arange(n, dtype=np.int64), TERMS[term] * replay.of_account(term), theirs


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
    market, start = test.market, test.start if start is None else start
    markets = as_markets(market)
    refuse_options(markets, "a replay of fills")
    begin: Any = start.time if isinstance(start, AccountSnapshot) else start
    if begin is None and isinstance(start, AccountSnapshot) and start.positions:
        begin = pd.Timestamp(int(markets.time[1]), tz="UTC")
    setup = engine.set_up(test.replace(start=begin, signal=None, overlay=None), Replayed())
    if isinstance(start, AccountSnapshot):
        start, cautions = count_as_venue(setup.account, setup.venues, start)
        for caution in cautions:
            core.warn_caller(caution.text)
    facts = place_fills(setup, fills, range_tolerance)
    state = find_start(setup, start)
    n, first = len(setup.markets), setup.first
    names = (*setup.markets.names, *(each.name for each in setup.account.collateral))
    jitter = setup.venues[setup.markets.names[0]].funding_jitter
    panel = setup.markets.panel(core.parse_duration(jitter, "funding_jitter"))
    due = np.asarray(panel.funding_time[panel.funding_bar >= first])
    replayer = Replayer(names, n, facts, setup.markets.time, due)
    bound = _compile.bind_functions(
        engine.loop,
        process_bar=replayer.live,
        begin_bars=lambda *_: False,
        decide_all=lambda *_: True,
        ask=None,
    )
    room = 8 * (n * CHUNK + sum(map(len, facts.values())))
    result = pass_bars(setup, state, bound["simulate_account"], room)
    return Replay(**{each.name: getattr(result, each.name) for each in dataclasses.fields(Result)})


def pass_bars(
    setup: Setup, state: accounts.AccountState, simulate: Callable[..., Any], room: int
) -> Result:
    """Take a state through all bars of a setup by a loop in plain Python; return its result.

    ``room`` are the rows of the log at first.
    """
    n, first, total = len(setup.markets), setup.first, setup.markets.n_bars
    deciders = engine.gather_deciders(setup, setup.observed)
    tape = engine.new_tape(n, total - first, first, room)
    tally = start_tally(float(state.wallet.unit), float(state.wallet.equity), first)
    counts = Counts(tally, None, new_cuts(n))
    part = LoopPart(simulate, None, deciders, bound=deciders)
    drive = Drive(setup.inputs, state, part, counts=counts, tape=tape, first=first, chunk=CHUNK)
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
    return finish(setup, outcome)


def find_start(setup: Setup, start: Any) -> accounts.AccountState:
    if not isinstance(start, AccountSnapshot):
        return engine.start_account_state(setup)
    if setup.first > 0:
        setup = setup._replace(markets=setup.markets.prefix(setup.first))
    elif any(each.quantity != 0.0 for each in start.positions.values()):
        raise ParameterError(
            "a replay with open positions needs the bar before them, got a market that begins "
            "with them"
        )
    return start_account(setup, start, setup.inputs.terms)


class Replayer:
    """The bars of a replay: flows, funding and interest as in a run, and fills that are facts.

    ``names`` are those of the n instruments, then of the collateral. ``time`` has the opens of the
    bars and ``due`` the stamps of the settlements, ns.
    """

    def __init__(
        self, names: tuple[str, ...], n: int, facts: dict[int, list[Any]],
        time: IntArray, due: IntArray,
    ) -> None:  # fmt: skip
        self.names, self.n, self.facts, self.time, self.due = names, n, facts, time, due
        self._allowed, self._t, self._default = 0, 0, 5
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
        self.pay, self.flow = pay["settle_funding"], pay["take_flows"]
        self.close = close["close_bar"]

    def live(self, bar: AccountBar, t: int) -> None:
        terms, state, quotes, ledger = bar.terms, bar.state, bar.quotes, bar.ledger
        self._t, opened = t, int(self.time[t])
        bar_steps.set_quotes(terms, bar.feed, quotes, t)
        accounts.clear_ledger(ledger)
        before = state.wallet.equity
        wealth = before + state.wallet.reserve
        left = list(self.facts.get(t, ()))
        if terms.fill == r.EARLY and t > 0:
            for i in range(self.n):
                if accounts.is_held(state, i):
                    accounts.mark_to_ledger(state, i, quotes.instruments[i].fill, ledger)
        self._default = DECIDED[terms.fill]
        left = self._apply(bar, left, lambda fact: fact.step == 0)
        bar.log.step[0] = 1
        self.flow(bar, t)
        left = self._apply(bar, left, lambda fact: fact.step == 1)
        bar_steps.rescale_unit(state, ledger, before)
        left = self._pay(bar, left, 1)
        bar.log.step[0] = 3
        if terms.has_interest and t > 0:
            accounts.charge_interest(bar, t)
        accounts.value_at(state, quotes.mark_open, quotes.asset_mark_open)
        left = self._apply(bar, left, lambda fact: fact.time == opened)
        left = self._pay(bar, left, 0)
        self._apply(bar, left, lambda _: True)
        bar_steps.follow_bests(bar)
        bar.log.step[0] = 8
        self.close(bar, t, wealth)

    def _is_next_due(self, *given: Any) -> bool:
        self._allowed -= 1
        return self._allowed >= 0 and payments.is_funding_due(*given)

    def _pay(self, bar: AccountBar, left: list[Any], is_open: int) -> list[Any]:
        feed, state, t = bar.feed, bar.state, self._t
        while payments.is_funding_due(feed, state, t, is_open):
            event = int(state.cursor[r.FUNDING_NEXT])
            name, due = self.names[feed.funding_instrument[event]], int(self.due[event])
            if not is_open:
                left = self._apply(bar, left, lambda fact, due=due: fact.time < due)
            self._allowed, step = 1, 2 if is_open else 6
            bar.log.step[0] = step
            self.pay(bar, t, is_open)
            for fact in [*left]:
                is_own = fact.instrument == name or fact.kind == "bad_debt"
                if not is_own or fact.step != step or (step != 2 and fact.time != due):
                    break
                self._enter(bar, left.pop(0))
        return left

    def _apply(self, bar: AccountBar, left: list[Any], chosen: Callable[..., bool]) -> list[Any]:
        for fact in filter(chosen, left):
            self._enter(bar, fact)
        return [fact for fact in left if not chosen(fact)]

    def _enter(self, bar: AccountBar, fact: Any) -> None:
        bar.log.step[0] = fact.step if fact.step >= 0 else self._default
        if fact.kind == "bad_debt":
            bar.state.wallet.cash -= fact.fee
            bar.ledger[self.n].bad_debt -= fact.fee
            log_event(bar.log, self._t, -1, Event.BAD_DEBT, 1.0, 0.0, -fact.fee)
        elif fact.place >= self.n:
            state, own, c = bar.state, bar.ledger[self.n], fact.place - self.n
            sold = -fact.quantity
            own.collateral_pnl += sold * (fact.reference - state.priced[c])
            own.conversion += sold * (fact.reference - fact.price)
            own.fees += fact.fee
            left = state.held.amounts[c] - sold
            state.held.amounts[c] = 0.0 if abs(left) <= DUST * abs(sold) else left
            paid = sold * fact.price
            state.wallet.cash += paid - fact.fee
            log_event(bar.log, self._t, fact.place, Event.CONVERTED, fact.price, -sold, paid)
        else:
            enter_fill(bar, self._t, fact)

    def _check_debt(self, bar: AccountBar, t: int) -> None:
        state, equity = bar.state, accounts.compute_account_equity(bar.terms, bar.state)
        scale = max(abs(state.wallet.cash), float(abs(state.wallet.equity)), 1e-300)
        if equity < -DUST * scale:
            raise DataError(
                f"the equity of a replay must not fall below 0, got {equity:.10g} in bar {t}, "
                f"{format_time(int(self.time[t]))}; add a row of the kind bad_debt with the fee "
                "-amount after the fill that left the debt"
            )
        state.wallet.cash -= min(equity, 0.0)


def enter_fill(bar: AccountBar, t: int, fact: Any) -> None:
    terms, state, ledger, i = bar.terms, bar.state, bar.ledger, fact.place
    rules, before = accounts.pick_instrument(terms, i), accounts.pick_balances(terms, state, i)
    position = before.position
    quantity = position.quantity + fact.quantity
    if abs(quantity) <= DUST * max(abs(position.quantity), abs(fact.quantity)):
        quantity = 0.0
    change = quantity - position.quantity
    entry = accounts.compute_entry(position, quantity, fact.filled)
    initial = bar.quotes.instruments[i].initial
    if accounts.is_isolated(terms, i):
        cash, margin = accounts.move_margin(rules, before, quantity, fact.filled, initial)
    else:
        cash, margin = before.cash - change * fact.filled, 0.0
    after = accounts.charge(
        rules,
        accounts.Balances(cash, accounts.Position(quantity, entry, margin, fact.value)),
        fact.fee,
    )
    cost = change * (fact.filled - fact.value)
    costs, shown = (fact.fee, cost), fact.filled
    if fact.kind in ("liquidation", "takeover"):
        costs, shown = (fact.fee + cost, 0.0), fact.value
        ledger[i].liquidation_loss += costs[0]
        ledger[i].liquidations += 1.0
    else:
        ledger[i].fees += fact.fee
        ledger[i].slippage += cost
    ledger[i].price_pnl += position.quantity * (fact.value - position.marked)
    ledger[i].traded += abs(change) * abs(fact.filled)
    ledger[i].stops += 1.0 if fact.kind == "stop" else 0.0
    accounts.put_balances(terms, state, i, before, after)
    notional = abs(change) * abs(shown)
    log_event(bar.log, t, i, ENTRIES[fact.kind], shown, change, notional, *costs)

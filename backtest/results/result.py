"""The result of a run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeAlias, overload

import numpy as np

from backtest import core
from backtest.account import Account, AccountState, no_options, read_traded
from backtest.account.events import ENTRY
from backtest.account.money import Wallet
from backtest.account.records import MarginCall, PositionState, view_holdings
from backtest.core.code_names import LateModule, pd
from backtest.core.result_folders import MANIFEST
from backtest.core.result_parts import Headline, Part
from backtest.core.structs import Structs
from backtest.market import Market, find_coin
from backtest.results import attribution as parts
from backtest.results.attribution import Attribution, Period
from backtest.results.measure_table import Measures, RunSpan, Samples, measure_returns
from backtest.results.option_profit import OptionQuotes, OptionTerms
from backtest.results.performance import annualize_ratios, compound_growth, divide, sampled_returns
from backtest.results.phases import describe_phases, find_phases, measure_phases
from backtest.results.record import AccountFields, Closes, OptionFields, PositionFields, Record
from backtest.results.run_data import Before, ChartedColumn, Quotes, RunOptions
from backtest.results.run_options import list_held
from backtest.results.run_record import RunRecord, measure_spread
from backtest.results.tables import attribute_money, attribution_table, find_settlement
from backtest.results.tally import Tally
from backtest.results.trade_measures import RollSplit
from backtest.venue import Option, Venue

if TYPE_CHECKING:
    from backtest.results import trades as run_trades
    from backtest.risk.bands import Bands
else:  # it loads pandas
    run_trades = LateModule("backtest.results.trades")

"""Where the figures, tables and charts of a run are declared."""
Split: TypeAlias = Period | Literal["instrument"]

RUN = "run"
FORMAT = 9
STATE, METRICS = FILES = ("state.json", "metrics.json")


class EqualRisk(NamedTuple):
    """A constant leverage with the volatility of an account, on the same capital and terms.

    ``leverage`` multiplies the signal, ``unit`` is its unit value at closes, of shape (n_bars,), 1
    at the start; ``final_equity`` is in the settlement currency.
    """

    leverage: float
    unit: core.FloatArray
    final_equity: float


class Lack(NamedTuple):
    """Why no constant leverage stands beside an account: the end of a sentence."""

    why: str


class Result(RunRecord, core.SavedResult):
    """Result of a run. Tables are made on first access.

    Attributes
    ----------
    metrics : mapping of str to float
        The measures of a run by name: fractions (0.25 is 25 %), money in the settlement currency,
        times in days. Of several positions also those of the portfolio.
    bars : DataFrame
        One row per bar of the account, of one position with its columns.
    positions : DataFrame
        One row per bar and instrument.
    events : DataFrame
        The log; see :data:`backtest.account.events.ENTRY`.
    returns : Series
        Simple returns of the unit value per sampling period.
    manifest : mapping
        Data, venues, account, policies, settings and versions that produced this result.
    names, venues, policies, overlay, markets
        Instruments, and what each of them has.
    state, memory
        State of the account at the last close, to resume from.
    """

    kind, noun = RUN, "result"
    layout, more_files = FORMAT, FILES
    table_names = ("bars", "positions", "events")

    def list_numbers(self) -> list[Headline]:
        """Return the headline numbers, the most important first."""
        from backtest.report.run_figures import list_numbers  # noqa: PLC0415 - only when it is shown

        return list_numbers(self)

    def list_parts(self) -> list[Part]:
        """Return the sections of the page, before those on data and assumptions."""
        from backtest.report.run_parts import list_parts  # noqa: PLC0415 - only when it is shown

        return list_parts(self)

    def list_assumptions(self) -> tuple[str, ...]:
        """Return what the numbers assume beside the rules of the account, in sentences."""
        from backtest.report.run_parts import list_assumptions  # noqa: PLC0415 - only when it is shown

        return list_assumptions(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as data for JSON."""
        from backtest.report.run_parts import collect_run  # noqa: PLC0415 - only when it is shown

        return collect_run(self)

    @property
    def verdict(self) -> str:
        """What the numbers say, in a sentence."""
        from backtest.report.run_parts import write_verdict  # noqa: PLC0415 - only when it is shown

        return write_verdict(self)

    @property
    def verdict_text(self) -> str:
        """The verdict with its figures marked, as pages show it."""
        from backtest.report.run_parts import write_marked_verdict  # noqa: PLC0415 - only when it is shown

        return write_marked_verdict(self)

    @property
    def details(self) -> str:
        """What the reader must know beside the verdict, in sentences."""
        from backtest.report.run_parts import write_details  # noqa: PLC0415 - only when it is shown

        return write_details(self)

    @property
    def notices(self) -> tuple[str, ...]:
        """What must be read before any number."""
        from backtest.report.run_parts import list_notices  # noqa: PLC0415 - only when it is shown

        return list_notices(self)

    @property
    def title(self) -> str:
        """The policy, or the policies by instrument."""
        return str(self.manifest["policy"]["text"])

    @property
    def heading(self) -> str:
        return self.title

    @property
    def folder_title(self) -> str:
        return str(self.manifest["policy"]["name"])

    def target_cuts(self) -> pd.DataFrame:
        """Return how often and how far each limit kept the account from its target leverage.

        A row ``all`` for all decisions that reached an open, then one for each binding limit, in
        the order in which they apply, indexed by ``cause``. Columns: ``decisions``; ``share`` of
        all decisions; ``mean_asked`` and ``mean_held`` over these decisions, as multiples of equity
        before the costs of the fill; ``mean_shortfall``, the amount that this limit took away (the
        shortfalls of a decision add up to asked less held); ``mean_distance``, the same without
        sign; ``days``, the UTC days of these decisions. With several positions also indexed by
        ``instrument`` (``all``, then each).

        Notes
        -----
        See docs/orders.md, section 4, for the causes. A leverage of NaN is no decision.

        Asked is ``signal * leverage * overlay``, held the position after the fill, both at the
        price of the fill. The loop counts what each limit takes where it makes the order.
        ``initial_margin`` includes notional caps; it is ``venue_leverage`` where the account sets
        one. Infinite targets are left out.
        """
        if not self.target_cut_rows:
            raise core.ParameterError(
                "this result was saved without the cuts of its targets; run it again"
            )
        table = pd.DataFrame(list(self.target_cut_rows))
        index = [name for name in ("instrument", "cause") if name in table]
        return table.set_index(index if len(index) > 1 else "cause")

    @cached_property
    def trades(self) -> run_trades.Trades:
        """The trades, a row per round trip; see :func:`backtest.results.trades.list_run_trades`.

        ``trades.lots("fifo")`` has a row per lot, first in first out;
        ``trades.measures`` and ``trades.measures_by("year")`` win rate, profit factor and others.
        The profits and ``trades.unallocated`` add up to the change of equity without flows.
        """
        return run_trades.list_run_trades(self, "trip")

    @cached_property
    def fills(self) -> pd.DataFrame:
        """The changes of positions, see :func:`backtest.results.trades.tabulate_fills`."""
        return run_trades.tabulate_fills(self)

    @core.checked
    def rolls(self, by: RollSplit = "roll") -> pd.DataFrame:
        """Return what the options cost, by ``"roll"`` or by ``"leg"``.

        See :func:`backtest.results.trades.tabulate_rolls`.
        """
        return run_trades.tabulate_rolls(self, by)

    @core.checked
    def counted_in(self, market: Market) -> CountedResult:
        """Count an account that settles in a coin in the currency of a market, at its marks.

        Equity and unit value at a close times the mark there, which the market (its bars may be
        shorter) must have; the account starts at the mark of its first close, a resumed one at that
        before. ``bars`` have ``equity`` and ``drawdown``, ``returns`` are those of sampling
        periods, ``metrics`` have a risk-free rate of 0 and the coin itself as the market.
        """
        coin, closes = find_coin(market.instrument), self.span.closes
        ends = market.time + market.interval
        contracts = (each.contract for each in self.list_venues())
        settled = {each.settles for each in contracts if each.kind == "inverse"}
        if not settled:
            raise core.ParameterError(
                "counted_in needs an account in coins, got no inverse contract"
            )
        if coin and (others := ", ".join(map(str, sorted(settled - {coin, None}, key=str)))):
            raise core.ParameterError(
                f"market must price the coin of the account, {others}, got {coin!r}"
            )
        rows = np.searchsorted(ends, closes, side="right") - 1
        missing = closes[(rows < 0) | (ends[rows] != closes)]
        if len(missing):
            first = core.format_time(int(missing[0]))
            raise core.DataError(
                f"market must have a mark at each close of the run, got none at {first}"
            )
        before = int(np.searchsorted(ends, self.time[0], side="right")) - 1
        start = before if self.manifest.get("resumed_from") is not None and before >= 0 else rows[0]
        marks, first_mark = market.mark_close[rows], float(market.mark_close[start])
        unit, begun = self.of_account("unit") * marks, self.tally.first_unit * first_mark
        equity = self.of_account("equity") * marks
        fall = 1.0 - unit / np.maximum.accumulate(np.maximum(unit, begun))
        returns = sampled_returns(unit, self.ends_sample, begun)
        held = sampled_returns(marks, self.ends_sample, first_mark)
        n, periods, deepest = len(returns), self.span.periods, float(fall.max())
        growth = float(unit[-1]) / begun
        rate = -1.0 if self.tally.ruin >= 0 else compound_growth(growth, self.span.years)
        mean = float(returns.mean()) if n > 0 else math.nan
        downside = math.sqrt(np.square(np.minimum(returns, 0.0)).sum() / max(n, 1))
        measured = {
            "total_return": growth - 1.0,
            "cagr": rate,
            **measure_spread(returns, 0.0, periods),
            "sortino": float(annualize_ratios(mean, downside, periods)),
            "max_drawdown": deepest,
            "calmar": rate / deepest if deepest > 0.0 else math.nan,
            **measure_returns(Samples(returns, np.zeros(n), held), periods),
            "final_equity": float(equity[-1]),
        }
        bars = pd.DataFrame({"equity": equity, "drawdown": fall}, index=core.utc_index(self.time))
        sampled = pd.Series(returns, self.returns.index, name="return")
        return CountedResult(bars, sampled, Measures(measured))

    @cached_property
    def _constant(self) -> EqualRisk | Lack:
        """The constant leverage of :func:`backtest.equal_risk`, saved with the result."""
        from backtest.search.equal_risk import find_equal_risk  # noqa: PLC0415 - runs it again

        return find_equal_risk(self)

    @property
    def limit_orders(self) -> pd.DataFrame:
        """A row for each limit order of an account with ``fill="limit"``.

        ``time`` is the open of the bar in which it rested, ``price`` its limit, ``quantity`` in
        contracts. ``next_move`` is the move of the mark against it in the bar after, from close to
        close, as a fraction (NaN in the last bar).
        """
        return run_trades.list_limit_orders(self)

    @overload
    def attribution(self, by: None = None) -> Any: ...

    @overload
    def attribution(self, by: Split) -> pd.DataFrame: ...

    @core.checked
    def attribution(self, by: Split | None = None) -> Attribution | pd.DataFrame:
        """Return where the growth of the account came from; the terms add up exactly.

        ``by`` is ``"instrument"``: a table of the money that each instrument made and cost, which
        is the default for several positions; or ``"day"``, ``"week"``, ``"month"``, ``"quarter"``
        or ``"year"``: a row per period; of one position the terms of log growth, of several the
        money of each instrument in each period. Default for one position: the terms of log growth
        over the run.

        Notes
        -----
        See :func:`backtest.results.attribution.split_growth` for the formula. A resumed run is
        split from where it went on.
        """
        if by != "instrument" and self.has_one_position:
            life = parts.read_account_history(self)
            if by:
                return parts.attribute_by(life, self.time, by)
            return parts.attribute(life, self.span.years)
        names, held = list_held(self)
        money = (names, self.record.account._asdict(), held)
        if by is None or by == "instrument":
            return attribution_table(*money)
        return attribute_money(*money, parts.find_periods(self.time, by))

    @core.checked
    def measures_by(self, column: str | pd.Series, bins: int | None = None) -> pd.DataFrame:
        """Return what the account did in each phase of a market, a row each.

        ``column`` is ``"volatility"`` (of 30 days, per sqrt(year)), ``"trend"`` (return of 90 days
        over its standard deviation), ``"drawdown"`` (fall from the high of up to 365 days),
        ``"bull_bear"`` (:func:`bt.measures.turning_points`; from 48 months on), a column of the
        market (of several instruments ``"BTCUSDT.column"``), or a Series by the opens of the bars.
        The price is the mark, of several instruments the benchmark. A bar belongs to the phase
        that was known at its open, but for ``"bull_bear"``, which is known only afterwards.

        Texts, booleans and at most twelve different whole numbers are labels: a phase each. Other
        numbers are cut into ``bins`` phases, 3 by default, of the same number of the run's bars.
        Their edges are ``from`` and ``to``. The row ``not yet known`` has the bars without a value.

        Columns: ``bars``; ``share`` of them; ``log_growth`` of the unit value; ``volatility``,
        ``sharpe`` and ``sharpe_error`` of the returns per sampling period, cut where the phase
        changes; ``max_drawdown``, the worst at closes within one stretch of the phase;
        ``mean_leverage`` (gross); ``funding`` and ``fees`` (money, paid is positive);
        ``liquidations``; ``p_value`` by a block bootstrap that the growth per time is that of the
        other phases, corrected for the number of phases. Bars, growth, money and liquidations add
        up to the run. ``attrs["says"]`` has what the table says, in sentences.

        ParameterError for another name, ``bins`` of labels, or a Series that lacks a bar.
        """
        if bins is not None:
            core.Range(2, 100).check("bins", bins, whole=True)
        phases = find_phases(self, column, bins)
        table = measure_phases(self, phases)
        table.attrs["says"] = describe_phases(table, is_hindsight=phases.is_hindsight)
        return table

    def __repr__(self) -> str:
        metrics = self.metrics
        return (
            f"<Result {self.manifest['policy']['text']} on {self.manifest['data']['source']}: "
            f"equity {metrics['final_equity']:.2f}, sharpe {metrics['sharpe']:.2f}, "
            f"{metrics['liquidations']:.0f} liquidations>"
        )

    __str__ = __repr__

    def plot(self) -> Any:
        """Return the account over time as a Plotly figure: equity, leverage, price, costs.

        Long runs are thinned; the extremes of every pixel are kept.
        """
        from backtest.report.overview import draw_overview  # noqa: PLC0415 - only when it is shown

        return self._draw(draw_overview(self))

    def bands(
        self,
        n: int = 1000,
        *,
        seed: int = 0,
        block: float | None = None,
        loss: float = 0.5,
        goal: float | None = None,
        compile: bool = True,  # noqa: A002 - the word of bt.run
        progress: core.Progress | None = None,
    ) -> Bands:
        """Return what this account could have done, on resampled bars of its market.

        Each path repeats bars of the run in blocks, prices, marks, funding, columns and signal of
        all instruments together, and the account trades it under its policy, with its fees, margin
        and liquidations.

        Parameters
        ----------
        n : int
            Number of resampled markets.
        seed : int
            Seed of the random numbers; path i depends on it, the run and i alone.
        block : float, optional
            Mean length of the blocks in bars. By default that of Politis and White for squared
            returns, the longest of all instruments.
        loss : float
            The loss whose probability is shown, as a fraction of the value at the start.
        goal : float, optional
            A gain, as such a fraction. Then the probabilities are those to reach it before the
            loss, and the loss before it, at closes of bars.
        compile : bool
            Whether compiled code is used.
        progress : callable, optional
            Called with paths done and paths in all.

        Notes
        -----
        A bar stays in its phase of the funding interval, and of the decision interval. Rates and
        margin tables by date, deposits and withdrawals stay at their dates. Columns in units of the
        price keep their values, though the price of a path is another one.
        Source: Politis and Romano (1994), The Stationary Bootstrap, JASA 89(428).
        """
        from backtest.risk.bands import bands  # noqa: PLC0415 - a higher room

        return bands(
            self, n, seed=seed, block=block, loss=loss, goal=goal, compile=compile,
            progress=progress,
        )  # fmt: skip

    @core.checked
    def save(self, folder: str | Path = "results") -> Path:
        """Write the result into a folder of its own inside ``folder``; return that folder.

        The same experiment makes the same folder, with the same bytes.
        """
        name = core.name_folder(self.folder_title, self.manifest["id"])
        moved = list_moved(Path(folder) / name / METRICS, self._list_stored())
        saved = super().save(folder)
        if moved:
            core.warn_caller(
                f"the same experiment gave other numbers before ({', '.join(moved[:3])}); this "
                "result replaces the saved one. A policy that uses random numbers, a clock or "
                "files is not repeatable (backtest check tests it); or the backtester changed"
            )
        return saved

    def _list_stored(self) -> dict[str, float | None]:
        return {k: x if math.isfinite(x) else None for k, x in self.metrics.items()}

    def list_policies(self) -> list[type]:
        return [type(each) for each in (*self.policies.values(), self.overlay) if each]

    def _lay_out(self) -> dict[str, Any]:
        closes = {k: x for k, x in self.closes._asdict().items() if k not in BY_POSITION}
        time = self.time.view("datetime64[ns]")
        table: dict[str, Any] = {"time": time, **self.record.account._asdict(), **closes}
        table["ends_sample"] = self.ends_sample
        if self.benchmark is not None:
            table["market_return"] = self.benchmark
        for c, asset in enumerate(self.account.collateral):
            table[f"price of {asset.name}"] = self.asset_marks[:, c]
        if isinstance(constant := self._constant, EqualRisk):
            table[EQUAL_RISK] = constant.unit
        for name, column in self.charted.items():
            table[f"{CHARTED} {name}"] = column.values
        events = {name: self.entries[name] for name in ENTRY.names or ()}
        return {"bars": table, "positions": list_positions(self), "events": events}

    def _write_more(self, folder: Path) -> None:
        constant = self._constant
        state = {**pack_state(self), SETTLEMENT: find_settlement(self)}
        if isinstance(constant, Lack):
            state[NO_EQUAL_RISK] = constant.why
        else:
            state[EQUAL_RISK] = [constant.leverage, constant.final_equity]
        state[CHARTED] = {name: column.text for name, column in self.charted.items()}
        core.write_json_file(state, folder / STATE)
        core.write_json_file(self._list_stored(), folder / METRICS)

    @classmethod
    def _read_back(cls, manifest: dict[str, Any], tables: Mapping[str, Any], folder: Path) -> Self:
        where = f"{folder / MANIFEST}"
        account = Account.from_dict(manifest["account"], where=f"{where}, account")
        stored: Any = core.from_plain(core.read_json_file(folder / STATE))
        bars, wide, events = tables.values()
        time = bars.pop("time").astype("datetime64[ns, UTC]").astype("int64").to_numpy()
        names, book = tuple(stored["names"]), stored["book"]
        state = {name: read_array(name, each) for name, each in book.items()}
        held = view_holdings(state["positions"], state.pop("amounts"), state.pop("prices"))
        venues = manifest["venue"] if len(names) > 1 else {names[0]: manifest["venue"]}
        quotes = [
            gather(wide, names, [k])[0] if f"{names[0]} {k}" in wide else np.empty((0, len(names)))
            for k in Quotes._fields
        ]
        closes = [bars[name].to_numpy() for name in Closes._fields if name not in BY_POSITION]
        entries = np.empty(len(events), ENTRY)
        for name in ENTRY.names or ():
            entries[name] = events[name]
        made = cls(
            policies={},
            overlay=None,
            venues={
                name: Venue.from_dict(each, where=f"{where}, venue of {name}")
                for name, each in venues.items()
            },
            account=account,
            manifest=manifest,
            names=names,
            span=RunSpan(
                stored["start"], time + stored["interval"], stored["first"], stored["periods"]
            ),
            spans=np.array(stored["spans"], dtype=np.int64),
            tally=Tally.read([stored["tally"][name] for name in Tally.names()]),
            state=AccountState(held=held, options=no_options(), **state),
            memory=np.array(stored["memory"], dtype=np.float64),
            **{name: stored[name] for name in KEPT},
            record=Record(
                AccountFields(*(bars[name].to_numpy() for name in AccountFields._fields)),
                PositionFields(*gather(wide, names, PositionFields._fields)),
                Closes(*closes, *gather(wide, names, BY_POSITION)),
            ),
            entries=entries,
            quotes=Quotes(*quotes),
            asset_marks=bars[[f"price of {x.name}" for x in account.collateral]].to_numpy(
                np.float64
            ),
            ends_sample=bars["ends_sample"].to_numpy(dtype=np.float64),
            before=Before(*(np.array(stored["before"][k], np.float64) for k in Before._fields)),
            benchmark=bars["market_return"].to_numpy() if "market_return" in bars else None,
            target_cut_rows=list(stored["target_cuts"]),
            no_fill=stored["no_fill"],
            traded=read_traded(stored["traded"]),
            options=read_options(stored["options"], wide) if "options" in stored else None,
            charted={
                name: ChartedColumn(text, bars[f"{CHARTED} {name}"].to_numpy())
                for name, text in stored[CHARTED].items()
            },
        )
        vars(made)[SETTLEMENT] = str(stored[SETTLEMENT])
        if NO_EQUAL_RISK in stored:
            vars(made)["_constant"] = Lack(str(stored[NO_EQUAL_RISK]))
        if EQUAL_RISK in stored:
            leverage, final_equity = stored[EQUAL_RISK]
            unit = bars[EQUAL_RISK].to_numpy()
            vars(made)["_constant"] = EqualRisk(leverage, unit, final_equity)
        return made

    @classmethod
    def _read_line(cls, folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
        for name in (METRICS, STATE):
            if core.hash_file(folder / name) != manifest["files"][name]:
                raise core.damage_error(folder / name, "was changed")
        stored, policy = core.read_json_file(folder / METRICS), str(manifest["policy"]["text"])
        return {
            "policy": policy,
            "title": policy,
            "metrics": {k: math.nan if x is None else float(x) for k, x in stored.items()},
        }

    def to_vectorbt(self) -> Any:
        """Return vectorbt's returns accessor on the account's returns: ``.stats()``, ``.total()``.

        They include margin, funding and liquidations. Its measures are of returns per bar, ours of
        returns per sampling period. The index is UTC without a zone.
        """
        unit = np.concatenate(([self.tally.first_unit], self.of_account("unit")))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import vectorbt  # noqa: PLC0415 - only where asked for
        change = divide(unit[1:], unit[:-1], 1.0)
        index = core.utc_index(self.time).tz_localize(None)
        return vectorbt.returns.accessors.ReturnsSRAccessor(
            pd.Series(change - 1.0, index=index, name="return"),
            freq=pd.Timedelta(self.interval, unit="ns"),
        )


class CountedResult(NamedTuple):
    """``equity`` and ``drawdown`` by bar, returns per sampling period, and their measures."""

    bars: pd.DataFrame
    returns: pd.Series
    metrics: Mapping[str, float]


CHARTED = "charted"
EQUAL_RISK = "constant_of_equal_risk"
"""The column of its unit value, and the entry of its leverage and final equity."""
SETTLEMENT = "settlement"
"""The entry, and the attribute of a loaded result, of the currency in which it settles."""
NO_EQUAL_RISK = "no_constant_of_equal_risk"
"""The entry that says why there is none."""
KEPT = ("interval", "is_session", "first_peak", "first_unit", "started")
BY_BAR = ("opened", "entries", "settled", "ages")
BY_POSITION: tuple[str, ...] = Closes._fields[-5:]


def list_positions(result: RunRecord) -> dict[str, core.FloatArray]:
    shape, options = (len(result.time), len(result.names)), result.options
    quotes = {k: x for k, x in result.quotes._asdict().items() if len(x)}
    own = {k: np.broadcast_to(x, shape) for k, x in quotes.items()}
    closes = {name: getattr(result.closes, name) for name in BY_POSITION}
    found = widen(result.names, {**result.record.held, **closes, **own})
    if options is None:
        return found
    own = {name: getattr(options, name) for name in BY_BAR}
    fields = {**options.record._asdict(), **options.quotes._asdict(), **own}
    return found | widen(options.terms.names, fields)


def widen(
    names: Sequence[str], fields: Mapping[str, core.FloatArray]
) -> dict[str, core.FloatArray]:
    return {f"{name} {k}": x[:, i] for i, name in enumerate(names) for k, x in fields.items()}


def pack_state(result: RunRecord) -> dict[str, Any]:
    traded, options, state = result.traded, result.options, result.state
    names = ("positions", "calls", "priced", "wallet", "cursor")
    book = {name: getattr(state, name).tolist() for name in names}
    packed: dict[str, Any] = {
        "book": {**book, "amounts": state.held.amounts, "prices": state.held.prices},
        "tally": result.tally.to_dict(),
        **{name: getattr(result, name) for name in KEPT},
        "memory": np.asarray(result.memory, dtype=np.float64),
        "start": result.span.start,
        "first": result.span.first,
        "periods": result.span.periods,
        "target_cuts": list(result.target_cut_rows),
        "no_fill": result.no_fill,
        "traded": None if traded is None else traded.to_dict(),
        "names": list(result.names),
        "spans": result.spans,
        "before": result.before._asdict(),
    }
    if options is not None:
        packed["options"] = {
            "terms": options.terms._asdict(),
            "legs": options.legs,
            "hedged": options.hedged,
            "owners": options.owners,
            "contracts": [each.to_dict() for each in options.contracts],
        }
    return packed


ROUNDING = 1e-9
"""Difference of two numbers, relative or absolute, by which processors of other models differ."""


def list_moved(saved: Path, metrics: Mapping[str, float | None]) -> list[str]:
    try:
        before = dict(core.read_json_file(saved))
        pairs = np.array([(x, metrics.get(name)) for name, x in before.items()], np.float64)
    except (core.DataError, TypeError, ValueError):
        return []
    one, other = pairs.T
    is_same = np.isclose(one, other, rtol=ROUNDING, atol=ROUNDING, equal_nan=True)
    return [name for name, same in zip(before, is_same, strict=True) if not same]


def read_options(stored: Mapping[str, Any], wide: pd.DataFrame) -> RunOptions:
    own: dict[str, Any] = {name: np.array(each) for name, each in stored["terms"].items()}
    own["names"] = names = tuple(stored["terms"]["names"])
    return RunOptions(
        contracts=tuple(Option.from_dict(each) for each in stored["contracts"]),
        legs=tuple(stored["legs"]),
        owners=np.array(stored["owners"], dtype=np.int64),
        hedged=tuple(stored["hedged"]),
        terms=OptionTerms(**own),
        record=OptionFields(*gather(wide, names, OptionFields._fields)),
        quotes=OptionQuotes(*gather(wide, names, OptionQuotes._fields)),
        **dict(zip(BY_BAR, gather(wide, names, BY_BAR), strict=True)),
    )


RECORDS: dict[str, Any] = {"positions": PositionState, "calls": MarginCall}


def read_array(name: str, values: Any) -> Any:
    if name == "wallet":
        return Wallet.read(values)
    if name in RECORDS:
        return Structs(RECORDS[name], len(values), np.array(values, dtype=np.float64))
    return np.array(values, dtype=np.int64 if name == "cursor" else np.float64)


def gather(
    wide: pd.DataFrame, names: Sequence[str], fields: Sequence[str]
) -> list[core.FloatArray]:
    """Return the arrays of some fields, of shape (n_bars, names)."""
    return [wide[[f"{name} {field}" for name in names]].to_numpy() for field in fields]

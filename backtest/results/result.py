"""The result of a run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeAlias, overload

import numpy as np

from backtest import core
from backtest.account import Account, read_traded
from backtest.account.events import ENTRY
from backtest.core.code_names import LateModule, pd
from backtest.core.result_folders import MANIFEST
from backtest.core.result_parts import Headline, Part
from backtest.market import Market
from backtest.results import attribution as parts
from backtest.results import saved_run
from backtest.results.attribution import Attribution, Period
from backtest.results.counted import CountedResult, count_in
from backtest.results.measure_table import RunSpan
from backtest.results.performance import divide
from backtest.results.phases import describe_phases, find_phases, measure_phases
from backtest.results.run_data import Before
from backtest.results.run_options import list_held
from backtest.results.run_record import RunRecord
from backtest.results.tables import attribute_money, attribution_table, find_settlement
from backtest.results.tally import Tally
from backtest.results.trade_measures import RollSplit, measure_round_trips

if TYPE_CHECKING:
    from backtest.results import fill_table
    from backtest.results import limit_orders as run_limit_orders
    from backtest.results import rolls as run_rolls
    from backtest.results import trades as run_trades
    from backtest.risk.bands import Bands
else:  # they load pandas
    fill_table = LateModule("backtest.results.fill_table")
    run_limit_orders = LateModule("backtest.results.limit_orders")
    run_rolls = LateModule("backtest.results.rolls")
    run_trades = LateModule("backtest.results.trades")

Split: TypeAlias = Period | Literal["instrument"]

RUN = "run"
FORMAT = 9
STATE = "state.json"
METRICS = "metrics.json"


class EqualRisk(NamedTuple):
    """A constant leverage with the volatility of an account, on the same capital and terms.

    ``leverage`` multiplies the signal, ``unit`` is its unit value at closes, of shape (n_bars,), 1
    at the start; ``final_equity`` is in the settlement currency.
    """

    leverage: float
    unit: core.FloatArray
    final_equity: float


class Lack(NamedTuple):
    """Why an account is compared with no constant leverage: the end of a sentence."""

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

    kind = RUN
    noun = "result"
    layout = FORMAT
    more_files = (STATE, METRICS)
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
        from backtest.report.run_sentences import list_assumptions  # noqa: PLC0415 - only when it is shown

        return list_assumptions(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as data for JSON."""
        from backtest.report.run_parts import collect_run  # noqa: PLC0415 - only when it is shown

        return collect_run(self)

    @property
    def verdict(self) -> str:
        """What the numbers say, in a sentence."""
        from backtest.report.run_sentences import write_verdict  # noqa: PLC0415 - only when it is shown

        return write_verdict(self)

    @property
    def verdict_text(self) -> str:
        """The verdict with its figures marked, as pages show it."""
        from backtest.report.run_sentences import write_marked_verdict  # noqa: PLC0415 - only when it is shown

        return write_marked_verdict(self)

    @property
    def details(self) -> str:
        """What the reader must know beside the verdict, in sentences."""
        from backtest.report.run_sentences import write_details  # noqa: PLC0415 - only when it is shown

        return write_details(self)

    @property
    def notices(self) -> tuple[str, ...]:
        """What must be read before any number."""
        from backtest.report.run_sentences import list_notices  # noqa: PLC0415 - only when it is shown

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
        if "instrument" in table:
            return table.set_index(["instrument", "cause"])
        return table.set_index("cause")

    @cached_property
    def trades(self) -> run_trades.Trades:
        """The trades, a row per round trip; see :func:`backtest.results.trades.list_run_trades`.

        ``trades.lots("fifo")`` has a row per lot, first in first out;
        ``trades.measures`` and ``trades.measures_by("year")`` win rate, profit factor and others.
        The profits and ``trades.unallocated`` add up to the change of equity without flows.
        """
        return run_trades.list_run_trades(self, "trip")

    @cached_property
    def _round_trips(self) -> Mapping[str, float]:
        """The measures of all round trips, which load no pandas."""
        return measure_round_trips(self)

    @cached_property
    def fills(self) -> pd.DataFrame:
        """The changes of positions, see :func:`backtest.results.fill_table.tabulate_fills`."""
        return fill_table.tabulate_fills(self)

    @core.checked
    def rolls(self, by: RollSplit = "roll") -> pd.DataFrame:
        """Return what the options cost, by ``"roll"`` or by ``"leg"``.

        See :func:`backtest.results.rolls.tabulate_rolls`.
        """
        return run_rolls.tabulate_rolls(self, by)

    @core.checked
    def counted_in(self, market: Market) -> CountedResult:
        """Count an account that settles in a coin in the currency of a market, at its marks.

        Equity and unit value at a close times the mark there, which the market (its bars may be
        shorter) must have; the account starts at the mark of its first close, a resumed one at that
        before. ``bars`` have ``equity`` and ``drawdown``, ``returns`` are those of sampling
        periods, ``metrics`` have a risk-free rate of 0 and the coin itself as the market.
        """
        return count_in(self, market)

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
        return run_limit_orders.list_limit_orders(self)

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
        account = self.record.account._asdict()
        if by is None or by == "instrument":
            return attribution_table(names, account, held)
        periods = parts.find_periods(self.time, by)
        return attribute_money(names, account, held, periods)

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
        policy = self.manifest["policy"]["text"]
        source = self.manifest["data"]["source"]
        return (
            f"<Result {policy} on {source}: equity {metrics['final_equity']:z.2f}, "
            f"sharpe {metrics['sharpe']:z.2f}, {metrics['liquidations']:.0f} liquidations>"
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
            A gain, as a fraction of the value at the start. Then the probabilities are those to
            reach it before the loss, and the loss before it, at closes of bars.
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
            self,
            n,
            seed=seed,
            block=block,
            loss=loss,
            goal=goal,
            compile=compile,
            progress=progress,
        )

    @core.checked
    def save(self, folder: str | Path = "results") -> Path:
        """Write the result into a folder of its own inside ``folder``; return that folder.

        The same experiment makes the same folder, with the same bytes.
        """
        name = core.name_folder(self.folder_title, self.manifest["id"])
        moved = saved_run.list_moved(Path(folder) / name / METRICS, self._list_stored())
        saved = super().save(folder)
        if moved:
            core.warn_caller(
                f"the same experiment gave other numbers before ({', '.join(moved[:3])}); this "
                "result replaces the saved one. A policy that uses random numbers, a clock or "
                "files is not repeatable (backtest check tests it); or the backtester changed"
            )
        return saved

    def _list_stored(self) -> dict[str, float | None]:
        """Return the measures as JSON has them: None where one is not finite."""
        stored: dict[str, float | None] = {}
        for name, value in self.metrics.items():
            stored[name] = value if math.isfinite(value) else None
        return stored

    def list_policies(self) -> list[type]:
        return [type(policy) for policy in (*self.policies.values(), self.overlay) if policy]

    def _lay_out(self) -> dict[str, Any]:
        bars = saved_run.list_bars(self)
        constant = self._constant
        if isinstance(constant, EqualRisk):
            bars[saved_run.EQUAL_RISK] = constant.unit
        for name, column in self.charted.items():
            bars[f"{saved_run.CHARTED} {name}"] = column.values
        return {
            "bars": bars,
            "positions": saved_run.list_positions(self),
            "events": {name: self.entries[name] for name in ENTRY.names or ()},
        }

    def _write_more(self, folder: Path) -> None:
        state = saved_run.pack_state(self)
        state[saved_run.SETTLEMENT] = find_settlement(self)

        constant = self._constant
        if isinstance(constant, Lack):
            state[saved_run.NO_EQUAL_RISK] = constant.why
        else:
            state[saved_run.EQUAL_RISK] = [constant.leverage, constant.final_equity]

        state[saved_run.CHARTED] = {name: column.text for name, column in self.charted.items()}
        core.write_json_file(state, folder / STATE)
        core.write_json_file(self._list_stored(), folder / METRICS)

    @classmethod
    def _read_back(
        cls,
        manifest: dict[str, Any],
        tables: Mapping[str, Any],
        folder: Path,
    ) -> Self:
        """Return the result that a folder of a store holds; it has no markets and no policies.

        ``tables`` are those of :meth:`_lay_out`: ``bars`` and ``positions`` with a row per bar, and
        ``events``. The rest is read from the folder.
        """
        where = f"{folder / MANIFEST}"
        account = Account.from_dict(manifest["account"], where=f"{where}, account")
        stored: Any = core.from_plain(core.read_json_file(folder / STATE))
        names = tuple(stored["names"])
        bars: pd.DataFrame = tables["bars"]
        wide: pd.DataFrame = tables["positions"]

        time = bars["time"].astype("datetime64[ns, UTC]").astype("int64").to_numpy()
        span = RunSpan(
            start=stored["start"],
            closes=time + stored["interval"],
            first=stored["first"],
            periods=stored["periods"],
        )
        asset_columns = [f"price of {asset.name}" for asset in account.collateral]
        before = {name: np.array(stored["before"][name], np.float64) for name in Before._fields}
        options = None
        if "options" in stored:
            options = saved_run.read_options(stored["options"], wide)

        result = cls(
            policies={},
            overlay=None,
            venues=saved_run.read_venues(manifest, names, where=where),
            account=account,
            manifest=manifest,
            names=names,
            span=span,
            spans=np.array(stored["spans"], dtype=np.int64),
            tally=Tally.read([stored["tally"][name] for name in Tally.names()]),
            state=saved_run.read_state(stored["book"]),
            memory=np.array(stored["memory"], dtype=np.float64),
            interval=stored["interval"],
            is_session=stored["is_session"],
            first_peak=stored["first_peak"],
            first_unit=stored["first_unit"],
            started=stored["started"],
            record=saved_run.read_record(bars, wide, names),
            entries=saved_run.read_entries(tables["events"]),
            quotes=saved_run.read_quotes(wide, names),
            asset_marks=bars[asset_columns].to_numpy(np.float64),
            ends_sample=bars["ends_sample"].to_numpy(dtype=np.float64),
            before=Before(**before),
            benchmark=bars["market_return"].to_numpy() if "market_return" in bars else None,
            target_cut_rows=list(stored["target_cuts"]),
            no_fill=stored["no_fill"],
            traded=read_traded(stored["traded"]),
            options=options,
            charted=saved_run.read_charted(stored[saved_run.CHARTED], bars),
        )
        result._remember(stored, bars)
        return result

    def _remember(self, stored: Mapping[str, Any], bars: pd.DataFrame) -> None:
        """Fill the caches of a loaded result with what only a run can find.

        ``settlement`` and ``_constant`` are cached properties, which a run finds when they are
        asked for. Of the constant leverage at equal risk the folder has the account, or why there
        is none.
        """
        cached = vars(self)
        cached[saved_run.SETTLEMENT] = str(stored[saved_run.SETTLEMENT])
        if saved_run.NO_EQUAL_RISK in stored:
            cached["_constant"] = Lack(str(stored[saved_run.NO_EQUAL_RISK]))
        if saved_run.EQUAL_RISK in stored:
            leverage, final_equity = stored[saved_run.EQUAL_RISK]
            unit = bars[saved_run.EQUAL_RISK].to_numpy()
            cached["_constant"] = EqualRisk(leverage, unit, final_equity)

    @classmethod
    def _read_line(cls, folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a list of a store shows of a run, from the file of its measures."""
        for name in (METRICS, STATE):
            if core.hash_file(folder / name) != manifest["files"][name]:
                raise core.damage_error(folder / name, "was changed")

        policy = str(manifest["policy"]["text"])
        metrics = {}
        for name, value in core.read_json_file(folder / METRICS).items():
            metrics[name] = math.nan if value is None else float(value)
        return {
            "policy": policy,
            "title": policy,
            "metrics": metrics,
        }

    def to_vectorbt(self) -> Any:
        """Return vectorbt's returns accessor on the account's returns: ``.stats()``, ``.total()``.

        They include margin, funding and liquidations. Its measures are of returns per bar, ours of
        returns per sampling period. The index is UTC without a zone.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import vectorbt  # noqa: PLC0415 - only where asked for

        unit = np.concatenate(([self.tally.first_unit], self.of_account("unit")))
        change = divide(unit[1:], unit[:-1], empty=1.0)
        index = core.utc_index(self.time).tz_localize(None)
        return vectorbt.returns.accessors.ReturnsSRAccessor(
            pd.Series(change - 1.0, index=index, name="return"),
            freq=pd.Timedelta(self.interval, unit="ns"),
        )

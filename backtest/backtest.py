"""``bt.Backtest``: one test of policies, and everything that can be asked of it.

It stands above all rooms but ``cli``. A method imports the function that answers it and calls it,
so importing this module loads the engine alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar

from backtest import core
from backtest.engine.conditions import FIELDS, Conditions, recall, restore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from backtest.account import Account
    from backtest.core import Progress, TimeLike
    from backtest.engine.batch import Compile
    from backtest.engine.conditions import AnyPolicy, DetailLike, SignalLike
    from backtest.judgement.accounts import AnyMarkets
    from backtest.judgement.judge_policy import RowReport
    from backtest.judgement.judgement import Judgement
    from backtest.live.decide import Decision
    from backtest.live.replay import Replay
    from backtest.live.shadow import Shadow
    from backtest.live.state import AccountSnapshot
    from backtest.market import Market, Markets
    from backtest.policies import Policy
    from backtest.results.benchmark import BenchmarkLike
    from backtest.results.ranking import ObjectiveLike
    from backtest.results.result import Result
    from backtest.risk.capital_capacity import Capacity
    from backtest.risk.factor_sensitivity import Sensitivity
    from backtest.risk.funded import PassingProbability
    from backtest.risk.growth_frontier import LeverageFrontier
    from backtest.risk.largest_leverage import MaxLeverage
    from backtest.risk.liquidations import LiquidationRisk
    from backtest.risk.margin_calibration import MarginCalibration
    from backtest.risk.margin_systems import MarginComparison
    from backtest.risk.parameter_steps import ParameterSensitivity
    from backtest.risk.path_drift import Drift
    from backtest.risk.path_models import PathModel
    from backtest.risk.paths import Paths
    from backtest.search.comparison import Comparison
    from backtest.search.cross_validate import CrossValidation
    from backtest.search.frontier import Frontier
    from backtest.search.problem import Objectives, Robustness
    from backtest.search.study import Study
    from backtest.search.trials import Progress as SearchProgress
    from backtest.search.trials import SamplerName
    from backtest.search.walk_forward import WalkForward
    from backtest.sweep.set_evaluator import Metrics, Pool
    from backtest.sweep.set_runs import Accounts, SetsLike
    from backtest.sweep.sweep_table import Sweep
    from backtest.venue import DynamicMargin, VenueLike

_P = ParamSpec("_P")
_T = TypeVar("_T")


def near_names(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Say of an argument that is none what it is near to, and of a field how to change it."""
    called: Any = function
    code = called.__code__
    title = called.__qualname__
    known = list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    is_method = known[0] == "self"
    if is_method:
        known.remove("self")

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        for name in kwargs.keys() - {*known}:
            if is_method and name in FIELDS:
                raise core.ParameterError(
                    f"{name} is a field of the test, got it as an argument of {called.__name__}: "
                    f"test.replace({name}=...) has another"
                )
        core.check_names(title if is_method else f"bt.{title}", kwargs, known, noun="argument")
        try:
            return function(*args, **kwargs)
        except MemoryError as error:
            raise core.BacktestError(
                f"{called.__name__} needs more memory than there is: {core.describe_fault(error)}; "
                "give fewer sets, paths or bars"
            ) from error

    return call


class Backtest(Conditions):
    """One test of policies: data, rules, account, and what is decided when.

    Everything that can be asked of it is a method: ``test.run(policy)``, ``test.tune(policy)``. It
    is checked when it is made, and does not change: :meth:`replace` returns another.

    Parameters
    ----------
    market : Market, Markets or mapping of names to markets
        Bars, mark prices and funding; of several instruments for an account with several positions.
    venue : Venue, str, or a mapping of names to them
        The rules and the costs. A text is the name of a preset, ``"binance-usdm:BTCUSDT"``.
    account : Account
        Capital, margin mode, limits and stops.
    signal : float, array of shape (n_bars,), Series by UTC time, str or SignalRule, optional
        Direction and scale in [-1, 1]; default 1. The signal of a bar belongs to the decision at
        its close. A text is a column of the bars, or a rule of
        :mod:`backtest.signals.rules` with its parameters in order, ``"rsi:14:30:70"``.
        With several instruments, a frame by time and instrument of direction times weight, or a
        rule for the direction in each times 1/n; default 1/n.
    overlay : Policy, optional
        Scales all targets of several instruments; its market is ``markets.index(signal)``.
    calendar : str
        ``"365"`` days a year, or ``"252"`` sessions; ``"auto"``, the default, is sessions for a
        market that has them, where nothing else is right, and days for others.
    sampling : str
        The period over which returns are sampled, ``"1d"`` by default.
    decision_interval : str, optional
        The length of the bars at whose closes policies decide, such as ``"1h"``: a multiple of the
        market's interval. Policies, columns and signal see these bars alone, and the account is
        simulated on the bars of the market; see docs/intervals.md. Default: policies decide at
        each close.
    detail : Market, Markets, mapping of str to Market, str or Path, optional
        Shorter bars of the same instruments, or their folder. The account is simulated on them
        where they are available, and on the bars of ``market`` elsewhere.
    start : str or Timestamp, optional
        When the account begins, in UTC: with the first bar that opens from then on. The bars before
        only warm the policy's columns. So it is in runs, sweeps, searches and validations alike:
        spans, folds, groups, the holdout's share and years count from ``start``.
    end : str or Timestamp, optional
        When the account ends, in UTC: with the last bar that opens before then.

    Raises
    ------
    ParameterError
        If a field is unknown or not allowed, or fields do not fit each other.

    Examples
    --------
    >>> import backtest as bt
    >>> from backtest.strategies import VolTarget
    >>> market = bt.Market.sample(bars=24 * 90)
    >>> account = bt.Account(capital=10_000.0)
    >>> test = bt.Backtest(market, venue="binance-usdm:BTCUSDT", account=account)
    >>> test.run(VolTarget(target=0.4)).metrics["ruined"]
    0.0
    """

    @classmethod
    def of(cls, result: Result) -> Self:
        """Return the test of a result.

        A loaded result reads its market again from the recorded path; where that fails,
        ``Backtest.of(result).replace(market=...)`` gives it. Raises DataError if it had an overlay,
        or a signal with longer bars to decide on, which a loaded result does not hold.
        """
        conditions = recall(result)
        if isinstance(conditions, cls):
            return conditions
        return restore(cls, vars(conditions))  # checked before, and a market may be unread

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the test of an experiment file, or of a folder of :meth:`save`.

        Tables of policies and jobs, such as ``[policy]`` and ``[tune]``, are left aside, with a
        warning. Raises ParameterError if the file is no experiment.
        """
        from backtest.experiments.files import load

        return load(path, cls)

    def save(self, path: str | Path) -> Path:
        """Write the test as an experiment that :meth:`load` reads, and return its path.

        Where market, signal and detail came from files or have names, it is one TOML file; else a
        new folder of that name, without the suffix, with ``experiment.toml`` and what has no file
        as Parquet. Raises ParameterError if something cannot be written: options, or an overlay of
        no file.
        """
        from backtest.experiments.files import save

        return save(self, path)

    @near_names
    def run(
        self,
        policy: AnyPolicy,
        *,
        compile: Compile = True,  # noqa: A002 - the word users know
        resume: Result | None = None,
        progress: Progress | None = None,
        benchmark: BenchmarkLike = None,
        option_quantities: pd.DataFrame | None = None,
    ) -> Result:
        """Run an account through a market, or through several, under a policy.

        Parameters
        ----------
        policy : Policy, or a mapping of names to policies
            Decides the leverage at each close; filled at the next open. With several instruments,
            one for all or one for each.
        compile : bool or "now"
            False runs the policy in plain Python, for a debugger; the numbers are the same bits.
            Where nothing is compiled yet, a run of at most 50,000 bars times instruments does not
            wait for the compiler; with ``"now"`` it does.
        resume : Result, optional
            Go on from the last close of an earlier result; the market of the test holds the bars
            after it and may overlap: a result of this process gives the bars before it, a loaded
            one needs a market that has them. The new result holds the new bars only.
        progress : callable, optional
            Called with bars done and bars in all.
        benchmark : str, DataFrame, mapping or Series, optional
            What ``alpha`` and ``beta`` compare with: an instrument, weights by time and instrument
            (:meth:`Markets.index`), or prices at the closes of the bars that open at the times of a
            Series. Default: the market; of several instruments the index of what is traded, with
            the weights abs(s_i) / sum abs(s) of the signal.
        option_quantities : DataFrame, optional
            Signed contracts to hold of listed options, by time and contract: the row of a bar is
            decided at its close and fills at the next open; NaN leaves a contract as it is.

        Raises
        ------
        ParameterError
            If an argument is not allowed, or the resumed market does not join.
        PolicyError
            If the policy raises, looks ahead, or returns a negative number or the wrong type.
        AccountingError
            If the books do not balance at some bar.
        """
        from backtest.engine.run import run

        return run(
            self,
            policy,
            compile=compile,
            resume=resume,
            progress=progress,
            benchmark=benchmark,
            option_quantities=option_quantities,
        )

    @near_names
    def judge(
        self,
        policy: AnyPolicy,
        *,
        markets: AnyMarkets = None,
        tune: int | None = None,
        paths: int = 2_000,
        draws: int = 1_999,
        seed: int = 0,
        store: str | Path | None = None,
        score: bool = False,
        threads: int | None = None,
        compile: bool = True,  # noqa: A002 - the word users know
        progress: RowReport = None,
    ) -> Judgement:
        """Test whether a policy beats constant leverage, times well and is safe, and what it costs.

        Each market is judged in an account of its own, and all of them together.

        Parameters
        ----------
        policy : Policy, or a mapping of names to policies
            As in :meth:`run`; with ``tune`` also a class.
        markets : mapping of str to Market, sequence of Market, or Market, optional
            What to judge on. Each has the venue of the test by its own symbol, where the venue
            lists it. Default: the market of the test, or each of its markets.
        tune : int, optional
            Re-tune the policy in a walk, with this many sets in each fold, and judge the account
            through its test spans alone. Default: the policy at its parameters.
        paths : int
            Simulated paths of 30 days, at least 2,000; an eighth as many of a year.
        draws, seed : int
            Resampled histories, and the seed of all random numbers.
        store : str or Path, optional
            The folder of results whose searches count as trials; None: not counted.
        score : bool
            Also make the forecasts of survival again at past dates, as ``score`` of
            :meth:`liquidation_risk` and :meth:`max_leverage` does.
        threads : int, optional
            Number of threads; default all cores.
        compile : bool
            As in :meth:`run`.
        progress : callable, optional
            Called with each row as it is known, a :class:`~backtest.judgement.JudgedRow`.

        Returns
        -------
        Judgement
            A market that fails is a row with its cause.

        Raises
        ------
        ParameterError
            If an argument is not allowed, or the test has an overlay.
        BacktestError
            If every market fails, with the cause of the first.

        Notes
        -----
        The difference of daily log growth is taken from constant leverage at equal risk
        (:func:`backtest.equal_risk`), whose excess returns are scaled by the ratio of the two
        volatilities over the same span. Pooled, it is averaged over the markets there are on a day,
        and resampled in common blocks of time as in :func:`backtest.compare`. Every other row is
        what its own method returns: :func:`backtest.timing_test`, :meth:`liquidation_risk`,
        :meth:`max_leverage` with 7 evaluations, :func:`backtest.stress`, the attribution of the
        run, :meth:`sensitivity`, :meth:`capacity` and the promises of the run.

        The sentence is the first that holds: *unsafe* (over 1 % of losing the account in 30 days on
        a market, by paths or history), *not timed* (under 10 fills, or one leverage), *better* (the
        interval is above 0, and the difference at least .5 % a year) or *worse*, *not tested*, *no
        evidence of a difference*.
        """
        from backtest.judgement.judge_policy import judge

        return judge(
            self,
            policy,
            markets=markets,
            tune=tune,
            paths=paths,
            draws=draws,
            seed=seed,
            store=store,
            score=score,
            threads=threads,
            compile=compile,
            progress=progress,
        )

    @near_names
    def compare(
        self,
        policies: Mapping[str, AnyPolicy],
        *,
        baseline: str | None = None,
        equal_risk: bool = True,
        confidence: float = 0.95,
        draws: int = 1_999,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Comparison:
        """Run policies by name, and test which differences between them are more than noise.

        Parameters
        ----------
        policies : mapping of str to Policy
            At least two, by name; each is run as :meth:`run` does.
        baseline : str, optional
            The policy that the others are compared with; the first by default.
        equal_risk : bool
            Whether to scale positions down, and run all again, until all have the volatility of the
            calmest one. A result that cannot be run again stays as measured, with a warning: one
            that was loaded or ruined, or whose parameters changed on the way.
            :func:`backtest.compare` compares results themselves.
        confidence : float
            The confidence of intervals and decisions, from 0.5 to below 1.
        draws, seed : int
            The number of resampled histories, at least 99, and their seed.
        progress : callable, optional
            Called with accounts scaled and accounts in total, then with histories drawn and in
            total.

        Returns
        -------
        Comparison

        Raises
        ------
        ParameterError
            If an argument is not allowed.

        Notes
        -----
        Differences of log growth, Sharpe ratio, volatility and expected shortfall of sampled
        returns are tested by the stationary bootstrap: see
        :func:`backtest.results.differences.compare_pairs`. A ruined account has a log growth of
        -inf and ranks below all that were not ruined, without a test: returns after the ruin carry
        no information, and resampling one history cannot estimate how likely ruin was.
        """
        from backtest.search.compare import compare

        results = {name: self.run(policy) for name, policy in policies.items()}
        return compare(
            results,
            baseline=baseline,
            equal_risk=equal_risk,
            confidence=confidence,
            draws=draws,
            seed=seed,
            progress=progress,
        )

    @near_names
    def sweep(
        self,
        policy: type[Policy] | Policy,
        sets: SetsLike,
        *,
        accounts: Accounts = "shared",
        pool: Pool = "mean",
        metrics: Metrics = "all",
        space: Mapping[str, Any] | None = None,
        seed: int = 0,
        threads: int | None = None,
        memory: str = "1GiB",
        compile: bool = True,  # noqa: A002 - the word users know
        cluster: str | None = None,
        progress: Progress | None = None,
    ) -> Sweep:
        """Run many sets of parameters; each row equals :meth:`run` of its set, to rounding.

        Parameters
        ----------
        policy : type or Policy
            A policy class, or an instance whose settings are used unless sets have others.
        sets : mapping of arrays, DataFrame or int
            A mapping gives the product of the values of each name; the last name varies fastest. A
            table has one set per row; its index is not kept. A number draws that many sets from the
            declared ranges. Names are the policy's parameters, and fields of the account and venue
            such as ``account.band``, ``venue.fees.taker``; where ``signal`` is a rule, also its
            parameters, ``signal.window``. Of several instruments, ``BTCUSDT.target`` is the
            parameter of one of them, in place of that of all, and ``overlay.target`` one of the
            overlay. None is a value if a field may be None. A parameter that is not used in a set
            has its default there.
        accounts : str
            ``"separate"`` scores each set in every market in an account of its own: the policy,
            venue, account and signal are those of each, or tables by name. The table holds the
            pooled measures, and beside them the Sharpe ratio, return, drawdown and ruin in each
            market (``"sharpe BTC"``). ``ruined`` counts the markets in which a set was ruined; a
            set ranks the lower the more they are. ``"shared"`` holds all instruments in one
            account.
        pool : str
            How separate accounts make one measure: ``"mean"``, ``"median"`` or ``"worst"``.
        metrics : str
            ``"all"`` measures that need no path, or ``"core"``, which is faster;
            :meth:`Sweep.detail` has those of the path.
        space : mapping, optional
            What to draw from instead of all declared ranges, as in
            :func:`backtest.sweep.sets.read_space`.
        seed : int
            Seed of the draws, which are points of a scrambled Sobol sequence.
        threads : int, optional
            Number of threads; default all cores. The numbers do not depend on it.
        memory : str
            Limit for the columns of policies, for example ``"1GiB"``. Sets that need more are
            computed in turns.
        cluster : str, optional
            ``"tcp://host:port"`` or ``"local:N"``: the cluster to use, see
            :mod:`backtest.sweep.cluster`. The numbers do not depend on it.
        compile : bool
            As in :meth:`run`.
        progress : callable, optional
            Called with the number of sets done and of all sets.

        Returns
        -------
        Sweep
            After Ctrl-C, with the sets that were done.

        Raises
        ------
        ParameterError
            If an argument or a set is not allowed; lists all defects of the sets.
        BacktestError
            If every set fails, with the reason of the first.
        """
        from backtest.sweep.set_runs import sweep

        return sweep(
            self,
            policy,
            sets,
            accounts=accounts,
            pool=pool,
            metrics=metrics,
            space=space,
            seed=seed,
            threads=threads,
            memory=memory,
            compile=compile,
            cluster=cluster,
            progress=progress,
        )

    @near_names
    def tune(
        self,
        policy: type[Policy] | Policy,
        *,
        objective: Objectives = "sharpe",
        constraints: Mapping[str, str] | None = None,
        trials: int | None = None,
        seconds: float | None = None,
        patience: int | None = None,
        sampler: SamplerName = "auto",
        space: Mapping[str, Any] | None = None,
        fix: Mapping[str, Any] | None = None,
        robust: bool | Robustness = True,
        holdout: str | float | None = "25%",
        seed: int = 0,
        store: str | Path | None = None,
        resume: bool = False,
        accounts: Accounts = "shared",
        pool: Pool = "mean",
        threads: int | None = None,
        memory: str = "1GiB",
        cluster: str | None = None,
        compile: bool = True,  # noqa: A002 - the word users know
        progress: Callable[[SearchProgress], object] | None = None,
    ) -> Study:
        """Search for good parameters of a policy, and estimate the selection bias of the result.

        Parameters
        ----------
        policy : type or Policy
            A policy class, or an instance whose settings are used unless the search varies them.
            Several markets have one policy, whose parameters are those of all instruments.
        accounts, pool : str
            ``accounts="separate"`` scores each set in every market in an account of its own, and
            pools the measures, as in :meth:`sweep`. The deflated Sharpe ratio is that of the mean
            of the returns, on the days that all markets have; the markets are no trials.
        objective : str, mapping or callable
            What to maximize, as in :func:`backtest.results.ranking.read_objective`: a measure, a
            weighted sum ``{"sharpe": 1.0, "turnover": -0.01}``, or a function of the measures of
            one set. Of several measures, as in :meth:`frontier`, the best set is the knee, or that
            of the first measure if there is no knee, and nothing is ranked by neighbors.
        constraints : mapping, optional
            Bounds such as ``{"max_drawdown": "<= 0.4", "liquidations": "== 0"}``. A set that breaks
            one never wins over a set that does not. No ruin is always a constraint, and so is that
            the set fills an order.
        trials : int, optional
            Most sets to evaluate, neighbors included, at least 4. Default 20,000 if ``seconds`` is
            not given either. A sampler may end earlier if nothing more is gained.
        seconds : float, optional
            Most time to search, not counting the time to compile or load before the first result;
            time spent before a resume counts. With ``trials``, whichever ends first. With
            ``robust``, a quarter of either is reserved for the neighbors of candidates.
        patience : int, optional
            Evaluations without a gain after which the search ends. A gain is over a quarter of the
            standard error of the best, by a stationary bootstrap of its returns.
        sampler : str
            ``"auto"`` (Sobol points, then CMA-ES with restarts), ``"gp"`` (a Gaussian process: a
            second of thinking for each set), ``"sobol"``, ``"random"`` or ``"grid"``;
            :meth:`objective` serves any other optimizer.
        space : mapping, optional
            What varies, as in :func:`backtest.sweep.sets.read_space`: ``{"target": (0.1, 1.0)}``.
            Default all parameters of the policy over their declared ranges. Where ``signal`` is a
            rule, ``signal.window`` is its parameter ``window``.
        fix : mapping, optional
            Settings with one value in every set.
        robust : bool or Robustness
            Whether the leading sets are ranked by a low quantile of the objective over their
            neighbors and over parts of the time; a :class:`~backtest.search.problem.Robustness`
            says how. False takes the highest objective. With too few trials for many candidates,
            the highest objective may win, with a warning.
        holdout : str, float or None
            The last part of the data, which the search never sees: a share (``"25%"``), a duration
            (``"90d"``), or 0 or None for none. The best trial is evaluated on it; every look at it
            is counted.
        seed : int
            Seed of all random numbers. The same seed gives the same study with any number of
            threads.
        store : str or Path, optional
            Folder in which the study gets a folder of its own, ``"results"`` for example. None
            keeps it in memory only: a crash loses it, and looks at the holdout are not counted.
        resume : bool
            Continue the study of the same data, policy source, settings and seed in the store. Its
            result is the same as if it had not been interrupted.
        threads : int, optional
            Number of threads; default all cores.
        memory : str
            Limit for the columns of policies.
        cluster : str, optional
            ``"tcp://host:port"`` or ``"local:N"``: the cluster to use, see
            :mod:`backtest.sweep.cluster`. The numbers do not depend on it.
        compile : bool
            As in :meth:`run`.
        progress : callable, optional
            Called with a :class:`~backtest.search.trials.Progress` after every piece of work.

        Returns
        -------
        Study
            After Ctrl-C, an unfinished study with the sets that were done.

        Raises
        ------
        ParameterError
            If an argument is not allowed, or the study to resume differs.
        DataError
            If the folder cannot be written, is damaged, or another process works in it.
        PolicyError
            If every set of a batch fails.
        """
        from backtest.search.problem import Search
        from backtest.search.tune import tune

        search = Search(
            objective=objective,
            constraints=constraints,
            trials=trials,
            seconds=seconds,
            patience=patience,
            sampler=sampler,
            space=space,
            fix=fix,
            robust=robust,
            holdout=holdout,
            seed=seed,
            store=store,
            resume=resume,
            accounts=accounts,
            pool=pool,
            threads=threads,
            memory=memory,
            cluster=cluster,
            compile=compile,
        )
        return tune(self, policy, search, progress=progress)

    @near_names
    def frontier(
        self,
        policy: type[Policy] | Policy,
        *,
        objectives: Sequence[str] = ("cagr", "max_drawdown"),
        constraints: Mapping[str, str] | None = None,
        trials: int | None = None,
        seconds: float | None = None,
        patience: int | None = None,
        sampler: SamplerName = "auto",
        space: Mapping[str, Any] | None = None,
        fix: Mapping[str, Any] | None = None,
        holdout: str | float | None = "25%",
        seed: int = 0,
        store: str | Path | None = None,
        resume: bool = False,
        accounts: Accounts = "shared",
        pool: Pool = "mean",
        threads: int | None = None,
        memory: str = "1GiB",
        cluster: str | None = None,
        compile: bool = True,  # noqa: A002 - the word users know
        progress: Callable[[SearchProgress], object] | None = None,
    ) -> Frontier:
        """Search for the sets that no other set beats in every one of several objectives.

        Parameters
        ----------
        policy, constraints, trials, seconds, patience, sampler, space, fix, holdout, seed
            As in :meth:`tune`.
        store, resume, accounts, pool, threads, memory, cluster, compile, progress
            As in :meth:`tune`. The store keeps the search, as a study.
        objectives : sequence of str
            Two or three measures; more or less is better as they say.

        Returns
        -------
        Frontier
            :meth:`backtest.search.study.Study.frontier` of the study.

        Raises
        ------
        ParameterError
            If an argument is wrong, a measure has no direction, or no set satisfies the
            constraints.

        Notes
        -----
        Sobol points, then CMA-ES in which each strategy has random weights for the objectives and
        minimizes the largest weighted distance to the best of each. Source: Knowles (2006), ParEGO,
        IEEE Transactions on Evolutionary Computation 10(1).
        """
        from backtest.search.problem import Search
        from backtest.search.tune import frontier

        search = Search(
            objective=[*objectives],
            constraints=constraints,
            trials=trials,
            seconds=seconds,
            patience=patience,
            sampler=sampler,
            space=space,
            fix=fix,
            holdout=holdout,
            seed=seed,
            store=store,
            resume=resume,
            accounts=accounts,
            pool=pool,
            threads=threads,
            memory=memory,
            cluster=cluster,
            compile=compile,
        )
        return frontier(self, policy, search, progress=progress)

    @near_names
    def objective(
        self,
        policy: type[Policy] | Policy,
        *,
        objective: ObjectiveLike = "sharpe",
        constraints: Mapping[str, str] | None = None,
        fix: Mapping[str, Any] | None = None,
        holdout: str | float | None = "25%",
        accounts: Accounts = "shared",
        pool: Pool = "mean",
        compile: bool = True,  # noqa: A002 - the word users know
    ) -> Callable[[Mapping[str, Any]], float]:
        """Return a function from values of parameters to the score that a search would maximize.

        Parameters
        ----------
        policy, objective, constraints, fix, holdout, accounts, pool, compile
            As in :meth:`tune`. The score is of the bars before the holdout.

        Returns
        -------
        callable
            Takes a mapping such as ``{"target": 0.4}``, with the names that a ``space`` has, and
            returns a float: minus infinity if the account was ruined, filled no order or breaks a
            constraint, NaN if the run of the set fails or the objective is not defined for it.

        Raises
        ------
        ParameterError
            If an argument is not allowed; from the function, if a value is out of its range.
        PolicyError
            From the function, if the columns of the first set look ahead.
        """
        from backtest.search.problem import Search
        from backtest.search.tune import objective as make_objective

        search = Search(
            objective=objective,
            constraints=constraints,
            fix=fix,
            holdout=holdout,
            accounts=accounts,
            pool=pool,
            compile=compile,
        )
        return make_objective(self, policy, search)

    @near_names
    def walk_forward(
        self,
        policy: type[Policy] | Policy,
        *,
        objective: Objectives = "sharpe",
        train: str = "365d",
        test: str = "30d",
        anchored: bool = False,
        gap: str = "0d",
        constraints: Mapping[str, str] | None = None,
        trials: int = 2_000,
        patience: int | None = None,
        sampler: SamplerName = "auto",
        space: Mapping[str, Any] | None = None,
        fix: Mapping[str, Any] | None = None,
        robust: bool | Robustness = True,
        seed: int = 0,
        store: str | Path | None = None,
        resume: bool = False,
        threads: int | None = None,
        memory: str = "1GiB",
        cluster: str | None = None,
        compile: bool = True,  # noqa: A002 - the word users know
        progress: Progress | None = None,
    ) -> WalkForward:
        """Tune on each train span, trade the test span after it, and judge the whole procedure.

        Parameters
        ----------
        seed, threads, memory, cluster, compile
            As in :meth:`tune`.
        policy, space, fix, objective, constraints, patience, sampler, robust
            As in :meth:`tune`, which searches every train span with the same seed. Of several
            objectives, each span trades the chosen set of its frontier, and ranks and scores are
            those of the first. The space holds parameters of the policy and of the signal. Several
            markets have one policy, whose parameters are those of all instruments; of several,
            ``BTCUSDT.NAME`` of one of them, ``overlay.NAME`` of the overlay.
        train, test : str
            Lengths of the spans, such as ``"365d"``: at least 200 and 20 bars. The first test span
            opens ``train + gap`` after the account begins: at ``start``, or with the data. The last
            one ends with the data.
        anchored : bool
            Whether every train span begins where the first one does instead of moving on.
        gap : str
            Time between the end of a train span and its test span; a walk trains before it tests,
            and needs none.
        trials : int, optional
            Most sets to evaluate in each fold, neighbors included.
        store : str or Path, optional
            Folder in which the walk is saved, ``"results"`` for example. It keeps every batch until
            then, so that a killed walk can be resumed.
        resume : bool
            Continue the walk of the same arguments in the store. It ends at the same bytes. A
            finished walk is loaded from the store.
        progress : callable, optional
            Called with the sets evaluated and the most there will be.

        Returns
        -------
        WalkForward

        Raises
        ------
        ParameterError
            If an argument is not allowed, a span is too short, or nothing is there to resume.
        DataError
            If the folder cannot be written, or another process works in it.

        Notes
        -----
        A decision at the last close of a train span fills in the test span: nothing of it is known
        before. The account's parameters change at the first close of each test span; until then the
        last decision of the earlier ones holds.
        """
        from backtest.search.problem import Search
        from backtest.search.walk_forward import walk_forward

        search = Search(
            objective=objective,
            constraints=constraints,
            trials=trials,
            patience=patience,
            sampler=sampler,
            space=space,
            fix=fix,
            robust=robust,
            seed=seed,
            store=store,
            resume=resume,
            threads=threads,
            memory=memory,
            cluster=cluster,
            compile=compile,
        )
        return walk_forward(
            self,
            policy,
            search,
            train=train,
            test=test,
            anchored=anchored,
            gap=gap,
            progress=progress,
        )

    @near_names
    def cross_validate(
        self,
        policy: type[Policy] | Policy,
        *,
        objective: Objectives = "sharpe",
        groups: int = 10,
        test_groups: int = 2,
        embargo: int | str | None = None,
        constraints: Mapping[str, str] | None = None,
        trials: int = 2_000,
        space: Mapping[str, Any] | None = None,
        fix: Mapping[str, Any] | None = None,
        seed: int = 0,
        store: str | Path | None = None,
        resume: bool = False,
        threads: int | None = None,
        memory: str = "1GiB",
        cluster: str | None = None,
        compile: bool = True,  # noqa: A002 - the word users know
        progress: Progress | None = None,
    ) -> CrossValidation:
        """Choose the best set on each combination of time groups, and test it on the other groups.

        Parameters
        ----------
        compile, store, resume
            As in :meth:`walk_forward`.
        policy, space, fix, objective, constraints, seed, threads, memory, cluster
            As in :meth:`tune`. One objective; it and the constraints are measures that add
            up over groups, as returns, costs, counts and the deepest drawdown do. The space holds
            parameters of the policy and of the signal.
        groups, test_groups : int
            N groups of whole sampling periods, k of them in each test: C(N, k) splits and
            k/N · C(N, k) paths.
        embargo : int or str, optional
            Bars, or a duration, at the beginning of a train group that follows a test group, whose
            returns do not count, rounded up to whole sampling periods; 1 % of all bars by default.
            It should be as long as the policy's columns remember: their longest window.
        trials : int, optional
            Sets, drawn evenly from the space (scrambled Sobol points).
        progress : callable, optional
            Called with the sets run in a group, and all there will be.

        Returns
        -------
        CrossValidation

        Raises
        ------
        ParameterError
            If an argument is not allowed, groups are too short, or nothing is there to resume.
        PolicyError
            If every set fails.
        DataError
            If the folder cannot be written, or another process works in it.

        Notes
        -----
        Every set begins with fresh capital in each group; its columns are warmed by the bars
        before. A split is scored from these accounts: returns one after another, costs and counts
        as sums, the drawdown as the deepest within a group, ruin in any. Labels do not overlap
        here, so that nothing is purged: accounts end at their mark. Source: Lopez de Prado (2018),
        Advances in Financial Machine Learning, chapter 12.
        """
        from backtest.search.cross_validate import cross_validate
        from backtest.search.problem import Search

        search = Search(
            objective=objective,
            constraints=constraints,
            trials=trials,
            space=space,
            fix=fix,
            seed=seed,
            store=store,
            resume=resume,
            threads=threads,
            memory=memory,
            cluster=cluster,
            compile=compile,
            sampler="sobol",
        )
        return cross_validate(
            self,
            policy,
            search,
            groups=groups,
            test_groups=test_groups,
            embargo=embargo,
            progress=progress,
        )

    @near_names
    def liquidation_risk(
        self,
        policy: AnyPolicy,
        *,
        paths: Paths | None = None,
        resume: Result | None = None,
        horizons: Sequence[str] | None = None,
        confidence: float = 0.95,
        default_rate: float = 0.0,
        recovery: float = 0.0,
        score: bool = False,
        threads: int = 1,
        compile: bool = True,  # noqa: A002 - the word users know
        progress: Progress | None = None,
    ) -> LiquidationRisk:
        """Return the probabilities that an account is lost from now on, by any cause and by each.

        The signal is a constant: direction and scale in [-1, 1], 1 by default; of several
        instruments, direction times weight of each, by default 1/n, or what the result had at its
        last close; of a table, the last row. Of dated margin tables, the one in force at the start
        of the paths holds for all bars.

        Parameters
        ----------
        policy : Policy
            Decides at each close, first at the last one of history. Of several instruments, one for
            all or one for each.
        paths : Paths, optional
            From :func:`backtest.simulate_paths`; by default, those of its usual model from the end
            of the market.
        resume : Result, optional
            A result that ended where the paths begin: positions, pending decisions and memory go
            on. Default: a new account.
        horizons : sequence of str, optional
            Not longer than the paths; by default those of 1, 7 and 30 days that fit, and the whole.
        confidence : float
            Of the intervals of Clopper and Pearson, in (0, 1). n paths show nothing under 3 / n.
        default_rate, recovery : float
            How often a venue defaults, per year, and the share of what the account has there that
            it gets then. Each path ends at an exponential time of its own; the account's reserve is
            elsewhere. Within T years the probability is 1 - exp(-default_rate T).
        score : bool
            Also make the forecast again at past dates whose horizons do not overlap, 60 at most,
            from the bars before each alone, on 2,000 paths: ``risk.scores`` says what was told and
            what came. So are the bands of mean funding, and VaR and ES of a policy of the tail.
        threads : int
            The result does not depend on it.
        compile, progress
            As in :meth:`run`. It warns if no path filled an order.

        Notes
        -----
        ``probability`` is the share of the paths on which the account is liquidated, ruined or lost
        in a default of the venue. Where the volatility of an instrument held is under 0.75 of that
        of the last 365 days, it is the larger of that share and history's frequency, with a year of
        data and for a new account: paths that begin in calm stay calm for too long.

        Where a policy has columns and paths a bridge of one step, bars get four steps, so that
        ranges are right: ``risk.paths`` are the paths used.

        A score holds policy, direction and terms of the venue of today at every date. Of a horizon
        with under ten dates it says that it is too early. From ten events and ten non-events on,
        ``recalibrated`` stands beside today's number: logistic regression of what came on the log
        odds that were told, with normal priors of deviation .5 on intercept and slope less 1, and
        of the intercept alone under 30 events. Intervals are adapted after 20 dates. Source: Gibbs
        and Candès (2021), Adaptive Conformal Inference Under Distribution Shift, NeurIPS 34.
        """
        from backtest.risk.scored_risk import liquidation_risk

        return liquidation_risk(
            self,
            policy,
            paths=paths,
            resume=resume,
            horizons=horizons,
            confidence=confidence,
            default_rate=default_rate,
            recovery=recovery,
            score=score,
            threads=threads,
            compile=compile,
            progress=progress,
        )

    @near_names
    def max_leverage(
        self,
        policy: AnyPolicy | None = None,
        *,
        probability: float = 0.01,
        horizon: str = "30d",
        models: Sequence[str | PathModel | type[PathModel]] = ("filtered", "stationary", "gbm"),
        paths: int = 10_000,
        seed: int = 0,
        drift: Drift | None = None,
        evaluations: int | None = None,
        score: bool = False,
        threads: int = 1,
        compile: bool = True,  # noqa: A002 - the word users know
        progress: Progress | None = None,
    ) -> MaxLeverage:
        """Return the largest leverage whose probability of liquidation stays within a bound.

        Paths go on from the end of the market. The leverage stays within the limits of venue and
        account.

        Parameters
        ----------
        policy : Policy, optional
            By default, a position that is opened once at the leverage and kept; of several
            instruments one in each, at the leverage times its weight. Otherwise the result is the
            largest factor on the leverage of this policy, or of those of all instruments.
        probability : float
            The bound, in (0, 1); paths times this must be at least 20.
        horizon : str
            The time within which liquidations count.
        models : sequence
            Models of paths, as :func:`backtest.simulate_paths` takes them.
        evaluations : int, optional
            Bisect on one model's paths and on history, and try this many leverages at most, instead
            of scanning a grid on every model. Much faster, and less careful: the answer is within a
            twentieth with 8, and models from the long-run volatility are left out.
        score : bool
            Also hold the leverage found at past dates, as the score of :meth:`liquidation_risk`
            has them: how often was it liquidated? Nothing is searched in the past.
        paths, seed, drift, threads, compile, progress
            As in :func:`backtest.simulate_paths` and :meth:`liquidation_risk`.

        Notes
        -----
        The answer, the row ``worst``, is the smallest of: every model, from today's volatility and
        from the mean square of the returns of history; and the leverage at which that share of the
        accounts was liquidated that were new at each day's first open of history (with a year of
        data).

        All leverages see the same paths. A grid is scanned upwards on 256 of them to the first that
        exceeds the bound; then the gap is narrowed on 2,000. Where a model decides, its leverage is
        bisected on all paths. Above the result the probability may fall again, if a policy cuts its
        position; ``is_monotone`` says so.

        ``leverage_error`` is the standard error over paths, by the delta method: that of ln p, of
        n paths sqrt((1 - p) / (n p)), over the slope of ln p by the log of the leverage, measured
        on the same paths. It knows nothing of how wrong the model is.
        """
        from backtest.risk.largest_leverage import max_leverage

        return max_leverage(
            self,
            policy,
            probability=probability,
            horizon=horizon,
            models=models,
            paths=paths,
            seed=seed,
            drift=drift,
            evaluations=evaluations,
            score=score,
            threads=threads,
            compile=compile,
            progress=progress,
        )

    @near_names
    def leverage_frontier(
        self,
        policy: AnyPolicy | None = None,
        *,
        drift: Drift,
        horizon: str = "90d",
        model: str | PathModel | type[PathModel] = "filtered",
        paths: int = 2_000,
        seed: int = 0,
        compile: bool = True,  # noqa: A002 - the word users know
        progress: Progress | None = None,
    ) -> LeverageFrontier:
        """Return median growth and the probability of liquidation by leverage.

        Parameters
        ----------
        policy : Policy, optional
            As in :meth:`max_leverage`, whose leverages, or factors on a policy, are tried.
        drift : float or str
            Growth of the expected price per year, ``"history"`` or ``"shrunk"``, as in
            :func:`backtest.simulate_paths`. It must be given; paths without drift stand beside it.
        horizon : str
            Length of the simulated time.
        model, paths, seed, compile, progress
            As in :func:`backtest.simulate_paths` and :meth:`liquidation_risk`.

        Notes
        -----
        History has accounts that are new at opens a horizon apart, so that no bar is in two of
        them.
        """
        from backtest.risk.growth_frontier import leverage_frontier

        return leverage_frontier(
            self,
            policy,
            drift=drift,
            horizon=horizon,
            model=model,
            paths=paths,
            seed=seed,
            compile=compile,
            progress=progress,
        )

    @near_names
    def passing_probability(
        self,
        policy: AnyPolicy,
        *,
        target: float = 0.10,
        max_loss: float = 0.10,
        daily_loss: float | None = 0.05,
        trailing: Literal["close", "intrabar"] | None = None,
        locked: float | None = None,
        min_days: int = 0,
        consistency: float | None = None,
        days: int = 30,
        paths: Paths | None = None,
        threads: int = 1,
        compile: bool = True,  # noqa: A002 - the word users know
        progress: Progress | None = None,
    ) -> PassingProbability:
        """Return the probability that an account gains a target before it breaks a limit of loss.

        Parameters
        ----------
        policy, compile, progress
            As in :meth:`liquidation_risk`. ``daily_basis`` and ``day`` of the account say what
            the daily loss is a fraction of, and when a day begins.
        target, max_loss : float
            Fractions of the capital.
        daily_loss : float or None
            Fraction that a day may lose; the account is closed there, inside the bar. None: no
            limit. It must be that of the account, if that has one.
        trailing : str or None
            None: the maximum loss counts from the capital. ``"close"``: from the highest equity at
            an end of a day; ``"intrabar"``: from the highest inside bars.
        locked : float or None
            Where the trailing floor stops rising, over the capital: 0 at the capital.
        min_days : int
            The first day, counted from 1, on which an account can pass. It trades on until then.
        consistency : float or None
            The most that the best day may be of the profit at the target, as a fraction. Until it
            is, the account trades on.
        days : int
            Days until the end, after which an account is undecided.
        paths : Paths, optional
            By default those of the usual model, ``days`` long; of longer ones the first ``days``
            count.
        threads : int
            The result does not depend on it.

        Notes
        -----
        Target and maximum loss are tested at the most and the least equity of a bar, as
        liquidations see it, by mark prices on their way through the bar. One that reaches both
        fails, and is counted. On history, accounts begin anew at first opens of days, so far apart
        that they have no bar in common. Of a constant quantity without drift, costs and end,
        b / (a + b) pass.
        """
        from backtest.risk.funded import passing_probability

        return passing_probability(
            self,
            policy,
            target=target,
            max_loss=max_loss,
            daily_loss=daily_loss,
            trailing=trailing,
            locked=locked,
            min_days=min_days,
            consistency=consistency,
            days=days,
            paths=paths,
            threads=threads,
            compile=compile,
            progress=progress,
        )

    @near_names
    def capacity(
        self,
        policy: AnyPolicy,
        *,
        capitals: Sequence[float] | None = None,
        compile: Compile = True,  # noqa: A002 - the word users know
        progress: Progress | None = None,
    ) -> Capacity:
        """Return growth and Sharpe ratio by capital, and the capitals at which they are half.

        Parameters
        ----------
        policy, compile, progress
            As in :meth:`run`. The venue must have costs or limits that depend on size:
            ``Slippage(impact=...)`` or ``Slippage(max_participation=...)``.
        capitals : sequence of float, optional
            Increasing, in money; by default seven decades from the capital of the account, two to
            each.

        Notes
        -----
        What is half is compared with the smallest capital; the first crossing counts, to 1 %.
        """
        from backtest.risk.capital_capacity import capacity

        return capacity(self, policy, capitals=capitals, compile=compile, progress=progress)

    @near_names
    def sensitivity(
        self,
        policy: AnyPolicy,
        *,
        factors: Sequence[str] | None = None,
        parameters: bool = False,
        compile: Compile = True,  # noqa: A002 - the word users know
        progress: Progress | None = None,
    ) -> Sensitivity | ParameterSensitivity:
        """Return how growth changes with one assumption, or one parameter, at a time.

        Parameters
        ----------
        policy, compile, progress
            As in :meth:`run`; several instruments are changed together.
        factors : sequence of str, optional
            Some of ``"rates"`` (shifted by 100 bp; only where interest is charged), ``"funding"``
            (halved and doubled), ``"funding shift"`` (by 1 bp per settlement), ``"fees"``,
            ``"slippage"`` (with impact), ``"margin"``, ``"volatility"`` (three and five quarters);
            by default all that apply.
        parameters : bool
            Whether to change the parameters of the policy, and of a rule of the signal, instead:
            see :class:`ParameterSensitivity`.
        """
        from backtest.risk.factor_sensitivity import sensitivity

        return sensitivity(
            self, policy, factors=factors, parameters=parameters, compile=compile, progress=progress
        )

    @near_names
    def compare_margin(
        self,
        rules: Mapping[str, DynamicMargin | None],
        *,
        coverage: float = 0.99,
        accounts: int = 1000,
        paths: int = 200,
        horizon: str = "90d",
        model: str | PathModel | type[PathModel] = "filtered",
        seed: int = 0,
        progress: Progress | None = None,
    ) -> MarginComparison:
        """Return what margin rules tie up, how they rise, what they cover and what they leave.

        The test has one linear instrument; of its venue count the margin table and what a
        liquidation costs. A policy has no part in it: positions are constant, accounts have no
        effect on prices.

        Parameters
        ----------
        rules : mapping of str to DynamicMargin or None
            By name, rules of ``bt.margin_rules``, or None for the venue's table as it is.
        coverage : float
            The share of losses that a rule without a quantile of its own must cover.
        accounts : int
            Accounts on history: entries uniform in time, long or short, leverage log-uniform from 1
            to the largest that the rule allows at the entry.
        paths, horizon, model, seed
            As in :func:`backtest.simulate_paths`, one account on each; 0 paths: history alone.

        Notes
        -----
        Periods of coverage have the days of the rule, and are counted from the first day on which
        every rule is known; the venue's own table, of maintenance margins, has none. Means, peaks
        and rises are counted from the day on which every rule has warmed up.
        """
        from backtest.risk.margin_systems import compare_margin

        return compare_margin(
            self,
            rules,
            coverage=coverage,
            accounts=accounts,
            paths=paths,
            horizon=horizon,
            model=model,
            seed=seed,
            progress=progress,
        )

    @near_names
    def calibrate_margin(
        self,
        rule: DynamicMargin,
        *,
        solve: str = "quantile",
        shortfall: float = 0.001,
        paths: int | None = None,
        horizon: str = "30d",
        model: str | PathModel | type[PathModel] = "filtered",
        seed: int = 0,
        score: bool = False,
        progress: Progress | None = None,
    ) -> MarginCalibration:
        """Return the least parameter of a margin rule with few shortfalls, by bisection.

        The test has one linear instrument. A shortfall is a loss, at any mark within the days of
        the rule from a day's close, over the margin at that close. The days are those of the rule
        that is given, also where they are solved.

        Parameters
        ----------
        rule : DynamicMargin
            A rule of volatility of ``bt.margin_rules``.
        solve : str
            The number to find, ``"quantile"``, ``"days"``, ``"lambda_"``, ``"buffer"`` ...: the
            first of that name from the outermost rule inwards.
        shortfall : float
            The share p of paths, and of history's windows of their length, that may have one.
        paths : int, optional
            By default 20 / p, the least.
        horizon, model, seed
            As in :func:`backtest.simulate_paths`.
        score : bool
            Also hold the parameter found at past dates whose windows do not overlap, 60 at most:
            how many had a shortfall?

        Raises
        ------
        DataError
            If the margin is unknown on over a tenth of the days of the paths. Fewer are left out.
        """
        from backtest.risk.margin_calibration import calibrate_margin

        return calibrate_margin(
            self,
            rule,
            solve=solve,
            shortfall=shortfall,
            paths=paths,
            horizon=horizon,
            model=model,
            seed=seed,
            score=score,
            progress=progress,
        )

    @near_names
    def decide(
        self,
        policy: AnyPolicy,
        *,
        state: AccountSnapshot | Result,
        at: float | Mapping[str, float] | None = None,
        mark: float | Mapping[str, float] | None = None,
        funding: float | pd.DataFrame | Mapping[str, Any] | None = None,
        now: TimeLike | None = None,
        liquidation: str | None = None,
    ) -> Decision:
        """Return what a policy decides at the last close, and the order it leads to.

        No order is sent. The account is taken through one more bar that opens at a stated price and
        stands still there, under the rules of :meth:`run`: flows, interest, the gap check, and
        the fill with band, limits, lots and margin.

        Raises ParameterError if an argument is not allowed, or the snapshot lacks what the policy
        reads, or has no equity; PolicyError if the policy raises, looks ahead, or returns a
        negative number or the wrong type.

        Parameters
        ----------
        policy : Policy, or a mapping of names to policies
            As in :meth:`run`. The market of the test ends with the last closed bar.
        state : AccountSnapshot or Result
            The account at the last close. A result that ends earlier is continued to the last
            close. A policy with a memory needs a result.
        at : float or mapping of str to float, optional
            Price of the order, by instrument; default: the last close. It is the next open, or with
            ``fill="next_close"`` the next close.
        mark : float or mapping of str to float, optional
            Mark price at that time. Default: the price, times the last ratio of mark to last price.
        funding : float, DataFrame, or mapping of str to them, optional
            Rate of a settlement at the next open, which the position carried in pays, or
            settlements of the next bar as for :meth:`Market.from_frames`. Default: none.
        now : str or Timestamp, optional
            The present, in UTC. Default: the clock, which is read once. The decision has it as
            ``now``: data that ended over two bars before, of a market with sessions two sessions,
            are old.
        liquidation : str, optional
            ``"ours"`` acts although the liquidation price that a snapshot reports is far from the
            one computed, and ``"compared"`` does not. Default: what the snapshot says, else
            ``"compared"``.
        """
        from backtest.live.decide import decide

        return decide(
            self,
            policy,
            state=state,
            at=at,
            mark=mark,
            funding=funding,
            now=now,
            liquidation=liquidation,
        )

    @near_names
    def replay(
        self,
        fills: pd.DataFrame,
        *,
        start: AccountSnapshot | TimeLike | None = None,
        range_tolerance: float = 0.005,
    ) -> Replay:
        """Take an account through a market by fills that were really made.

        The signal of the test has no part in it. Funding and interest are those of a run; fills and
        flows are facts. The replay never acts by itself: it liquidates nothing, closes nothing that
        is delisted, makes no top-up and refuses no withdrawal. Transfers of a run, with its
        top-ups, are in :attr:`Result.transfers`.

        Raises ParameterError if an argument is not allowed; DataError if a fill lies outside its
        bar or the market, or the equity falls below 0 without a row of the kind ``bad_debt``.

        Parameters
        ----------
        fills : DataFrame
            ``time`` (with time zone), ``instrument`` (may be left out of one market), signed
            ``quantity`` in contracts, ``price``; optionally ``reference`` (the price before
            slippage), ``fee`` (positive is paid, in the settlement currency), ``fee_currency``,
            ``kind`` (order, stop, liquidation, takeover, expiry, delisting, ruin, conversion,
            bad_debt) and ``step``, the step of the bar. :attr:`Result.fills` is such a table.
            Beside ``traded``, the value of a fill in the settlement currency, quantities are
            another program's contracts, which are converted to those of the venue.
        start : AccountSnapshot, str or Timestamp, optional
            The account at its start, or the time. Default: ``account.capital``, flat, at the first
            bar.
        range_tolerance : float
            How far a price without a reference may lie outside the range of its bar, a fraction.
        """
        from backtest.live.replay import replay

        return replay(self, fills, start=start, range_tolerance=range_tolerance)

    @near_names
    def shadow(
        self,
        policy: AnyPolicy,
        fills: pd.DataFrame,
        snapshots: Sequence[AccountSnapshot],
        *,
        flows: pd.Series[float] | pd.DataFrame | str | Path | None = None,
        range_tolerance: float = 0.005,
        store: str | Path | None = None,
        experiment: str = "",
    ) -> Shadow:
        """Compare a live account with what its policy would have done, and say where they part.

        The difference in equity is the sum of parts, each of one account less the one before it:
        deposits, timing, sizes, orders (missed and extra), prices, fees, funding, and what is
        unexplained up to the last snapshot. Fills belong to the policy's orders by instrument and
        side within one decision interval. Everything runs in plain Python.

        Raises ParameterError or DataError if fills, snapshots or flows are not as described.

        Parameters
        ----------
        fills : DataFrame
            The account's fills, as those of :meth:`replay`; ones outside the snapshots are left
            out.
        snapshots : sequence of AccountSnapshot
            The account at the start and at the end, and at times between, each with its time; one
            is compared with the last close up to it. A single one is the end: the account is then
            assumed to begin flat, with its capital, at ``start``, by default at the first close.
            The policy decides when the account begins, one bar before :meth:`run` from there does.
        flows : Series, DataFrame, str or Path, optional
            Deposits by UTC time; or a ledger of ``time``, ``term`` (flows, which are deposits, and
            funding; fees, interest, expense, liquidation_loss and other are left out) and
            ``amount`` (positive is received). Without funding in it, the modeled funding stands;
            with it, settlements that it lacks count as 0, with a warning.
        range_tolerance : float
            How far a fill may lie outside the range of its bar, as in :meth:`replay`.
        store : str or Path, optional
            A folder of results: its ``shadow/ledger.parquet`` gets a row for each day, and a drift
            is judged from twenty days on.
        experiment : str
            The name in that ledger. Default: that of the policy.
        """
        from backtest.live.shadow import shadow

        return shadow(
            self,
            policy,
            fills,
            snapshots,
            flows=flows,
            range_tolerance=range_tolerance,
            store=store,
            experiment=experiment,
        )


@near_names
def run(
    market: Market | Markets,
    policy: AnyPolicy,
    *,
    venue: VenueLike,
    account: Account,
    signal: SignalLike = None,
    overlay: Policy | None = None,
    calendar: str = "auto",
    sampling: str = "1d",
    decision_interval: str | None = None,
    detail: DetailLike = None,
    start: TimeLike | None = None,
    end: TimeLike | None = None,
    compile: Compile = True,  # noqa: A002 - the word users know
    resume: Result | None = None,
    progress: Progress | None = None,
    benchmark: BenchmarkLike = None,
    option_quantities: pd.DataFrame | None = None,
) -> Result:
    """Run an account through a market, or through several, under a policy.

    It is ``Backtest(market, ...).run(policy, ...)``, in one call: :class:`Backtest` documents what
    describes the test, from ``venue`` to ``end``, and :meth:`Backtest.run` all others.
    """
    test = Backtest(
        market,
        venue=venue,
        account=account,
        signal=signal,
        overlay=overlay,
        calendar=calendar,
        sampling=sampling,
        decision_interval=decision_interval,
        detail=detail,
        start=start,
        end=end,
    )
    return test.run(
        policy,
        compile=compile,
        resume=resume,
        progress=progress,
        benchmark=benchmark,
        option_quantities=option_quantities,
    )

"""Weights that are equal, by the volatilities of returns, or of an estimator."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Any, NamedTuple, NoReturn

import numpy as np

from backtest import core
from backtest.core.code_names import pd
from backtest.indicators import walk_covariances
from backtest.market import Markets, read_weights, require_panel, weights_to_frame
from backtest.signals.computed import compute_signal, write_note
from backtest.signals.rules import SignalRule


def equal(markets: Markets) -> pd.DataFrame:
    """Return 1/n in each of the n instruments that can be traded: the signal of a run without one.

    An instrument can be traded from its first bar, and not in the last one before it is delisted.

    Returns
    -------
    DataFrame of shape (n_bars, n_instruments)

    Examples
    --------
    >>> import backtest as bt
    >>> whole = bt.Market.sample(bars=4)
    >>> equal(bt.Markets({"A": whole, "B": whole.slice(2, 4)}))["A"].tolist()
    [1.0, 1.0, 0.5, 0.5]
    """
    require_panel(markets)
    frame: pd.DataFrame = weights_to_frame(read_weights(None, markets), markets)
    return write_note(frame, text="equal")


def inverse_volatility(
    markets: Markets,
    *,
    half_life: float = 168.0,
    every: int = 24,
) -> pd.DataFrame:
    """Return weights in proportion to the inverse of volatility.

    Parameters
    ----------
    markets : Markets
        Only their closes count.
    half_life : float
        Bars after which a return weighs half as much in the variances; a week of hours by default.
    every : int
        Bars between new weights.

    Returns
    -------
    DataFrame of shape (n_bars, n_instruments)
        Adding up to 1 among the instruments with returns of a half-life, 0 before.

    Raises
    ------
    ParameterError
        If a parameter is out of range, or a price does not move.

    Notes
    -----
    Returns are logarithmic, their means are taken as 0. The variance of each instrument is of all
    its own returns, whichever others are listed or delisted. Weights are made at closes that are a
    multiple of ``every`` bars since 1970, and where the set of instruments changes. They are held
    as shares of equity in between.
    """
    core.Whole(1).check("every", every)
    half_life = float(core.Range(0.5, 1e9, "bars").check("half_life", half_life))
    require_panel(markets)

    def allocate(seen: Markets) -> core.FloatArray:
        return allocate_inverse(seen, half_life, every)

    frame: pd.DataFrame = compute_signal(markets, allocate)
    return write_note(frame, text="inverse volatility")


def allocate_inverse(
    seen: Markets,
    half_life: float,
    every: int,
) -> core.FloatArray:
    """Return weights by the inverse of volatility, (n_bars, n_instruments); NaN before."""
    squares = pd.DataFrame(find_returns(seen) ** 2)
    variances = squares.ewm(halflife=half_life).mean().to_numpy()  # each by its own past alone

    def solve(segment: Segment) -> core.FloatArray:
        """Return the inverse volatilities of a segment's members, as shares of their sum."""
        bars = segment.bars
        members = segment.members
        of_members = variances[np.ix_(bars, members)]
        check_moves(of_members, bars, members, seen)

        inverse = 1.0 / np.sqrt(of_members)
        totals = inverse.sum(axis=1, keepdims=True)
        return np.asarray(inverse / totals)

    known = count_known(half_life)
    segments = list_segments(seen, known, every)
    return hold_weights(seen, segments, solve)


def count_known(half_life: float) -> int:
    """Return the returns that an instrument needs to take part: a half-life of them, at least 2."""
    return max(2, math.ceil(half_life))


def find_returns(markets: Markets) -> core.FloatArray:
    """Return log returns (n_bars, n_instruments), NaN in the first bar."""
    logs = np.log(markets.panel().close)
    return np.diff(logs, prepend=np.nan).T


MOST_STEPS = 200
"""Newton steps after which no weights are taken to exist; some ten are usual."""
EXACT = 1e-12
"""Largest error of a contribution to the risk, as a share."""
NEAR_SOLUTION = 0.25
"""Newton decrement below which a whole step is safe: the objective is self-concordant."""


def risk_budget(
    markets: Markets,
    budgets: Mapping[str, float] | None = None,
    *,
    half_life: float = 168.0,
    every: int = 24,
    directions: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Return weights whose contributions to the variance are budgets.

    The weights w = y / sum(y) minimize y'Sy / 2 - sum of b log y, with S the covariance of log
    returns (means taken as 0) and b the budgets. Source: Spinu (2013), An Algorithm for Computing
    Risk Parity Weights, whose Newton steps find them.

    Parameters
    ----------
    markets : Markets
        Only their closes count.
    budgets : mapping of str to float, optional
        By instrument, over 0; those of the instruments that take part are scaled to add up to 1.
        By default all are equal (risk parity).
    half_life, every
        As of :func:`inverse_volatility`.
    directions : mapping of str to float, optional
        1 or -1 by instrument, by default 1: short weights are negative, and S is that of the
        returns that a short gets.

    Returns
    -------
    DataFrame of shape (n_bars, n_instruments)
        Absolute values add up to 1 among the instruments with returns of a half-life, 0 before.

    Raises
    ------
    ParameterError
        If a budget is not over 0, a price does not move, or a combination without risk exists.

    Examples
    --------
    >>> import backtest as bt
    >>> one, other = bt.Market.sample(bars=400), bt.Market.sample(bars=400, seed=1)
    >>> weights = risk_budget(bt.Markets({"A": one, "B": other}), {"A": 0.7, "B": 0.3})
    >>> round(float(weights.iloc[-1].sum()), 12)
    1.0
    """
    core.Whole(1).check("every", every)
    half_life = float(core.Range(0.5, 1e9, "bars").check("half_life", half_life))
    require_panel(markets)
    shares = read_by_name("budgets", budgets, markets, core.Real(0.0, open_low=True))
    signs = read_by_name("directions", directions, markets, core.Real(-1.0, 1.0))
    if any(abs(sign) != 1.0 for sign in signs.values()):
        raise core.ParameterError(f"directions must be 1 or -1, got {dict(directions or {})}")

    def allocate(seen: Markets) -> core.FloatArray:
        return allocate_risk(seen, shares, signs, half_life, every)

    frame: pd.DataFrame = compute_signal(markets, allocate)
    return write_note(frame, text="risk budget")


class RiskBudget(SignalRule):
    """The weights of :func:`risk_budget` as a rule, whose parameters sweeps and searches vary.

    ``budgets`` has a number for each instrument, ``signal.budgets.BTC`` in a search; only their
    ratios count. ``half_life`` and ``every`` are in bars, as of :func:`inverse_volatility`.
    """

    budgets: Annotated[Mapping[str, float], core.Range(1e-6, 1e6)]
    half_life: Annotated[float, core.Range(0.5, 1e9, "bars", log=True)] = 168.0
    every: Annotated[int, core.Range(1, 1_000_000, "bars", log=True)] = 24

    def direction(self, market: Any) -> Any:  # noqa: ARG002 - for several instruments
        """Refuse a single market."""
        raise core.ParameterError(
            "a risk budget is for several instruments, got one; Markets({'BTC': btc, 'ETH': eth})"
        )

    def _find_weights(self, markets: Markets) -> core.FloatArray:
        names = list(markets.names)
        core.check_names(
            "budgets",
            self.budgets,
            list(markets.last_opens),
            names,
            noun="instrument",
        )
        signs = dict.fromkeys(names, 1.0)
        return allocate_risk(
            markets,
            self.budgets,
            signs,
            self.half_life,
            self.every,
        )


def allocate_risk(
    seen: Markets,
    budgets: Mapping[str, float],
    signs: Mapping[str, float],
    half_life: float,
    every: int,
) -> core.FloatArray:
    """Return weights of shape (n_bars, n_instruments) with budgets of the risk; NaN before."""
    sides = np.array([signs[name] for name in seen.names])
    budgeted = BudgetedRisk(
        markets=seen,
        returns=find_returns(seen) * sides,
        sides=sides,
        budgets=np.array([budgets[name] for name in seen.names]),
        half_life=half_life,
    )
    segments = list_segments(seen, count_known(half_life), every)
    return hold_weights(seen, segments, budgeted.solve)


class BudgetedRisk(NamedTuple):
    """Instruments that share the risk of an account by their budgets.

    ``sides`` (n_instruments,) are 1 or -1, and ``returns`` (n_bars, n_instruments) those that the
    sides get; ``budgets`` (n_instruments,) need not add up to 1.
    """

    markets: Markets
    returns: core.FloatArray
    sides: core.FloatArray
    budgets: core.FloatArray
    half_life: float

    def solve(self, segment: Segment) -> core.FloatArray:
        """Return the weights of the members at each bar of a segment, (n_fits, n_members)."""
        members = segment.members
        of_members = self.budgets[members]
        budgets = of_members / of_members.sum()
        sizes = np.empty((len(segment.bars), len(members)))

        # The covariances come in blocks of bars, to bound the memory that they take.
        returns = self.returns[:, members]
        for block in walk_covariances(returns, self.half_life, segment.bars):
            fits = range(block.first, block.first + len(block.values))
            bars = segment.bars[fits.start : fits.stop]
            variances = np.diagonal(block.values, axis1=1, axis2=2)
            check_moves(variances, bars, members, self.markets)

            for fit, bar, covariance in zip(fits, bars, block.values, strict=True):
                sizes[fit] = spend_budgets(covariance, budgets)
                if np.isnan(sizes[fit]).any():
                    self._refuse_hedge(bar)
        return np.asarray(sizes * self.sides[members])

    def _refuse_hedge(self, bar: int) -> NoReturn:
        time = core.format_time(int(self.markets.time[bar]))
        raise core.ParameterError(
            "a long combination of the instruments must have risk, got none up to "
            f"{time} UTC: leave out one that hedges another fully, or give a longer "
            "half_life"
        )


def read_by_name(
    name: str,
    numbers: Mapping[str, float] | None,
    markets: Markets,
    rule: core.Real,
) -> dict[str, float]:
    """Return a checked number for each instrument, 1 if none is given."""
    if numbers is None:
        return dict.fromkeys(markets.names, 1.0)
    names = list(markets.names)
    core.check_names(
        name,
        numbers,
        names,
        names,
        noun="instrument",
    )
    checked = {}
    for instrument in names:
        number = rule.check(f"{name} of {instrument}", numbers[instrument])
        checked[instrument] = float(number)
    return checked


def spend_budgets(covariance: core.FloatArray, budgets: core.FloatArray) -> core.FloatArray:
    """Return the positive weights, (n,), with the budgets (n,) of a covariance (n, n).

    Their sum is 1; NaN where a long combination without risk exists. Newton's method, damped where
    it is far: the objective is self-concordant once the least budget is 1.
    """
    # Minimized is y'Cy / 2 - sum of b log y (Spinu 2013), of correlations C and budgets b of at
    # least 1: y is the weight in standard deviations.
    deviations = np.sqrt(np.diag(covariance))
    correlations = covariance / np.outer(deviations, deviations)
    scaled_budgets = budgets / budgets.min()
    y = np.sqrt(scaled_budgets)
    for _ in range(MOST_STEPS):
        slope = correlations @ y
        error = np.max(np.abs(y * slope - scaled_budgets))
        if error <= EXACT * scaled_budgets.sum():
            weights = y / deviations
            return np.asarray(weights / weights.sum())

        # A Newton step. Its decrement says how far the solution is: far from it the step is
        # shorter, as Spinu has it, so that y stays positive.
        gradient = slope - scaled_budgets / y
        hessian = correlations + np.diag(scaled_budgets / (y * y))
        try:
            step = np.linalg.solve(hessian, gradient)
        except np.linalg.LinAlgError:
            break
        decrement = math.sqrt(max(float(gradient @ step), 0.0))
        damping = 1.0 if decrement < NEAR_SOLUTION else 1.0 + decrement
        y = y - step / damping
    return np.full(len(y), np.nan)


def check_moves(
    variances: core.FloatArray,
    bars: core.IntArray,
    members: core.IntArray,
    markets: Markets,
) -> None:
    """Refuse variances (n_bars, n_members) if one is 0 or unknown."""
    still = np.argwhere(~(variances > 0.0))
    if len(still):
        fit, member = still[0].tolist()
        name = markets.names[int(members[member])]
        until = core.format_time(int(markets.time[bars[fit]]))
        raise core.ParameterError(
            f"the price of {name!r} must move, it has not up to {until} UTC; give a longer "
            "half_life"
        )


def fitted(
    markets: Markets,
    estimator: Any,
    window: int,
    every: int = 24,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Return the weights that an estimator finds in the last returns.

    Parameters
    ----------
    markets : Markets
        Only their closes count.
    estimator : object
        With ``fit(X)``, which returns an object with ``weights_``, one number per column. X is a
        frame of simple returns, of shape (window, n_instruments), by time and name. It is copied
        before each fit. The estimators of ``skfolio.optimization`` are such objects (install
        ``leverage-backtest[allocate]``).
    window : int
        Returns in X. An instrument takes part once it has as many.
    every : int
        Bars between fits: at closes that are a multiple of it since 1970, and where the set of
        instruments changes.
    progress : callable, optional
        Called with fits done and fits in all.

    Returns
    -------
    DataFrame of shape (n_bars, n_instruments)
        0 before the first fit.

    Raises
    ------
    ParameterError
        If the estimator has no ``fit``, or a number is out of range.
    PolicyError
        If the estimator raises, returns no finite weight for each column, or gives other weights
        for the same returns.

    Examples
    --------
    >>> import backtest as bt
    >>> class Momentum:
    ...     def fit(self, X):
    ...         self.weights_ = np.sign(X.mean()) / X.shape[1]
    ...         return self
    >>> both = bt.Markets({"A": bt.Market.sample(bars=72), "B": bt.Market.sample(bars=72, seed=1)})
    >>> fitted(both, Momentum(), window=24).iloc[-1].tolist()
    [-0.5, 0.5]
    """
    require_panel(markets)
    if isinstance(estimator, type) or not callable(getattr(estimator, "fit", None)):
        raise core.ParameterError(
            f"estimator must be an object with fit, got {estimator!r:.80}; "
            "skfolio.optimization.MeanRisk(), for example"
        )
    window = core.Whole(2).check("window", window)
    every = core.Whole(1).check("every", every)

    def fit_and_report(seen: Markets) -> core.FloatArray:
        # Parts of the market, which the check observes, are not reported.
        report = progress if seen.n_bars == markets.n_bars else None
        return fit_segments(estimator, seen, window, every, report)

    fit_and_report.__name__ = type(estimator).__name__
    frame: pd.DataFrame = compute_signal(markets, fit_and_report)
    return write_note(frame, text=type(estimator).__name__)


def fit_segments(
    estimator: Any,
    seen: Markets,
    window: int,
    every: int,
    report: core.Progress | None,
) -> core.FloatArray:
    """Return the fitted weights (n_bars, n_instruments), each held until the next; NaN before."""
    prices = seen.panel().close.T
    closes = pd.DataFrame(prices, index=seen.times, columns=[*seen.names])
    returns = closes.pct_change(fill_method=None)
    segments = list(list_segments(seen, window, every))
    total = sum(len(segment.bars) for segment in segments)
    done = 0

    def solve(segment: Segment) -> core.FloatArray:
        """Return the weights fitted at each bar of a segment, (n_bars, n_members)."""
        nonlocal done
        rows = []
        for t in segment.bars:
            stop = t + 1
            last_returns = returns.iloc[stop - window : stop, segment.members]
            rows.append(fit_weights(estimator, last_returns))

            done += 1
            core.report_progress(report, done, total)
        return np.stack(rows)

    return hold_weights(seen, iter(segments), solve)


def fit_weights(estimator: Any, returns: pd.DataFrame) -> core.FloatArray:
    """Return the weights that a copy of an estimator finds; raise PolicyError for bad ones."""
    name = type(estimator).__name__
    until = f"up to {returns.index[-1]:%Y-%m-%d %H:%M} UTC"
    try:
        fit = copy.deepcopy(estimator).fit(returns.copy())
        weights = np.asarray(fit.weights_, dtype=np.float64)
    except core.RAISED as error:
        raise core.PolicyError(
            f"{name}.fit raised {type(error).__name__}: {error}, on returns {until}"
        ) from error

    if weights.shape != (returns.shape[1],) or not np.isfinite(weights).all():
        raise core.PolicyError(
            f"{name} must give a finite weight for each of {returns.shape[1]} columns, "
            f"got {weights!r:.200} for returns {until}"
        )
    return weights


class Segment(NamedTuple):
    """A span over which the same instruments take part.

    ``members`` are their places, ``bars`` those at which weights are made anew: the first of the
    span, and then each that is due.
    """

    members: core.IntArray
    bars: core.IntArray


def list_segments(
    markets: Markets,
    known: int,
    every: int,
) -> Iterator[Segment]:
    """Yield the spans with the same instruments; weights are due at every ``every``-th bar.

    An instrument takes part where it can be traded and has ``known`` returns.
    """
    bars = np.arange(markets.n_bars)
    n_returns = bars - markets.spans[:, :1]  # of each instrument, up to each bar
    takes_part = markets.tradable() & (n_returns >= known)

    # A segment starts where any instrument joins or leaves.
    has_moved = takes_part[:, 1:] != takes_part[:, :-1]
    is_change = np.any(has_moved, axis=0)
    starts = np.flatnonzero(np.append(True, is_change))

    # Numbered since 1970, so that markets that begin later have the same bars due. Sessions have
    # gaps: their bars are counted in place of time.
    number = markets.time // markets.interval + 1
    if markets.sessions:
        number = bars + 1
    is_due = number % every == 0

    for start, stop in pairwise([*starts, markets.n_bars]):
        members = np.flatnonzero(takes_part[:, start])
        if members.size == 0:
            continue

        # Weights are made at its start, and at the bars due after that.
        later = start + 1
        due = np.flatnonzero(is_due[later:stop]) + later
        fitted_bars = np.concatenate([[start], due])
        yield Segment(members, fitted_bars)


def hold_weights(
    markets: Markets,
    segments: Iterator[Segment],
    solve: Callable[[Segment], core.FloatArray],
) -> core.FloatArray:
    """Return weights of shape (n_bars, n_instruments), each held until the next; NaN before.

    ``solve`` returns those of the members at each bar of a segment, of shape (n_fits, n_members).
    """
    n = len(markets)
    weights = np.full((markets.n_bars, n), np.nan)
    for segment in segments:
        rows = np.zeros((len(segment.bars), n))
        rows[:, segment.members] = solve(segment)
        weights[segment.bars] = rows

    # Row 0 stands for what is before the first weights: it is NaN, or has the first.
    is_known = ~np.isnan(weights[:, 0])
    all_rows = np.arange(len(weights))
    known_rows = np.where(is_known, all_rows, 0)
    last = np.maximum.accumulate(known_rows)
    return weights[last]

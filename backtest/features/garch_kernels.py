"""The recursion of GARCH, compiled by :mod:`backtest.features.compiled`."""

from __future__ import annotations

from backtest.base.units import FloatArray

KERNELS = ("filter_variance",)


def filter_variance(
    squares: FloatArray,
    falls: FloatArray,
    parameters: FloatArray,
    backcast: float,
    start: int,
    out: FloatArray,
) -> None:
    """Fill in the variance that is forecast for the bar after each, from bar ``start`` on.

    Parameters
    ----------
    squares : array of shape (n_bars,)
        Squared returns e_t^2; the first does not count.
    falls : array of shape (n_bars,)
        1 where the return is negative, else 0.
    parameters : array of shape (4,)
        omega, alpha, gamma and beta.
    backcast : float
        What stands for the square, and the variance, of the bar before the first that counts.
    start : int
        The first bar whose forecast is wanted, at least 1.
    out : array of shape (n_bars,)
        Where h_{t+1} = omega + (alpha + gamma [e_t < 0]) e_t^2 + beta h_t goes, at t.
    """
    omega, alpha, gamma, beta = parameters[0], parameters[1], parameters[2], parameters[3]
    variance = omega + (alpha + 0.5 * gamma) * backcast + beta * backcast
    for t in range(1, len(out)):
        variance = omega + (alpha + gamma * falls[t]) * squares[t] + beta * variance
        if t >= start:
            out[t] = variance

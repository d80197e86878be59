"""Kernel for the recursion of GARCH, compiled by :mod:`backtest.base.kernels`."""

from __future__ import annotations

from backtest.base import FloatArray

KERNELS = ("filter_variance",)


def filter_variance(
    squares: FloatArray, parameters: FloatArray, backcast: float, start: int, out: FloatArray
) -> None:
    """Write the variance forecast for the bar after each to ``out``, from bar ``start`` on.

    ``out[t]`` is h_{t+1} = omega + alpha e_t^2 + beta h_t. ``squares`` (n_bars,) holds e_t^2, the
    first does not count. ``parameters`` (3,) are omega, alpha and beta. ``backcast`` stands in for
    the square and the variance of the bar before the first that counts. ``start`` is at least 1.
    """
    omega, alpha, beta = parameters[0], parameters[1], parameters[2]
    variance = omega + alpha * backcast + beta * backcast
    for t in range(1, len(out)):
        variance = omega + alpha * squares[t] + beta * variance
        if t >= start:
            out[t] = variance

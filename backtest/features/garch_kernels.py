"""Kernel for the recursion of GARCH, compiled by :mod:`backtest.base.kernels`."""

from __future__ import annotations

from backtest.base import FloatArray

KERNELS = ("filter_variance",)


def filter_variance(
    squares: FloatArray,
    falls: FloatArray,
    parameters: FloatArray,
    backcast: float,
    start: int,
    out: FloatArray,
) -> None:
    """Write the variance forecast for the bar after each to ``out``, from bar ``start`` on.

    ``out[t]`` is h_{t+1} = omega + (alpha + gamma [e_t < 0]) e_t^2 + beta h_t. ``squares``
    (n_bars,) holds e_t^2, the first does not count; ``falls`` (n_bars,) is 1 for a negative return,
    else 0. ``parameters`` (4,) are omega, alpha, gamma, and beta. ``backcast`` stands in for the
    square and the variance of the bar before the first that counts. ``start`` is at least 1.
    """
    omega, alpha, gamma, beta = parameters[0], parameters[1], parameters[2], parameters[3]
    variance = omega + (alpha + 0.5 * gamma) * backcast + beta * backcast
    for t in range(1, len(out)):
        variance = omega + (alpha + gamma * falls[t]) * squares[t] + beta * variance
        if t >= start:
            out[t] = variance

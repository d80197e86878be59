"""Functions of numbers that policies may call; they compile. Public as :mod:`backtest.math`."""

from backtest.core.elementary import exp, log, mills_ratio, normal_cdf, normal_density, power

__all__ = ["exp", "log", "mills_ratio", "normal_cdf", "normal_density", "power"]


def __dir__() -> list[str]:
    return __all__

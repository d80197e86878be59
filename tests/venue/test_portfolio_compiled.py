"""The rules of a portfolio compile, without allocating, to the bits of the plain functions."""

import numpy as np
import pytest

from backtest.venue import portfolio_kernels
from tests.portfolios import compile_rules, make_portfolios


@pytest.mark.slow
def test_compiled_rules_have_the_same_bits():
    """All of a portfolio's functions in one kernel take about a minute to compile."""
    compiled = compile_rules()
    for packed, held, cash, rng in make_portfolios(10):
        pairs = [
            (each(packed, held), getattr(compiled, each.__name__)(packed, held))
            for each in (
                portfolio_kernels.compute_portfolio_requirement,
                portfolio_kernels.compute_portfolio_initial,
            )
        ]
        rooms = np.zeros((2, len(held.quantities) + len(held.amounts)))
        portfolio_kernels.fill_shares(packed, held, rooms[0])
        compiled.fill_shares(packed, held, rooms[1])
        pairs += zip(*rooms, strict=True)
        start = portfolio_kernels.Waypoint(held.values.copy(), held.prices.copy())
        ends = held.values * np.exp(0.25 * rng.normal(size=3))
        end = portfolio_kernels.Waypoint(ends, held.prices.copy())
        path = (packed, held, cash, start, end, rooms[0])
        pairs += [(portfolio_kernels.find_failure(*path), compiled.find_failure(*path))]
        price = (packed, held, cash, 0, start, end, rooms[0])
        pairs += [
            (portfolio_kernels.find_failure_ratio(*price), compiled.find_failure_ratio(*price))
        ]
        for plain, fast in pairs:
            assert np.float64(plain).tobytes() == np.float64(fast).tobytes()

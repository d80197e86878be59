"""The bracket tables of the oracle: the requirement, and where it takes all that is there."""

from decimal import Decimal, localcontext

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.oracle import Brackets


@st.composite
def tables(draw: st.DrawFn) -> Brackets:
    """Draw a convex table of 1 to 4 brackets."""
    count = draw(st.integers(1, 4))
    widths = draw(st.lists(st.integers(1, 10_000), min_size=count, max_size=count))
    rates = sorted(draw(st.sets(st.integers(1, 999), min_size=count, max_size=count)))
    edges = np.cumsum([0, *widths]).tolist()
    return Brackets(
        floors=tuple(map(Decimal, edges[:-1])),
        caps=tuple(map(Decimal, edges[1:])),
        rates=tuple(Decimal(rate) / 1000 for rate in rates),
        leverages=(Decimal(1),) * count,
    )


@given(tables(), st.integers(0, 40_000))
def test_requirement_is_the_maximum_of_the_lines(table, notional):
    """§3: max_k (r_k N - c_k), with the recursion of the amounts."""
    amounts = [Decimal(0)]
    for k in range(1, len(table.rates)):
        amounts.append(amounts[-1] + table.floors[k] * (table.rates[k] - table.rates[k - 1]))
    lines = [rate * notional - c for rate, c in zip(table.rates, amounts, strict=True)]
    assert table.requirement(Decimal(notional)) == max(lines)


@given(tables(), st.integers(-30_000, 30_000), st.sampled_from([1, -1]))
def test_boundary_is_where_bisection_finds_it(table, cash, side):
    """cash + side n - MM(n) changes sign there and nowhere else."""

    def surplus(notional: Decimal) -> Decimal:
        return cash + side * notional - table.requirement(notional)

    with localcontext(prec=40):
        low, high = Decimal(0), Decimal(10) ** 9
        if (surplus(low) > 0) == (surplus(high) > 0):
            root = table.boundary(Decimal(cash), side)
            assert root is None or root == 0
            return
        for _ in range(120):
            middle = (low + high) / 2
            same = (surplus(middle) > 0) == (surplus(low) > 0)
            low, high = (middle, high) if same else (low, middle)
        root = table.boundary(Decimal(cash), side)
        assert root is not None
        assert abs(root - low) <= Decimal("1e-20") * max(root, 1)

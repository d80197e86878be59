"""The rules of a book compile, without allocating, to the bits of the plain functions."""

import numpy as np
import pytest

from backtest.venue import book_failure, book_price, book_requirement
from tests.books import compile_book, make_books


@pytest.mark.slow
def test_compiled_rules_have_the_same_bits():
    """All of a book's functions in one kernel take about a minute to compile."""
    compiled = compile_book()
    for book, held, cash, rng in make_books(10):
        pairs = [
            (each(book, held), getattr(compiled, each.__name__)(book, held))
            for each in (
                book_requirement.compute_book_requirement,
                book_requirement.compute_book_initial,
            )
        ]
        rooms = np.zeros((2, len(held.quantities) + len(held.amounts)))
        book_requirement.fill_shares(book, held, rooms[0])
        compiled.fill_shares(book, held, rooms[1])
        pairs += zip(*rooms, strict=True)
        start = book_failure.Waypoint(held.values.copy(), held.prices.copy())
        ends = held.values * np.exp(0.25 * rng.normal(size=3))
        end = book_failure.Waypoint(ends, held.prices.copy())
        path = (book, held, cash, start, end, rooms[0])
        pairs += [(book_failure.find_failure(*path), compiled.find_failure(*path))]
        price = (book, held, cash, 0, start, end, rooms[0])
        pairs += [(book_price.find_failure_ratio(*price), compiled.find_failure_ratio(*price))]
        if not book.has_scenarios:
            one = (book, held, cash, 0)
            pairs += [
                (book_price.compute_bracket_failure(*one), compiled.compute_bracket_failure(*one))
            ]
        for plain, fast in pairs:
            assert np.float64(plain).tobytes() == np.float64(fast).tobytes()

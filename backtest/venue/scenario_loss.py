"""The loss of a book in price scenarios: the core of portfolio margin.

All instruments of a group move together. In row k the group loses
``l_gk = -w_k sum_i q_i (u_i(P_i (1 + m_k)) - u_i(P_i))``, which is the notional times m for a
linear contract and times m / (1 + m) for an inverse one. Collateral that cancels risk in the group
moves with it. With its own worst row for each group the loss is ``sum_g max(0, max_k l_gk)``; with
the same row for all groups of a product ``max(0, max_k sum_g (l_gk if l_gk > 0 else offset
l_gk))``, products summed.
"""

from __future__ import annotations

from backtest.venue.book_rules import BookRules, Holdings, is_in_pool


def compute_gain_rate(is_inverse: bool, move: float) -> float:
    """Return the profit of a long per unit of notional after a relative move of the price."""
    return move / (1.0 + move) if is_inverse else move


def compute_exposure(held: Holdings, i: int) -> float:
    """Return the signed notional of one position."""
    exposure: float = held.quantities[i] * abs(held.values[i])
    return exposure


def compute_group_loss(book: BookRules, held: Holdings, g: int, k: int) -> float:
    """Return the loss of a group in row k of its scenarios; negative for a gain."""
    tables = book.scenarios
    move, weight = tables.moves[g, k], float(tables.weights[g, k])
    gain = 0.0
    for place in range(tables.starts[g], tables.starts[g + 1]):
        i = tables.members[place]
        if is_in_pool(book, held, i):
            rate = compute_gain_rate(book.brackets.are_inverse[i], move)
            gain += compute_exposure(held, i) * rate
    for c in range(len(held.amounts)):
        if book.collateral.groups[c] == g and held.amounts[c] != 0.0:
            gain += held.amounts[c] * held.prices[c] * move
    return -weight * gain


def find_worst_row(book: BookRules, held: Holdings, g: int) -> int:
    """Return the row in which a group loses most, the first of equal ones; -1 if none loses."""
    worst, found = 0.0, -1
    for k in range(book.scenarios.counts[g]):
        loss = compute_group_loss(book, held, g, k)
        if loss > worst:
            worst, found = loss, k
    return found


def count_gain(book: BookRules, loss: float) -> float:
    """Return the share of a group's result that counts: losses in full, gains by the offset."""
    return 1.0 if loss > 0.0 else book.scenarios.offset


def compute_product_loss(book: BookRules, held: Holdings, product: int, k: int) -> float:
    """Return the loss of a product in row k: gains of a group count by the offset."""
    total = 0.0
    for g in range(len(book.scenarios.products)):
        if book.scenarios.products[g] == product:
            loss = compute_group_loss(book, held, g, k)
            total += count_gain(book, loss) * loss
    return total


def count_rows(book: BookRules, product: int) -> int:
    """Return the number of rows of a product: that of its groups."""
    rows = 0
    for g in range(len(book.scenarios.products)):
        if book.scenarios.products[g] == product:
            rows = book.scenarios.counts[g]
    return rows


def find_worst_product_row(book: BookRules, held: Holdings, product: int) -> int:
    """Return the row in which a product loses most, the first of equal ones; -1 if none loses."""
    worst, found = 0.0, -1
    for k in range(count_rows(book, product)):
        loss = compute_product_loss(book, held, product, k)
        if loss > worst:
            worst, found = loss, k
    return found


def compute_scenario_loss(book: BookRules, held: Holdings) -> float:
    """Return the worst loss of the cross positions in all scenarios, at least 0."""
    total = 0.0
    if book.scenarios.is_same_row:
        for product in range(book.scenarios.n_products):
            k = find_worst_product_row(book, held, product)
            if k >= 0:
                total += compute_product_loss(book, held, product, k)
        return total
    for g in range(len(book.scenarios.products)):
        k = find_worst_row(book, held, g)
        if k >= 0:
            total += compute_group_loss(book, held, g, k)
    return total


def compute_gross(book: BookRules, held: Holdings) -> float:
    """Return the sum of the notionals of the cross positions."""
    total = 0.0
    for i in range(len(held.quantities)):
        if is_in_pool(book, held, i):
            total += abs(compute_exposure(held, i))
    return total


def compute_side(book: BookRules, held: Holdings, g: int, side: float) -> float:
    """Return the notional of a group's cross positions on one side: 1 for longs, -1 for shorts."""
    total = 0.0
    for place in range(book.scenarios.starts[g], book.scenarios.starts[g + 1]):
        i = book.scenarios.members[place]
        if is_in_pool(book, held, i):
            total += max(0.0, side * compute_exposure(held, i))
    return total


def compute_offset(book: BookRules, held: Holdings) -> float:
    """Return the notional that offsets within groups: the smaller side of each group."""
    total = 0.0
    for g in range(len(book.scenarios.products)):
        longs = compute_side(book, held, g, 1.0)
        total += min(longs, compute_side(book, held, g, -1.0))
    return total

"""The loss of a portfolio in price scenarios: the core of portfolio margin.

All instruments of a group move together. In row k the group loses
``l_gk = -w_k sum_i q_i (u_i(P_i (1 + m_k)) - u_i(P_i))``, which is the notional times m for a
linear contract and times m / (1 + m) for an inverse one, so that a group is its two net notionals.
Collateral that cancels risk in the group is a linear part of it. With its own worst row for each
group the loss is ``sum_g max(0, max_k l_gk)``; with the same row for all groups of a product
``max(0, max_k sum_g (l_gk if l_gk > 0 else offset l_gk))``, products summed.
"""

from __future__ import annotations

from backtest.venue.portfolio_rules import Holdings, PortfolioRules, ScenarioTables, is_cross


def compute_gain_rate(is_inverse: bool, move: float) -> float:
    return move / (1.0 + move) if is_inverse else move


def compute_move_loss(linear: float, inverse: float, move: float, weight: float) -> float:
    gain = linear * move
    if inverse != 0.0:
        gain += inverse * (move / (1.0 + move))
    return -weight * gain


def compute_exposure(held: Holdings, i: int) -> float:
    exposure: float = held.quantities[i] * abs(held.values[i])
    return exposure


def fill_nets(rules: PortfolioRules, held: Holdings) -> None:
    tables, brackets = rules.scenarios, rules.brackets
    for g in range(len(tables.products)):
        linear, inverse = 0.0, 0.0
        for place in range(tables.starts[g], tables.starts[g + 1]):
            i = tables.members[place]
            if is_cross(held.quantities[i], brackets.are_isolated[i]):
                exposure = held.quantities[i] * abs(held.values[i])
                if brackets.are_inverse[i]:
                    inverse += exposure
                else:
                    linear += exposure
        tables.nets[g, 0], tables.nets[g, 1] = linear, inverse
    for c in range(len(held.amounts)):
        if rules.collateral.groups[c] >= 0 and held.amounts[c] != 0.0:
            tables.nets[rules.collateral.groups[c], 0] += held.amounts[c] * held.prices[c]


def compute_group_loss(tables: ScenarioTables, g: int, k: int) -> float:
    return compute_move_loss(
        tables.nets[g, 0], tables.nets[g, 1], tables.moves[g, k], tables.weights[g, k]
    )


def find_group_row(tables: ScenarioTables, g: int) -> int:
    linear, inverse = tables.nets[g, 0], tables.nets[g, 1]
    worst, found = 0.0, -1
    for k in range(tables.counts[g]):
        loss = compute_move_loss(linear, inverse, tables.moves[g, k], tables.weights[g, k])
        if loss > worst:
            worst, found = loss, k
    return found


def count_gain(offset: float, loss: float) -> float:
    return 1.0 if loss > 0.0 else offset


def compute_product_loss(tables: ScenarioTables, product: int, k: int) -> float:
    total = 0.0
    for g in range(len(tables.products)):
        if tables.products[g] == product:
            linear, inverse = tables.nets[g, 0], tables.nets[g, 1]
            loss = compute_move_loss(linear, inverse, tables.moves[g, k], tables.weights[g, k])
            total += count_gain(tables.offset, loss) * loss
    return total


def count_rows(tables: ScenarioTables, product: int) -> int:
    rows = 0
    for g in range(len(tables.products)):
        if tables.products[g] == product:
            rows = tables.counts[g]
    return rows


def find_product_row(tables: ScenarioTables, product: int) -> int:
    worst, found = 0.0, -1
    for k in range(count_rows(tables, product)):
        loss = compute_product_loss(tables, product, k)
        if loss > worst:
            worst, found = loss, k
    return found


def compute_scenario_loss(rules: PortfolioRules, held: Holdings) -> float:
    fill_nets(rules, held)
    tables, total = rules.scenarios, 0.0
    if tables.is_same_row:
        for product in range(tables.n_products):
            worst = 0.0
            for k in range(count_rows(tables, product)):
                worst = max(worst, compute_product_loss(tables, product, k))
            total += worst
        return total
    for g in range(len(tables.products)):
        linear, inverse, worst = tables.nets[g, 0], tables.nets[g, 1], 0.0
        for k in range(tables.counts[g]):
            loss = compute_move_loss(linear, inverse, tables.moves[g, k], tables.weights[g, k])
            worst = max(worst, loss)
        total += worst
    return total


def compute_gross(rules: PortfolioRules, held: Holdings) -> float:
    total = 0.0
    for i in range(len(held.quantities)):
        if is_cross(held.quantities[i], rules.brackets.are_isolated[i]):
            total += abs(held.quantities[i] * held.values[i])
    return total


def compute_side(rules: PortfolioRules, held: Holdings, g: int, side: float) -> float:
    total = 0.0
    for place in range(rules.scenarios.starts[g], rules.scenarios.starts[g + 1]):
        i = rules.scenarios.members[place]
        if is_cross(held.quantities[i], rules.brackets.are_isolated[i]):
            total += max(0.0, side * (held.quantities[i] * abs(held.values[i])))
    return total


def compute_offset(rules: PortfolioRules, held: Holdings) -> float:
    total = 0.0
    for g in range(len(rules.scenarios.products)):
        longs = compute_side(rules, held, g, 1.0)
        total += min(longs, compute_side(rules, held, g, -1.0))
    return total

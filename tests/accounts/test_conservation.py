"""Truth of several accounts: no money is made or lost, on drawn pairs and triples.

The oracle lives each account by itself, with what it sent and received among its flows; the whole
is added up here by hand, from the table of transfers. Every tenth book runs in plain Python.
"""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest

import backtest as bt
from tests import cases
from tests.agreement import choose_policy, differences, floats, scales, trust_data
from tests.oracle import simulate

CASES = 500
BLOCKS = 10


class Drawn(bt.TransferRule):
    """Send a part of what is available, drawn by the time alone."""

    seed: int = 0

    def transfer(self, time, accounts):
        """Return up to two transfers between accounts in the order of their names."""
        rng = np.random.default_rng([self.seed, time.value // 10**9])
        names = sorted(accounts)
        answer = {}
        for _ in range(int(rng.integers(0, 3))):
            sender, receiver = rng.permutation(names)[:2]
            share = float(rng.choice([0.1, 0.6, 1.5]))
            answer[str(sender), str(receiver)] = share * max(accounts[sender].available, 1.0)
        return answer


def draw_book(seed):
    """Return the cases of a pair or a triple by name, and how money moves between them."""
    rng = np.random.default_rng([seed, 102])
    n = int(rng.integers(2, 4))
    drawn = {}
    for k in range(n):
        drawn[f"account {k}"] = cases.make_portfolio_case(3 * seed + k, settles="cash")

    capital = min(case.account["capital"] for case in drawn.values())
    rules = [
        Drawn(seed=seed), Drawn(seed=seed), bt.TopUp(when_margin_ratio=0.3, to=0.1),
        bt.KeepShares(dict.fromkeys(drawn, 1.0 / n), band=0.05),
        bt.SweepProfits(to="account 0"),
    ]  # fmt: skip
    terms = {
        "transfer": rules[int(rng.integers(len(rules)))],
        "every": str(rng.choice(["1h", "4h", "1d"])),
        "delay": str(rng.choice(["0s", "30min", "6h", "2d"])),
        "fee": float(rng.choice([0.0, 0.002, 0.1])) * capital,
    }
    return drawn, terms


def live(drawn, terms, *, is_compiled):
    tests = {}
    policies = {}
    for name, case in drawn.items():
        given = case.for_engine(bt)
        tests[name] = bt.Backtest(given.pop("market"), **given, overlay=None)
        policies[name] = {x: choose_policy(case, tape) for x, tape in case.tapes.items()}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bt.Accounts(tests, **terms).run(policies, compile=is_compiled)


def check(seed, monkeypatch):
    trust_data(monkeypatch)
    drawn, terms = draw_book(seed)
    drawn = {name: replace(case, overlay=None) for name, case in drawn.items()}
    book = live(drawn, terms, is_compiled=seed % 10 > 0)

    # Each account is what the oracle makes of its flows.
    moved = 0.0
    for name, result in book.results.items():
        case = drawn[name]
        flowing = replace(case, account=case.account | {"flows": result.account.flows})
        out = simulate(*flowing.for_oracle())
        if not is_emptied(out):
            wrong = differences(flowing, out, result)
            assert not wrong, f"{seed} {name}: {terms}\n" + "\n".join(wrong[:8])
        moved += sum_flows(result) - sum_external(case, result, book, name)

    # What left and did not arrive is fees and what is on its way; the whole has the rest.
    log = book.transfers
    assert abs(moved + log["sent"].sum() - log["arrived"].sum()) <= 1e-6
    left = log["sent"].sum() - log["arrived"].sum() - log["fee"].sum()
    assert book.bars["in_transit"].iloc[-1] == pytest.approx(left, abs=1e-6)

    ends = [result.of_account("equity")[-1] for result in book.results.values()]
    assert book.bars["equity"].iloc[-1] == pytest.approx(math.fsum([*ends, left]), rel=1e-12)
    return book


def is_emptied(out):
    """Return whether transfers took an account's last cent: whether dust trades is rounding."""
    equity = floats(out.equity)
    scale = scales(out)
    return bool(np.any((equity != 0.0) & (np.abs(equity) <= 1e-12 * scale)))


def sum_flows(result):
    return float(np.sum(result.of_account("flows") - result.of_account("top_up")))


def sum_external(case, result, book, name):
    """Return what its own deposits and withdrawals moved: its flows less its transfers."""
    log = book.transfers
    sent = log.loc[log["sender"] == name, "sent"].sum()
    arrived = log.loc[log["receiver"] == name, "arrived"].sum()
    moved = sum_flows(result) - (arrived - sent)
    if case.account["flows"] is None:
        assert abs(moved) <= 1e-6
    return moved


@pytest.mark.parametrize(
    "block", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in range(1, BLOCKS))]
)
def test_no_money_is_made_or_lost(block, monkeypatch):
    size = 4 if block == 0 else CASES // BLOCKS
    sent = liquidated = 0
    for seed in range(CASES // BLOCKS * block, CASES // BLOCKS * block + size):
        book = check(seed, monkeypatch)
        sent += int((book.transfers["sent"] > 0.0).sum())
        liquidated += int(book.metrics["liquidations"])
    assert sent > 0
    if block > 0:
        assert liquidated > 0

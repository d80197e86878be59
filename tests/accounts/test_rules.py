"""Transfer rules: what they ask, and what of them and of a book is refused."""

import random

import pandas as pd
import pytest

import backtest as bt
from backtest import ParameterError, PolicyError
from backtest.accounts.rules import ask_rule
from tests import scenes
from tests.accounts.desk import Script, hold, make_test, move, run
from tests.kit import check_refused

NOW = pd.Timestamp("2024-01-01", tz="UTC")
TESTS = {"a": make_test(*[100.0] * 8), "b": make_test(*[100.0] * 8)}


def status(equity=100.0, available=50.0, ratio=0.0, **more):
    requirement = ratio * equity
    return bt.AccountStatus(
        equity, available, ratio, 1.0, more.pop("in_transit", 0.0), NOW, requirement=requirement,
        backing=equity, **more,
    )  # fmt: skip


def test_a_top_up_brings_the_ratio_back():
    """60 needed of 100: at a ratio of .3 there are 200."""
    accounts = {"a": status(ratio=0.6), "b": status(available=500.0)}

    answer = bt.TopUp().transfer(NOW, accounts)

    assert answer == {("b", "a"): pytest.approx(100.0)}


def test_a_top_up_adds_the_fee_and_counts_what_is_on_its_way():
    """100 and the fee of 2; 30 are on their way and 10 are ordered."""
    called = status(ratio=0.6, fee=2.0, in_transit=30.0, ordered=10.0)
    accounts = {"a": called, "b": status(available=500.0, fee=2.0)}

    answer = bt.TopUp().transfer(NOW, accounts)

    assert answer == {("b", "a"): pytest.approx(62.0)}


def test_the_account_with_the_most_available_sends_first_and_partly_if_less():
    accounts = {
        "a": status(ratio=0.6),
        "b": status(available=30.0),
        "c": status(available=40.0),
        "d": status(available=1.0),
    }

    answer = bt.TopUp().transfer(NOW, accounts)

    assert [*answer.items()] == [(("c", "a"), 40.0), (("b", "a"), 30.0), (("d", "a"), 1.0)]


def test_called_accounts_and_those_with_options_send_nothing():
    accounts = {
        "a": status(ratio=0.6),
        "b": status(ratio=0.5),
        "c": status(available=9e9, can_send=False),
    }
    assert bt.TopUp().transfer(NOW, accounts) == {}

    uncalled = {"a": status(ratio=0.49), "b": status()}
    assert bt.TopUp().transfer(NOW, uncalled) == {}


def test_shares_are_kept_from_the_band_on():
    rule = bt.KeepShares({"a": 0.6, "b": 0.4}, band=0.1)
    assert rule.transfer(NOW, {"a": status(69.0), "b": status(31.0)}) == {}

    answer = rule.transfer(NOW, {"a": status(75.0), "b": status(25.0)})
    assert answer == {("a", "b"): pytest.approx(15.0)}

    cut = rule.transfer(NOW, {"a": status(75.0, available=5.0), "b": status(25.0)})
    assert cut == {("a", "b"): pytest.approx(5.0)}


def test_profits_are_swept_to_the_account_that_keeps_them():
    rule = bt.SweepProfits(to="b", above=0.1)
    assert rule.transfer(NOW, {"a": status(109.0, capital=100.0), "b": status()}) == {}

    answer = rule.transfer(NOW, {"a": status(120.0, capital=100.0), "b": status(capital=1.0)})
    assert answer == {("a", "b"): pytest.approx(20.0)}


def test_a_rule_is_printed_and_read_by_its_parameters():
    assert repr(bt.TopUp(when_margin_ratio=0.8, to=0.4)) == "TopUp(when_margin_ratio=0.8, to=0.4)"
    assert bt.TopUp(when_margin_ratio=0.8) == bt.TopUp.from_dict({"when_margin_ratio": 0.8})

    rule = bt.KeepShares({"a": 0.6, "b": 0.4})
    assert eval(repr(rule), vars(bt).copy()) == rule
    assert hash(rule) == hash(bt.KeepShares({"a": 0.6, "b": 0.4}))


RULE_FAULTS = [
    (lambda: bt.TopUp(when_margin_ratio=0.3, to=0.5), "to: must be below when_margin_ratio"),
    (lambda: bt.TopUp(when_margin_ratio=1.5), "when_margin_ratio"),
    (lambda: bt.TopUp(0.5, 0.3, 1), "accepts 2 positional"),
    (lambda: bt.KeepShares({"a": 0.6, "b": 0.6}), "must be 1 together"),
    (lambda: bt.KeepShares({"a": 1.6, "b": -0.6}), "at least 0 and at most 1"),
    (lambda: bt.KeepShares({"a": 0.6, "b": 0.4}, band=-1.0), "band"),
    (bt.SweepProfits, "to"),
]


@pytest.mark.parametrize(("make", "words"), RULE_FAULTS, ids=range(len(RULE_FAULTS)))
def test_parameters_of_rules_that_make_no_sense_are_refused(make, words):
    check_refused(make, words, ParameterError)


INVERSE = scenes.venue_of(
    contract={"kind": "inverse", "size": 1.0}, brackets=[scenes.bracket(leverage=20.0)]
)
IN_COINS = bt.Backtest(
    scenes.market_of(*[100.0] * 8), venue=INVERSE.override({"contract.settles": "BTC"}),
    account=scenes.account_of(capital=1.0),
)  # fmt: skip


def settled(currency):
    test = TESTS["a"]
    return test.replace(venue=test.venue.override({"contract.settles": currency}))


BOOK_FAULTS = [
    (lambda: bt.Accounts({"a": TESTS["a"]}), "two tests or more"),
    (lambda: bt.Accounts([TESTS["a"], TESTS["b"]]), "by name"),
    (
        lambda: bt.Accounts({"a": TESTS["a"], "b": bt.Account()}),
        "'b' must be a bt.Backtest",
    ),
    (lambda: bt.Accounts({"a": TESTS["a"], "../b": TESTS["b"]}), "name of an account"),
    (lambda: bt.Accounts(TESTS, transfer=bt.TopUp), "transfer=TopUp(...)"),
    (lambda: bt.Accounts(TESTS, transfer="top-up"), "transfer must be TopUp"),
    (lambda: bt.Accounts(TESTS, transfer=bt.SweepProfits(to="c")), "no account 'c'"),
    (lambda: bt.Accounts(TESTS, transfer=bt.KeepShares({"a": 1.0})), "needs b"),
    (lambda: bt.Accounts(TESTS, delay="-30min"), "delay must be a duration"),
    (lambda: bt.Accounts(TESTS, delay=-5), "delay must be a duration"),
    (lambda: bt.Accounts(TESTS, every="0h"), "every must be a duration"),
    (lambda: bt.Accounts(TESTS, fee=-1.0), "fee must be at least 0"),
    (lambda: bt.Accounts(TESTS, fee=float("nan")), "fee must be a number"),
    (lambda: bt.Accounts(TESTS, fee=float("inf")), "fee must be finite"),
    (
        lambda: bt.Accounts({"a": settled("USDT"), "b": settled("USDC")}),
        "USDT (a) and USDC (b); give settle='USD'",
    ),
    (lambda: bt.Accounts({"a": settled("USDT"), "b": IN_COINS}), "USDT (a) and BTC (b)"),
    (lambda: bt.Accounts({"a": settled("USDT"), "b": IN_COINS}, settle="USD"), "settle='USD'"),
    (lambda: bt.Accounts({"a": settled("USDT"), "b": settled("USDT")}, settle="EUR"), "settle="),
    (lambda: bt.Accounts(TESTS).run({"a": hold(1.0)}), "needs b"),
    (lambda: bt.Accounts(TESTS).run({"a": hold(1.0), "c": hold(1.0)}), "no account 'c'"),
]


@pytest.mark.parametrize(("make", "words"), BOOK_FAULTS, ids=range(len(BOOK_FAULTS)))
def test_books_that_make_no_sense_are_refused(make, words):
    check_refused(make, words, ParameterError)


def test_pegged_currencies_are_added_up_where_it_is_said():
    tests = {"a": settled("USDT"), "b": settled("USDC")}

    book = run(tests, hold(0.0), settle="USD", transfer=bt.Never())

    assert book.settlement == "USD"
    assert "USD, USDT and USDC count as one" in " ".join(book.list_assumptions())


def test_fills_before_the_open_are_refused_by_name_where_money_moves():
    early = TESTS["a"].replace(account=scenes.account_of(fill="same_close"))

    tests = {"a": early, "b": TESTS["b"]}
    check_refused(lambda: bt.Accounts(tests, transfer=bt.TopUp()), "account 'a': fill")
    assert bt.Accounts(tests).run(hold(0.0), compile=False)


class Say:
    """A rule that is no TransferRule: it answers what it was given."""

    def __init__(self, answer):
        self.answer = answer

    def transfer(self, time, accounts):
        return self.answer


ANSWERS = [
    ({("a", "c"): 1.0}, "must name accounts of the book, a, b, got 'c'"),
    ({("a", "a"): 1.0}, "got 'a' to itself"),
    ({("a", "b"): -1.0}, "at least 0"),
    ({("a", "b"): float("nan")}, "finite"),
    ({("a", "b"): float("inf")}, "finite"),
    ({("a", "b"): "1"}, "finite"),
    ({("a", "b"): True}, "finite"),
    ({"a": 1.0}, "(sender, receiver)"),
    ({("a", "b", "c"): 1.0}, "(sender, receiver)"),
    (None, "must return a dict"),
    ([("a", "b", 1.0)], "must return a dict"),
]


@pytest.mark.parametrize(("answer", "words"), ANSWERS, ids=range(len(ANSWERS)))
def test_answers_that_are_no_transfers_are_refused(answer, words):
    check_refused(lambda: run(TESTS, hold(0.0), transfer=Say(answer)), words, PolicyError)


def test_an_own_class_without_the_base_may_be_a_rule():
    book = run(TESTS, hold(0.0), transfer=Say({("a", "b"): 1.0}))
    assert len(book.transfers) == 8


def test_what_a_rule_raises_is_told_with_its_place():
    class Fails(bt.TransferRule):
        """Fail."""

        def transfer(self, time, accounts):
            """Raise."""
            return {("a", "b"): accounts["c"].equity}

    said = "Fails.transfer raised KeyError"
    check_refused(lambda: run(TESTS, hold(0.0), transfer=Fails()), said, PolicyError)


def test_a_rule_that_draws_or_remembers_is_refused():
    class Draws(bt.TransferRule):
        """Send a random amount."""

        def transfer(self, time, accounts):
            """Return it."""
            return {("a", "b"): random.random()}

    class Counts:
        """Send how often it was asked."""

        def __init__(self):
            self.asked = 0

        def transfer(self, time, accounts):
            self.asked += 1
            return {("a", "b"): float(self.asked)}

    said = "when asked again"
    for rule in (Draws(), Counts()):
        check_refused(lambda rule=rule: run(TESTS, hold(0.0), transfer=rule), said, PolicyError)


def test_a_rule_that_looks_at_later_bars_is_refused():
    tests = {"a": make_test(*move(100, 101, 99, 103, 98, 100)), "b": make_test(*[100.0] * 6)}
    market = tests["a"].market

    class Peeks(bt.TransferRule):
        """Send where the next bar falls."""

        def transfer(self, time, accounts):
            """Look at the next bar."""
            later = market.close[market.times >= time]
            return {("a", "b"): 1.0} if len(later) and later[0] < 99.5 else {}

    before = market.close.copy()
    said = "later bars are replaced"
    check_refused(lambda: run(tests, hold(0.0), transfer=Peeks()), said, PolicyError)
    assert (market.close == before).all()


def test_accounts_with_options_receive_and_do_not_send():
    accounts = {"a": status(can_send=False), "b": status()}
    with pytest.raises(PolicyError, match="'a', which has options"):
        ask_rule(Say({("a", "b"): 1.0}), NOW, accounts)

    answer = {("b", "a"): 1.0, ("a", "b"): 0.0}
    assert ask_rule(Say(answer), NOW, accounts) == {("b", "a"): 1.0}


def test_scripts_are_rules():
    assert Script({"2": 1.0}).amounts == {"2": 1.0}

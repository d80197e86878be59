"""Several accounts on one clock: transfers by hand, the whole, and what it is held to."""

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.accounts.rules import phrase_transfers
from backtest.results import find_folder
from backtest.strategies import Constant, VolTarget
from tests import scenes
from tests.accounts.desk import START, EqualRatios, Script, hold, make_test, move, run, same
from tests.kit import AT_BINANCE, slow
from tests.options.listed_markets import make_markets, make_venue

PLAIN = {"a": make_test(*[100.0] * 8), "b": make_test(*[100.0] * 8)}
STILL = {"a": hold(0.0), "b": hold(0.0)}


def at(hours):
    return START + pd.Timedelta(hours=hours)


def test_never_is_the_sum_of_the_runs_bit_for_bit():
    market = bt.Market.sample(bars=24 * 20)
    tests = {
        "a": bt.Backtest(market, **AT_BINANCE),
        "b": bt.Backtest(market, **AT_BINANCE, signal=-1.0),
        "c": bt.Backtest(market.slice("2023-01-05", None), **AT_BINANCE),
    }
    book = run(tests, VolTarget(), transfer=bt.Never(), every="1d")
    alone = {name: test.run(VolTarget(), compile=False) for name, test in tests.items()}

    for name, result in alone.items():
        assert book.results[name].bars.equals(result.bars)
        assert book.results[name].manifest["id"] == result.manifest["id"]

    # Before its first bar c has its capital.
    equities = pd.DataFrame({name: result.bars["equity"] for name, result in alone.items()})
    equities = equities.fillna({"c": 10_000.0})
    assert book.bars["equity"].tolist() == [math.fsum(row) for row in equities.to_numpy()]
    assert book.transfers.empty


def test_a_transfer_leaves_at_the_next_open_and_arrives_after_its_delay():
    """Asked at 2 h, leaves at the open of bar 2; 90 minutes later bar 4 is the first to open.

    10 are sent, 1 is the fee, 9 arrive. Until the close of bar 4 they are on their way.
    """
    book = run(PLAIN, STILL, transfer=Script({"2": 10.0}), delay="90min", fee=1.0)

    (row,) = book.transfers.to_dict("records")
    assert row["asked_at"] == at(2)
    assert row["left_at"] == at(2)
    assert row["arrived_at"] == at(4)
    assert row["asked"] == 10.0
    assert row["sent"] == 10.0
    assert row["fee"] == 1.0
    assert row["arrived"] == 9.0
    assert row["cut"] == ""

    assert book.results["a"].bars["equity"].tolist() == [100.0] * 2 + [90.0] * 6
    assert book.results["b"].bars["equity"].tolist() == [100.0] * 4 + [109.0] * 4
    assert book.bars["in_transit"].tolist() == [0.0, 0.0, 9.0, 9.0, 0.0, 0.0, 0.0, 0.0]
    assert book.bars["equity"].tolist() == [200.0] * 2 + [199.0] * 6
    assert book.metrics["final_equity"] == 199.0


def test_without_delay_money_arrives_at_the_same_open():
    book = run(PLAIN, STILL, transfer=Script({"2": 10.0}))

    assert book.transfers["arrived_at"].tolist() == [at(2)]
    assert book.bars["equity"].tolist() == [200.0] * 8
    assert not book.bars["in_transit"].any()


def test_a_transfer_takes_at_most_what_the_open_leaves():
    """2x long of 100 at 100, initial margin 5 %: 200 bind 10. The mark falls to 95: equity 90.

    Available at the open of bar 3: 90 - 190 * .05 = 80.5.
    """
    tests = {"a": make_test(*move(100, 100, 95, 95, 95)), "b": make_test(*[100.0] * 5)}

    book = run(tests, {"a": hold(2.0), "b": hold(0.0)}, transfer=Script({"3": 500.0}))

    (row,) = book.transfers.to_dict("records")
    assert same(row["sent"], 80.5)
    assert row["cut"] == "available"
    assert same(book.results["a"].bars["equity"].iloc[-1], 9.5)


def test_several_transfers_of_one_sender_are_cut_in_proportion():
    class Both(bt.TransferRule):
        """Send to two accounts at 2 h."""

        def transfer(self, time, accounts):
            """Return three times as much for b as for c."""
            return {("a", "b"): 150.0, ("a", "c"): 50.0} if time == at(2) else {}

    tests = {**PLAIN, "c": make_test(*[100.0] * 8)}
    book = run(tests, hold(0.0), transfer=Both())

    assert book.transfers["sent"].tolist() == [75.0, 25.0]
    assert book.results["b"].bars["equity"].iloc[-1] == 175.0


def test_a_transfer_of_at_most_its_fee_is_refused_and_logged():
    book = run(PLAIN, STILL, transfer=Script({"2": 5.0}), fee=5.0)
    (row,) = book.transfers.to_dict("records")
    assert row["sent"] == 0.0
    assert row["arrived"] == 0.0
    assert row["fee"] == 0.0
    assert book.transfers["cut"].tolist() == ["fee"]
    assert book.transfers["left_at"].isna().all()
    assert book.bars["equity"].tolist() == [200.0] * 8


def test_what_has_no_later_bar_stays_on_its_way_and_in_the_whole():
    """Asked at 7 h: leaves at the open of the last bar, and would arrive after it."""
    book = run(PLAIN, STILL, transfer=Script({"7": 10.0, "8": 3.0}), delay="2h")

    assert book.transfers["cut"].tolist() == ["", "no later bar"]
    assert book.transfers["arrived_at"].isna().all()
    assert book.bars["in_transit"].iloc[-1] == 10.0
    assert book.bars["equity"].iloc[-1] == 200.0


def test_long_bars_send_at_their_own_open_and_are_seen_at_their_close():
    """Bars of 4 h: asked at 5 h, inside one of a: it leaves at 8 h; b, of hours, has it at 8 h."""
    seen = []

    class Look(Script):
        """Remember what is seen."""

        def transfer(self, time, accounts):
            """Return what the script says."""
            seen.append((time, accounts["a"].as_of, accounts["a"].ordered, accounts["b"].ordered))
            return Script.transfer(self, time, accounts)

    market = scenes.market_of(*[100.0] * 4, interval="4h")
    account = scenes.account_of(capital=100.0)
    long = bt.Backtest(market, venue=PLAIN["a"].venue, account=account)
    tests = {"a": long, "b": make_test(*[100.0] * 16)}
    book = run(tests, hold(0.0), transfer=Look({"5": 10.0}))

    assert book.transfers["left_at"].tolist() == [at(8)]
    shown = {time: row for time, *row in seen}
    assert shown[at(1)][0] is None
    assert shown[at(6)] == [at(4), 0.0, 10.0]

    # b has it in its bar of 8 h, while a's last close is that of 8 h until 12 h.
    assert book.bars.loc[at(9), "in_transit"] == -10.0
    assert set(book.bars["equity"]) == {200.0}


def test_a_rule_sees_the_last_close():
    """2x long of 100 at 100 falls to 95: equity 90, ratio 9.5 / 90, leverage 190 / 90."""
    seen = []

    class Watch(bt.TransferRule):
        """Remember what is seen."""

        def transfer(self, time, accounts):
            """Return nothing."""
            seen.append((time, accounts["a"]))
            return {}

    tests = {"a": make_test(*move(100, 100, 95, 95)), "b": make_test(*[100.0] * 4)}
    run(tests, {"a": hold(2.0), "b": hold(0.0)}, transfer=Watch())

    status = dict(seen)[at(3)]
    assert same(status.equity, 90.0)
    assert same(status.margin_ratio, 9.5 / 90.0)
    assert same(status.leverage, 190.0 / 90.0)
    assert same(status.available, 80.5)
    assert same(status.requirement, 9.5)
    assert same(status.backing, 90.0)
    assert status.as_of == at(3)
    assert status.in_transit == 0.0
    assert status.capital == 100.0


def test_an_isolated_account_has_its_wallet_available_and_the_ratio_of_its_position():
    """Long 200 of 100 at 10x: 20 posted, 80 in the wallet. At 95: 9.5 over 20 - 10.

    Of 90 an order of 190 would need 19, which leaves 71 of the 80.
    """
    seen = []

    class Watch(bt.TransferRule):
        """Remember what is seen."""

        def transfer(self, time, accounts):
            """Return nothing."""
            seen.append(accounts["a"])
            return {}

    account = scenes.isolated(10.0, capital=100.0)
    a = make_test(*move(100, 100, 95, 95), account=account)
    tests = {"a": a, "b": make_test(*[100.0] * 4)}

    run(tests, {"a": hold(2.0), "b": hold(0.0)}, transfer=Watch())

    assert same(seen[-1].available, 71.0)
    assert same(seen[-1].margin_ratio, 0.95)


def test_the_pair_by_hand_dies_between_its_parts_and_the_cross_account():
    """Long 10 a and short 10 b at 100, 100 each, requirement 5 %. Both fall 100, 95, 91, 85.

    Apart, a has 50 at 95 and 10 at 91, where 45.5 are needed: liquidated in bar 3. Equalized at
    each close it has 100 again at 91, and fails at P: 100 - 10 (91 - P) = .5 P, P = 810 / 9.5,
    in bar 4. The cross account of both loses nothing. After the liquidation a has .5 P.
    """
    path = move(100, 100, 95, 91, 85)
    tests = {"a": make_test(*path), "b": make_test(*path, signal=-1.0)}
    policies = hold(10.0)

    apart = run(tests, policies, transfer=bt.Never())
    pair = run(tests, policies, transfer=EqualRatios())
    cross = run_cross_account(path, path, venue=tests["a"].venue)

    assert find_liquidations(apart) == [at(3)]
    assert find_liquidations(pair) == [at(4)]
    assert cross.metrics["liquidations"] == 0
    assert np.allclose(cross.bars["equity"], 200.0)
    assert same(pair.results["a"].bars["equity"].iloc[-1], 0.5 * 810 / 9.5)
    assert same(pair.results["b"].bars["equity"].iloc[-1], 160.0)

    assert pair.transfers["sent"].tolist()[:2] == pytest.approx([50.0, 40.0])
    assert pair.saved_by_transfer == 1
    assert pair.saved_amount == pytest.approx(50.0)
    assert apart.liquidated_with_money_elsewhere == 1
    assert apart.money_elsewhere == pytest.approx(150.0 - 47.5)  # of b at 95


def run_cross_account(long_path, short_path, venue):
    """Run both legs in one account of 200, 10x with half of it each."""
    paths = {"a": long_path, "b": short_path}
    markets = {name: scenes.market_of(*path) for name, path in paths.items()}
    book = bt.Markets(markets, currency="USD")
    signal = pd.DataFrame({"a": 0.5, "b": -0.5}, index=book.times)
    account = scenes.account_of(capital=200.0)
    return bt.run(book, hold(10.0), venue=venue, account=account, signal=signal, compile=False)


def find_liquidations(book):
    events = [result.events for result in book.results.values()]
    times = [x.loc[x["kind"] == "liquidation", "time"] for x in events]
    return sorted(pd.concat(times))


@pytest.mark.parametrize("seed", [0, *slow(range(1, 20))])
def test_a_pair_is_never_liquidated_later_than_its_cross_account(seed):
    """Contracts bought once, ratios equalized at each close: some part fails where the sum does."""
    rng = np.random.default_rng(seed)
    steps = rng.normal([[-0.002], [0.002]], 0.01, (2, 60))
    steps[:, :2] = 0.0

    pair, cross = live_both(steps)
    if cross is None:  # which the pair may outlive or not
        return
    assert pair <= cross


def test_on_fine_bars_a_pair_is_liquidated_within_one_bar_of_its_cross_account():
    """Both legs lose .1 % a bar: the cross account fails after about 5 % each."""
    steps = np.full((2, 70), [[-0.001], [0.001]])
    steps[:, :2] = 0.0
    pair, cross = live_both(steps)

    assert cross - 1 <= pair <= cross


def live_both(steps):
    """Return the bars of the first liquidation of a pair and of its cross account.

    Long and short 10x of half the capital each: a loss of about 5 % of both leaves 5 %.
    """
    long_path, short_path = (move(*(100.0 * np.exp(np.cumsum(row)))) for row in steps)
    tests = {"a": make_test(*long_path), "b": make_test(*short_path, signal=-1.0)}

    book = run(tests, hold(10.0), transfer=EqualRatios())
    cross = run_cross_account(long_path, short_path, venue=tests["a"].venue)

    events = cross.events
    dead = events.loc[events["kind"] == "liquidation", "time"]
    deaths = find_liquidations(book)
    index = cross.bars.index
    of_pair = int(index.get_loc(deaths[0])) if deaths else None
    of_cross = int(index.get_loc(dead.iloc[0])) if len(dead) else None
    return of_pair, of_cross


@pytest.mark.slow
def test_the_order_in_which_accounts_are_named_changes_nothing_but_rounding():
    market = bt.Market.sample(bars=24 * 15)
    test = bt.Backtest(market, **AT_BINANCE)
    tests = {"a": test, "b": test.replace(signal=-1.0), "c": test.replace(signal=0.5)}
    rule = bt.KeepShares({"a": 0.4, "b": 0.4, "c": 0.2}, band=0.01)
    terms = {"transfer": rule, "delay": "2h", "fee": 3.0}
    policies = {"a": Constant(leverage=4.0), "b": Constant(leverage=5.0), "c": Constant()}

    one = run(tests, policies, **terms)
    other = run({name: tests[name] for name in "cab"}, policies, **terms)

    assert len(one.transfers) > 5
    key = ["asked_at", "sender", "receiver"]
    first = one.transfers.sort_values(key, ignore_index=True)
    second = other.transfers.sort_values(key, ignore_index=True)
    pd.testing.assert_frame_equal(first, second, rtol=1e-9)

    for name, result in one.results.items():
        assert np.allclose(result.bars["equity"], other.results[name].bars["equity"], rtol=1e-9)
    assert np.allclose(one.bars["equity"], other.bars["equity"], rtol=1e-9)


def test_a_result_of_an_account_repeats_it_alone():
    market = bt.Market.sample(bars=24 * 15)
    test = bt.Backtest(market, **AT_BINANCE)
    rule = bt.KeepShares({"a": 0.5, "b": 0.5}, band=0.01)
    book = run({"a": test, "b": test.replace(signal=-1.0)}, Constant(leverage=4.0), transfer=rule)

    assert len(book.transfers) > 5
    for result in book.results.values():
        again = bt.Backtest.of(result).run(Constant(leverage=4.0), compile=False)
        assert again.bars.equals(result.bars)
        assert again.manifest["id"] == result.manifest["id"]


def test_own_flows_of_an_account_are_no_profit_of_the_whole():
    """100 more at 3 h: the unit value stays, and so do the measures."""
    account = scenes.account_of(capital=100.0, flows=pd.Series([100.0], index=[at(3)]))
    tests = {"a": make_test(*[100.0] * 8, account=account), "b": PLAIN["b"]}

    book = run(tests, hold(0.0), transfer=Script({"3": 150.0, "4": 20.0}))

    # At 3 h what is sent leaves before the deposit of that open: 100 are there.
    assert book.transfers["sent"].tolist() == [100.0, 20.0]
    assert book.bars["equity"].tolist() == [200.0] * 3 + [300.0] * 5
    assert book.metrics["total_return"] == 0.0
    assert book.attribution["deposits"].tolist() == [100.0, 0.0]


def test_money_that_reaches_a_ruined_account_stays_there_as_cash():
    tests = {"a": PLAIN["a"], "b": make_test(*move(100, 100, 80, 80, 80, 80, 80, 80))}

    book = run(tests, {"a": hold(0.0), "b": hold(10.0)}, transfer=Script({"5": 10.0}))

    of_ruined = book.results["b"]
    assert of_ruined.metrics["liquidations"] == 1
    assert same(of_ruined.bars["equity"].iloc[-1] - of_ruined.bars["equity"].iloc[4], 10.0)
    assert not of_ruined.bars["position"].iloc[-1]


def test_measures_of_the_whole_are_those_of_its_wealth():
    market = bt.Market.sample(bars=24 * 40)
    test = bt.Backtest(market, **AT_BINANCE)
    book = run({"a": test, "b": test}, Constant(leverage=2.0), transfer=bt.Never())
    alone = test.run(Constant(leverage=2.0), compile=False)

    same_measures = (
        "total_return", "volatility", "sharpe", "max_drawdown", "es_95", "turnover",
        "mean_leverage", "peak_leverage",
    )  # fmt: skip
    for name in same_measures:
        assert book.metrics[name] == pytest.approx(alone.metrics[name], rel=1e-9), name
    for name in ("fees", "funding", "price_pnl", "final_equity", "fills"):
        assert book.metrics[name] == pytest.approx(2.0 * alone.metrics[name], rel=1e-9), name

    with pytest.raises(KeyError, match="sharpe"):
        book.metrics["sharp"]


def test_notices_of_an_account_are_those_of_the_whole_under_its_name():
    """The band of b is wider than its leverage, so it never trades."""
    idle = make_test(*[100.0] * 4, account=scenes.account_of(capital=100.0, band=50.0))
    tests = {"a": make_test(*[100.0] * 4), "b": idle}
    found = run(tests, Constant(2.0), transfer=bt.Never(), every="1h")

    assert "NO FILL" in found.results["b"].notices[0]
    expected = [f"{name}: {notice}" for name in "ab" for notice in found.results[name].notices]
    assert list(found.notices) == expected


def test_attribution_adds_up():
    market = bt.Market.sample(bars=24 * 15)
    test = bt.Backtest(market, **AT_BINANCE)
    tests = {"a": test, "b": test.replace(signal=-1.0)}
    rule = bt.KeepShares({"a": 0.5, "b": 0.5}, band=0.01)

    book = run(tests, Constant(leverage=4.0), fee=2.0, delay="1h", transfer=rule)

    table = book.attribution
    added = table["start"] + table["deposits"] + table["profit"] - table["sent"] + table["received"]
    assert np.allclose(table["end"], added, rtol=1e-9)

    on_way = book.bars["in_transit"].iloc[-1]
    whole = table["start"].sum() + table["profit"].sum() - table["transfer_fees"].sum()
    assert table["end"].sum() + on_way == pytest.approx(whole, rel=1e-9)


def test_a_saved_result_is_the_same_again(tmp_path):
    tests = {"a": make_test(*move(100, 100, 95, 91, 85)), "b": make_test(*[100.0] * 5)}
    book = run(tests, {"a": hold(5.0), "b": hold(0.0)}, transfer=Script({"3": 7.0}, "b", "a"))

    folder = book.save(tmp_path)
    again = bt.AccountsResult.load(folder)

    pd.testing.assert_frame_equal(again.bars, book.bars, check_freq=False)
    pd.testing.assert_frame_equal(again.transfers, book.transfers)
    pd.testing.assert_frame_equal(again.attribution, book.attribution)
    assert dict(again.metrics) == pytest.approx(dict(book.metrics), nan_ok=True)
    assert again.manifest["id"] == book.manifest["id"]
    assert again.summary() == book.summary()
    assert again.results["a"].metrics["final_equity"] == book.results["a"].metrics["final_equity"]

    assert (folder / "transfers.parquet").is_file()
    page = again.report(tmp_path / "page.html").read_text("utf-8")
    assert "Liquidated with money elsewhere" in page

    # The account of a book has a result of its own, which its id finds.
    identity = book.results["b"].manifest["id"]
    (inner,) = (folder / "accounts" / "b").iterdir()
    assert find_folder(identity, tmp_path) == inner


def test_a_comparison_has_the_numbers_of_a_run_of_each_rule():
    """Ratios of 100 and 100 at 100, falling to 85: the rule sends 7 once, and nothing else does."""
    tests = {"a": make_test(*move(100, 100, 95, 91, 85)), "b": make_test(*[100.0] * 5)}
    policies = {"a": hold(5.0), "b": hold(0.0)}
    rules = {"apart": bt.Never(), "rescue": Script({"3": 7.0}, "b", "a")}

    table = bt.Accounts(tests, every="1h").compare(rules, policies, compile=False)

    assert table.index.tolist() == ["apart", "rescue"]
    assert table["transfers"].tolist() == [0.0, 1.0]
    assert table["sent"].tolist() == [0.0, 7.0]

    for name, rule in rules.items():
        book = run(tests, policies, transfer=rule)
        alone = {**book.metrics, **{number: getattr(book, number) for number in book.numbers}}
        row = {number: table.loc[name, number] for number in alone}
        assert row == pytest.approx(alone, nan_ok=True)


def test_an_account_with_options_receives_and_does_not_send():
    """It holds a put from its first surface on: what it earns is as alone, with 500 more."""

    class Insure(bt.Policy):
        """Hold one put from the first close at which it is listed."""

        def leverage(self, bar, account):
            """Return no leverage."""
            return 0.0

        def option_orders(self, bar, account, chain):
            """Return an order of each contract that is not held."""
            return {name: (name, 1.0) for name, listed in chain.items() if listed.quantity == 0.0}

    hedged = bt.Backtest(
        make_markets(bars=120), venue=make_venue(), account=bt.Account(capital=30_000.0)
    )
    plain = bt.Backtest(bt.Market.sample(bars=120), **AT_BINANCE)
    tests = {"a": plain, "b": hedged}

    class Give(bt.TransferRule):
        """Send 500 from one account to the other, once."""

        sender: str = "a"
        receiver: str = "b"

        def transfer(self, time, accounts):
            """Return 500 at ten o'clock of the first day."""
            is_due = time == pd.Timestamp("2023-01-01 10:00", tz="UTC")
            return {(self.sender, self.receiver): 500.0} if is_due else {}

    policies = {"a": Constant(leverage=0.0), "b": Insure()}
    alone = hedged.run(policies["b"], compile=False)

    assert (alone.events["kind"] == "fill").any()
    book = run(tests, policies, transfer=Give())
    assert book.transfers["arrived"].tolist() == [500.0]

    gained = book.results["b"].bars["equity"] - alone.bars["equity"]
    assert gained.iloc[:10].tolist() == [0.0] * 10
    np.testing.assert_allclose(gained.iloc[11:], 500.0, rtol=1e-9)

    with pytest.raises(bt.PolicyError, match="must not send from 'b', which has options"):
        run(tests, policies, transfer=Give(sender="b", receiver="a"))


def test_a_transfer_rule_is_said_in_words():
    """Before: TopUp(when_margin_ratio=0.045, to=0.03) is asked every 1h."""
    rule = bt.TopUp(when_margin_ratio=0.045, to=0.03)
    words = "transfers by top-up (when margin ratio 0.045, to 0.03)"
    assert phrase_transfers(repr(rule)) == words
    assert phrase_transfers("TopUp") == "transfers by top-up"
    assert phrase_transfers(repr(bt.Never())) == "no transfers"
    assert phrase_transfers("Halve(sender='spot')") == "transfers by Halve (sender spot)"

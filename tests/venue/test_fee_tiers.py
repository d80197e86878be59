"""Fee tiers by the account's own volume of the last 30 UTC days."""

import backtest as bt
from tests.scenes import NAN, account_of, happened, is_, play, venue_of

TIERS = [bt.FeeTier(1500.0, 0.0005, 0.0), bt.FeeTier(2500.0, 0.0002, -0.0001)]
VENUE = venue_of(fees={"taker": 0.001, "maker": 0.0004, "tiers": TIERS})


def rates_of(result):
    fills = happened(result, "fill")["amount"].to_numpy()
    return (happened(result, "fee")["amount"].to_numpy() / fills).tolist()


def test_the_volume_of_the_days_before_chooses_the_tier():
    # 12-hour bars, two a day: 1x, then flat, then 1x, ... trades about 1,000 at each open
    result = play(*[100] * 8, targets=(1.0, 0.0) * 4, venue=VENUE, interval="12h")
    # day 1 trades in bar 1 only: 1,000, no tier on day 2 (bars 2 and 3 trade 2 x 999); then
    # 2,998 on day 3 and more after it
    assert rates_of(result) == [is_(rate) for rate in [1e-3] * 3 + [2e-4] * 4]


def test_today_does_not_count():
    result = play(*[100] * 20, targets=(1.0, 0.0) * 10, venue=VENUE)
    assert rates_of(result) == [is_(1e-3)] * 19  # hours of one day: 19,000 are traded


def test_the_day_after_the_last_of_thirty_forgets():
    # daily bars: 2,000 traded on day 2 (1x long to 1x short takes 2), then again after a wait
    for wait, rate in ((30, 5e-4), (31, 1e-3)):
        targets = [0.0, 2.0, *[NAN] * (wait - 1), 0.0, 0.0]
        venue = VENUE
        result = play(*[100] * len(targets), targets=targets, venue=venue, interval="1d")
        assert rates_of(result) == [is_(1e-3), is_(rate)], wait


def test_the_maker_share_mixes_the_rates_of_the_tier():
    venue = VENUE.override({"fees.maker_share": 0.25})
    result = play(*[100] * 4, targets=(1.6, NAN, 1.0, NAN), venue=venue, interval="1d")
    # 1,600 on the second day, then tier 1: 0.75 x 5 bp + 0.25 x 0
    assert rates_of(result)[1] == is_(0.75 * 5e-4)


def test_a_stop_pays_the_taker_rate_of_the_tier():
    venue = VENUE.override({"fees.maker_share": 1.0})
    result = play(
        100, 100, (100, 100, 90, 90), targets=(1.6, NAN), venue=venue, interval="1d",
        account=account_of(stop_loss=0.05),
    )  # fmt: skip
    assert happened(result, "fee")["amount"].tolist()[-1] == is_(16 * 95 * 5e-4)


def test_the_volume_of_an_inverse_contract_is_in_coins():
    tiers = [bt.FeeTier(15.0, 0.0005, 0.0)]
    venue = venue_of(
        contract={"kind": "inverse", "min_notional": 0.0},
        fees={"taker": 0.001, "maker": 0.001, "tiers": tiers},
    )
    account = account_of(capital=10.0)
    result = play(
        *[100] * 4, targets=(1.6, NAN, 1.0, NAN), venue=venue, account=account, interval="1d"
    )
    assert rates_of(result) == [is_(1e-3), is_(5e-4)]


def test_a_policy_sees_the_taker_rate_of_the_day():
    class Looks(bt.Policy):
        def leverage(self, bar, account):
            return 2.0 + 100.0 * account.venue.taker

    result = play(*[100] * 4, venue=VENUE, policy=Looks(), interval="1d")
    assert result.bars["target"].tolist() == [is_(2.1), is_(2.1), is_(2.05), is_(2.05)]

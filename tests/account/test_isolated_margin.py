"""What an isolated position posts and frees, by hand: orders, flips, losses and interest."""

from tests.scenes import INF, TEN, equities, is_, isolated, play, venue_of


def test_opening_posts_margin_and_reducing_returns_its_share_with_the_profit():
    # 5x at a setting of 10: 50 contracts, 500 posted. At 110 the profit is 500, the equity 1,500;
    # 25 contracts are 2,750 / 1,500 turns: half of 500 + 500 returns to the wallet
    result = play(100, 100, 110, targets=(5.0, 2750 / 1500), account=isolated())
    assert result.bars["margin"].tolist() == [0.0, is_(500.0), is_(250.0)]
    assert result.bars["cash"].tolist() == [1000.0, is_(500.0), is_(1000.0)]
    assert equities(result)[-1] == is_(1500.0)


def test_adding_posts_margin_for_what_is_added():
    # at 110 the equity is 1,500; 10,000 of it is 90.909: 40.909 more at 110, a tenth of 4,500
    result = play(100, 100, 110, targets=(5.0, 10_000 / 1500), account=isolated())
    assert result.bars["margin"].iloc[-1] == is_(500 + 450)
    assert result.bars["cash"].iloc[-1] == is_(50.0)


def test_a_flip_closes_and_then_opens():
    result = play(100, 100, 110, targets=(5.0, 2.0), signal=[1, -1, -1], account=isolated())
    # 500 + 500 return: 1,500 in the wallet; short 3,000 posts 300
    assert result.bars["cash"].iloc[-1] == is_(1200.0)
    assert result.bars["margin"].iloc[-1] == is_(300.0)
    assert result.bars["entry"].iloc[-1] == is_(110.0)


def test_new_margin_and_fee_must_fit_into_the_wallet():
    venue = venue_of(fees={"taker": 0.01, "maker": 0.01})
    result = play(100, 100, targets=INF, venue=venue, account=isolated())
    # initial margin: N <= 10 (1000 - 0.01 N): 9,090.909, margin 909.09 and fee 90.909
    assert result.bars["position"].iloc[-1] == is_(10_000 / 1.1 / 100)
    assert result.bars["cash"].iloc[-1] == is_(0.0)


def test_a_losing_position_lets_add_only_what_the_wallet_still_holds():
    # 50 at 100, 500 posted; at 98 the equity is 900, but the wallet is 500: 5,000 more at most,
    # while initial margin would let 9,000 - 4,900 = 4,100 more: the smaller counts
    result = play(100, 100, 98, targets=(5.0, INF), account=isolated())
    assert result.bars["position"].iloc[-1] * 98 == is_(9000.0)
    # after a profit it is the wallet: at 110 the equity of 1,500 would allow 15,000, and
    # 5,500 + 10 x 500 = 10,500 is what the wallet pays for
    result = play(100, 100, 110, targets=(5.0, INF), account=isolated())
    assert result.bars["position"].iloc[-1] * 110 == is_(10_500.0)


def test_interest_leaves_the_wallet_first_and_then_the_margin():
    venue = venue_of(borrow_rate=0.73, interest_on="loan")
    # 10x at 10: all 1,000 posted. The loan is 10,000 - 1,000 = 9,000: 9,000 x 0.73 / 365 = 18 a day
    result = play(100, 100, 100, targets=TEN, venue=venue, account=isolated(), interval="1d")
    assert result.bars["cash"].iloc[-1] == 0.0
    assert result.bars["margin"].iloc[-1] == is_(982.0)

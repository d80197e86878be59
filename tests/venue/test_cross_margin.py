"""Cross margin: kernels, calculators, touch probabilities, and a requirement of one's own."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import log_ndtr, stdtr

import backtest as bt
from backtest.indicators import touch_distance, touch_probability
from backtest.margin import (
    MarginRule,
    OwnMargin,
    Requirement,
    compute_initial,
    compute_maintenance,
    functions,
    option_kernels,
    read_rules,
)
from backtest.margin import portfolio_kernels as kernels
from tests.kit import check_refused
from tests.scenes import bracket, venue_of
from tests.venue import test_vectors as vectors

BTC = "BTCUSDT"
ETH = "ETHUSDT"
BINANCE = bt.Venue.preset("binance-usdm", [BTC, ETH], at="2024-10-24")
PLAIN = venue_of(brackets=[bracket(leverage=10.0, rate=0.05)])
PRICES = {BTC: 60_000.0, ETH: 3_000.0}
TWO = {"A": 100.0, "B": 50.0}
NAMES = ("BTCUSDT", "ETHUSDT", "PLAIN")
BITCOIN = bt.Venue.preset("binance-usdm", "BTCUSDT", at="2024-10-24")
DAY = 1 / 365


def stand(held):
    return kernels.Waypoint(held.values.copy(), held.prices.copy())


def pack_holdings(quantities, values, amounts=(), prices=()):
    """Return holdings whose fills are at their values."""
    columns = (quantities, values, values, amounts, prices)
    return kernels.Holdings(*(np.array(column, dtype=np.float64) for column in columns))


def needed(quantities, prices, rule, venues=PLAIN, **terms):
    return bt.margin.requirement(venues, quantities, prices, rule, **terms)


def test_brackets_add_up_by_hand():
    """60,000 in the second bracket of both: .5 % less the amount of 50, and N / 100 at first."""
    for name in (BTC, ETH):
        first, second, *_ = BINANCE[name].brackets
        assert first.floor == 0
        assert first.maintenance_rate == 0.004
        assert second.floor == 50_000
        assert second.maintenance_rate == 0.005

    held = {BTC: 1.0, ETH: -20.0}
    assert needed(held, PRICES, bt.Brackets(), BINANCE) == 2 * (60_000.0 * 0.005 - 50.0)

    of_btc = 60_000.0 / BINANCE[BTC].brackets[1].max_leverage
    of_eth = 60_000.0 / BINANCE[ETH].brackets[1].max_leverage
    assert bt.margin.initial(BINANCE, held, PRICES) == of_btc + of_eth
    assert bt.margin.initial(BINANCE, held, PRICES, venue_leverage=20) == 6_000.0


def test_one_position_has_the_bits_of_the_functions_of_one_position():
    rng = np.random.default_rng(7)
    fees = {"taker": 0.0005, "maker": 0.0}
    with_fee = venue_of(brackets=BINANCE[BTC].brackets, fees=fees, includes_close_fee=True)
    inverse = bt.Venue.preset("binance-coinm", "BTCUSD_PERP")
    for venue in (*BINANCE.values(), inverse, with_fee):
        for _ in range(50):
            maintenance_factor = float(np.exp(rng.normal()))
            initial_factor = float(np.exp(rng.normal()))
            setting = float(rng.choice([0.0, 20.0]))
            rules = read_rules(venue, setting)._replace(
                multiplier=maintenance_factor, initial_multiplier=initial_factor
            )

            quantity = rng.normal() * 1e4
            price = 3_000.0 * math.exp(rng.normal())
            value = -rules.size / price if rules.is_inverse else rules.size * price
            notional = abs(quantity) * abs(value)
            cash = rng.uniform(-1, 1) * 1e6

            packed = bt.Brackets().pack({"A": rules, "never held": rules})
            held = pack_holdings([quantity, 0.0], [value, math.nan])

            initial = compute_initial(rules, notional, initial_factor)
            maintenance = compute_maintenance(rules, notional, maintenance_factor)
            assert kernels.compute_portfolio_requirement(packed, held, False) == maintenance
            assert kernels.compute_portfolio_requirement(packed, held, True) == initial
            assert kernels.compute_portfolio_backing(packed, held, cash) == cash + quantity * value


GROUPS = bt.ScenarioMargin(
    moves={"A": [(-0.1, 1), (-0.2, 1), (0.2, 1)], "B": [(0.1, 1), (0.3, 0.5), (-0.3, 1)]}
)
TENTH = bt.ScenarioMargin(moves=[-0.1, 0.1])
FIFTH = bt.ScenarioMargin(moves=[-0.2, 0.2])
ROW = TENTH.override(across="same row", offset=0.5)
# Ten points from -15 % to +15 % per class, gains offset by 90 % within a product group.
TIMS = bt.ScenarioMargin(
    moves=[step * 0.03 for step in range(-5, 6) if step], across="same row", offset=0.9,
    products={"AB": ["A", "B"], "C": ["C"]},
)  # fmt: skip
# Sixteen scenarios without volatility: thirds of a scan range of 6 %, and thrice at 33 %.
THIRDS = [(sign * k / 3 * 0.06, 1.0) for k in (0, 1, 2, 3) for sign in (1, -1)]
SPAN = bt.ScenarioMargin(
    moves=[*THIRDS, (0.18, 0.33), (-0.18, 0.33)], groups={"crude": ["A", "B"]},
    pair_contingency=0.005,
)  # fmt: skip
COIN = venue_of(contract={"kind": "inverse", "size": 100.0})
EQUAL = (100.0, 100.0)


@pytest.mark.parametrize(("rule", "held", "prices", "expected", "venue"), [
    # rule, quantities of A, B, C, their prices, requirement, venue
    # A: 2 * 100 long, worst at -20 %: 40. B: 50 short, worst at +30 % with weight .5: 7.5
    (GROUPS, (2.0, -1.0), (100.0, 50.0), 47.5, PLAIN),
    # half of 47.5 is 23.75, under the minimum of .2 * 250 = 50; and .01 * 250
    (GROUPS.override(factor=0.5, minimum=0.2, contingency=0.01), (2.0, -1.0), (100.0, 50.0), 52.5,
     PLAIN),
    # -10 %, +10 %: A long 300 loses 30 or gains 30, B short 200 gains 20 or loses 20
    (ROW, (3.0, -2.0), EQUAL, 30 - 0.5 * 20, PLAIN),
    (ROW.override(offset=0.0), (3.0, -2.0), EQUAL, 30, PLAIN),
    (ROW.override(offset=1.0), (3.0, -2.0), EQUAL, 10, PLAIN),
    (ROW.override(products={"x": ["A"], "y": ["B"]}), (3.0, -2.0), EQUAL, 30 + 20, PLAIN),
    # 400 long against 300 short in one group: 15 % of the net 100, and 1 % of 300
    (bt.ScenarioMargin(
    moves=[-0.15, 0.15], groups={"g": ["A", "B"]}, pair_contingency=0.01, contingency=0.001
), (4.0, -3.0), EQUAL, 15.0 + 3.0 + 0.7, PLAIN),
    # 100 contracts of 100 USD at 50,000: .2 coins. A fall of 20 % loses .2 * (1/.8 - 1) = .05
    (FIFTH, (100.0,), (50_000.0,), 0.05, COIN),
    # a short of the same size loses .2 * (1 - 1/1.2) at +20 %
    (FIFTH, (-100.0,), (50_000.0,), 0.2 * (1 - 1 / 1.2), COIN),
    # 200 of A at 100 and -150 of B at 120: A loses 3,000 at -15 %; B gains 2,700 there, and 2,430
    # of them count. At +15 %: B loses 2,700, A's 3,000 count as 2,700: 0. So 570. C stands alone in
    # its product: 50 at 40 lose 300. The figures are ours, not a clearing house's.
    (TIMS, (200.0, -150.0, 50.0), (100.0, 120.0, 40.0), 570.0 + 300.0, PLAIN),
    # 10,000 with a scan range of 6 %: 600 at the whole range, 594 at three times the range
    (SPAN, (100.0, 0.0), EQUAL, 600.0, PLAIN),
    # 10,000 against 8,000 is 2,000 net: 120, and .5 % on the 8,000 that offset: 40. Ours too.
    (SPAN, (100.0, -80.0), EQUAL, 120.0 + 40.0, PLAIN),
])  # fmt: skip
def test_a_scenario_requirement_by_hand(rule, held, prices, expected, venue):
    """The initial margin is the same, as these rules have none of their own."""
    quantities = dict(zip("ABC", held, strict=False))
    prices = dict(zip("ABC", prices, strict=False))

    assert needed(quantities, prices, rule, venue) == pytest.approx(expected)
    assert bt.margin.initial(venue, quantities, prices, rule) == pytest.approx(expected)


def test_initial_has_a_factor_and_a_contingency_of_its_own():
    rule = TENTH.override(contingency=0.01, initial=(1.5, 0.02))
    assert needed(10.0, 100.0, rule) == pytest.approx(100 + 10)
    assert bt.margin.initial(PLAIN, 10.0, 100.0, rule) == pytest.approx(150 + 20)


def test_maintenance_at_entry():
    venue = venue_of(brackets=[bracket(rate=0.05)], maintenance_at="entry")
    assert needed(2.0, 100.0, bt.Brackets(), venue, entries=80.0) == pytest.approx(8.0)
    assert needed(2.0, 100.0, bt.Brackets(), venue) == pytest.approx(10.0)


def test_risk_cancelling_collateral_by_hand():
    """1 BTC short of 60,000 beside .4 BTC held: the group is 36,000 short."""
    rule = bt.ScenarioMargin(moves=[-0.1, 0.1], groups={"coin": [BTC]})
    coin = bt.Collateral("BTC", 0.4, prices=60_000.0, rate=0.9, cancels_risk="coin")
    terms = {"collateral": coin}

    assert needed({BTC: -1.0}, PRICES, rule, BINANCE, **terms) == pytest.approx(3_600.0)
    assert needed({BTC: -1.0}, PRICES, rule, BINANCE) == pytest.approx(6_000.0)

    # Held without a position it is a risk of its own: it falls by 10 % of its full value
    assert needed({BTC: 0.0}, PRICES, rule, BINANCE, **terms) == pytest.approx(2_400.0)

    # At a level of 2, backing less requirement falls by .4 (1 + 2 x 10 %) per price at most
    rule = bt.ScenarioMargin(moves=[-0.1], groups=rule.groups, level=2.0, initial=(2.0, 0.0))
    packed = rule.pack({BTC: read_rules(BINANCE[BTC])}, [coin])
    held = pack_holdings([0.0], [60_000.0], [0.4], [60_000.0])
    assert bt.margin.bound_asset_slope(packed, held, 0) == pytest.approx(0.48)


def make_portfolios(count=25):
    """Yield rules, holdings, cash and a generator: brackets and scenarios, some of them failing."""
    rng = np.random.default_rng(11)
    venues = bt.Venue.preset("binance-usdm", ["BTCUSDT", "ETHUSDT"]) | {"PLAIN": venue_of()}
    rules = {name: read_rules(venue) for name, venue in venues.items()}
    tiers = [(0, 1e4, 1), (1e4, 4e4, 0.9)]
    coin = bt.Collateral("BTC", 1.0, prices=1.0, tiers=tiers, cancels_risk="coins")
    scenarios = bt.ScenarioMargin(
        moves=[(-0.3, 0.2), (-0.1, 1.0), (-0.05, 1.0), (0.05, 1.0), (0.1, 1.0), (0.3, 0.2)],
        groups={"coins": ["BTCUSDT", "ETHUSDT"]},
        initial=(1.2, 0.003),
        minimum=0.004,
        contingency=0.002,
        pair_contingency=0.003,
        level=1.05,
    )
    offsets = scenarios.override(across="same row", offset=0.6, pair_contingency=0.0)
    for rule in (bt.Brackets(), bt.Brackets(level=1.05), scenarios, offsets):
        has_coin = not isinstance(rule, bt.Brackets)
        packed = rule.pack(rules, (coin,) if has_coin else ())

        for _ in range(count):
            signs = rng.choice([-1.0, 0.0, 1.0], 3, p=[0.4, 0.2, 0.4])
            quantities = signs * np.array([1.0, 20.0, 500.0]) * np.exp(rng.normal(size=3))
            values = np.array([60_000.0, 3_000.0, 100.0]) * np.exp(0.1 * rng.normal(size=3))
            amounts = [rng.uniform(-0.1, 0.5)] if has_coin else []
            prices = [60_000.0] if has_coin else []
            held = pack_holdings(quantities, values, amounts, prices)

            notionals = quantities * values
            backing = rng.uniform(0.02, 0.3) * float(np.abs(notionals).sum())
            cash = backing - float(notionals.sum())
            yield packed, held, cash, rng


def test_a_share_is_the_derivative_in_the_quantity_and_shares_add_up():
    """Against a central difference; kinks are met with probability 0."""
    for packed, held, _, _ in make_portfolios():
        shares = np.zeros(len(held.quantities) + len(held.amounts))
        kernels.fill_shares(packed, held, shares)
        if packed.has_scenarios:
            found = kernels.compute_portfolio_requirement(packed, held, False)
            assert shares.sum() == pytest.approx(found, abs=1e-9 * max(found, 1.0))
        for i, quantity in enumerate(held.quantities.tolist()):
            step = 1e-6 * quantity

            ends = []
            for side in (1.0, -1.0):
                held.quantities[i] = quantity + side * step
                ends.append(kernels.compute_portfolio_requirement(packed, held, False))
            held.quantities[i] = quantity

            if quantity != 0.0:
                slope = (ends[0] - ends[1]) / (2.0 * step)
                assert shares[i] == pytest.approx(quantity * slope, rel=1e-4, abs=1e-3)


def bisect_place(packed, held, cash, start, end):
    """Return the first failing place by trying 4,096 places and halving the first failing one."""

    def fails(place):
        kernels.move_holdings(held, start, end, place)
        return kernels.is_pool_failing(packed, held, cash)

    places = np.linspace(0.0, 1.0, 257).tolist()
    first = next((k for k, place in enumerate(places) if fails(place)), None)
    if first is None:
        return math.nan
    if first == 0:
        return 0.0

    low = places[first - 1]
    high = places[first]
    for _ in range(60):
        middle = 0.5 * (low + high)
        if fails(middle):
            high = middle
        else:
            low = middle
    return high


def test_the_place_of_failure_is_the_first_one():
    failures = 0
    for k, (packed, held, cash, rng) in enumerate(make_portfolios()):
        if k % 3:
            continue

        start = stand(held)
        ends = held.values * np.exp(0.25 * rng.normal(size=3))
        end = kernels.Waypoint(ends, held.prices * math.exp(0.2 * rng.normal()))

        found = kernels.find_failure(kernels.Segment(packed, held, cash, start, end))
        expected = bisect_place(packed, held, cash, start, end)

        assert found == pytest.approx(expected, abs=1e-11, nan_ok=True)
        failures += 0.0 < expected < 1.0
    assert failures >= 5


def test_a_group_moves_along_to_its_price_of_failure():
    """1 BTC long and 10 ETH short of one group: a fall of f loses 30,000 f of 6,000 held. D = 6,000
    - 30,000 f - .1 (30,000)(1 - f) = 0: f = 3,000 / 27,000 of the price."""
    rule = bt.ScenarioMargin(moves=[-0.1, 0.1], groups={"coins": [BTC, ETH]})
    packed = rule.pack({name: read_rules(venue) for name, venue in BINANCE.items()})
    held = pack_holdings([1.0, -10.0], [60_000.0, 3_000.0])
    start = stand(held)
    end = stand(held)
    cash = 6_000.0 - 60_000.0 + 30_000.0

    for i in (0, 1):
        segment = kernels.Segment(packed, held, cash, start, end)
        ratio = kernels.find_failure_ratio(segment, i)
        assert ratio == pytest.approx(1.0 - 3_000.0 / 27_000.0, rel=1e-12)

    assert held.values.tolist() == [60_000.0, 3_000.0]


def test_a_mixed_group_fails_where_both_sides_stand():
    """A coin-settled short beside the coin as collateral: both sides move by one ratio."""
    venue = venue_of(contract={"kind": "inverse", "size": 100.0})
    rule = bt.ScenarioMargin(moves=[-0.1, 0.1], groups={"coin": ["A"]})
    gold = bt.Collateral("GOLD", 1.0, prices=0.1, rate=1.0, cancels_risk="coin")
    packed = rule.pack({"A": read_rules(venue)}, [gold])
    held = pack_holdings([-1e3], [-100.0 / 50_000.0], [1.0], [0.1])
    start = stand(held)
    end = stand(held)

    segment = kernels.Segment(packed, held, -1.7, start, end)
    ratio = kernels.find_failure_ratio(segment, 0)
    assert 1.1 < ratio < 1.2

    kernels.move_holdings(held, start, end, 0.0)
    kernels.aim(packed, start, 0, ratio, end)
    kernels.move_holdings(held, start, end, 1.0)
    assert abs(kernels.compute_distance_left(packed, held, -1.7)) < 1e-12


def test_figures_by_hand():
    """10 A bought at 90 and 20 B sold at 50, at 100 and 50, with 300 of money and 2 gold at 40.
    Profit 100. Backing 300 + 100 + .5 * 80 = 440, equity 480. Each notional is 1,000: the
    requirement is 5 % of 2,000, the initial margin 10 %. Gross leverage 2,000 / 480, net 0."""
    gold = bt.Collateral("GOLD", 2.0, prices=40.0, rate=0.5)
    found = bt.calculate_book(
        PLAIN, {"A": 10, "B": -20}, TWO, entries={"A": 90, "B": 50}, balance=300, collateral=gold
    )

    assert found.balance == 300
    assert found.backing == 440
    assert found.equity == 480
    assert found.collateral == 40
    assert found.requirement == pytest.approx(100.0)
    assert found.initial == pytest.approx(200.0)
    assert found.margin_ratio == pytest.approx(100 / 440)
    assert found.distance == pytest.approx(340)
    assert found.gross_leverage == pytest.approx(2_000 / 480)
    assert found.net_leverage == 0.0
    assert found.positions["share"].tolist() == pytest.approx([50.0, 50.0])
    assert not found.is_failing

    # A alone: 440 - 1,000 f = 50 (1 - f) + 50, f = 340 / 950. B alone: 340 = 1,050 f
    a, b = found.positions.itertuples()
    assert a.down == pytest.approx(-340 / 950, rel=1e-12)
    assert math.isnan(a.up)
    assert b.up == pytest.approx(340 / 1050, rel=1e-12)
    assert b.liquidation_price == pytest.approx(50 * (1 + 340 / 1050))
    assert found.first == "B"

    # Together the profits cancel and the requirement moves: 440 = 100 (1 + f)
    (every,) = found.moves.itertuples()
    assert every.Index == "all"
    assert every.up == pytest.approx(3.4, rel=1e-12)
    assert math.isnan(every.down)


def test_a_book_under_portfolio_margin_by_hand():
    """12 % of 48,000 with .1 BTC less, and of 30,000: .12 * (48,000 + 6,000 + 30,000) = 10,080. The
    coin cancels its part, and backs .95 * 6,000."""
    coin = bt.Collateral("BTC", 0.1, prices=BTC, rate=0.95, cancels_risk="BTC")
    found = bt.calculate_book(
        BINANCE, {BTC: 0.8, ETH: -10}, PRICES, entries={BTC: 58_500, ETH: 3_000}, balance=6_000,
        rule=bt.PresetMargin(preset="okx-portfolio"), collateral=coin,
    )  # fmt: skip

    assert found.requirement == pytest.approx(10_080)
    assert found.backing == pytest.approx(12_900)
    assert found.collateral == pytest.approx(5_700)
    assert found.first == BTC
    assert found.moves["down"].iloc[-1] == pytest.approx(-0.2070, abs=5e-5)


def test_a_strangle_under_standard_margin_by_hand():
    """Per option .075 and its mark, .0116 and .0106; no option value backs it."""
    put = bt.OptionPosition(
        "BTC-26JUN26-50000-P", -1, index=60_000, at="2026-05-27 08:00", volatility=0.6
    )
    call = bt.OptionPosition(
        "BTC-26JUN26-72000-C", -1, index=60_000, at="2026-05-27 08:00", volatility=0.55
    )
    rule = bt.PresetMargin(preset="deribit-standard")

    found = bt.calculate_book({}, {}, {}, balance=0.3222, rule=rule, options=[put, call])

    assert found.backing == 0.3222
    assert found.option_value == 0.0
    assert found.requirement == pytest.approx(0.1721994, abs=5e-8)
    moves = found.moves.loc["index BTC", ["down", "up"]].tolist()
    assert moves == pytest.approx([-0.2758, 0.4334], abs=5e-5)


def test_one_position_has_the_closed_form():
    linear = bt.Venue.preset("binance-usdm", "BTCUSDT")
    inverse = bt.Venue.preset("binance-coinm", "BTCUSD_PERP")

    for venue, quantity, balance in (
        (linear, 2.0, 12_000),
        (linear, -300.0, 1_800_000),
        (inverse, -600.0, 0.3),
    ):
        found = bt.calculate_book(venue, quantity, 60_000, balance=balance)
        price = bt.margin.liquidation_price(venue, quantity, 60_000, balance)
        assert found.positions["liquidation_price"].item() == pytest.approx(price, rel=1e-11)


def test_groups_move_together_and_collateral_follows_its_instrument():
    """Long spot-like A against short B of one group, and a coin worth A as collateral. 10 A of 100
    and 20 B of 50 cancel in the group, and the coin counts 80 of its 100. A alone, down by f: 230 -
    1,080 f is left; needed are 5 % of 2,050 - 1,000 f, more than the 100 f of the group and the 5
    of C: f = 127.5 / 1,030."""
    rule = bt.ScenarioMargin(moves=[-0.1, 0.1], groups={"g": ["A", "B"]}, minimum=0.05)
    coin = bt.Collateral("COIN", 1.0, prices="A", rate=0.8)
    prices = TWO | {"C": 10.0}
    held = {"A": 10.0, "B": -20.0, "C": 5.0}

    found = bt.calculate_book(PLAIN, held, prices, balance=150, rule=rule, collateral=coin)

    assert [*found.moves.index] == ["group g", "all"]
    assert found.collateral == 80.0
    assert found.positions["down"]["A"] == pytest.approx(-127.5 / 1_030, rel=1e-10)


def test_a_failing_and_a_flat_book():
    failing = bt.calculate_book(PLAIN, {"A": 10}, {"A": 100}, balance=50)

    assert failing.is_failing
    assert failing.positions[["down", "liquidation_price"]].to_numpy().tolist() == [[0.0, 100.0]]

    in_debt = bt.calculate_book(PLAIN, {"A": 10}, {"A": 100}, balance=-1)
    assert in_debt.margin_ratio == math.inf

    flat = bt.calculate_book(PLAIN, {"A": 0}, {"A": 100}, balance=0)
    assert not flat.is_failing
    assert flat.margin_ratio == 0.0
    assert flat.first is None
    assert flat.gross_leverage == 0.0
    assert len(flat.moves) == 0


def test_collateral_that_cancels_risk_has_its_share_of_the_requirement():
    """A moves by 10 %: 10 A and 5 more as collateral, both at 100, need 100 and 50."""
    cancels = bt.Collateral("C", 5.0, prices="A", rate=1.0, cancels_risk="A")
    terms = {"rule": bt.ScenarioMargin(moves=[-0.1, 0.1]), "collateral": cancels}

    found = bt.calculate_book(PLAIN, {"A": 10.0}, {"A": 100.0}, balance=300.0, **terms)
    assert found.requirement == pytest.approx(150.0)
    assert found.positions["share"]["A"] == pytest.approx(100.0)
    assert found.collateral_share == pytest.approx(50.0)


class Fifth:
    """A fifth of the gross notional, and a quarter for orders; with a level of its own."""

    level = 1.5

    def requirement(self, positions, prices):
        return 0.2 * sum(abs(quantity) * prices[name] for name, quantity in positions.items())

    def initial(self, positions, prices):
        return 1.25 * self.requirement(positions, prices)


def test_a_field_takes_rules_presets_and_objects():
    field = Requirement()

    rule = bt.Brackets(level=1.2)
    assert field.check("requirement", rule) is rule
    assert field.check("requirement", "okx-portfolio") == bt.PresetMargin(preset="okx-portfolio")

    own = field.check("requirement", Fifth())
    assert isinstance(own, OwnMargin)
    assert own.level == 1.5
    assert own.to_dict() == {"level": 1.5, "own": "Fifth"}

    stored = MarginRule.from_dict(own.to_dict())
    assert stored.to_dict() == own.to_dict()
    assert stored == MarginRule.from_dict(stored.to_dict())

    venue = venue_of()
    said = "requirement is not stored with a result: pass the Fifth"
    check_refused(lambda: bt.margin.requirement(venue, 1.0, 1.0, stored), said, bt.ParameterError)

    assert bt.margin.requirement(venue, 2.0, 100.0, own) == 40.0  # a fifth of 200
    assert bt.margin.initial(venue, 2.0, 100.0, own) == 50.0
    assert bt.calculate_book(venue, 2.0, 100.0, balance=100.0, rule=own).distance == 40.0


def test_an_instrument_that_is_not_held_needs_nothing():
    venues = {"A": venue_of(), "B": venue_of()}
    prices = {"A": 100.0, "B": 1000.0}

    maintenance = bt.margin.requirement(venues, {"A": 2.0}, prices)
    initial = bt.margin.initial(venues, {"A": 2.0}, prices)

    assert maintenance == pytest.approx(10.0)  # 5 % of 200
    assert initial == pytest.approx(12.5)  # a 16th


def test_bad_rules_and_answers_are_errors():
    with pytest.raises(bt.ParameterError, match="must have the methods requirement and initi"):
        Requirement().check("requirement", None)

    rule = Fifth()
    rule.level = math.nan
    check_refused(lambda: OwnMargin(rule=rule), "level", bt.ParameterError)
    rule.level = 1.5

    rule.requirement = lambda positions, prices: math.nan
    own = OwnMargin(rule=rule).pack({name: read_rules(venue_of()) for name in NAMES})
    with pytest.raises(bt.ParameterError, match=r"Fifth\.requirement"):
        kernels.compute_portfolio_requirement(own, pack_holdings([1.0, 0.0, 0.0], [1.0] * 3), False)

    rule.requirement = lambda positions, prices: max(positions.values())
    with pytest.raises(bt.ParameterError, match=r"Fifth.requirement must.*with {} it raised Val"):
        kernels.compute_portfolio_requirement(own, pack_holdings([0.0, 0.0, 0.0], [1.0] * 3), False)


@pytest.mark.parametrize(("name", "venue"), [
    ("bin_usdm_brk_cross_1", ("binance-usdm", "BTCUSDT@2024-10-24")),
    ("bin_usdm_brk_cross_2", ("binance-usdm", "BTCUSDT@2024-10-24")),
    ("bin_usdm_brk_cross_5", ("binance-usdm", "KSMUSDT@2024-10-31")),
])  # fmt: skip
def test_the_price_of_a_published_position(name, venue):
    case = vectors.CASES[name]
    given = case["inputs"]

    found = bt.calculate_liquidation(
        bt.Venue.preset(*venue),
        side="long" if given["side"] == 1 else "short",
        entry=given["entry"],
        leverage=given["leverage"],
        margin="cross",
        capital=given["wallet"],
        quantity=given["qty"],
    )

    assert found.liquidation_price == pytest.approx(case["expected"]["liq_price"], abs=1e-6)


def test_an_inverse_position_is_sized_in_contracts_and_margined_in_the_coin():
    """bybit_inv_initial_margin and the bankruptcy prices at 8,000 and 50x."""
    rules = bt.Venue.preset("bybit-inverse", "BTCUSD")
    found = bt.calculate_liquidation(rules, side="long", entry=8_000, leverage=50, quantity=12_000)
    assert found.initial_margin == pytest.approx(0.03, abs=1e-12)
    assert found.bankruptcy_price == pytest.approx(7_843.137254901961, rel=1e-10)

    short = bt.calculate_liquidation(rules, side="short", entry=8_000, leverage=50, quantity=12_000)
    assert short.bankruptcy_price == pytest.approx(8_163.265306122449, rel=1e-10)
    assert short.liquidation_price == pytest.approx(8_121.827411167513, rel=1e-10)


def test_every_figure_of_a_long_by_hand():
    # 1 coin at 30,000 and 10x: margin 3,000; the requirement is 0.4 % of 30,000, no amount.
    # 3000 + P - 30000 = 0.004 P at the liquidation price, 0 at the bankruptcy price.
    terms = {"side": "long", "entry": 30_000, "leverage": 10, "volatility": 0.6}
    found = bt.calculate_liquidation(BITCOIN, **terms)

    assert found.quantity == 1.0
    assert found.notional == 30_000.0
    assert found.collateral == 3_000.0
    assert found.initial_margin == 3_000.0
    assert found.maintenance_margin == 120.0

    price = 27_000 / 0.996
    assert found.liquidation_price == pytest.approx(price, rel=1e-12)
    assert found.bankruptcy_price == pytest.approx(27_000.0, rel=1e-12)
    assert found.distance == pytest.approx(price / 30_000 - 1, rel=1e-12)

    away = math.log(30_000 / price)
    assert found.daily_sigmas == pytest.approx(away / (0.6 / math.sqrt(365)), rel=1e-12)

    for days, chance in found.probabilities.items():
        # twice the chance that the price ends below: the reflection principle
        ends = 0.5 * math.erfc(away / (0.6 * math.sqrt(days / 365)) / math.sqrt(2))
        assert chance == pytest.approx(2 * ends, rel=1e-9)


@pytest.mark.parametrize(
    ("missing", "price"),
    [
        (0.0, 100.0),
        (1e-14, 100.0),  # rounding
        (-1e-14, 100.0),
        (1e-9, 100.0),
        (-1e-9, math.nan),
    ],
)
def test_a_position_that_needs_its_whole_notional_fails_where_it_stands_or_nowhere(missing, price):
    """Backing and requirement of a long then move alike, so it fails at once, or at no price.

    Its rate of a half is doubled.
    """
    rules = read_rules(venue_of(brackets=[bracket(leverage=1.0, rate=0.5)]))
    found = functions.scalar_liquidation_price(
        rules,
        quantity=1.0,
        entry=100.0,
        collateral=100.0 * (1.0 - missing),
        multiplier=2.0,
        other_backing=0.0,
        other_maintenance=0.0,
    )
    assert found == pytest.approx(price, nan_ok=True)


def test_the_slope_of_a_scenario_requirement_counts_all_its_charges():
    """The worst move of 10 % at weight 1, twice, and .02, .03 and .04 of the notional."""
    scenarios = SimpleNamespace(
        products=[0],
        moves=np.array([[-0.1, 0.05]]),
        weights=np.array([[1.0, 1.0]]),
        factor=2.0,
        minimum=0.02,
        contingency=0.03,
        pair_contingency=0.04,
    )
    packed = SimpleNamespace(scenarios=scenarios)
    slope = option_kernels.bound_scenario_rate(packed, is_inverse=False)
    assert slope == pytest.approx(0.2 + 0.02 + 0.03 + 0.04)


def test_a_position_that_no_price_liquidates():
    terms = {"margin": "cross", "capital": 40_000, "volatility": 0.6, "side": "long"}
    found = bt.calculate_liquidation(BITCOIN, entry=30_000, leverage=1, quantity=1, **terms)

    assert math.isnan(found.liquidation_price)
    assert set(found.probabilities.values()) == {0.0}


def test_one_touch_options_are_worth_what_haug_has():
    """15 paid in half a year if 100 is touched: 9.3604 from 105, 11.2223 from 95, else 4.9081. Rate
    and carry 10 %, volatility 20 %. Source: Haug, The Complete Guide to Option Pricing Formulas,
    binary barrier options, cash at expiry."""
    paid = 15.0 * math.exp(-0.05)
    drift = 0.1 - 0.02

    down = touch_probability(math.log(100 / 105), 0.2, 0.5, drift)
    up = touch_probability(math.log(100 / 95), 0.2, 0.5, drift)

    assert paid * down == pytest.approx(9.3604, abs=5e-5)
    assert paid * up == pytest.approx(11.2223, abs=5e-5)
    assert paid * (1.0 - down) == pytest.approx(4.9081, abs=1.5e-4)


def test_the_tails_lose_no_digits():
    """Against the logarithms of both terms, down to 1e-300."""
    distance = np.array([0.1, 0.3, 0.5, 0.74, 1.0])
    deviation = 0.8 * math.sqrt(DAY)
    for drift in (-20.0, -0.3, 0.3, 20.0):
        moved = drift * DAY
        crossed = log_ndtr((-distance - moved) / deviation)
        reflected = log_ndtr((-distance + moved) / deviation)
        reflected -= 2.0 * moved * distance / deviation**2

        found = touch_probability(-distance, 0.8, DAY, drift)

        expected = np.logaddexp(crossed, reflected)
        np.testing.assert_allclose(np.log(found), expected, rtol=1e-12, atol=1e-12)

    assert 0.0 < touch_probability(-1.55, 0.8, DAY) < 1e-290


def test_at_the_edges_it_is_what_it_must_be():
    assert touch_probability(0.0, 0.5, DAY) == 1.0
    assert touch_probability(-0.0, 0.0, 0.0) == 1.0
    assert touch_probability(0.0, 0.5, DAY, degrees_of_freedom=3.0) == 1.0

    assert touch_probability(-0.1, 0.5, 0.0) == 0.0
    assert touch_probability(-0.1, 0.0, DAY) == 0.0
    assert touch_probability(math.inf, 0.5, DAY) == 0.0
    assert touch_probability(-math.inf, 2.0, 1.0, 1.0) == 0.0

    without_noise = touch_probability(-0.01, 0.0, 1.0, np.array([-0.02, -0.01, -0.009, 0.02]))
    assert without_noise.tolist() == [1.0, 1.0, 0.0, 0.0]

    assert math.isnan(touch_probability(math.nan, 0.5, DAY))
    assert math.isnan(touch_probability(-0.1, math.nan, DAY, degrees_of_freedom=4.0))
    assert isinstance(touch_probability(-0.1, 0.5, DAY), float)


@pytest.mark.parametrize("freedom", [2.05, 3.0, 4.0, 10.0, 300.0])
def test_without_drift_the_average_over_variances_is_students_t(freedom: float):
    """2 T(-a / s) of unit variance."""
    distance = -np.geomspace(1e-3, 2.0, 12)
    scale = 0.8 * math.sqrt(DAY * (freedom - 2.0) / freedom)

    still = touch_probability(distance, 0.8, DAY, degrees_of_freedom=freedom)

    np.testing.assert_allclose(still, 2.0 * stdtr(freedom, distance / scale), rtol=1e-12)


@pytest.mark.parametrize("freedom", [math.inf, 12.0, 4.0, 2.2])
def test_the_distance_is_the_inverse_of_the_probability(freedom: float):
    probability = np.array([1.0, 0.9, 0.1, 1e-3, 1e-6, 1e-12])
    terms = {"degrees_of_freedom": freedom}
    for sigma, horizon in ((0.1, 1e-4), (0.8, DAY), (2.0, 1.0)):
        distance = touch_distance(probability, sigma, horizon, **terms)
        assert distance[0] == 0.0
        assert (np.diff(distance) > 0.0).all()

        for side in (-1.0, 1.0):
            found = touch_probability(side * distance, sigma, horizon, **terms)
            np.testing.assert_allclose(found, probability, rtol=1e-9)
    assert touch_distance(0.0, 0.8, DAY, **terms) == math.inf

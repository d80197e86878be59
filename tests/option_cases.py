"""Random accounts with options: those of several positions, and contracts beside them.

The market of the options is drawn as the arrays of the engine's feed, so that the fit of surfaces
is no part of the comparison. They are valued by Black-76 once more, in the standard library's
floats, which shares nothing with the package.
"""

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from backtest.account import make_option_feed
from backtest.engine import inputs
from backtest.options.option_listing import OptionListing
from backtest.venue import OptionCosts
from tests.cases import PortfolioCase, make_portfolio_case, read_tapes
from tests.draws import DAY, START

YEAR = 365 * DAY
SOON = 0.8
"""The share of contracts that expire in the data."""
OF_CONTRACT = {
    "signs": "sign", "strikes": "strike", "sizes": "size", "are_coin": "is_coin", "rates": "rate",
    "fee_rates": "fee_rate", "fee_caps": "fee_cap", "delivery_rates": "delivery_rate",
    "delivery_caps": "delivery_cap", "ticks": "tick", "expiry_bars": "expiry_bar",
    "are_inside": "is_inside", "expiry_spots": "expiry_spot",
}  # fmt: skip
BY_BAR = {
    name: name
    for which in ("years", "volatilities", "bases", "marks")
    for name in (f"{which}_open", f"{which}_close")
} | {
    "bids": "bid", "asks": "ask", "has_quotes": "has_quote", "half_spreads": "half_spread",
    "half_prices": "half_price",
    "targets": "targets",
}  # fmt: skip
"""Fields of the feed and their names here."""
COSTS = OptionCosts(fee=0.0, fee_cap=1.0, delivery_fee=0.0, delivery_cap=1.0, tick=0.0, lot=0.0)
"""Of a venue that lists options; each contract has its own."""


ROOT_2 = math.sqrt(2.0)
ROOT_2_PI = math.sqrt(2.0 * math.pi)


def normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / ROOT_2)


def find_d1(forward: float, strike: float, years: float, volatility: float) -> float:
    """d1, infinite where nothing is left to happen."""
    s = volatility * math.sqrt(years)
    if s == 0.0:
        return math.copysign(math.inf, forward - strike) if forward != strike else 0.0
    return math.log(forward / strike) / s + 0.5 * s


@functools.lru_cache(maxsize=1 << 14)
def price_black(
    sign: float, forward: float, strike: float, years: float, volatility: float, rate: float = 0.0
) -> float:
    """What an option on one unit is worth in quote currency; ``sign`` is -1 for a put. Intrinsic
    value and the price of the option out of the money: no digits cancel."""
    s = volatility * math.sqrt(years)
    value = max(0.0, sign * (forward - strike))
    if s > 0.0:
        side = 1.0 if forward <= strike else -1.0
        d1 = find_d1(forward, strike, years, volatility)
        value += side * (forward * normal_cdf(side * d1) - strike * normal_cdf(side * (d1 - s)))
    return math.exp(-rate * years) * value


def delta_black(
    sign: float, forward: float, strike: float, years: float, volatility: float
) -> float:
    """N(d1), of a put less 1."""
    return sign * normal_cdf(sign * find_d1(forward, strike, years, volatility))


def vega_black(
    forward: float, strike: float, years: float, volatility: float, rate: float
) -> float:
    """The change of the price per 1.00 of volatility."""
    d1 = find_d1(forward, strike, years, volatility)
    density = math.exp(-0.5 * d1 * d1) / ROOT_2_PI
    return math.exp(-rate * years) * forward * math.sqrt(years) * density


@dataclass(frozen=True, eq=False)
class OptionTape:
    """One contract, and rows of its market by bar; ``index`` are mark prices of the underlying."""

    name: str
    underlying: str
    sign: int
    strike: float
    size: float
    is_coin: bool
    rate: float
    fees: tuple[float, float, float, float]  # rate and cap of trades, then of expiry
    tick: float
    expiry_time: int
    expiry_bar: int
    is_inside: bool
    expiry_spot: float
    rows: dict[str, np.ndarray]

    def __getattr__(self, name: str) -> Any:
        try:
            return object.__getattribute__(self, "rows")[name]
        except KeyError:
            raise AttributeError(name) from None

    fee_rate = property(lambda self: self.fees[0])
    fee_cap = property(lambda self: self.fees[1])
    delivery_rate = property(lambda self: self.fees[2])
    delivery_cap = property(lambda self: self.fees[3])

    def at(self, name: str, moment: Any) -> float:
        return read_row(self, name, moment.bar, moment.is_close)

    def years(self, moment: Any) -> float:
        return self.at("years", moment)

    def volatility(self, moment: Any) -> float:
        return self.at("volatilities", moment)

    def quoted_mark(self, moment: Any) -> float:
        """The venue's mark per unit, NaN without one."""
        return self.at("marks", moment)

    def index(self, moment: Any) -> float:
        return self.at("index", moment)

    def forward(self, moment: Any, index: float) -> float:
        return index * self.at("bases", moment)

    def value(self, moment: Any, index: float, volatility: float | None) -> float:
        base, years, sigma = read_pricing(self, moment.bar, moment.is_close)
        forward = index * base
        if volatility is not None:
            sigma = volatility
        price = price_black(self.sign, forward, self.strike, years, sigma, self.rate)
        return self.size * (price / forward if self.is_coin else price)

    def delta(self, moment: Any, index: float) -> float:
        forward = self.forward(moment, index)
        return delta_black(
            self.sign, forward, self.strike, self.years(moment), self.volatility(moment)
        )

    def vega(self, moment: Any, index: float) -> float:
        forward = self.forward(moment, index)
        years = self.years(moment)
        sigma = self.volatility(moment)
        return vega_black(forward, self.strike, years, sigma, self.rate)


@functools.lru_cache(maxsize=1 << 14)
def read_row(option: OptionTape, name: str, bar: int, is_close: bool) -> float:
    return float(option.rows[f"{name}_{'close' if is_close else 'open'}"][bar])


@functools.lru_cache(maxsize=1 << 14)
def read_pricing(option: OptionTape, bar: int, is_close: bool) -> tuple[float, float, float]:
    """Return the forward over the index, the years to expiry and the volatility at a moment."""
    names = ("bases", "years", "volatilities")
    base, years, volatility = (read_row(option, name, bar, is_close) for name in names)
    return base, years, volatility


@dataclass(frozen=True)
class OptionCase(PortfolioCase):
    options: tuple[OptionTape, ...] = ()

    def for_oracle(self) -> tuple[Any, ...]:
        *first, account, overlay = super().for_oracle()
        account.options = self.options
        return (*first, account, overlay)

    def make_rule(self, bt: Any) -> Any:
        rule = self.requirement or {}
        if "options" in rule:
            rule = rule | {"options": bt.OptionShocks(**vars(rule["options"]))}

        kinds = {"moves": bt.ScenarioMargin, "naked": bt.Strategy, "maintenance": bt.Standard}
        for field, kind in kinds.items():
            if field in rule:
                return kind(**rule)
        return bt.Brackets(**rule)

    def make_markets(self, bt: Any) -> Any:
        """Return markets of its own, which list the options by name."""
        markets = read_tapes.__wrapped__(tuple(self.tapes.items()), bt)
        markets.listing = OptionListing(
            options={option.name: make_contract(bt, option) for option in self.options},
            underlyings={option.name: option.underlying for option in self.options},
            surfaces={},
            chains={},
            quote_age=0,
            max_age=0,
        )
        return markets

    @contextmanager
    def feeding(self) -> Iterator[None]:
        """Let the engine read these options in the place of those of its market."""
        read = inputs.read_option_feed
        feed = make_option_feed(len(self.options), len(self.clock))
        inputs.read_option_feed = lambda *_: self.fill_feed(feed)
        try:
            yield
        finally:
            inputs.read_option_feed = read

    def fill_feed(self, feed: Any) -> Any:
        """Write the options into the arrays of a feed; each contract has its own expiry."""
        names = list(self.tapes)
        ends = [(option.underlying, option.expiry_time) for option in self.options]
        pairs = [(*end, option.strike) for end, option in zip(ends, self.options, strict=True)]
        feed.expiries[:] = [ends.index(end) for end in ends]
        feed.pairs[:] = [pairs.index(pair) for pair in pairs]
        feed.expiry_times[:] = [option.expiry_time for option in self.options]
        feed.are_listed[:] = 1
        feed.ages[:] = 0.0

        for k, option in enumerate(self.options):
            feed.instruments[k] = names.index(option.underlying)
            for field, name in OF_CONTRACT.items():
                getattr(feed, field)[k] = getattr(option, name)
            for field, name in BY_BAR.items():
                getattr(feed, field)[:, k] = option.rows[name]
        return feed


def make_contract(bt: Any, option: OptionTape) -> Any:
    return bt.Option(
        kind="call" if option.sign > 0 else "put",
        strike=option.strike,
        expiry=str(pd.Timestamp(option.expiry_time)),
        settlement="coin" if option.is_coin else "cash",
        size=option.size,
        underlying=option.underlying,
    )


def make_option_case(seed: int) -> OptionCase:
    """Return the account of a seed with options on up to two of its instruments."""
    rng = np.random.default_rng([seed, 39])
    settles = "coin" if rng.random() < 0.35 else "cash"
    case = make_portfolio_case(seed, settles)
    whole = [name for name, tape in case.tapes.items() if len(tape.bars) == len(case.clock)]
    underlyings = whole[:1] if settles == "coin" else whole[:2]

    kind = draw_kind(rng, settles)
    requirement = draw_rule(rng, case, kind)
    intrabar = "path" if rng.random() < 0.8 else "worst"
    account = dict(case.account) | {"after_liquidation": "continue", "intrabar": intrabar}
    account["margin"] = account["margin"] | dict.fromkeys(underlyings, "cross")

    mode = str(rng.choice(["close", "takeover", "partial"], p=[0.45, 0.15, 0.4]))
    is_last = bool(rng.random() < 0.2)
    venues = {}
    for name, venue in case.venues.items():
        terms = venue["venue"] | {"call_grace": None, "option_costs": COSTS}
        liquidation = venue["liquidation"] | {"mode": mode, "full_below": 0.0}
        if mode == "takeover":
            liquidation["impact"] = 0.0
        if is_last:
            liquidation["order"] = "futures_then_options"
        if kind == "scenarios":
            terms["margin_multiplier"] = 1.0
            if liquidation["step"] == "bracket":
                liquidation["step"] = 0.3
        venues[name] = venue | {"venue": terms, "liquidation": liquidation}

    collateral = [(asset | {"cancels_risk": None}, tape) for asset, tape in case.collateral]
    case = replace(
        case, account=account, venues=venues, requirement=requirement, collateral=collateral
    )
    options = draw_options(rng, case, underlyings, kind, is_coin=settles == "coin")
    return OptionCase(**vars(case), options=options)


def draw_kind(rng: np.random.Generator, settles: str) -> str:
    """Draw the kind of the margin rule; strategies are of cash."""
    kinds = ["standard", "scenarios", "brackets", "strategies"]
    chances = [0.35, 0.3, 0.1, 0.25] if settles == "cash" else [0.5, 0.4, 0.1, 0.0]
    return str(rng.choice(kinds, p=chances))


def draw_rule(rng: np.random.Generator, case: PortfolioCase, kind: str) -> dict[str, Any] | None:
    """Draw the margin rule; the level is the account's."""
    level = float(rng.uniform(0.9, 1.2)) if rng.random() < 0.3 else 1.0
    if kind == "brackets":
        return None if level == 1.0 else {"level": level}
    if kind == "standard":
        maintenance = float(rng.uniform(0.02, 0.1))
        return {
            "level": level,
            "initial": float(rng.uniform(0.1, 0.3)),
            "least": maintenance * max(1.0, level) * float(rng.uniform(1.0, 1.5)),
            "maintenance": maintenance,
            "of_mark": float(rng.choice([0.0, 0.075])),
            "option_value": str(rng.choice(["none", "long"])),
        }
    if kind == "strategies":
        return {
            "level": level,
            "naked": float(rng.uniform(0.05, 0.25)),
            "least_call": float(rng.uniform(0.02, 0.1)),
            "least_put": float(rng.uniform(0.02, 0.1)),
            "covered_itm": bool(rng.random() < 0.5),
            "conversion": 0.0,
            "loan_value": float(rng.choice([0.0, 0.25])),
            "loan_days": 273.0,
        }
    return draw_scenarios(rng, case, level)


def draw_scenarios(rng: np.random.Generator, case: PortfolioCase, level: float) -> dict[str, Any]:
    """Draw moves of price and volatility, an extreme one among them, and charges of options."""
    reach = float(rng.uniform(0.03, 0.2))
    rows: list[tuple[float, ...]] = []
    for move in (-1.0, -0.5, 0.0, 0.5, 1.0):
        rows += [(move * reach, 1.0, 0.4), (move * reach, 1.0, -0.3)]
    rows.append((2.5 * reach, 0.3, 0.4, float(rng.choice([0.0, 0.01])) * case.account["capital"]))

    charge = float(rng.choice([0.0, 0.004]))
    names = list(case.tapes)
    is_grouped = len(names) > 1 and rng.random() < 0.5
    shocks = {
        "power": (float(rng.choice([0.0, 0.3])), float(rng.choice([0.0, 0.13]))),
        "days": 30.0,
        "least_days": 1.0,
        "least_volatility": float(rng.choice([0.0, 0.5])),
        "short_charge": (charge, 1.5 * charge),
        "delta_charge": (float(rng.choice([0.0, 0.01])), 0.0),
        "futures_range": float(rng.choice([math.inf, reach])),
    }

    factor = float(rng.uniform(0.7, 1.0))
    across = str(rng.choice(["independent", "same row"]))
    least = max(1.0, level)
    return {
        "level": level,
        "moves": {"*": rows, "pair": rows} if is_grouped else {"*": rows},
        "groups": {"pair": names[:2]} if is_grouped else None,
        "products": None,
        "across": across,
        "offset": float(rng.uniform(0.0, 1.0)) if across == "same row" else 0.0,
        "factor": factor,
        "minimum": 0.0,
        "contingency": float(rng.choice([0.0, 0.02])),
        "pair_contingency": 0.0,
        "initial": (least * factor * float(rng.uniform(1.05, 1.5)), 0.03 * least),
        "options": SimpleNamespace(**shocks),
    }


def draw_options(
    rng: np.random.Generator,
    case: PortfolioCase,
    underlyings: list[str],
    kind: str,
    *,
    is_coin: bool,
) -> tuple[OptionTape, ...]:
    """Draw one to four contracts with their orders, one or two under a rule of strategies. In
    larger books the package tries three pairings, and all may miss the cheapest."""
    options: list[OptionTape] = []
    places = set()
    has_one_kind = bool(rng.random() < 0.7)
    common_sign = int(rng.choice([-1, 1]))
    most = 3 if kind == "strategies" else 5
    for k in range(int(rng.integers(1, most))):
        underlying = underlyings[int(rng.integers(len(underlyings)))]
        sign = common_sign
        if kind != "strategies" or not has_one_kind:
            sign = int(rng.choice([-1, 1]))

        option = draw_option(rng, case, f"O{k}", underlying, sign, is_coin=is_coin)
        targets = draw_targets(rng, case, option, 1.0 if kind == "brackets" else None)
        option = replace(option, rows=option.rows | {"targets": targets})

        place = (option.strike, option.expiry_time)
        if place not in places:
            options.append(option)
            places.add(place)
    return tuple(options)


def draw_option(
    rng: np.random.Generator,
    case: PortfolioCase,
    name: str,
    underlying: str,
    sign: int,
    *,
    is_coin: bool,
) -> OptionTape:
    """Draw one contract; time values are a good part of the moves of a bar."""
    tape = case.tapes[underlying]
    n = len(case.clock)
    interval = tape.interval
    opens = tape.marks["open"]
    closes = tape.marks["close"]
    moves = float(np.mean(np.abs(np.log(closes / opens)))) + 1e-3

    # Most expire in a bar of the data, some of them inside it; others later.
    if rng.random() < SOON:
        bar = int(rng.integers(min(3, n - 1), n))
        is_inside = bool(rng.random() < 0.3)
        expiry = START + bar * interval + (interval // 3 if is_inside else 0)
        spot = float(opens[bar] * (1.0 + rng.normal(0.0, 0.2 * moves)))
    else:
        bar = -1
        is_inside = False
        longest = 300 if rng.random() < 0.7 else 800
        expiry = START + n * interval + int(rng.uniform(1, longest)) * DAY
        spot = math.nan

    stamps = START + interval * np.arange(n)
    years_open = np.maximum(expiry - stamps, 0) / YEAR
    years_close = np.maximum(expiry - stamps - interval, 0) / YEAR
    width = moves * math.sqrt(n) * float(rng.uniform(0.5, 3.0))
    sigma = min(width / math.sqrt(years_open[0]), 30.0)
    walk = np.exp(np.cumsum(rng.normal(0.0, 0.05, 2 * n)))
    least_spread = 2e-3 * (np.ones(n) if is_coin else opens)
    rows = {
        "years_open": years_open,
        "years_close": years_close,
        "volatilities_open": sigma * walk[::2],
        "volatilities_close": sigma * walk[1::2],
        "bases_open": np.exp(rng.normal(0.0, 0.2 * moves, n)),
        "bases_close": np.exp(rng.normal(0.0, 0.2 * moves, n)),
        "index_open": opens,
        "index_close": closes,
        "marks_open": np.full(n, np.nan),
        "marks_close": np.full(n, np.nan),
        "half_spread": sigma * rng.uniform(0.0, 0.1, n),
        "half_price": np.where(np.arange(n) % 3 == 0, np.nan, least_spread),
    }
    if bar >= 0 and not is_inside:
        rows["bases_open"][bar] = 1.0

    strike = float(opens[0] * np.exp(rng.normal(0.0, 1.0) * width))
    size = float(rng.choice([1.0, 0.1, 10.0]))
    fee_rate = 0.0
    fee_cap = 1.0
    if rng.random() >= 0.2:
        fee_rate = float(rng.uniform(1e-4, 1e-3))
        fee_cap = 0.125
    rate = float(rng.choice([0.0, 0.05]))
    tick = float(rng.choice([0.0, 1e-5])) * (1.0 if is_coin else float(opens[0]))

    option = OptionTape(
        name=name,
        underlying=underlying,
        sign=sign,
        strike=strike,
        size=size,
        is_coin=is_coin,
        rate=rate,
        fees=(fee_rate, fee_cap, fee_rate / 2.0, fee_cap),
        tick=tick,
        expiry_time=expiry,
        expiry_bar=bar,
        is_inside=is_inside,
        expiry_spot=spot,
        rows=rows,
    )
    return replace(option, rows=rows | draw_quotes(rng, option, n))


def draw_quotes(rng: np.random.Generator, option: OptionTape, n: int) -> dict[str, np.ndarray]:
    """Draw rows of quotes at some opens, now and then with one side; and marks of the venue."""
    bid = np.full(n, np.nan)
    ask = np.full(n, np.nan)
    marks_open = np.full(n, np.nan)
    marks_close = np.full(n, np.nan)
    has_quote = rng.random(n) < rng.choice([0.0, 0.3, 0.8])
    for t in range(n):
        if not has_quote[t]:
            rng.random()  # of a mark at the close, so that the draws after it stay as they were
            continue

        at_open = SimpleNamespace(bar=t, is_close=False)
        at_close = SimpleNamespace(bar=t, is_close=True)
        value_open = option.value(at_open, option.rows["index_open"][t], None) / option.size
        value_close = option.value(at_close, option.rows["index_close"][t], None) / option.size

        if rng.random() < 0.5:
            marks_open[t] = value_open * rng.uniform(0.95, 1.05)
        if rng.random() < 0.5:
            marks_close[t] = value_close * rng.uniform(0.95, 1.05)
        if rng.random() < 0.9:
            bid[t] = value_open * rng.uniform(0.85, 0.95)
        if rng.random() < 0.9:
            ask[t] = value_open * rng.uniform(1.05, 1.15)

    return {
        "bid": bid,
        "ask": ask,
        "marks_open": marks_open,
        "marks_close": marks_close,
        "has_quote": has_quote,
    }


def draw_targets(
    rng: np.random.Generator, case: PortfolioCase, option: OptionTape, side: float | None
) -> np.ndarray:
    """Draw the contracts to hold from some opens on; mostly sold, and a few turns."""
    n = len(case.clock)
    notional = case.account["capital"] * math.exp(rng.uniform(math.log(1.0), math.log(30.0)))
    unit = 1.0 if option.is_coin else float(option.rows["index_open"][0])
    usual = side or float(rng.choice([-1.0, 1.0], p=[0.6, 0.4]))
    targets = usual * notional / (unit * option.size) * rng.uniform(0.3, 1.0, n)

    targets[rng.random(n) < 0.15] = 0.0
    if side is None:
        targets[rng.random(n) < 0.1] *= -0.5
    targets[rng.random(n) < 0.6] = np.nan
    targets[0] = np.nan
    if option.expiry_bar >= 0:
        targets[option.expiry_bar + option.is_inside :] = np.nan
    return targets

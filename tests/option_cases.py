"""Random accounts with options: those of several positions, and contracts beside them.

The market of the options is drawn as the arrays of the engine's feed, so that the fit of surfaces
is no part of the comparison. They are valued by Black-76 once more, in the standard library's
floats, which shares nothing with the package.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from backtest.account.records import make_option_feed
from backtest.engine import inputs
from backtest.options.option_listing import OptionListing
from backtest.venue.option_contract import OptionCosts
from tests.cases import PortfolioCase, Tape, make_portfolio_case
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
        return float(self.rows[f"{name}_{'close' if moment.is_close else 'open'}"][moment.bar])

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
        forward = self.forward(moment, index)
        sigma = self.volatility(moment) if volatility is None else volatility
        price = price_black(self.sign, forward, self.strike, self.years(moment), sigma, self.rate)
        return self.size * (price / forward if self.is_coin else price)

    def delta(self, moment: Any, index: float) -> float:
        forward = self.forward(moment, index)
        return delta_black(
            self.sign, forward, self.strike, self.years(moment), self.volatility(moment)
        )

    def vega(self, moment: Any, index: float) -> float:
        forward = self.forward(moment, index)
        years, sigma = self.years(moment), self.volatility(moment)
        return vega_black(forward, self.strike, years, sigma, self.rate)


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
        return next((kinds[each] for each in kinds if each in rule), bt.Brackets)(**rule)

    def for_engine(self, bt: Any) -> dict[str, Any]:
        """Return the keyword arguments of bt.run; the markets list the options by name."""
        given = super().for_engine(bt)
        given["market"].listing = OptionListing(
            options={option.name: make_contract(bt, option) for option in self.options},
            underlyings={option.name: option.underlying for option in self.options}, surfaces={},
            chains={}, quote_age=0, max_age=0,
        )  # fmt: skip
        return given

    @contextmanager
    def feeding(self) -> Iterator[None]:
        kept = inputs.read_option_feed
        made = make_option_feed(len(self.options), len(self.clock))
        inputs.read_option_feed = lambda *_: self.fill_feed(made)
        try:
            yield
        finally:
            inputs.read_option_feed = kept

    def fill_feed(self, feed: Any) -> Any:
        """Write the options into the arrays of a feed; each contract has its own expiry."""
        names = list(self.tapes)
        stamps = [option.expiry_time for option in self.options]
        ends = [(option.underlying, option.expiry_time) for option in self.options]
        pairs = [(*end, option.strike) for end, option in zip(ends, self.options, strict=True)]
        feed.expiries[:] = [ends.index(end) for end in ends]
        feed.pairs[:] = [pairs.index(pair) for pair in pairs]
        feed.expiry_times[:] = stamps
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
        own = venue["venue"] | {"call_grace": None, "option_costs": COSTS}
        forced = venue["liquidation"]
        forced = forced | {"mode": mode}
        forced |= {"full_below": 0.0} | ({"impact": 0.0} if forced["mode"] == "takeover" else {})
        forced |= {"order": "futures_then_options"} if is_last else {}
        if kind == "scenarios":
            own["margin_multiplier"] = 1.0
            forced |= {"step": 0.3} if forced["step"] == "bracket" else {}
        venues[name] = venue | {"venue": own, "liquidation": forced}
    collateral = [(asset | {"cancels_risk": None}, tape) for asset, tape in case.collateral]
    case = replace(
        case, account=account, venues=venues, requirement=requirement, collateral=collateral
    )
    options = draw_options(rng, case, underlyings, kind, is_coin=settles == "coin")
    return OptionCase(**vars(case), options=options)


def draw_kind(rng: np.random.Generator, settles: str) -> str:
    """Draw the kind of the margin rule; strategies are of cash."""
    kinds = ["standard", "scenarios", "brackets", "strategies"]
    return str(
        rng.choice(kinds, p=[0.35, 0.3, 0.1, 0.25] if settles == "cash" else [0.5, 0.4, 0.1, 0.0])
    )


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
            "level": level, "naked": float(rng.uniform(0.05, 0.25)),
            "least_call": float(rng.uniform(0.02, 0.1)), "least_put": float(rng.uniform(0.02, 0.1)),
            "covered_itm": bool(rng.random() < 0.5), "conversion": 0.0,
            "loan_value": float(rng.choice([0.0, 0.25])), "loan_days": 273.0,
        }  # fmt: skip
    reach = float(rng.uniform(0.03, 0.2))
    rows = [
        (move * reach, 1.0, shock) for move in (-1.0, -0.5, 0.0, 0.5, 1.0) for shock in (0.4, -0.3)
    ]
    rows.append((2.5 * reach, 0.3, 0.4, float(rng.choice([0.0, 0.01])) * case.account["capital"]))
    charge = float(rng.choice([0.0, 0.004]))
    names = list(case.tapes)
    grouped = names[:2] if len(names) > 1 and rng.random() < 0.5 else None
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
    return {
        "level": level, "moves": {"*": rows} if grouped is None else {"*": rows, "pair": rows},
        "groups": None if grouped is None else {"pair": grouped}, "products": None,
        "across": across, "offset": float(rng.uniform(0.0, 1.0)) if across == "same row" else 0.0,
        "factor": factor, "minimum": 0.0, "contingency": float(rng.choice([0.0, 0.02])),
        "pair_contingency": 0.0,
        "initial": (
            max(1.0, level) * factor * float(rng.uniform(1.05, 1.5)),
            0.03 * max(1.0, level),
        ),
        "options": SimpleNamespace(**shocks),
    }  # fmt: skip


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
    found: list[OptionTape] = []
    same_kind, sign = bool(rng.random() < 0.7), int(rng.choice([-1, 1]))
    most = 3 if kind == "strategies" else 5
    for k in range(int(rng.integers(1, most))):
        underlying = underlyings[int(rng.integers(len(underlyings)))]
        each = sign if kind == "strategies" and same_kind else int(rng.choice([-1, 1]))
        tape = draw_option(rng, case, f"O{k}", underlying, each, is_coin=is_coin)
        targets = draw_targets(rng, case, tape, 1.0 if kind == "brackets" else None)
        tape = replace(tape, rows=tape.rows | {"targets": targets})
        if (tape.strike, tape.expiry_time) not in {(o.strike, o.expiry_time) for o in found}:
            found.append(tape)
    return tuple(found)


def marks_of(tape: Tape) -> Any:
    return tape.bars if tape.mark is None else tape.mark


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
    tape, n = case.tapes[underlying], len(case.clock)
    marks, interval = marks_of(tape), tape.interval
    opens, closes = marks["open"].to_numpy(), marks["close"].to_numpy()
    moves = float(np.mean(np.abs(np.log(closes / opens)))) + 1e-3
    if rng.random() < SOON:
        bar = int(rng.integers(min(3, n - 1), n))
        inside = bool(rng.random() < 0.3)
        expiry = START + bar * interval + (interval // 3 if inside else 0)
        spot = float(opens[bar] * (1.0 + rng.normal(0.0, 0.2 * moves)))
    else:
        bar, inside, spot = -1, False, math.nan
        expiry = (
            START + n * interval + int(rng.uniform(1, 300 if rng.random() < 0.7 else 800)) * DAY
        )
    stamps = START + interval * np.arange(n)
    years_open = np.maximum(expiry - stamps, 0) / YEAR
    years_close = np.maximum(expiry - stamps - interval, 0) / YEAR
    wide = moves * math.sqrt(n) * float(rng.uniform(0.5, 3.0))
    sigma = min(wide / math.sqrt(years_open[0]), 30.0)
    walk = np.exp(np.cumsum(rng.normal(0.0, 0.05, 2 * n)))
    rows = {
        "years_open": years_open, "years_close": years_close,
        "volatilities_open": sigma * walk[::2], "volatilities_close": sigma * walk[1::2],
        "bases_open": np.exp(rng.normal(0.0, 0.2 * moves, n)),
        "bases_close": np.exp(rng.normal(0.0, 0.2 * moves, n)), "index_open": opens,
        "index_close": closes, "marks_open": np.full(n, np.nan), "marks_close": np.full(n, np.nan),
        "half_spread": sigma * rng.uniform(0.0, 0.1, n),
        "half_price": np.where(np.arange(n) % 3 == 0, np.nan, 2e-3 * (1.0 if is_coin else opens)),
    }  # fmt: skip
    if bar >= 0 and not inside:
        rows["bases_open"][bar] = 1.0
    strike = float(opens[0] * np.exp(rng.normal(0.0, 1.0) * wide))
    size = float(rng.choice([1.0, 0.1, 10.0]))
    is_free = rng.random() < 0.2
    rate, cap = (0.0, 1.0) if is_free else (float(rng.uniform(1e-4, 1e-3)), 0.125)
    unit = 1.0 if is_coin else float(opens[0])
    result = OptionTape(
        name=name, underlying=underlying, sign=sign, strike=strike, size=size, is_coin=is_coin,
        rate=float(rng.choice([0.0, 0.05])), fees=(rate, cap, rate / 2.0, cap),
        tick=float(rng.choice([0.0, 1e-5])) * unit, expiry_time=expiry, expiry_bar=bar,
        is_inside=inside, expiry_spot=spot, rows=rows,
    )  # fmt: skip
    return replace(result, rows=rows | draw_quotes(rng, result, n))


def draw_quotes(rng: np.random.Generator, option: OptionTape, n: int) -> dict[str, np.ndarray]:
    """Draw rows of quotes at some opens, now and then with one side; and marks of the venue."""
    found = {name: np.full(n, np.nan) for name in ("bid", "ask", "marks_open", "marks_close")}
    has_quote = rng.random(n) < rng.choice([0.0, 0.3, 0.8])
    for t in range(n):
        value = [
            option.value(SimpleNamespace(bar=t, is_close=is_close), option.rows[name][t], None)
            / option.size
            for is_close, name in ((False, "index_open"), (True, "index_close"))
        ]
        if has_quote[t] and rng.random() < 0.5:
            found["marks_open"][t] = value[0] * rng.uniform(0.95, 1.05)
        if rng.random() < 0.5 * has_quote[t]:
            found["marks_close"][t] = value[1] * rng.uniform(0.95, 1.05)
        if has_quote[t] and rng.random() < 0.9:
            found["bid"][t] = value[0] * rng.uniform(0.85, 0.95)
        if has_quote[t] and rng.random() < 0.9:
            found["ask"][t] = value[0] * rng.uniform(1.05, 1.15)
    return found | {"has_quote": has_quote}


def draw_targets(
    rng: np.random.Generator, case: PortfolioCase, option: OptionTape, side: float | None
) -> np.ndarray:
    """Draw the contracts to hold from some opens on; mostly sold, and a few turns."""
    n, capital = len(case.clock), case.account["capital"]
    notional = capital * math.exp(rng.uniform(math.log(1.0), math.log(30.0)))
    unit = 1.0 if option.is_coin else float(option.rows["index_open"][0])
    usual = side or float(rng.choice([-1.0, 1.0], p=[0.6, 0.4]))
    found = usual * notional / (unit * option.size) * rng.uniform(0.3, 1.0, n)
    found[rng.random(n) < 0.15] = 0.0
    if side is None:
        found[rng.random(n) < 0.1] *= -0.5
    found[rng.random(n) < 0.6] = np.nan
    found[0] = np.nan
    if option.expiry_bar >= 0:
        found[option.expiry_bar + option.is_inside :] = np.nan
    return found

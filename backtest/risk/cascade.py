"""A shock in one market, the liquidations it causes, and those that they cause.

Arrays have one entry per account. Money is in the settlement currency, values are u. The sum of all
equities, the fund, fees and what the venue owes is verified not to change in a round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest.core.fields import NOT_NEGATIVE, POSITIVE
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.core.units import DAY, MINUTE, TOLERANCE
from backtest.market import Market
from backtest.results import Result
from backtest.risk import crowd as people
from backtest.risk.crowd import Crowd, to_value
from backtest.venue import Contract, Liquidation, Venue, read_newest, read_venue

WINDOW_DAYS = 30.0
"""The days at the end of a market from which volume and volatility are measured."""


class ImpactCurve(NamedTuple):
    """Impact: fall = factor (Q / V)^exponent.

    The flow Q is a notional at the price before the shock, positive if it is sold, V the daily
    volume. The fall is a fraction of that price, negative for what was bought.
    """

    factor: float
    exponent: float
    volume: float

    def fall(self, flow: float) -> float:
        return math.copysign(self.factor * (abs(flow) / self.volume) ** self.exponent, flow)

    def mean_fall(self, start: float, flow: float) -> float:
        """Return the mean fall while a flow is added to one that was there."""
        if abs(flow) <= 1e-9 * abs(start):  # else the difference is rounding
            return self.fall(start + 0.5 * flow)
        power, ends = self.exponent + 1.0, (start, start + flow)
        before, after = ((abs(each) / self.volume) ** power * self.volume / power for each in ends)
        return float(self.factor * (after - before) / flow)


class SquareRoot(core.Value):
    """Impact by the square-root law: ``fall = coefficient volatility sqrt(Q / V)``.

    Parameters
    ----------
    coefficient : float
        Y of the law, about 1 in measurements of large orders.
    volatility : float or None
        The daily volatility, a fraction. None: that of the last 30 days of the market where there
        is one, else 1, so that the coefficient is the fall at one day's volume.

    Notes
    -----
    Source: Toth et al. (2011), Anomalous Price Impact and the Critical Nature of Liquidity in
    Financial Markets, Physical Review X 1.
    """

    coefficient: Annotated[float, NOT_NEGATIVE] = 1.0
    volatility: Annotated[float | None, POSITIVE] = None

    def curve(self, volume: float | None, market: Market | None, contract: Contract) -> ImpactCurve:
        """Return the law as numbers, for a daily volume in money or that of a market."""
        daily, sigma = find_volume(volume, market, contract), self.volatility
        if daily is None:
            raise core.ParameterError(
                "a square-root impact needs a daily volume, the market has none; volume= is the "
                "money traded per day"
            )
        if sigma is None and market is not None:
            steps = np.diff(np.log(market.close[find_window(market)]))
            if len(steps) < 2:
                raise core.ParameterError(
                    f"a volatility needs 3 bars or more, got {len(steps) + 1} in {market!r}; "
                    "bt.SquareRoot(1.0, volatility=0.03) has its own"
                )
            sigma = float(np.std(steps, ddof=1)) * math.sqrt(DAY / market.interval)
        return ImpactCurve(self.coefficient * (1.0 if sigma is None else sigma), 0.5, daily)


class Linear(core.Value):
    """Impact in proportion to the flow: ``fall = coefficient Q / V``.

    Parameters
    ----------
    coefficient : float
        The fall at a flow of one daily volume; without a volume, per unit of money.
    """

    coefficient: Annotated[float, NOT_NEGATIVE]

    def curve(self, volume: float | None, market: Market | None, contract: Contract) -> ImpactCurve:
        """Return the law as numbers; without a volume and a market with one, the volume is 1."""
        return ImpactCurve(self.coefficient, 1.0, find_volume(volume, market, contract) or 1.0)


Impact = SquareRoot | Linear


def find_volume(volume: float | None, market: Market | None, contract: Contract) -> float | None:
    """Return the volume per day, by default of a market's last 30 days, in money."""
    if volume is not None:
        return core.check_range("volume", volume, low=0.0, open_low=True)
    if market is None or not np.any(market.volume > 0.0):
        return None
    rows = find_window(market)
    money = market.volume[rows] * np.abs(to_value(contract, market.close[rows]))
    return float(np.sum(money)) / (len(money) * market.interval / DAY)


def find_window(market: Market) -> slice:
    bars = max(int(WINDOW_DAYS * DAY / market.interval), int(WINDOW_DAYS))
    return slice(-bars, None)


SLACK = 1e-9
"""How far the books may be from balance, as a share of all money and notional in them."""
LEAST_PRICE = 1e-6
"""The lowest price, as a share of that before the shock, to which impact can carry it."""
MOST_ROUNDS = 200_000
PAYERS = {
    "fund_paid": "insurance fund",
    "adl_paid": "auto-deleveraging (ADL)",
    "haircuts": "haircuts on profits",
    "unpaid": "unpaid: the venue owes it",
}
COLUMNS = (
    "mark", "price", "accounts", "long", "short", "insurance", "adl", "fees", "deficit", *PAYERS,
    "off",
)  # fmt: skip


def read_costs(forced: Liquidation) -> tuple[float, float]:
    """Return the fee and the slippage of a liquidation in a crowd."""
    fee, slippage = (
        read_newest(getattr(forced, name), f"venue.liquidation.{name}", "in a crowd")
        for name in ("fee", "slippage")
    )
    return fee, slippage


def cut_profits(rest: float, gains: core.FloatArray) -> tuple[core.FloatArray, float]:
    """Return what a shortfall takes from the profits among gains, (n,), and what is left of it."""
    profit = np.maximum(gains, 0.0)
    total = float(np.sum(profit))
    cut = profit * min(1.0, rest / total) if total > 0.0 else profit
    return cut, rest - float(np.sum(cut)) if rest >= total else 0.0


class Books:
    """Every account, the liquidity account, the insurance fund and the venue, round after round.

    ``beside`` is what an account has beside its position, ``safe`` what no liquidation touches.
    ``flow`` was forced so far, ``level`` is how far the shock has gone, a price before impact.
    ``side`` is that of the positions that lose, ``unit`` the value of a contract at the start.
    """

    def __init__(
        self,
        crowd: Crowd,
        venue: Venue,
        curve: ImpactCurve,
        *,
        start: float,
        shock: float = 0.0,
        insurance: float = 0.0,
        adl: str | None = "queue",
        is_jump: bool = False,
    ) -> None:
        forced = venue.liquidation
        if forced.full_below_health > 0.0:
            raise core.ParameterError(
                "liquidation.full_below_health must be left out for a crowd, "
                f"got {forced.full_below_health:g}"
            )
        self.venue, self.mode, self.curve, self.adl = venue, forced.mode, curve, adl
        self.fee, self.slippage = (0.0, 0.0) if self.mode == "takeover" else read_costs(forced)
        self.start, self.shocked, self.is_jump = start, start * (1.0 + shock), is_jump
        self.side = 1.0 if self.shocked <= start else -1.0
        self.unit = abs(float(self.to_value(start)))
        self.flow, self.level, self.rows = 0.0, start, list[dict[str, float]]()
        self.quantity, self.first_quantity = crowd.quantity.copy(), crowd.quantity
        self.entry = np.asarray(self.to_value(crowd.entry))
        self.beside = crowd.collateral - crowd.quantity * self.entry
        self.safe, self.first_equity = crowd.equity - crowd.collateral, crowd.equity
        self.haircut, self.deleveraged, self.closed, self.closed_money = np.zeros((4, len(crowd)))
        self.first_round = np.zeros(len(crowd), dtype=np.int64)
        self.last = np.full(len(crowd), start)
        self.liquidity_quantity, self.liquidity_money = -float(np.sum(crowd.quantity)), 0.0
        self.insurance, self.fund_paid, self.fees, self.unpaid = insurance, 0.0, 0.0, 0.0
        self.liquidation = np.full(len(crowd), np.nan)
        self.recompute(slice(None))

    def to_value(self, price: Any) -> Any:
        return to_value(self.venue.contract, price)

    @property
    def fund(self) -> float:
        return self.insurance - self.fund_paid

    def equity(self, value: float) -> core.FloatArray:
        """Return the equity of each account at a contract value."""
        return np.asarray(self.beside + self.quantity * value + self.safe)

    def recompute(self, rows: core.IntArray | core.BoolArray | slice) -> None:
        self.liquidation[rows] = people.find_liquidation_prices(
            self.venue, self.quantity[rows], self.entry[rows], self.beside[rows]
        )

    def close(self, rows: core.IntArray, size: core.FloatArray, value: Any) -> None:
        """Trade signed contracts out of positions at values."""
        self.beside[rows] += size * value
        self.quantity[rows] -= size
        self.closed[rows] += np.abs(size)
        self.closed_money[rows] += np.abs(size) * value

    def drop_losses(self, rows: core.IntArray) -> float:
        """Forgive closed accounts what they lack, and return the sum."""
        flat = rows[self.quantity[rows] == 0.0]
        lack = float(np.sum(np.maximum(-self.beside[flat], 0.0)))
        self.beside[flat] = np.maximum(self.beside[flat], 0.0)
        return lack

    def sum_money(self, value: float) -> float:
        """Return all money of accounts, liquidity, fund and venue at a contract value."""
        liquidity = self.liquidity_money + self.liquidity_quantity * value
        accounts = float(np.sum(self.equity(value)))
        return accounts + liquidity - self.fund_paid + self.fees - self.unpaid

    def check(self, value: float, before: float) -> float:
        """Return by which share the books are off; raise if that is more than rounding."""
        size = float(np.sum(np.abs(self.first_quantity)))
        gap = abs(float(np.sum(self.quantity)) + self.liquidity_quantity) / max(size, 1.0)
        money = max(float(np.sum(np.abs(self.first_equity))), size * abs(value), 1.0)
        after = self.sum_money(value)
        off = max(abs(after - before) / money, gap)
        if not off <= SLACK:
            raise core.AccountingError(
                f"the books of the crowd must balance to {SLACK:g}, were off by {off:.3g} in round "
                f"{len(self.rows) + 1}: {before!r} before and {after!r} after"
            )
        return off

    def run(self, decay: float) -> float:
        """Liquidate until no account fails, and return the price then; ``rows`` are the rounds.

        From round to round, ``decay`` of the fall by impact is left.
        """
        mark = self.shocked
        while len(failing := self.find_failing(mark)):
            if len(self.rows) >= MOST_ROUNDS:
                raise core.AccountingError(f"a cascade did not end in {MOST_ROUNDS:,} rounds")
            value = float(self.to_value(mark))
            before = self.sum_money(value)
            row = self.do_round(failing, mark, value)
            off, fall = self.check(value, before), self.curve.fall(self.flow)
            row |= {"mark": mark, "price": self.find_price(fall), "accounts": len(failing)}
            self.rows.append({**row, "insurance": self.fund, "off": off})
            self.flow *= decay ** (1.0 / self.curve.exponent)
            mark = self.find_price(decay * fall)
        return mark

    def find_price(self, fall: float) -> float:
        """Return the price under a fall by impact, a fraction of the start price."""
        return max(self.shocked - self.start * fall, self.start * LEAST_PRICE)

    def find_failing(self, price: float) -> core.IntArray:
        side = np.sign(self.quantity)
        return np.flatnonzero(side * (self.liquidation * (1.0 + side * TOLERANCE) - price) >= 0.0)

    def do_round(self, rows: core.IntArray, mark: float, value: float) -> dict[str, float]:
        """Close the accounts that fail at a mark; notionals are at the price before the shock."""
        is_other = np.sign(self.quantity[rows]) != self.side
        distance = -self.side * self.liquidation[rows]
        rows = rows[np.lexsort((np.where(is_other, 0.0, distance), is_other))]
        is_new = self.first_round[rows] == 0
        self.first_round[rows[is_new]] = len(self.rows) + 1
        fresh = float(np.sum(np.abs(self.quantity[rows[is_new]]))) * self.unit
        triggers, level = np.full(len(rows), mark), self.level
        if not self.is_jump:
            farther = np.minimum if self.side > 0.0 else np.maximum
            low, high = sorted((self.start, mark))
            reached = np.clip(self.liquidation[rows], low, high)
            reached = np.where(np.sign(self.quantity[rows]) == self.side, reached, self.start)
            triggers = farther(reached, self.last[rows])
        sizes = self.choose_sizes(rows, np.asarray(self.to_value(triggers)))
        prices, lacks = self.sell_in_turn(rows, triggers, sizes)
        if self.mode == "partial":
            self.level = level
        is_sold = lacks == 0.0
        sold, bankrupt, sizes = rows[is_sold], rows[~is_sold], sizes[is_sold]
        self.last[sold] = triggers[is_sold]
        fees, gaps = self.close_in_market(sold, sizes, prices[is_sold])
        adl, missing, lack = 0.0, 0.0, float(np.sum(lacks))
        for side in (1.0, -1.0):
            closed = bankrupt[side * self.quantity[bankrupt] > 0.0]
            if len(closed):
                adl += float(np.sum(np.abs(self.quantity[closed])))
                missing += self.deleverage(closed, side, bankrupt, value)
        paid = min(gaps + missing, max(self.fund, 0.0))
        self.fund_paid += paid
        cut, unpaid = cut_profits(gaps + missing - paid, self.equity(value) - self.first_equity)
        self.beside -= cut
        self.haircut += cut
        self.recompute(cut > 0.0)
        self.unpaid += unpaid
        self.recompute(rows)
        flow = float(np.sum(sizes)) * self.unit
        self.flow += flow
        return {
            "flow": flow,
            "fresh": fresh,
            "long": float(np.sum(sizes[sizes > 0.0])) * self.unit,
            "short": float(np.sum(-sizes[sizes < 0.0])) * self.unit,
            "adl": adl * self.unit,
            "fees": fees,
            "deficit": gaps + lack,
            "fund_paid": paid,
            "adl_paid": lack - missing,
            "haircuts": float(np.sum(cut)),
            "unpaid": unpaid,
        }

    def choose_sizes(self, rows: core.IntArray, value: core.FloatArray) -> core.FloatArray:
        """Return the signed contracts that the venue closes, at the values of the triggers."""
        quantity, forced = self.quantity[rows], self.venue.liquidation
        if self.mode != "partial":
            return quantity
        notional = np.abs(quantity * value)
        is_whole = notional <= forced.full_below * (1.0 + TOLERANCE)
        is_whole |= np.abs(quantity) <= 1e-9 * np.abs(self.first_quantity[rows])
        is_whole |= self.beside[rows] + quantity * value <= TOLERANCE * notional
        if not isinstance(forced.step, str):
            return np.where(is_whole, quantity, quantity * forced.step)
        floors = np.array([each.floor for each in self.venue.brackets])
        row = np.searchsorted(floors, notional * (1.0 - 1e-9), side="left") - 1
        floor = floors[np.maximum(row, 0)]
        is_whole |= floor == 0.0
        return np.where(is_whole, quantity, quantity - np.sign(quantity) * floor / np.abs(value))

    def sell_in_turn(
        self, rows: core.IntArray, triggers: core.FloatArray, sizes: core.FloatArray
    ) -> tuple[core.FloatArray, core.FloatArray]:
        """Return the mean prices at which accounts trade, and what they lack.

        One after the other along the way of the price: at its trigger, or where the ones before
        have carried the price. Where deleveraging is on, an account whose loss the fund cannot
        cover does not trade: it lacks more than 0.
        """
        least, fund, flow = self.start * LEAST_PRICE, self.fund, self.flow
        prices, lacks = np.full(len(rows), np.nan), np.zeros(len(rows))
        columns = (triggers, sizes * self.unit, self.quantity[rows], self.beside[rows])
        for k, (trigger, size, quantity, beside) in enumerate(
            zip(*(each.tolist() for each in columns), strict=True)
        ):
            fall = self.start * self.curve.fall(flow)
            reached = self.find_level(trigger + fall)
            if self.adl is not None:
                price = max(reached - fall, least) * (1.0 - math.copysign(self.slippage, quantity))
                left = beside + quantity * self.to_value(price)
                if -left > max(fund, 0.0):
                    lacks[k] = -left
                    continue
                fund += left if self.mode == "takeover" else min(left, 0.0)
            prices[k] = max(reached - self.start * self.curve.mean_fall(flow, size), least)
            flow, self.level = flow + size, reached
        return prices, lacks

    def find_level(self, own: float) -> float:
        if self.is_jump:
            return self.shocked
        if self.side > 0.0:
            return min(max(own, self.shocked), self.start, self.level)
        return max(min(own, self.shocked), self.start, self.level)

    def close_in_market(
        self, rows: core.IntArray, sizes: core.FloatArray, prices: core.FloatArray
    ) -> tuple[float, float]:
        """Close contracts of some accounts at prices; returns fees and unpaid losses."""
        filled = np.asarray(self.to_value(prices * (1.0 - np.sign(sizes) * self.slippage)))
        self.close(rows, sizes, filled)
        self.liquidity_money -= float(np.sum(sizes * filled))
        self.liquidity_quantity += float(np.sum(sizes))
        value = np.asarray(self.to_value(self.last[rows]))
        left = np.maximum(self.beside[rows] + self.quantity[rows] * value, 0.0)
        asked = self.fee * np.abs(sizes * filled)
        fee = np.where(asked * (1.0 + TOLERANCE) >= left, left, asked)
        self.beside[rows] -= fee
        self.fees += float(np.sum(fee))
        gaps = self.drop_losses(rows)
        if self.mode == "takeover":
            flat = rows[self.quantity[rows] == 0.0]
            self.fund_paid -= float(np.sum(self.beside[flat]))
            self.beside[flat] = 0.0
        return float(np.sum(fee)), gaps

    def deleverage(
        self, bankrupt: core.IntArray, side: float, left_out: core.IntArray, value: float
    ) -> float:
        """Close positions of one side against the other, at the price at which they have nothing.

        Returns what the accounts in profit that are closed then lack.
        """
        total = float(np.sum(np.abs(self.quantity[bankrupt])))
        price = -side * float(np.sum(self.beside[bankrupt])) / total
        self.closed[bankrupt] += np.abs(self.quantity[bankrupt])
        self.closed_money[bankrupt] -= side * self.beside[bankrupt]
        self.beside[bankrupt], self.quantity[bankrupt] = 0.0, 0.0
        others = np.flatnonzero(side * self.quantity < 0.0)
        others = np.setdiff1d(others, left_out, assume_unique=True)
        size = np.abs(self.quantity[others])
        if self.adl == "queue":
            order, taken = self.rank_winners(others, value), np.empty(len(others))
            taken[order] = np.clip(total - (np.cumsum(size[order]) - size[order]), 0.0, size[order])
        else:  # pro rata, with the liquidity account if it is on the other side
            everyone = float(np.sum(size)) + max(-side * self.liquidity_quantity, 0.0)
            taken = size * min(1.0, total / everyone) if everyone > 0.0 else size
        self.close(others, taken * -side, price)
        self.deleveraged[others] += taken
        missing = self.drop_losses(others)
        self.recompute(others[taken > 0.0])
        rest = side * (total - float(np.sum(taken)))
        self.liquidity_quantity += rest
        self.liquidity_money -= rest * price
        return missing

    def rank_winners(self, rows: core.IntArray, value: float) -> core.IntArray:
        """Return the order of the queue: the highest return x leverage first."""
        quantity, entry = self.quantity[rows], self.entry[rows]
        notional = np.abs(quantity * entry)
        gain = quantity * (value - entry) / notional
        equity = np.maximum(self.beside[rows] + quantity * value, 1e-12 * notional)
        leverage = np.abs(quantity * value) / equity
        return np.argsort(-np.where(gain > 0.0, gain * leverage, gain / leverage), kind="stable")

    def tabulate(self) -> pd.DataFrame:
        with np.errstate(invalid="ignore", divide="ignore"):
            price = people.to_price(self.venue.contract, self.closed_money / self.closed)
        return pd.DataFrame(
            {
                "quantity": self.quantity,
                "round": self.first_round,
                "close_price": np.where(self.closed > 0.0, price, np.nan),
                "deleveraged": self.deleveraged,
                "haircut": self.haircut,
            }
        )


@dataclass(frozen=True, eq=False, repr=False)
class Cascade(core.SettingsResult):
    """The outcome of :func:`backtest.cascade`.

    Attributes
    ----------
    rounds : DataFrame
        Row 0 is the shock alone, then a row per round: ``mark`` (the price at which accounts
        failed) and ``price`` (after their flow); ``long`` and ``short``, the notionals liquidated
        in the market, and ``adl``, closed against accounts in profit, all at the price before the
        shock; ``insurance``, the fund afterwards; ``fees``; ``deficit``, what bankrupt accounts
        lacked, and who paid it: ``fund_paid``, ``adl_paid``, ``haircuts``, ``unpaid``; and
        ``off``, the error of the books as a share.
    accounts : DataFrame
        A row per account: ``quantity`` left, the ``round`` in which it failed (0: never),
        ``close_price``, contracts ``deleveraged``, and the ``haircut`` in money.
    ladder : DataFrame
        The notional liquidated by price before the shock; see :meth:`Crowd.ladder`.
    price, shock, final_price : float
        The price before the shock, the move that began it, a fraction, and the price after the last
        round, at which no account fails.
    multiplier : float
        The final move over the shock; 1 if nobody was liquidated.
    reproduction : float
        The forced notional that one unit of forced notional causes at the start.
    deficit : float
        Losses of bankrupt accounts beyond what backed them, in the settlement currency.
    liquidated : int
        The accounts of the crowd that were.
    me : dict or None
        The own account: ``liquidated``, in which ``round``, the ``quantity`` left, the mean
        ``close_price``, ``equity_before`` the shock and ``equity`` now, their difference ``loss``,
        contracts ``deleveraged``, the ``haircut``, and the ``liquidation_price`` of what is left.
    """

    rounds: pd.DataFrame
    accounts: pd.DataFrame
    ladder: pd.DataFrame
    settings: dict[str, Any]
    price: float
    shock: float
    final_price: float
    multiplier: float
    reproduction: float
    deficit: float
    liquidated: int
    me: dict[str, Any] | None = None
    market: Market | None = None

    kind = "cascade"
    table_names = ("rounds", "accounts", "ladder")
    numbers = ("price", "shock", "final_price", "multiplier", "reproduction", "deficit",
               "liquidated", "me")  # fmt: skip

    @property
    def haircuts(self) -> core.FloatArray:
        """What was taken from the profit of each account, in the settlement currency."""
        return self.accounts["haircut"].to_numpy(dtype=np.float64)

    def payers(self) -> dict[str, float]:
        """Return who paid the deficit, in the settlement currency."""
        return {name: float(self.rounds[name].sum()) for name in PAYERS}

    @property
    def title(self) -> str:
        shock = core.format_percent(self.shock, is_signed=True)
        return f"{self.settings['crowd'].get('accounts', 0):,} accounts after {shock}"

    @property
    def note(self) -> str:
        return f"{self.multiplier:.2f} times the shock"

    @property
    def move(self) -> float:
        """The move of the price from before the shock to the end, a fraction."""
        return self.final_price / self.price - 1.0

    @property
    def verdict(self) -> str:
        return (
            f"After a shock of {core.format_percent(self.shock)}, {len(self.rounds) - 1} rounds of "
            f"liquidations moved the price by {core.format_percent(self.move)} in all."
        )

    @property
    def details(self) -> str:
        me = self.me
        if me is None:
            return ""
        fate = f"was liquidated in round {me['round']}" if me["liquidated"] else "survived"
        return f"The own account {fate}: {me['equity_before']:,.2f} became {me['equity']:,.2f}."

    def list_numbers(self) -> list[Headline]:
        shock, n = core.format_percent(self.shock), f"of {len(self.accounts):,} accounts"
        beyond = "losses beyond what backed the accounts"
        return [
            Headline("move", "final move", self.move, "percent", f"shock {shock}"),
            Headline("multiplier", "multiplier", self.multiplier, "decimals",
                     "final move over shock"),
            Headline("reproduction", "reproduction", self.reproduction, "decimals",
                     "unstable from 1 on"),
            Headline("liquidated", "liquidated", self.liquidated, "count", n),
            Headline("deficit", "deficit", self.deficit, "count", beyond),
        ]  # fmt: skip

    def list_parts(self) -> list[Part]:
        titles = {"accounts": "accounts", "long": "longs", "short": "shorts",
                  "adl": "deleveraged", "insurance": "fund", "deficit": "deficit"}  # fmt: skip
        heads = {name: Head(title, "", "count") for name, title in titles.items()}
        note = "Notionals at the price before the shock."
        ends = "Solid and dashed: before the shock, and where the cascade ended."
        price, fund = self.rounds["price"], self.rounds["insurance"]
        paid = pd.DataFrame({"money": self.payers()}).rename(index=PAYERS)
        paid["share"] = paid["money"] / max(self.deficit, 1e-300)
        return [
            Part("ladder", "The ladder of liquidations", "What is liquidated at each price, "
                 "before the shock.", (
                ShownChart("ladder", "Notional liquidated by price", ends,
                           self.ladder[["long", "short"]], "bars", {"long": "loss",
                           "short": "accent"}, "price", "notional",
                           marks=(self.price, self.final_price), has_legend=True,
                           height=320),
            )),
            Part("rounds", "The rounds", "The price, and what each round liquidated.", (
                ShownChart("rounds", "Price after each round", "Round 0 is only the shock.",
                           price, "points", x="round", y="price", size="half", height=280),
                ShownChart("fund", "Insurance fund after each round", "Empty where the fund "
                           "is infinite.", fund, "steps", x="round", y="money", size="half",
                           height=280),
                ShownTable(self.rounds, "Rounds", note, Head("round", "", "count"), heads,
                           ("price", *heads), most=60),
            ), shows="both"),
            Part("payers", "Who paid", "Where the deficit of bankrupt accounts went.",
                 (ShownTable(paid, "Who paid", labels=Head("payer"),
                             heads={"money": Head("money", "", "count")}),), shows="both"),
        ]  # fmt: skip


def shock_crowd(
    crowd: Crowd,
    venue: Venue | str,
    *,
    shock: float,
    impact: Impact,
    price: float | None,
    volume: float | None,
    insurance: float,
    adl: str | None,
    recovery: str | None,
    jump: bool,
    me: Result | Mapping[str, Any] | None,
) -> Cascade:
    """Follow the cascade of one market; arguments as those of :func:`backtest.cascade`."""
    venue = read_venue(venue)
    if venue.contract.is_spot:
        raise core.ParameterError("venue must have margined positions, got one of kind 'spot'")
    start = people.find_price(price, crowd.price)
    mine, theirs = crowd.contract, venue.contract
    is_drawn = crowd.origin.get("made_from") == "leverage"
    if is_drawn and (mine.kind, mine.size) != (theirs.kind, theirs.size):
        raise core.ParameterError(
            f"contract must match the venue, {theirs.kind} of {theirs.size:g}, the crowd "
            f"has {mine.kind} of {mine.size:g}"
        )
    known = everyone = replace(crowd, contract=theirs)
    curve = impact.curve(volume, crowd.market, venue.contract)
    core.Number(-1.0, 10.0, open_low=True).check("shock", shock)
    core.check_range("insurance", insurance, low=0.0)
    decay = 1.0 if recovery is None else 0.5 ** (MINUTE / core.parse_duration(recovery, "recovery"))
    own = None if me is None else read_own_account(me)
    if own is not None:
        added: dict[str, Any] = {k: np.append(getattr(known, k), own[k]) for k in own}
        everyone = replace(known, **added)
    terms: dict[str, Any] = {"insurance": insurance, "adl": adl, "is_jump": jump}
    books = Books(everyone, venue, curve, start=start, shock=float(shock), **terms)
    final, rows = books.run(decay), books.rows
    begun = {"mark": start, "price": books.shocked, "accounts": 0, "insurance": insurance}
    rounds = pd.DataFrame([dict.fromkeys(COLUMNS, 0.0) | begun, *rows])[list(COLUMNS)]
    rounds.index.name = "round"
    mine_after: dict[str, Any] | None = None
    if own is not None:
        moved = float(books.to_value(start)) - books.entry[-1]
        before = float(books.first_equity[-1] + books.first_quantity[-1] * moved)
        after = float(books.equity(float(books.to_value(final)))[-1])
        row: dict[Any, Any] = books.tabulate().iloc[-1].to_dict()
        mine_after = {
            "liquidated": bool(books.first_round[-1] > 0),
            **row,
            "round": int(books.first_round[-1]),
            "equity_before": before,
            "equity": after,
            "loss": before - after,
            "liquidation_price": float(books.liquidation[-1]),
        }
    is_followed = len(rows) > 1 and rows[0]["flow"] != 0.0
    settings = {
        "crowd": {**known.origin, "content_hash": known.content_hash},
        "venue": venue.to_dict(),
        "impact": impact.to_dict() | {"law": type(impact).__name__},
        "curve": curve._asdict(),
        "insurance": insurance,
        "adl": adl,
        "recovery": recovery,
        "jump": bool(jump),
        "me": own,
    }
    return Cascade(
        rounds=rounds,
        accounts=books.tabulate().head(len(known)),
        ladder=known.ladder(venue, price=start),
        settings=settings,
        price=start,
        shock=float(shock),
        final_price=final,
        multiplier=(final / start - 1.0) / shock if shock != 0.0 else math.nan,
        reproduction=rows[1]["fresh"] / abs(rows[0]["flow"]) if is_followed else 0.0,
        deficit=float(rounds["deficit"].sum()),
        liquidated=int(np.sum(books.first_round[: len(known)] > 0)),
        me=mine_after,
        market=known.market,
    )


def read_own_account(me: Result | Mapping[str, Any]) -> dict[str, float]:
    if isinstance(me, Mapping):
        row = Crowd.from_positions(pd.DataFrame([dict(me)]))
        return {name: float(getattr(row, name)[0]) for name in people.ARRAYS_OF_CROWD}
    last = {name: float(values[-1]) for name, values in me.record.of_one().items()}
    quantity, entry = last["quantity"], last["entry"]
    if quantity == 0.0:
        raise core.ParameterError("me must be a run that ends with a position, got a flat end")
    if me.account.margin == "isolated":
        collateral, more = last["margin"], last["cash"] + last["reserve"]
    else:
        collateral, more = last["cash"] + quantity * entry, last["reserve"]
    price = float(people.to_price(me.venue.contract, np.asarray(entry)))
    values = (quantity, price, collateral, collateral + more)
    return dict(zip(people.ARRAYS_OF_CROWD, values, strict=True))

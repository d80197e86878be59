"""An account that settles in several currencies: a pool of its own for each (docs/currencies.md).

Each pool is an :class:`Account` of the oracle in its own currency. Here is what they share: the
equity of all targets, the cap, transfers, the reserve, ruin, and what their currencies gain.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from tests.oracle.account import Account
from tests.oracle.numbers import EXACT, NOTHING_LEFT, ONE, TIE, ZERO, decimals, exact
from tests.oracle.outcome import COSTS, GAINS, Event, Outcome
from tests.oracle.state import Point


class Pool(Account):
    """The account in one currency; it is ruined with the others."""

    transferred = ZERO
    owner = None  # the margin of the pool is shown, also of one position
    is_plain = False

    def check_identity(self, point: Point) -> None:
        """§6, with transfers."""
        row, equity = self.row, self.equity(point)
        before = self.out.equity[-1] if self.t > 0 else self.capital
        causes = sum(row[name] for name in GAINS) - sum(row[name] for name in COSTS)
        scale = max(abs(before), abs(equity), row["traded"], abs(row["price_pnl"]), ONE)
        assert abs(equity - before - causes - self.transferred) <= EXACT * scale

    def try_orders(self) -> None:
        """Write the sums that the cap compares, and trade nothing."""
        point = self.at_fills()
        equity = self.equity(point) if self.fills != "limit" else self.out.equity[-1]
        if equity + self.elsewhere <= 0:
            self.sums = (ZERO, ZERO, ZERO)
            return
        deciding = [each for each in self.present if each.pending is not None]
        for each in self.present if self.fills == "limit" else ():
            each.limit_price = each.prices["close"][each.here - 1] if each.here else None
        self.choose_orders(deciding, equity + self.elsewhere, point)
        for each in self.present if self.fills == "limit" else ():
            each.limit_price = None

    def earned(self) -> Decimal:
        """What the bar earned after costs."""
        row = self.row
        gains = row["price_pnl"] + row["collateral_pnl"] + row["bad_debt"]
        return gains - sum(row[name] for name in COSTS)


class Pools:
    """All pools of an account, the first in the currency in which it counts."""

    def __init__(
        self,
        markets: Mapping[str, Any],
        targets: Mapping[str, Sequence[float]],
        signals: Mapping[str, Sequence[float]],
        venues: Mapping[str, Any],
        account: Any,
        overlay: Sequence[float] | None = None,
    ) -> None:
        self.account, self.names = account, tuple(markets)
        self.clock = sorted({int(stamp) for m in markets.values() for stamp in m.time})
        self.currencies = (account.currency, *account.rates)
        self.pools = [
            self.make_pool(k, markets, targets, signals, venues, overlay)
            for k in range(len(self.currencies))
        ]
        self.read_rates(markets)
        self.reserve = exact(account.reserve)
        self.ruin_at = self.pools[0].ruin_at
        start = self.worth([pool.capital for pool in self.pools], self.opens(0))
        self.pools[0].paid_in = start + self.reserve
        self.rows: list[dict[str, Any]] = []
        self.start, self.events = start, []

    def make_pool(self, k: int, markets, targets, signals, venues, overlay) -> Pool:
        """The account in currency k: its instruments, collateral and money."""
        currency, account = self.currencies[k], self.account
        own = {n: m for n, m in markets.items() if venues[n].contract.settles == currency}
        capital = account.capital if k == 0 else (account.balances or {}).get(currency, 0.0)
        listed = [
            each
            for each in account.collateral or ()
            if (each.currency or account.currency) == currency
        ]
        changed = {"capital": capital, "flows": account.flows if k == 0 else None}
        given = SimpleNamespace(**{**vars(account), **changed, "collateral": listed})
        return Pool(own, targets, signals, venues, given, overlay, self.clock)

    def read_rates(self, markets: Mapping[str, Any]) -> None:
        """The price of each currency at opens (last) and at closes (mark)."""
        self.at_opens, self.at_closes = [[ONE] * len(self.clock)], [[ONE] * len(self.clock)]
        for given in self.account.rates.values():
            source = markets.get(given) if isinstance(given, str) else given
            if isinstance(given, float):
                self.at_opens.append([exact(given)] * len(self.clock))
                self.at_closes.append([exact(given)] * len(self.clock))
                continue
            rows = [list(source.time).index(stamp) for stamp in self.clock]
            self.at_opens.append(decimals(source.open[row] for row in rows))
            self.at_closes.append(decimals(source.mark_close[row] for row in rows))

    def opens(self, t: int) -> list[Decimal]:
        """The rates at an open."""
        return [each[t] for each in self.at_opens]

    def closes(self, t: int) -> list[Decimal]:
        """The rates at a close; before the first, those of the first open."""
        return self.opens(0) if t < 0 else [each[t] for each in self.at_closes]

    @staticmethod
    def worth(amounts: Sequence[Decimal], rates: Sequence[Decimal]) -> Decimal:
        """Money of all pools in the currency of the account."""
        return sum((a * x for a, x in zip(amounts, rates, strict=True)), ZERO)

    def run(self) -> Outcome:
        """Go through the bars."""
        for t in range(len(self.clock)):
            self.t, rates = t, self.opens(t)
            for pool in self.pools:
                pool.begin(t)
                pool.transferred = ZERO
            before = self.closes(t - 1)
            if self.pools[0].fills == "same_close" and t > 0:
                self.fill(before, Pool.fill_early)
            self.step_1(rates)
            for pool in self.pools:
                pool.pay_funding(pool.at_open[t])
                pool.step_3_interest()
                pool.step_4_gap_check()
            self.share_halt()
            if self.pools[0].fills in ("next_open", "limit"):
                self.fill(before if self.pools[0].fills == "limit" else rates, Pool.fill_pending)
            for pool in self.pools:
                pool.pay_funding(pool.inside[t])
                pool.step_7_walk()
            self.share_halt()
            self.fill(self.closes(t), Pool.fill_late)
            self.share_halt()
            self.close(rates, self.closes(t))
        return self.outcome()

    def share_halt(self) -> None:
        """A cross failure of one pool halts the account."""
        if any(pool.is_halted for pool in self.pools):
            for pool in self.pools:
                if not pool.is_halted:
                    pool.is_halted = True
                    for each in pool.positions:
                        each.pending = (0.0, 0.0) if each.pending else None

    # ----- fills -----

    def fill(self, rates: Sequence[Decimal], step: Callable[[Pool], None]) -> None:
        """Targets from the equity of all pools at these rates; orders cut by their own."""
        fills = self.pools[0].fills
        if self.t == 0 or (step is Pool.fill_late and fills != "next_close"):
            for pool in self.pools:
                step(pool)
            return
        at_close = self.pools[0].fills == "limit"
        own = [p.out.equity[-1] if at_close and p.t else p.equity(p.at_fills()) for p in self.pools]
        total = self.worth(own, rates)
        for pool, equity, rate in zip(self.pools, own, rates, strict=True):
            pool.elsewhere = (total - equity * rate) / rate
        for _ in range(2):
            sums = []
            for pool in self.pools:
                pool.try_orders()
                sums.append(pool.sums)
            self.tell_others(sums, rates)
        for pool in self.pools:
            step(pool)
            pool.elsewhere, pool.others = ZERO, (ZERO, ZERO, ZERO)

    def tell_others(self, sums: list[tuple[Decimal, ...]], rates: Sequence[Decimal]) -> None:
        """What the cap counts in other pools."""
        for k, pool in enumerate(self.pools):
            pool.others = tuple(
                sum(
                    (s[j] * x for i, (s, x) in enumerate(zip(sums, rates, strict=True)) if i != k),
                    ZERO,
                )
                / rates[k]
                for j in range(3)
            )

    # ----- step 1 -----

    def step_1(self, rates: Sequence[Decimal]) -> None:
        """Flows of the first pool, conversions, transfers, top-ups from one reserve."""
        first = self.pools[0]
        own = [pool.equity(pool.at("open")) for pool in self.pools]
        first.elsewhere = self.worth(own[1:], rates[1:])
        first.reserve = self.reserve
        for pool in self.pools:
            pool.take_flows()
        first.elsewhere = ZERO
        if self.account.transfers is not None:
            self.transfer(rates)
        for pool, rate in zip(self.pools, rates, strict=True):
            pool.reserve = self.reserve / rate
            pool.answer_calls()
            self.reserve = pool.reserve * rate

    def transfer(self, rates: Sequence[Decimal]) -> None:
        """Pools under their initial margin get what is missing from those above it."""
        cost, missing, spare = exact(self.account.transfer_cost), [], []
        for pool in self.pools:
            point = pool.at("open")
            room = pool.backing(point) - pool.initial(point)
            missing.append(-room if -room > TIE * pool.initial(point) else ZERO)
            limit = pool.negative_limit if pool.has_collateral else ZERO
            free = min(room - pool.uncounted(point), pool.balance() + limit)
            spare.append(max(free, ZERO))
        for k, pool in enumerate(self.pools):
            for g, giver in enumerate(self.pools):
                wanted = missing[k] * rates[k] / (ONE - cost)
                moved = min(wanted, spare[g] * rates[g]) if g != k else ZERO
                if moved <= 0:
                    continue
                giver.note("transferred")
                giver.cash -= moved / rates[g]
                giver.transferred -= moved / rates[g]
                spare[g] -= moved / rates[g]
                pool.transferred += moved / rates[k]
                pool.row["conversion"] += moved / rates[k] * cost
                pool.cash += moved / rates[k] * (ONE - cost)
                missing[k] -= moved / rates[k] * (ONE - cost)

    # ----- the close -----

    def close(self, opens: Sequence[Decimal], rates: Sequence[Decimal]) -> None:
        """Marks, what the currencies gained, ruin, the record."""
        points = [pool.at("close") for pool in self.pools]
        for pool, point, rate in zip(self.pools, points, rates, strict=True):
            pool.mark_close(point)
            pool.reserve = self.reserve / rate
            pool.negative_limit = exact(self.account.negative_limit or 0.0) / rate
        now = [p.equity(point) for p, point in zip(self.pools, points, strict=True)]
        gained = self.gain(now, opens, rates)
        earned = self.worth([pool.earned() for pool in self.pools], opens) + gained
        if (
            not self.pools[0].is_ruined
            and earned < 0
            and self.is_ruined(self.worth(now, rates), rates, now)
        ):
            held = [pool for pool in self.pools if pool.held]
            for pool, point in zip(self.pools, points, strict=True):
                pool.end_ruined(point)
                if pool not in held and (held or pool is not self.pools[0]):
                    pool.out.events.pop()  # it was flat: the event is the account's, and once
            now = [p.equity(point) for p, point in zip(self.pools, points, strict=True)]
            gained = self.gain(now, opens, rates)
        for pool, point in zip(self.pools, points, strict=True):
            pool.finish_close(point)
            pool.negative_limit = exact(self.account.negative_limit or 0.0)
        row = {
            name: self.worth([pool.row[name] for pool in self.pools], opens)
            for name in (*COSTS, *GAINS, "top_up", "traded")
        }
        equity = self.worth(now, rates)
        self.rows.append(
            row | {"equity": equity, "fx_pnl": gained, "reserve": self.reserve, "own": tuple(now)}
        )
        before = self.rows[-2]["equity"] if self.t else self.start
        causes = sum(row[name] for name in GAINS) - sum(row[name] for name in COSTS) + gained
        scale = max(abs(before), equity, row["traded"], ONE)
        assert abs(equity - before - causes) <= EXACT * scale * 10

    def gain(
        self, now: list[Decimal], opens: Sequence[Decimal], rates: Sequence[Decimal]
    ) -> Decimal:
        """The last equity from the last close to the open, and the equity now from there on."""
        before, last = (
            self.closes(self.t - 1),
            [pool.out.equity[-1] if self.t else pool.capital for pool in self.pools],
        )
        found = ZERO
        for k in range(len(self.pools)):
            found += last[k] * (opens[k] - before[k]) + now[k] * (rates[k] - opens[k])
        return found

    def is_ruined(self, equity: Decimal, rates: Sequence[Decimal], now: list[Decimal]) -> bool:
        """By the whole wealth; flat, where no pool affords an order."""
        paid_in, wealth = self.pools[0].paid_in, equity + self.reserve
        if equity <= NOTHING_LEFT * paid_in * (ONE + TIE):
            return True
        if wealth <= self.ruin_at * paid_in * (ONE + TIE):
            return True
        trading = [k for k, pool in enumerate(self.pools) if pool.present]
        if any(pool.held for pool in self.pools) or not trading:
            return False
        return all(self.pools[k].is_poor(now[k] + self.reserve / rates[k]) for k in trading)

    def outcome(self) -> Outcome:
        """The account as a whole; positions in the order given."""
        out = Outcome(self.names, self.start)
        for row in self.rows:
            for name, value in row.items():
                out.columns[name].append(value)
        places = [
            next(
                (k, i)
                for k, p in enumerate(self.pools)
                for i, e in enumerate(p.positions)
                if e.name == n
            )
            for n in self.names
        ]
        for name in ("quantity", "margin"):
            for t in range(len(self.clock)):
                cells = (self.pools[k].out.columns[name][t][i] for k, i in places)
                out.columns[name].append(tuple(cells))
        for pool in self.pools:
            out.paths.update(pool.out.paths)
            out.waits += pool.out.waits
            out.events += [Event(*event) for event in pool.out.events]
        return out

"""What a fund charges (§2.3): a management fee by time, a performance fee over the best so far."""

from datetime import UTC, datetime
from decimal import Decimal

from tests.oracle.numbers import DAY, ONE, ZERO, exact
from tests.oracle.orders import Orders


class Fund(Orders):
    """After step 3."""

    best_unit = unit = ONE  # at a date of the fee, and at the last close

    def charge_fund(self) -> None:
        """Both on the wealth of the last close, out of the cash; at most the equity is there."""
        account = self.account
        rates = [
            exact(getattr(account, f"{each}_fee", 0.0)) for each in ("management", "performance")
        ]
        if self.t == 0 or self.is_ruined or not any(rates):
            return
        wealth = self.out.equity[-1] + self.out.reserve[-1]
        if wealth <= 0:
            return
        since, left = self.clock[self.t - 1], max(self.equity(self.at("open")), ZERO)
        years = Decimal(self.stamp - since) / DAY / exact(self.venue.day_count)
        managed = min(rates[0] * years * wealth, left)
        performed = ZERO
        if self.period(self.stamp) != self.period(since) and rates[1] > 0:
            over = wealth - wealth * self.best_unit / self.unit - managed
            performed = min(rates[1] * max(over, ZERO), left - managed)
            after = self.unit * (wealth - managed - performed) / wealth
            self.best_unit = max(self.best_unit, after)
            self.note("performance fee" if performed > 0 else "no performance fee")
        self.cash -= managed + performed
        self.charge("management_fee", managed)
        self.charge("performance_fee", performed)
        if not self.cross and not self.has_collateral:
            self.margins_pay()

    def period(self, stamp: int) -> object:
        """The period of the performance fee in which an open lies."""
        every, day = getattr(self.account, "performance_every", "year"), stamp // DAY
        date = datetime.fromtimestamp(day * 86_400, UTC)
        periods = {
            "day": day,
            "week": (day + 3) // 7,
            "month": (date.year, date.month),
            "quarter": (date.year, (date.month - 1) // 3),
            "year": date.year,
        }
        return periods[every]

    def follow_unit(self) -> None:
        """§7: the unit value at a close, free of flows; of a wealth that is lost it stays."""
        before = (
            self.out.equity[-2] + self.out.reserve[-2]
            if self.t > 0
            else self.capital + exact(self.account.reserve)
        )
        paid = before + self.row["flows"] - self.row["top_up"]
        wealth = self.out.equity[-1] + self.out.reserve[-1]
        if paid > 0 and before > 0 and not self.is_ruined:
            self.unit *= wealth / paid

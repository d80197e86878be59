"""Portfolio insurance: risk only the equity above a floor."""

from typing import Annotated, ClassVar, NamedTuple

from backtest import AccountView, Bar, Policy, Promise, Range, math


class Floor(NamedTuple):
    """Equity at the first close, which the floor refers to; 0 before it is known."""

    base: float


class Cppi(Policy):
    """Hold a multiple of the cushion: the equity over a floor that grows or ratchets.

    L = max(0, m (E - F) / E) with F = max(floor E_0 (1 + growth)^years, ratchet M): E the equity,
    E_0 its value at the start, M its peak. A ratchet of 0 is plain CPPI; otherwise the floor
    follows the peak and never falls (TIPP). The floor holds as long as no bar falls by more than
    1 / m; a gap of size d > 1 / m takes the account ``(m d - 1) (E - F)`` below it. The floor is an
    amount of money, so a deposit adds to the cushion.
    Source: Black and Perold (1992), Theory of Constant Proportion Portfolio Insurance, J. Economic
    Dynamics and Control 16; Estep and Kritzman (1988), TIPP, J. Portfolio Management 14(4).
    """

    fails_when: ClassVar[str] = (
        "A gap larger than 1 / multiplier, which drops the account through the floor."
    )

    multiplier: Annotated[float, Range(1.0, 20.0, "x of the cushion", log=True)] = 3.0
    floor: Annotated[float, Range(0.0, 0.99, "of starting equity")] = 0.7
    growth: Annotated[float, Range(0.0, 0.5, "per year")] = 0.0
    ratchet: Annotated[float, Range(0.0, 0.99, "of peak equity")] = 0.0

    def promises(self) -> tuple[Promise, ...]:
        """Return the floor at the start, and the fall from the peak that a ratchet allows."""
        floor = Promise("equity above the floor", "lowest_unit", self.floor, 0.01, "at least")
        if self.ratchet == 0.0:
            return (floor,)

        largest = 1.0 - self.ratchet
        fall = Promise("drawdown above the ratchet", "max_drawdown", largest, 0.01)
        return (floor, fall)

    def start(self) -> Floor:
        """Return a memory that knows no equity yet."""
        return Floor(base=0.0)

    def leverage(self, bar: Bar, account: AccountView, memory: Floor) -> tuple[float, Floor]:
        """Return max(0, m (E - F) / E), and the equity at the first close.

        F = max(floor E_0 (1 + growth)^years, ratchet M), E_0 that equity and M its peak.
        """
        # E_0 is not known at the first close: it is the equity there.
        base = memory.base if memory.base > 0.0 else account.equity

        # F, the floor: it grows with time, or follows the peak.
        years = account.days / 365.0
        grown = self.floor * base * math.power(1.0 + self.growth, years)
        ratcheted = self.ratchet * account.peak_equity
        floor = max(grown, ratcheted)

        cushion = (account.equity - floor) / account.equity
        leverage = max(self.multiplier * cushion, 0.0)
        return leverage, Floor(base)

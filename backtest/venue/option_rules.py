"""Margin of options per option and by strategies, as rules of an account."""

from __future__ import annotations

from typing import Annotated

from backtest.base import Choice, Faults, Flag, declared
from backtest.base.fields import NOT_NEGATIVE, POSITIVE, SHARE
from backtest.venue.requirement_rule import MarginRule


@declared(kw_only=True)
class Standard(MarginRule):
    """Margin of each option by itself, as Deribit's and OKX's standard accounts.

    A short needs ``size (max(maintenance unit, of_mark mark) factor + mark)``, the part of the mark
    only of puts, and initially at least ``size (max(least, initial - otm / forward) factor unit +
    mark)``. The unit is 1 coin, or the index for options settled in cash. Longs need nothing. All
    other positions need what their brackets say.

    Parameters
    ----------
    initial, least, maintenance, of_mark, factor : float
        As above.
    option_value : str
        ``"none"``: no option value backs the account. ``"long"``: that of longs does.
    level : float
        The cross positions fail where what backs them is at most ``level`` times the requirement.
    """

    initial: Annotated[float, NOT_NEGATIVE]
    least: Annotated[float, NOT_NEGATIVE]
    maintenance: Annotated[float, NOT_NEGATIVE]
    of_mark: Annotated[float, NOT_NEGATIVE] = 0.0
    factor: Annotated[float, POSITIVE] = 1.0
    option_value: Annotated[str, Choice("none", "long")] = "none"

    def faults(self) -> Faults:
        """Yield an initial margin under that of maintenance."""
        if self.least < self.maintenance * min(1.0, self.level):
            rule = f"must be at least maintenance {self.maintenance:g}, or an order is liquidated "
            yield "least", f"{rule}at once"


@declared(kw_only=True)
class Strategy(MarginRule):
    """Margin of options by strategies: spreads, covered and naked options, as Regulation T.

    Shorts are paired with longs of the same kind that expire no earlier; pairs whose shorts expire
    together need the greatest loss of their common payoff over 0 and the strikes, without premiums.
    Others need ``mark + max(naked S - otm, least_call S)``, puts ``least_put K`` in its place. Of a
    naked call and a naked put, the larger counts, and the other's mark. A short that shares cover
    needs nothing besides what the shares need. The cheapest pairing counts.

    Parameters
    ----------
    naked, least_call, least_put : float
        As above: 0.2, 0.1, 0.1 for stocks, naked 0.15 for broad indices.
    covered_itm : bool
        Whether a short that shares cover needs the amount by which it is in the money: the shares
        then count no more than the strike.
    conversion : float
        What shares need for maintenance, as a fraction of the strike, where a short and a long
        option of one strike and expiry lock their price; 0: what their brackets say.
    loan_value : float
        The share of the mark of a long that backs the account if it expires after ``loan_days``,
        and no option of its kind is sold.
    loan_days : float
        As above.
    level : float
        The cross positions fail where what backs them is at most ``level`` times the requirement.
    """

    naked: Annotated[float, NOT_NEGATIVE] = 0.2
    least_call: Annotated[float, NOT_NEGATIVE] = 0.1
    least_put: Annotated[float, NOT_NEGATIVE] = 0.1
    covered_itm: Annotated[bool, Flag()] = True
    conversion: Annotated[float, NOT_NEGATIVE] = 0.1
    loan_value: Annotated[float, SHARE] = 0.25
    loan_days: Annotated[float, NOT_NEGATIVE] = 273.0


MarginRule.kinds["maintenance"] = Standard
MarginRule.kinds["naked"] = Strategy

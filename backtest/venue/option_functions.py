"""What options back, and the deposit that strategies ask for as brokers and manuals publish it."""

from __future__ import annotations

from backtest.base import ParameterError
from backtest.venue import cross_margin
from backtest.venue.option_account import list_given, make_option_account
from backtest.venue.option_contract import OptionPosition
from backtest.venue.option_rules import Strategy
from backtest.venue.option_strategies import compute_premiums
from backtest.venue.requirement_rule import MarginRule

REG_T = Strategy()


def strategy_deposit(
    venues: cross_margin.Venues,
    quantities: cross_margin.Numbers,
    prices: cross_margin.Numbers,
    rule: MarginRule | str = REG_T,
    *,
    options: cross_margin.Options,
    proceeds: bool = True,
) -> float:
    """Return what a strategy has to be deposited with when it is opened at its marks.

    It is the initial margin and, with ``proceeds``, what longs cost at their marks, less what the
    shorts that they cover bring and the loan value of longs. Naked shorts, and those that shares
    cover, are without their proceeds. Cboe's manual counts so; LEAN publishes the initial margin
    alone. The account itself uses the requirement.

    Parameters
    ----------
    venues, quantities, prices
        Shares, as in :func:`requirement`; ``{}`` without any. Those of the options' group cover
        shorts.
    rule : Strategy or str
        The rule, or the name of a preset of strategies.
    options : OptionPosition or sequence of them
        The options, settled in cash.
    proceeds : bool
        As above.

    Raises
    ------
    ParameterError
        If the rule is another one, or an argument is not as :func:`requirement` needs it.

    Examples
    --------
    >>> import backtest as bt
    >>> def leg(strike, quantity, mark):
    ...     call = bt.Option(kind="call", strike=strike, expiry="2026-06-19", size=100,
    ...                      underlying="XYZ")
    ...     return bt.OptionPosition(call, quantity, index=550, at="2026-06-01", mark=mark)
    >>> butterfly = [leg(545, 1, 12.4), leg(550, -2, 8.8), leg(565, 1, 2.0)]
    >>> round(bt.margin.strategy_deposit({}, {}, {}, options=butterfly), 6)
    680.0
    >>> bt.margin.strategy_deposit({}, {}, {}, options=butterfly, proceeds=False)
    1000.0
    """
    found = cross_margin.read_rule(rule)
    priced = cross_margin.read_positions(venues, quantities, prices)
    account = cross_margin.read_options(found, priced, options)
    if account is None or not isinstance(account.rule, Strategy):
        got = "no options" if account is None else type(found).__name__
        raise ParameterError(f"a deposit is of options under a bt.Strategy, got {got}")
    bound = cross_margin.bind(found, priced, (), None, None)
    packed, held = bound.value(priced.quantities, priced.prices)
    needed = account.requirement(packed, held, is_initial=True)
    if not proceeds:
        return needed
    premiums = compute_premiums(packed, held, account.options, account.rules)
    return float(needed + premiums - account.counted_value())


def option_value(options: cross_margin.Options, rule: MarginRule | str) -> float:
    """Return what options add to the backing of an account under a rule, at their marks.

    Under portfolio margin that is the value of all options, of shorts negative. :class:`Standard`
    counts what its ``option_value`` says, :class:`Strategy` the loan value of longs.

    Parameters
    ----------
    options : OptionPosition or sequence of them
        The options.
    rule : MarginRule or str
        The rule, or the name of a preset.

    Returns
    -------
    float
        In the settlement currency.

    Raises
    ------
    ParameterError
        If the rule does not margin options, or they do not fit it.

    Examples
    --------
    >>> import backtest as bt
    >>> put = bt.OptionPosition("BTC-26JUN26-50000-P", 2, 60_000, "2026-05-27", mark=0.01)
    >>> rule = bt.Standard(initial=0.15, least=0.1, maintenance=0.075)
    >>> bt.margin.option_value(put, rule)
    0.0
    >>> bt.margin.option_value(put, rule.override(option_value="long"))
    0.02
    """
    listed = list_given("options", options, OptionPosition)
    if not listed:
        return 0.0
    return make_option_account(listed, cross_margin.read_rule(rule), {}).counted_value()

"""Numbers as text: every percentage, price, amount and duration that is printed or reported.

NaN is written ``n/a`` throughout. Percentages and basis points have a space before their unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from backtest.base.units import HOUR

NOT_AVAILABLE = "n/a"
DIGITS = (6, 9, 12, 17)
"""Significant digits tried, in turn, to show that two numbers differ."""


def format_number(value: float) -> str:
    """Format a plain number with two decimals.

    Examples
    --------
    >>> format_number(1234.567), format_number(float("nan"))
    ('1,234.57', 'n/a')
    """
    return NOT_AVAILABLE if math.isnan(value) else f"{value:,.2f}"


def format_signed(value: float) -> str:
    """Format a number with its sign and two decimals.

    Examples
    --------
    >>> format_signed(0.5), format_signed(-0.5)
    ('+0.50', '-0.50')
    """
    return NOT_AVAILABLE if math.isnan(value) else f"{value:+.2f}"


def format_percent(fraction: float, decimals: int = 2, *, is_signed: bool = False) -> str:
    """Format a fraction as a percentage, with a plus sign where ``is_signed``.

    Examples
    --------
    >>> format_percent(-0.1234), format_percent(0.00012, 3), format_percent(float("nan"))
    ('-12.34 %', '0.012 %', 'n/a')
    """
    if math.isnan(fraction):
        return NOT_AVAILABLE
    return f"{100.0 * fraction + 0.0:{'+' * is_signed},.{decimals}f} %"


def format_probability(probability: float) -> str:
    """Format a probability with two decimals, rounded down: 0.9499 must not read as 0.95.

    Examples
    --------
    >>> format_probability(0.9499), format_probability(0.95), format_probability(0.0)
    ('0.94', '0.95', '0.00')
    """
    if math.isnan(probability):
        return NOT_AVAILABLE
    return f"{math.floor(100.0 * probability + 1e-9) / 100.0:.2f}"


def format_bps(rate: float) -> str:
    """Format a fraction in basis points.

    Examples
    --------
    >>> format_bps(0.0005)
    '5 bp'
    """
    return f"{round(1e4 * rate, 6):g} bp"


def format_leverage(turns: float) -> str:
    """Format a leverage.

    Examples
    --------
    >>> format_leverage(2.207), format_leverage(0.0034)
    ('2.21x', '0.0034x')
    """
    return f"{turns:.2f}x" if abs(turns) >= 0.1 or turns == 0.0 else f"{turns:.2g}x"


def format_price(price: float) -> str:
    """Format a price: two decimals from 1,000 on, six significant digits below.

    Examples
    --------
    >>> format_price(24103.456), format_price(0.00123456)
    ('24,103.46', '0.00123456')
    """
    return f"{price:,.2f}" if abs(price) >= 1000.0 else f"{price:.6g}"


def format_price_at_tick(price: float, tick: float) -> str:
    """Format a price with as many decimals as its tick has; NaN is ``none``.

    Examples
    --------
    >>> format_price_at_tick(27108.4337, 0.1), format_price_at_tick(1e-6, 1e-8)
    ('27,108.4', '0.00000100')
    """
    if math.isnan(price):
        return "none"
    return f"{price:,.{max(0, math.ceil(-math.log10(tick) - 1e-9))}f}"


def format_money(amount: float) -> str:
    """Format an amount: two decimals from 10 on, six significant digits for fractions of a coin.

    Examples
    --------
    >>> format_money(12345.678), format_money(0.0123456)
    ('12,345.68', '0.0123456')
    """
    if math.isnan(amount):
        return NOT_AVAILABLE
    return f"{amount:,.2f}" if abs(amount) >= 10.0 or amount == 0.0 else f"{amount:,.6g}"


def format_value(value: object) -> str:
    """Format the value of a parameter: four significant digits for floats, ``none`` for None.

    Examples
    --------
    >>> format_value(0.123456), format_value(24), format_value("linear"), format_value(None)
    ('0.1235', '24', 'linear', 'none')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value is None else str(value)


def format_setting(value: object) -> str:
    """Format a field of a venue or an account as ``to_dict`` stores it: a number, text or series.

    Examples
    --------
    >>> format_setting(1e-05), format_setting({"time": ["2021-05-19T00:00:00Z"], "value": [0.1]})
    ('1e-05', 'a series of 1 values')
    """
    if isinstance(value, Mapping):
        return f"a series of {len(value.get('value', ())):,} values"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:,.10g}" if is_number else str(value)


def format_magnitude(value: float) -> str:
    """Format a round number with k, M and B for thousands, millions and billions.

    Examples
    --------
    >>> format_magnitude(20_000.0), format_magnitude(0.5)
    ('20k', '0.5')
    """
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def format_days(days: float) -> str:
    """Format a number of days, with a decimal below 100; infinity is ``never``.

    Examples
    --------
    >>> format_days(3.25), format_days(1200.0), format_days(float("inf"))
    ('3.2', '1,200', 'never')
    """
    if math.isnan(days):
        return NOT_AVAILABLE
    if math.isinf(days):
        return "never"
    return f"{days:,.1f}" if days < 100.0 else f"{days:,.0f}"


def format_hours(nanoseconds: float) -> str:
    """Format a length of time in hours, or in days from 48 hours on.

    Examples
    --------
    >>> format_hours(72 * HOUR / 60), format_hours(72 * 24 * HOUR)
    ('1.2 h', '72 d')
    """
    hours = nanoseconds / HOUR
    return f"{hours:.3g} h" if hours < 48.0 else f"{hours / 24.0:.4g} d"


def format_clock(seconds: float) -> str:
    """Format a length of time in hours, minutes and seconds.

    Examples
    --------
    >>> format_clock(3725.0), format_clock(5.0)
    ('1:02:05', '0:05')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def format_pair(one: float, other: float) -> tuple[str, str]:
    """Format two numbers with as many digits as it takes to show that they differ.

    Examples
    --------
    >>> format_pair(0.5, 0.25), format_pair(1.0, 1.0000001)
    (('0.5', '0.25'), ('1', '1.0000001'))
    """
    for digits in DIGITS:
        texts = f"{one:,.{digits}g}", f"{other:,.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts


def format_change(before: float, after: float) -> str:
    """Format the change of a number: in percent, or absolute if it was 0; empty if undefined.

    Examples
    --------
    >>> format_change(2.0, 1.9), format_change(0.0, 0.5), format_change(math.nan, 1.0)
    ('-5 %', '+0.5', '')
    """
    if not (math.isfinite(before) and math.isfinite(after)):
        return ""
    if before == 0.0:
        return f"{after:+.3g}"
    return f"{(after - before) / abs(before) * 100.0:+.3g} %"

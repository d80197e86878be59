"""A venue's rules: contract, brackets, fees, margin, liquidation price, and funding formula.

The dated tables of real venues lie in ``presets/``.
"""

from backtest.venue.brackets import Bracket
from backtest.venue.requirement import LEVELS, MarginRules
from backtest.venue.venue import Venue

__all__ = [
    "LEVELS",
    "Bracket",
    "MarginRules",
    "Venue",
]

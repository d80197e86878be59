"""The policies, one per file: a formula, its parameters, its source."""

from strategies.constant import Constant
from strategies.cppi import Cppi
from strategies.sharpe_scaling import SharpeScaling
from strategies.vol_target import VolTarget

__all__ = ["Constant", "Cppi", "SharpeScaling", "VolTarget"]

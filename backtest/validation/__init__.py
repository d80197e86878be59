"""Validate a way of choosing parameters: walk-forward and cross-validation."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.validation.cross_validate import cross_validate
    from backtest.validation.cross_validate import CrossValidation
    from backtest.validation.validation import folds
    from backtest.validation.validation import ACCOUNTS, read_figures
    from backtest.validation.walk_forward import WalkForward
    from backtest.validation.walk_forward import walk_forward

RESULTS = ("CrossValidation", "WalkForward")

open_door(__name__)

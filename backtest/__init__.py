"""Backtest leverage policies on historical prices and funding rates.

``bt.run(market, policy, venue=venue, account=account)`` takes an account through a market and
returns what it lived through: fees, funding, interest, margin calls, liquidations, bad debt.
"""

import gc
import sys
import warnings
from types import ModuleType
from typing import TYPE_CHECKING

# isort: off
from backtest.base import early_interrupt as early_interrupt  # before all that takes time
# isort: on

if early_interrupt.is_command():
    gc.disable()  # collecting what imports keep takes a tenth of a short command

from backtest import measures
from backtest.account import Account, Multiple
from backtest.account.leverage_limits import leverage_limit
from backtest.base import public_math as math
from backtest.base.errors import (
    AccountingError,
    BacktestError,
    BandWarning,
    DataError,
    InfiniteLeverageWarning,
    LastPriceWarning,
    NoFillWarning,
    ParameterError,
    PolicyError,
    VenueDateWarning,
    VenueError,
    WeightWarning,
)
from backtest.base.later_import import import_at_first_use
from backtest.base.ranges import Choice, Range
from backtest.engine import Result, signals
from backtest.engine.run import run
from backtest.features import margin_rules
from backtest.market import Market, Markets, PanelQuality, Quality, quality
from backtest.policy import Columns, Combinator, Policy
from backtest.policy.combinators import held_leverage
from backtest.policy.policy import Bar
from backtest.policy.view import AccountView
from backtest.venue import Bracket, Venue, funding, margin
from backtest.venue.collateral import Collateral
from backtest.venue.dated_tables import Earlier, InForce
from backtest.venue.fee_tiers import FeeTier
from backtest.venue.lending import RateCurve
from backtest.venue.margin_presets import MarginPreset, PresetMargin, margin_preset
from backtest.venue.multipliers import OpenInterestMargin
from backtest.venue.requirement_rule import Brackets, RequirementRule
from backtest.venue.scenario_margin import ScenarioMargin
from backtest.venue.venue import Contract, Fees, Liquidation, Slippage

if TYPE_CHECKING:
    from backtest import allocate, options, paths
    from backtest.compare import Comparison, compare
    from backtest.crowd import (
        Cascade,
        Counterparty,
        Crowd,
        Crowding,
        Linear,
        SimulatedMarket,
        SquareRoot,
        agents,
        cascade,
        crowding,
        simulate_market,
    )
    from backtest.features.book_calculator import BookCalculation, calculate_book
    from backtest.features.liquidation_calculator import Calculation, calculate_liquidation
    from backtest.live import AccountSnapshot, decide, read_fills, replay
    from backtest.market.import_market import import_market
    from backtest.options import Chain, Surface, Surfaces
    from backtest.paths import (
        LiquidationRisk,
        MaxLeverage,
        Paths,
        liquidation_risk,
        max_leverage,
        simulate_paths,
    )
    from backtest.pockets import Allocation, AllocationResult, Pocket, Runway, Spending, runway
    from backtest.scenarios import (
        Bounds,
        Capacity,
        Scenario,
        Sensitivity,
        Stress,
        bounds,
        capacity,
        crashes,
        sensitivity,
        stress,
    )
    from backtest.sweep import Sweep
    from backtest.sweep.sweep import sweep
    from backtest.tune import Robustness, Study, tune
    from backtest.validation.cross_validate import cross_validate
    from backtest.validation.cross_validation import CrossValidation
    from backtest.validation.folds import Folds, folds
    from backtest.validation.schedule_search import schedules
    from backtest.validation.schedules import Schedules
    from backtest.validation.walk import WalkForward
    from backtest.validation.walk_forward import walk_forward

    strategies: ModuleType
else:
    LATER = {
        "backtest": ("allocate", "options", "paths", "strategies"),
        "backtest.compare": ("Comparison", "compare"),
        "backtest.crowd": (
            "Cascade", "Counterparty", "Crowd", "Crowding", "Linear", "SimulatedMarket",
            "SquareRoot", "agents", "cascade", "crowding", "simulate_market",
        ),
        "backtest.features.book_calculator": ("BookCalculation", "calculate_book"),
        "backtest.features.liquidation_calculator": ("Calculation", "calculate_liquidation"),
        "backtest.live": ("AccountSnapshot", "decide", "read_fills", "replay"),
        "backtest.market.import_market": ("import_market",),
        "backtest.options": ("Chain", "Surface", "Surfaces"),
        "backtest.paths": (
            "LiquidationRisk", "MaxLeverage", "Paths", "liquidation_risk",
            "max_leverage", "simulate_paths",
        ),
        "backtest.pockets": (
            "Allocation", "AllocationResult", "Pocket", "Runway", "Spending", "runway",
        ),
        "backtest.scenarios": (
            "Bounds", "Capacity", "Scenario", "Sensitivity", "Stress", "bounds",
            "capacity", "crashes", "sensitivity", "stress",
        ),
        "backtest.sweep": ("Sweep",),
        "backtest.sweep.sweep": ("sweep",),
        "backtest.tune": ("Robustness", "Study", "tune"),
        "backtest.validation.cross_validate": ("cross_validate",),
        "backtest.validation.cross_validation": ("CrossValidation",),
        "backtest.validation.folds": ("Folds", "folds"),
        "backtest.validation.schedule_search": ("schedules",),
        "backtest.validation.schedules": ("Schedules",),
        "backtest.validation.walk": ("WalkForward",),
        "backtest.validation.walk_forward": ("walk_forward",),
    }  # fmt: skip
    """What is imported at its first use, by module: most programs need little of it."""
    RENAMED = {"PanelPaths": "Paths", "PortfolioResult": "Result"}
    find_later = import_at_first_use(__name__, LATER)

    def __getattr__(name: str) -> object:
        """Import a name at its first use, and warn of former names."""
        if name not in RENAMED:
            return find_later(name)
        warnings.warn(
            f"bt.{name} is bt.{RENAMED[name]} since one instrument and several share a class; "
            "the name goes in the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(sys.modules[__name__], RENAMED[name])

    def __dir__() -> list[str]:
        """Return the public names, imported or not."""
        return sorted({*globals(), *__all__})

    class Package(ModuleType):
        """The package, in which the functions compare, sweep and tune hide wings of their name."""

        def __setattr__(self, name: str, value: object) -> None:
            """Set a name; ignore the wing that an import assigns to one of the functions."""
            if not (isinstance(value, ModuleType) and name in ("compare", "sweep", "tune")):
                super().__setattr__(name, value)

    sys.modules[__name__].__class__ = Package


__all__ = [
    "Account",
    "AccountSnapshot",
    "AccountView",
    "AccountingError",
    "Allocation",
    "AllocationResult",
    "BacktestError",
    "BandWarning",
    "Bar",
    "BookCalculation",
    "Bounds",
    "Bracket",
    "Brackets",
    "Calculation",
    "Capacity",
    "Cascade",
    "Chain",
    "Choice",
    "Collateral",
    "Columns",
    "Combinator",
    "Comparison",
    "Contract",
    "Counterparty",
    "CrossValidation",
    "Crowd",
    "Crowding",
    "DataError",
    "Earlier",
    "FeeTier",
    "Fees",
    "Folds",
    "InForce",
    "InfiniteLeverageWarning",
    "LastPriceWarning",
    "Linear",
    "Liquidation",
    "LiquidationRisk",
    "MarginPreset",
    "Market",
    "Markets",
    "MaxLeverage",
    "Multiple",
    "NoFillWarning",
    "OpenInterestMargin",
    "PanelQuality",
    "ParameterError",
    "Paths",
    "Pocket",
    "Policy",
    "PolicyError",
    "PresetMargin",
    "Quality",
    "Range",
    "RateCurve",
    "RequirementRule",
    "Result",
    "Robustness",
    "Runway",
    "Scenario",
    "ScenarioMargin",
    "Schedules",
    "Sensitivity",
    "SimulatedMarket",
    "Slippage",
    "Spending",
    "SquareRoot",
    "Stress",
    "Study",
    "Surface",
    "Surfaces",
    "Sweep",
    "Venue",
    "VenueDateWarning",
    "VenueError",
    "WalkForward",
    "WeightWarning",
    "agents",
    "allocate",
    "bounds",
    "calculate_book",
    "calculate_liquidation",
    "capacity",
    "cascade",
    "compare",
    "crashes",
    "cross_validate",
    "crowding",
    "decide",
    "folds",
    "funding",
    "held_leverage",
    "import_market",
    "leverage_limit",
    "liquidation_risk",
    "margin",
    "margin_preset",
    "margin_rules",
    "math",
    "max_leverage",
    "measures",
    "options",
    "paths",
    "quality",
    "read_fills",
    "replay",
    "run",
    "runway",
    "schedules",
    "sensitivity",
    "signals",
    "simulate_market",
    "simulate_paths",
    "stress",
    "sweep",
    "tune",
    "walk_forward",
]

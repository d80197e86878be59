"""Market data: bars, mark prices, and funding, read, checked, aligned, and repaired on request.

``Market`` is what the rest of the package reads, ``Markets`` several of them on one clock.
``import_market`` and ``quality`` make one from files and judge what it is fit for; ``fetch``
downloads files.
"""

from backtest.market.inspect.quality_report import Quality
from backtest.market.market import Market
from backtest.market.market_quality import quality
from backtest.market.markets import Markets, as_given, as_markets
from backtest.market.panel_quality import PanelQuality

__all__ = [
    "Market",
    "Markets",
    "PanelQuality",
    "Quality",
    "as_given",
    "as_markets",
    "quality",
]

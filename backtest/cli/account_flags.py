"""The fields of the account that have a flag of their own, with the text of their help."""

from __future__ import annotations

ACCOUNT_FLAGS = {
    "capital": "Money at the start (10000).",
    "margin": "'cross' (default) or 'isolated'.",
    "venue_leverage": "Leverage set at the venue (cross margin: as needed).",
    "min_leverage": "Lowest leverage that the policy may ask for.",
    "max_leverage": "Highest leverage that the policy may ask for, or a preset: esma-crypto.",
    "band": "Do not trade within this many turns of leverage of the target.",
    "stop_loss": "Close at a loss of this fraction of the entry price, or 2*atr (a column).",
    "margin_call": "Margin ratio that triggers a margin call.",
    "reserve": "Money outside the account, for top-ups.",
    "top_up_to": "Margin ratio after a top-up.",
    "after_liquidation": "'continue' (default) or 'halt'.",
    "ruin_at": "The account is ruined at or below this share of the capital paid in.",
    "auto_margin": "Add margin from the wallet before a liquidation (isolated margin).",
    "fill": "When decisions fill: 'next_open' (default), 'next_close', 'same_close' or 'limit'.",
    "offset": "With --fill limit: how far limits are from the close, a fraction of the price.",
    "closing": "With --fill limit: closings and reductions at the 'market' (default) or 'limit'.",
    "take_profit": "Close at a profit of this fraction of the entry price, or 2*atr.",
    "trailing_stop": "Close at this fraction below the best price, or 2*atr.",
    "equity_stop": "Close at this fraction below the highest equity.",
    "max_holding": "Close a position held this long at the next open, as 7d.",
    "management_fee": "Fee of a fund per year, as a fraction of its wealth.",
    "performance_fee": "Fee of a fund on new highs, as a fraction of the gain.",
    "performance_every": "When the performance fee is due, from 'day' to 'year' (default).",
    "intrabar": "Several positions: prices inside a bar, 'path' (default) or 'worst'.",
    "max_gross_leverage": "Several positions: cap on gross leverage at fills.",
    "max_overlay": "Highest leverage that an overlay may return.",
    "negative_limit": "Debt at which collateral is sold.",
}

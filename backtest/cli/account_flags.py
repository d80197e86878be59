"""The fields of the account that have a flag of their own, with the text of their help."""

from __future__ import annotations

ACCOUNT_FLAGS = {
    "capital": "Money at the start (10000).",
    "margin": "'cross' (default) or 'isolated'.",
    "venue_leverage": "The leverage set at the venue; cross: as needed.",
    "min_leverage": "Least leverage that the policy may ask for.",
    "max_leverage": "Most leverage that the policy may ask for, or a preset by date: esma-crypto.",
    "band": "No trade within this many turns of the target.",
    "stop_loss": "Close this fraction of the entry price against it, or 2*atr of a column.",
    "margin_call": "Margin ratio of a margin call.",
    "reserve": "Money outside the account, for top-ups.",
    "top_up_to": "Margin ratio after a top-up.",
    "after_liquidation": "'continue' (default) or 'halt'.",
    "ruin_at": "Ruined at or under this share of the capital paid in.",
    "auto_margin": "The wallet adds margin before a liquidation (isolated).",
    "fill": "When decisions fill: 'next_open' (default), 'next_close' or 'same_close'.",
    "take_profit": "Close this fraction of the entry price in favor, or 2*atr of a column.",
    "trailing_stop": "Close this fraction under the best price, or 2*atr of a column.",
    "equity_stop": "Close at this fraction under the highest equity.",
    "intrabar": "Prices inside a bar, of several positions: 'path' (default) or 'worst'.",
    "max_gross_leverage": "Most gross leverage of several positions together.",
    "max_overlay": "Most leverage that an overlay may give.",
    "negative_limit": "Balance under 0 at which collateral is sold.",
}

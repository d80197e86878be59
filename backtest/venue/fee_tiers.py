"""Fee tiers: the rates that an account pays by its own traded volume of the last 30 days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from backtest.base import Number, ParameterError, Value
from backtest.base.fields import COST, POSITIVE

MAKER = Number(-1, 1, open_low=True, open_high=True)


@dataclass(frozen=True, eq=False, repr=False)
class FeeTier(Value):
    """The fees from a traded volume on.

    Parameters
    ----------
    volume : float
        Notional that the account has traded in the last 30 UTC days without the current one, in the
        settlement currency, from which the tier holds.
    taker, maker : float
        Its fee rates, per unit of notional; a negative maker rate is a rebate.
    """

    volume: Annotated[float, POSITIVE]
    taker: Annotated[float, COST]
    maker: Annotated[float, MAKER]


def check_tiers(tiers: Sequence[FeeTier]) -> tuple[FeeTier, ...]:
    where = "Fees.tiers"
    is_list = isinstance(tiers, Sequence) and not isinstance(tiers, str)
    if not is_list or not all(isinstance(tier, FeeTier) for tier in tiers):
        raise ParameterError(
            f"tiers must be a list of FeeTier, got {tiers!r:.80}",
            where=where,
            cure="give tiers=[bt.FeeTier(volume, taker, maker), ...], or leave tiers out",
        )
    for before, tier in pairwise(tiers):
        if not before.volume < tier.volume:
            raise ParameterError(
                f"the volumes of tiers must rise, got {tier.volume:.12g} after "
                f"{before.volume:.12g}",
                where=where,
                cure="sort the tiers by volume, one for each volume",
            )
    return tuple(tiers)


def check_close_fee(tiers: Sequence[FeeTier], *, includes_close_fee: bool) -> None:
    if tiers and includes_close_fee:
        raise ParameterError(
            "tiers must be left out where includes_close_fee is True: the requirement needs one "
            f"taker rate, got {len(tiers)} tiers",
            where="Venue.fees",
            cure="give the rates of your own tier as taker and maker, without tiers",
        )

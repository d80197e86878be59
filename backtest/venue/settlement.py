"""The settlement currency of instruments that share one balance: it must be one for all."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from backtest.base import ParameterError, find_coin, find_currency
from backtest.venue.trading_terms import Contract


def agree_settlement(
    contracts: Mapping[str, Contract],
    *,
    said: Mapping[str, Collection[str]] | None = None,
    given: str = "",
) -> str:
    """Return the currency in which all contracts settle, empty if it is unknown.

    Parameters
    ----------
    contracts : mapping of str to Contract
        By the name of the instrument.
    said : mapping of str to collection of str, optional
        Other names of each instrument; what the first of them says is taken before the key.
    given : str
        The currency that the caller gives for all, empty if none. It takes the place of what the
        names of linear contracts say, and must be the one that the contracts declare, or that the
        names of inverse contracts say.

    Raises
    ------
    ParameterError
        If two settle in different currencies; or if one of several is inverse, and the currency of
        one is unknown.
    """
    found = {
        name: _find_settlement(contract, (*(said or {}).get(name, ()), name), given)
        for name, contract in contracts.items()
    }
    known = {name: currency for name, currency in found.items() if currency}
    inverse = next((name for name, each in contracts.items() if each.kind == "inverse"), None)
    first = next(iter(known), "")
    for name, currency in known.items():
        if currency != known[first]:
            one = f"venue.override({{'contract.settles': {known[first]!r}}})"
            cure = "" if inverse else f"; to count the two as one, give {name!r} {one}"
            raise ParameterError(
                f"venue: the positions of one account must settle in one currency, got "
                f"{known[first]} for {first!r} and {currency} for {name!r}; give each currency an "
                f"account of its own{cure}"
            )
    unknown = next((name for name in contracts if name not in known), None)
    if len(contracts) > 1 and inverse is not None and unknown is not None:
        raise ParameterError(
            "venue: positions beside an inverse contract must have a known settlement currency, "
            f"got none for {unknown!r} beside {inverse!r}; "
            "venue.override({'contract.settles': 'BTC'}) gives it"
        )
    if given and known and given != known[first]:
        raise ParameterError(
            f"currency of the markets must be that in which their venues settle, got {given!r} and "
            f"{known[first]!r} for {first!r}"
        )
    return known.get(first, given)


def check_names_agree(
    contracts: Mapping[str, Contract], said: Mapping[str, Collection[str]]
) -> None:
    """Refuse a contract that declares another currency than the names of its market say."""
    for name, contract in contracts.items():
        is_inverse = contract.kind == "inverse"
        names = (*said.get(name, ()), name)
        found = _read_names(names, is_inverse=is_inverse)
        if is_inverse and not found:  # it settles in the coin that its name quotes
            found = next(filter(None, map(find_coin, names)), "")
        if contract.settles is not None and found not in ("", contract.settles):
            raise ParameterError(
                f"venue: a market must be in the currency in which its venue settles, got {found} "
                f"by the name of {name!r} and {contract.settles} of its venue; to count the two "
                f"as one, give bt.Markets(..., currency={contract.settles!r})"
            )


def _find_settlement(contract: Contract, names: Collection[str], given: str) -> str:
    """Return the currency that a contract declares, or else the caller or its names say."""
    is_inverse = contract.kind == "inverse"
    said = _read_names(names, is_inverse=is_inverse)
    return contract.settles or (said or given if is_inverse else given or said)


def _read_names(names: Collection[str], *, is_inverse: bool) -> str:
    """Return the currency that the first name that says one says, empty if none does."""
    return next(filter(None, (find_currency(name, is_inverse=is_inverse) for name in names)), "")

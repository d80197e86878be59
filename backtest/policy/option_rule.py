"""Rules that trade options beside the leverage of another policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

from backtest.base import PolicyError
from backtest.policy.combinators import Combinator
from backtest.policy.policy import trades_options

OptionOrders: TypeAlias = Mapping[str, tuple[str, float]]


class OptionRule(Combinator):
    """A rule that trades options, over the policy that sets the leverage.

    A subclass defines ``orders(self, bar, account, chain)``, which returns what ``option_orders``
    of a policy does. Orders of the policy inside are kept, so that rules can be stacked.

    Attributes
    ----------
    only_rolls : bool
        Whether ``orders`` is empty where ``chain.roll`` returns nothing. Such a rule is asked only
        at the closes at which a roll may be due, which is faster. It does not hold for a subclass
        that defines ``orders`` anew, unless that says so too.
    factors : tuple of str
        Names of parameters that multiply the quantities, such as a budget: if one of them is 0,
        the rule orders nothing. With ``only_rolls`` it is then asked only until it holds nothing.
        A subclass that defines ``orders`` anew says this anew, as it does ``only_rolls``.
    """

    only_rolls: ClassVar[bool] = False
    factors: ClassVar[tuple[str, ...]] = ()

    def combine(self, bar: Any, account: Any, asked: tuple[float, ...]) -> float:  # noqa: ARG002 - the signature of a formula
        """Return what the policy asks."""
        return asked[0]

    def option_orders(self, bar: Any, account: Any, chain: Any) -> OptionOrders:
        """Return the orders of the policy inside, and those of the rule."""
        own = self.orders(bar, account, chain)
        if not any(trades_options(part.policy) for part in self.parts):
            return own
        for part, policy in zip(self.parts, self.policies, strict=True):
            if not trades_options(part.policy):
                continue
            inner: Any = policy
            found = inner.option_orders(PartBar(bar, part.name), account, chain)
            twice = sorted(found.keys() & own.keys())
            if twice:
                raise PolicyError(
                    f"legs of one position must have different names, {type(self).__name__} and "
                    f"the policy inside both order {twice[0]!r}"
                )
            own = {**found, **own}
        return own

    def orders(self, *_: Any, **__: Any) -> OptionOrders:
        """Return the orders of the rule.

        A subclass takes ``(self, bar, account, chain)``.
        """
        raise PolicyError(
            f"a rule that trades options must define orders, {type(self).__name__} does not; add "
            'def orders(self, bar, account, chain): return {"put": (contract, 1.0)}'
        )


class PartBar:
    def __init__(self, bar: Any, part: str) -> None:
        self.bar, self.part = bar, part

    def __getattr__(self, name: str) -> Any:
        own = f"{self.part}__{name}"
        return getattr(self.bar, own if hasattr(self.bar, own) else name)


def orders_at_rolls(policy: Any) -> bool:
    cls = policy if isinstance(policy, type) else type(policy)
    inner = [part.policy for part in getattr(cls, "parts", ()) if trades_options(part.policy)]
    return bool(find_stated(cls, "only_rolls")) and all(map(orders_at_rolls, inner))


def trades_nothing(policy: Any) -> bool:
    inner = [each for each in getattr(policy, "policies", ()) if trades_options(each)]
    is_zero = any(getattr(policy, name) == 0.0 for name in find_stated(type(policy), "factors"))
    return is_zero and all(map(trades_nothing, inner))


def find_stated(cls: type, name: str) -> Any:
    for base in cls.__mro__:
        own = vars(base)
        if name in own:
            return own[name]
        if "orders" in own or "option_orders" in own:
            break
    return getattr(OptionRule, name)

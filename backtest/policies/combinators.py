"""Combinators: policies made of other policies, and rules that trade options over one."""

from __future__ import annotations

import copy
import copyreg
import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType, SimpleNamespace
from typing import Annotated, Any, ClassVar, TypeAlias

from backtest._compile.bytecode import rewrite_formula
from backtest.core import ParameterError, PolicyError, checked, count_nouns
from backtest.policies import policy as p
from backtest.policies.combined_parts import (
    CombinedPart,
    FormulaWriter,
    choose_lower,
    name_tuple,
    observe_parts,
    start_parts,
)
from backtest.policies.parameters import Parameter, format_title, write_value
from backtest.policies.policy import Policy


class CombinatorClass(type):
    """The class of combinators: one over some policies is pickled as what it is made of."""

    written: type[Combinator]
    parts: tuple[CombinedPart, ...]


def reduce_class(cls: CombinatorClass) -> str | tuple[Any, ...]:
    """Return how a class is pickled: by name, or as the combinator over its policies."""
    if not cls.parts:
        return cls.__qualname__
    policies = tuple(part.policy for part in cls.parts)
    return operator.methodcaller("over", *policies), (cls.written,)


copyreg.pickle(CombinatorClass, reduce_class)


class Combinator(Policy, metaclass=CombinatorClass):
    """A policy over other policies, which come first: ``Capped(VolTarget(target=0.6), cap=3.0)``.

    A subclass declares its own parameters as any policy does. ``takes`` is the least and the
    largest number of policies. Instead of ``leverage`` it defines ``combine(self, bar, account,
    asked)``, where ``asked`` is the tuple of the leverages that the policies return (NaN: keep the
    position unchanged). A combinator with memory also defines ``start``, and takes and returns the
    memory: ``combine(self, bar, account, asked, memory) -> (leverage, memory)``. Its own columns
    are on the bar under their names, those of its policies under ``policy__column``.

    A combinator keeps the ``venue_leverage`` of its policies: the lowest where several answer.
    ParameterError is raised if it is given too few policies or too many.
    """

    takes: ClassVar[tuple[int, float]] = (1, 1)
    only_lowers: ClassVar[bool] = False
    """Whether it never asks for more than each of its policies, whose limits then hold for it."""
    parts: ClassVar[tuple[CombinedPart, ...]] = ()
    written: ClassVar[type[Combinator]]
    """The class that the user wrote, which has no parts."""

    def __new__(cls, *args: object, **_: object) -> Combinator:
        policies, _rest = split_policies(args)
        return object.__new__(cls.over(*map(type, policies)))

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()

        # The class that the user wrote; those made over policies inherit it.
        if not cls.parts:
            cls.written = cls

        # The dataclass takes fields alone. Its ``__init__`` is wrapped, so that policies may be
        # given by position before them.
        build_frozen = cls.__init__

        @functools.wraps(build_frozen)
        def __init__(self: Combinator, *args: object, **settings: object) -> None:  # noqa: N807 - it is the method
            positional = self._name_positional(args)
            for name in positional.keys() & settings.keys():
                raise ParameterError(
                    f"{type(self).__name__}: {name} was given twice, {positional[name]!r} and "
                    f"{settings[name]!r}"
                )
            build_frozen(self, **positional, **settings)

        cls.__init__ = __init__  # type: ignore[method-assign, assignment]

    def _name_positional(self, args: tuple[object, ...]) -> dict[str, Any]:
        """Return the values of fields that positional arguments give: policies, then its own.

        A policy gives a value to each of the fields that stand for its parameters.
        """
        policies, rest = split_policies(args)
        names = own_parameters(type(self))
        if len(rest) > len(names):
            known = ", ".join(names) or "no parameters"
            raise ParameterError(
                f"{type(self).__name__} needs policies, then {known}; also got {rest!r}"
            )

        values = dict(zip(names, rest, strict=False))
        for part, policy in zip(self.parts, policies, strict=False):
            for name, flat in part.flat.items():
                values[flat] = getattr(policy, name)
        return values

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.policies  # raises what their constructors raise

    def __repr__(self) -> str:
        policies = map(repr, self.policies)
        settings = [f"{name}={write_value(value)}" for name, value in self._own().items()]
        return f"{self.written.__name__}({', '.join([*policies, *settings])})"

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(self.written, *self.policies, **self._own()), ()

    def _own(self) -> dict[str, Any]:
        """Return the values of the parameters that the combinator itself declares."""
        return {name: getattr(self, name) for name in own_parameters(type(self))}

    @classmethod
    def title(cls) -> str:
        """Return the name of the combinator and those of its policies, joined."""
        written = format_title(cls.written.__name__)
        return "-".join([written, *(part.policy.title() for part in cls.parts)])

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies that are combined."""
        policies = []
        for part in self.parts:
            settings = {name: getattr(self, flat) for name, flat in part.flat.items()}
            policies.append(part.policy(**settings))
        return tuple(policies)

    @classmethod
    @checked
    def over(cls, *policies: type[Policy]) -> type[Combinator]:
        """Return the class over some policy classes, which a sweep or a search accepts.

        A class that is over policies already is returned as it is, for these policies or none.
        Raises ParameterError for other policies, or another number of them than it takes.
        """
        if cls.parts:
            combined = tuple(part.policy for part in cls.parts)
            if not policies or policies == combined:
                return cls
            name = cls.written.__name__
            raise ParameterError(f"{cls.__name__} has its policies already; use {name}(...)")

        check_class(cls)
        least, most = cls.takes
        if not least <= len(policies) <= most:
            wanted = f"at least {least} policy"
            if least == most:
                wanted = count_nouns(least, "policy", "policies")
            raise ParameterError(f"{cls.__name__} must be given {wanted}, got {len(policies)}")
        return make_combined_class(cls, policies)

    def leverage(self, bar: Any, account: Any, *memory: Any) -> Any:
        """Return the target leverage; the bar has the columns of :meth:`observe`.

        The bar may be any object with these fields. What it lacks is NaN, as a formula is made for
        the names of its bar, and reads them all.
        """
        columns = getattr(bar, "_fields", None) or tuple(vars(bar))
        names = tuple(dict.fromkeys((*p.BAR_FIELDS, *columns)))
        values = [getattr(bar, name, math.nan) for name in names]
        whole = name_tuple("Bar", names)(*values)
        return self.make_formula(names)(self, whole, account, *memory)

    def promises(self) -> tuple[p.Promise, ...]:
        """Return what is left of the promises of its policies, if it only lowers their leverage."""
        if not self.only_lowers:
            return ()
        limits = []
        for policy in self.policies:
            limits += [promise.limit() for promise in policy.promises()]
        return tuple(limits)

    def make_formula(self, columns: tuple[str, ...]) -> Any:
        """Return the combined formula for known columns, as a function that compiles.

        Its text asks each policy for its leverage, combines the answers by the rule of the
        combinator, and returns the new memory, if there is any. For two policies of which the
        first remembers a ``count``, in a combinator that remembers a ``peak``::

            def leverage(self, bar, account, memory):
                answer_0, after_0 = rule_0(..., account, Memory_0(memory.first__count))
                asked_0 = 1.0 * answer_0
                asked_1 = 1.0 * rule_1(..., account)
                leverage, after = combine(self, bar, account, (asked_0, asked_1,), Own(memory.peak))
                return leverage, Memory(after[0], after_0[0])
        """
        writer = FormulaWriter(self, columns)
        writer.scope["combine"] = rewrite_formula(type(self).combine)

        # The new value of each field of the memory, as text: the combinator's own fields first.
        new_memory: dict[str, str] = {}
        own_fields: tuple[str, ...] | None = None
        own_start: Callable[..., Any] | None = getattr(self.written, "start", None)
        if own_start is not None:
            own_fields = own_start(self)._fields
            new_memory = {name: f"after[{i}]" for i, name in enumerate(own_fields)}
        for k, (part, policy) in enumerate(zip(self.parts, self.policies, strict=True)):
            new_memory |= write_asking(writer, k, part, policy)

        # The answers are combined only after each policy was asked.
        write_combining(writer, len(self.parts), own_fields)
        if not new_memory:
            writer.lines.append("return leverage")
            return writer.build("leverage", "self, bar, account")
        writer.scope["Memory"] = name_tuple("Memory", tuple(new_memory))
        writer.lines.append(f"return leverage, Memory({', '.join(new_memory.values())})")
        return writer.build("leverage", "self, bar, account, memory")

    def make_margin_formula(self, columns: tuple[str, ...]) -> Callable[..., Any] | None:
        """Return the formula of the setting of its position, None if nothing decides it.

        That of the combinator itself decides; without one, the lowest that its policies ask for.
        For two policies the text is::

            def venue_leverage(self, bar, account):
                asked = 1.0 * rule_0(..., account)
                asked = choose_lower(asked, 1.0 * rule_1(..., account))
                return asked
        """
        own_formula: Callable[..., Any] | None = getattr(self.written, "venue_leverage", None)
        if own_formula is not None:
            return own_formula

        writer = FormulaWriter(self, columns)
        writer.scope["choose_lower"] = choose_lower
        for k, (part, policy) in enumerate(zip(self.parts, self.policies, strict=True)):
            rule = p.margin_formula_for(policy, part.find_own(columns))
            if rule is None:
                continue

            answer = f"1.0 * {writer.write_call(k, part, rule)}"
            if writer.lines:
                answer = f"choose_lower(asked, {answer})"
            writer.lines.append(f"asked = {answer}")

        if not writer.lines:
            return None
        writer.lines.append("return asked")
        formula: Callable[..., Any] = writer.build("venue_leverage", "self, bar, account")
        return formula

    def combine(self, *_: Any, **__: Any) -> Any:
        """Return the target leverage, given those of the policies.

        A subclass takes ``(self, bar, account, asked)``, or ``(self, bar, account, asked,
        memory)``.
        """
        check_class(type(self))


def write_asking(
    writer: FormulaWriter,
    k: int,
    part: CombinedPart,
    policy: Policy,
) -> dict[str, str]:
    """Write the lines that ask policy k for its leverage, and put it into the local ``asked_k``.

    Returns the new values of what it remembers: by the name of the field in the memory of the
    combinator, the text that reads the value, such as ``{"first__count": "after_0[0]"}``. The text
    ``1.0 *`` makes a float of an answer that is a whole number, so that all have one type.
    """
    memory = p.start_memory(policy)
    rule = p.formula_for(policy, part.find_own(writer.columns))
    if memory is None:
        writer.lines.append(f"asked_{k} = 1.0 * {writer.write_call(k, part, rule)}")
        return {}

    # With memory, it is given what it remembers, and answers (leverage, what it remembers next).
    names_in_whole = [f"{part.prefix}{name}" for name in memory._fields]
    writer.scope[f"Memory_{k}"] = type(memory)
    remembered = ", ".join(f"memory.{name}" for name in names_in_whole)
    call = writer.write_call(k, part, rule, f"Memory_{k}({remembered})")
    writer.lines.append(f"answer_{k}, after_{k} = {call}")
    writer.lines.append(f"asked_{k} = 1.0 * answer_{k}")
    return {name: f"after_{k}[{i}]" for i, name in enumerate(names_in_whole)}


def write_combining(
    writer: FormulaWriter,
    n_policies: int,
    own_fields: tuple[str, ...] | None,
) -> None:
    """Write the line that combines the answers ``asked_0``, ``asked_1`` ... into ``leverage``.

    A combinator with memory, that is with fields of its own, is given them as an ``Own`` and also
    returns their new values, ``after``.
    """
    answers = ", ".join(f"asked_{k}" for k in range(n_policies))
    if own_fields is None:
        writer.lines.append(f"leverage = combine(self, bar, account, ({answers},))")
        return

    writer.scope["Own"] = name_tuple("Own", own_fields)
    own_memory = ", ".join(f"memory.{name}" for name in own_fields)
    call = f"combine(self, bar, account, ({answers},), Own({own_memory}))"
    writer.lines.append(f"leverage, after = {call}")


def held_leverage(account: Any, signal: float) -> float:
    """Return the leverage that a policy would ask for to leave the position as it is.

    It is multiplied by the signal, the direction decided at this close; at least 0, and 0 where
    nothing is held on the side of the signal.
    """
    if signal == 0.0:
        return 0.0
    held: float = account.leverage / signal
    return max(held, 0.0)


def list_written(cls: type[Policy]) -> list[type[Policy]]:
    """Return the class that a user wrote, and after it those inside a combinator."""
    written = [getattr(cls, "written", cls)]
    for part in getattr(cls, "parts", ()):
        written += list_written(part.policy)
    return written


def written_formulas(cls: type[Policy]) -> Iterator[FunctionType]:
    """Yield the formulas that a user wrote: of a combinator, and of the policies inside."""
    for written in list_written(cls):
        rule: Any = written.combine if issubclass(written, Combinator) else p.formula_of(written)
        if rule is not p.return_parameter:
            yield rule


def own_parameters(cls: type[Combinator]) -> list[str]:
    """Return the names of the parameters that the combinator itself declares."""
    return [field.name for field in dataclasses.fields(cls.written)]


def check_class(cls: type[Combinator]) -> None:
    """Require that a combinator defines ``combine`` alone, and needs a policy."""
    if cls.combine is Combinator.combine or cls.leverage is not Combinator.leverage:
        raise PolicyError(
            f"a combinator must define combine in place of leverage, {cls.__name__} does not; "
            "add def combine(self, bar, account, asked): return asked[0]"
        )
    if cls.takes[0] < 1:
        raise PolicyError(
            f"{cls.__name__}.takes must be (at least 1, at most) policies, got {cls.takes}"
        )


def split_policies(args: tuple[object, ...]) -> tuple[tuple[Policy, ...], tuple[object, ...]]:
    """Return the policies that arguments begin with, and the arguments after them.

    Raises ParameterError if a policy, or a class of policies, is among those after.
    """
    policies: list[Policy] = []
    for arg in args:
        if not isinstance(arg, Policy):
            break
        policies.append(arg)

    rest = args[len(policies) :]
    for arg in rest:
        is_class = isinstance(arg, type) and issubclass(arg, Policy)
        if is_class or isinstance(arg, Policy):
            raise ParameterError(
                "the policies of a combinator must be instances and come before its parameters, "
                f"got {args!r}"
            )
    return tuple(policies), rest


@functools.cache
def make_combined_class(
    cls: type[Combinator], policies: tuple[type[Policy], ...]
) -> type[Combinator]:
    """Return the class of a combinator over some policies, with the parameters of all of them.

    It is a subclass of ``cls`` that a user could write by hand: ``Capped`` over ``VolTarget`` has a
    field ``vol_target_target`` beside its own ``cap``. Equal arguments give the same class.
    """
    parts = tuple(map(CombinedPart, policies, name_parts(policies)))
    inside = ", ".join(policy.__name__ for policy in policies)
    body: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": f"{cls.__qualname__}[{inside}]",
        "__doc__": cls.__doc__,
        "parts": parts,
        "observe": observe_parts,
    }

    # A class has memory if it has ``start``, so one without memory must not get it.
    if hasattr(cls, "start") or any(hasattr(policy, "start") for policy in policies):
        body["start"] = start_parts

    # Fields for the parameters of the policies, by keyword alone: the class of the user has fields
    # with defaults before them, and some of these have none.
    own_names = own_parameters(cls)
    annotations: dict[str, Any] = {"_": dataclasses.KW_ONLY}
    for part in parts:
        for parameter in part.policy.parameters().values():
            flat = part.flat[parameter.name]
            if flat in annotations or flat in own_names:
                raise ParameterError(
                    f"parameters of {cls.__name__} and of its policies must have different names, "
                    f"two are called {flat}"
                )
            annotations[flat] = annotate(part, parameter)
            if parameter.default is not None:
                body[flat] = parameter.default
    body["__annotations__"] = annotations
    return type(f"{cls.__name__}[{inside}]", (cls,), body)


def name_parts(policies: tuple[type[Policy], ...]) -> list[str]:
    """Return a name for each policy of a combinator: its title, numbered where it is not alone."""
    names = []
    for policy in policies:
        title = getattr(policy, "written", policy).title()
        names.append(title.replace("-", "_").lstrip("_"))

    numbered = []
    for k, name in enumerate(names):
        if names.count(name) > 1:
            number = names[:k].count(name) + 1
            numbered.append(f"{name}_{number}")
        else:
            numbered.append(name)
    return numbered


def annotate(part: CombinedPart, parameter: Parameter) -> Any:
    """Return the annotation of a policy's parameter among those of the combinator.

    ``part.flat`` maps the names of the policy's parameters to their names in the combinator.
    """
    kind: Any = parameter.kind
    if parameter.length:
        kind = tuple[kind, ...]
    space = parameter.space
    if space is None:
        return kind

    # A condition names another parameter, which has another name in the combinator. The range is
    # frozen, and that of the policy itself must stay: a copy of it is changed.
    if space.when is not None:
        name, values = space.when
        space = copy.copy(space)
        object.__setattr__(space, "when", (part.flat[name], values))
    return Annotated[kind, space]


OptionOrders: TypeAlias = Mapping[str, tuple[str, float]]
SCHEDULED = "schedule"
TOTAL = "total"
"""Legs that tables of options add to those that a policy names."""


class OptionRule(Combinator):
    """A rule that trades options, over the policy that sets the leverage.

    A subclass defines ``orders(self, bar, account, chain)``, which returns what ``option_orders``
    of a policy does. Orders of the policy inside are kept, so that rules can be stacked.
    """

    def combine(self, bar: Any, account: Any, asked: tuple[float, ...]) -> float:  # noqa: ARG002 - the signature of a formula
        """Return what the policy asks."""
        return asked[0]

    def option_orders(
        self,
        bar: Any,
        account: Any,
        chain: Any,
    ) -> OptionOrders:
        """Return the orders of the policy inside, and those of the rule, by the name of the leg.

        Raises PolicyError if both order a leg of one name.
        """
        orders = self.orders(bar, account, chain)
        for k, part in enumerate(self.parts):
            if not p.trades_options(part.policy):
                continue

            inner: Any = self.policies[k]
            inner_orders = inner.option_orders(name_own_columns(bar, part), account, chain)

            twice = sorted(inner_orders.keys() & orders.keys())
            if twice:
                raise PolicyError(
                    f"legs of one position must have different names, {type(self).__name__} and "
                    f"the policy inside both order {twice[0]!r}"
                )
            orders = {**inner_orders, **orders}
        return orders

    def orders(self, *_: Any, **__: Any) -> OptionOrders:
        """Return the orders of the rule.

        A subclass takes ``(self, bar, account, chain)``.
        """
        raise PolicyError(
            f"a rule that trades options must define orders, {type(self).__name__} does not; add "
            'def orders(self, bar, account, chain): return {"put": (contract, 1.0)}'
        )


def name_own_columns(bar: Any, part: CombinedPart) -> SimpleNamespace:
    """Return the bar as a policy inside sees it: with its columns under its own names too."""
    seen = SimpleNamespace(**vars(bar))
    for name in part.find_own((*vars(bar),)):
        setattr(seen, name, getattr(bar, f"{part.prefix}{name}"))
    return seen

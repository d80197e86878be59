"""Records that compiled functions pass by reference."""

from __future__ import annotations

import hashlib
from typing import Any

from llvmlite import ir as llvm
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.imputils import impl_ret_borrowed, lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, intrinsic, register_model


class Shared(types.Type):
    def __init__(self, inner: Any) -> None:
        self.inner = inner
        mark = hashlib.sha256(str(inner).encode()).hexdigest()[:16]
        super().__init__(name=f"Shared({mark})")  # it stands in the name of each compiled function


@register_model(Shared)
class SharedModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Shared) -> None:
        super().__init__(manager, kind, manager.lookup(kind.inner).get_value_type().as_pointer())  # type: ignore[no-untyped-call]


def find_field(kind: Shared, name: str) -> tuple[int, Any]:
    fields = kind.inner.fields
    if name not in fields:
        return -1, None
    at = fields.index(name)
    return at, tuple(kind.inner.types)[at]


@infer_getattr
class SharedFields(AttributeTemplate):
    key = Shared

    def generic_resolve(self, kind: Any, name: str) -> Any:  # type: ignore[override]
        at, found = find_field(kind, name)
        if at < 0:
            return None
        return Shared(found) if isinstance(found, types.BaseNamedTuple) else found


@lower_getattr_generic(Shared)  # type: ignore[no-untyped-call, untyped-decorator]
def read_field(context: Any, builder: Any, kind: Shared, pointer: Any, name: str) -> Any:
    at, found = find_field(kind, name)
    zero, position = llvm.Constant(llvm.IntType(32), 0), llvm.Constant(llvm.IntType(32), at)
    place = builder.gep(pointer, [zero, position], inbounds=True)
    if isinstance(found, types.BaseNamedTuple):
        return place
    value = builder.load(place)
    return impl_ret_borrowed(context, builder, found, value)  # type: ignore[no-untyped-call]


@intrinsic
def share_record(_context: Any, record: Any) -> Any:
    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        place = cgutils.alloca_once(builder, kind)  # type: ignore[no-untyped-call]
        builder.store(arguments[0], place)
        return place

    return Shared(record)(record), build

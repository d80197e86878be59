"""The statements of a script or a notebook that define a policy, without those that run it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence

LOOPS = (ast.For, ast.While, ast.With, ast.AsyncFor, ast.AsyncWith)


def select_statements(texts: Sequence[str], names: Iterable[str]) -> str:
    """Return the top-level statements that bind some names, and all names that these use.

    Imports, definitions and assignments count. Calls, loops and ``if __name__ == "__main__"`` are
    left out, so that nothing is run or written. A text that is no Python is left out.

    Examples
    --------
    >>> print(select_statements(["import math", "x = 2; print(x)", "y = math.pi"], ["y"]))
    import math
    y = math.pi
    """
    statements = [each for text in texts for each in parse_statements(text)]
    bound = [set(list_bound(each)) for each in statements]
    wanted, kept = set(names), [is_always_kept(each) for each in statements]
    is_growing = True
    while is_growing:
        is_growing = False
        for k, statement in enumerate(statements):
            if not kept[k] and bound[k] & wanted:
                kept[k] = is_growing = True
                wanted |= set(list_used(statement))
    chosen = [each for each, is_kept in zip(statements, kept, strict=True) if is_kept]
    return "\n".join(map(ast.unparse, chosen))


def parse_statements(text: str) -> list[ast.stmt]:
    """Return the top-level statements of a text that may define something."""
    lines = ("" if line.lstrip()[:1] in ("%", "!", "?") else line for line in text.splitlines())
    try:
        parsed = ast.parse("\n".join(lines))
    except SyntaxError:
        return []
    return [each for each in parsed.body if not isinstance(each, LOOPS) and not is_main(each)]


def is_main(statement: ast.stmt) -> bool:
    """Return whether a statement is ``if __name__ == "__main__"``."""
    return isinstance(statement, ast.If) and "__name__" in list_used(statement.test)


def is_always_kept(statement: ast.stmt) -> bool:
    """Return whether a statement may bind names that are not in its text."""
    if not isinstance(statement, ast.ImportFrom):
        return False
    return statement.module == "__future__" or any(each.name == "*" for each in statement.names)


def list_bound(statement: ast.AST) -> Iterator[str]:
    """Yield the names that a statement binds, or whose items it sets."""
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield statement.name
        case ast.Import() | ast.ImportFrom():
            yield from (each.asname or each.name.partition(".")[0] for each in statement.names)
        case ast.Assign():
            yield from (name for target in statement.targets for name in list_used(target))
        case ast.AnnAssign() | ast.AugAssign():
            yield from list_used(statement.target)
        case ast.If() | ast.Try() | ast.ExceptHandler():
            for inner in ast.iter_child_nodes(statement):
                yield from list_bound(inner)


def list_used(statement: ast.AST) -> Iterator[str]:
    """Yield every name in a statement."""
    yield from (each.id for each in ast.walk(statement) if isinstance(each, ast.Name))

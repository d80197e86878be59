"""No word, file, policy or data makes a command end in a traceback, hang, or fail without a cure.

The cases are those of :mod:`tests.fuzzing`. Twenty-five flags and as many experiment files are
run each time, all cases with the slow tests.
"""

import pytest

from tests import fuzzing

CHUNK, FAST = 50, 25


@pytest.mark.parametrize("kind", ["flags", "toml"])
def test_some_of_the_cases_end_well(kind):
    faults = fuzzing.fuzz(kind, range(0, fuzzing.COUNTS[kind], fuzzing.COUNTS[kind] // FAST))
    assert not faults, "\n".join(faults)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "first"),
    [(kind, first) for kind, n in fuzzing.COUNTS.items() for first in range(0, n, CHUNK)],
)
def test_every_case_ends_well(kind, first):
    last = min(first + CHUNK, fuzzing.COUNTS[kind])
    faults = fuzzing.fuzz(kind, range(first, last))
    assert not faults, "\n".join(faults)


@pytest.mark.slow
def test_every_command_and_flag_is_drawn_from():
    """New flags are part of the cases without being named here."""
    drawn = {word for k in range(1_200) for word in fuzzing.make("flags", k).words}
    for path, command in fuzzing.list_commands():
        assert set(path) <= drawn
        flags = {each.opts[0] for each in command.params if each.opts[0].startswith("-")}
        assert len(flags & drawn) >= 0.9 * len(flags), path


def test_cases_are_the_same_every_time():
    for kind in fuzzing.COUNTS:
        assert fuzzing.make(kind, 7) == fuzzing.make(kind, 7)

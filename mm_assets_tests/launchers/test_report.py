import inspect

import pytest

from mm_assets import errors
from mm_assets.errors import LaunchError, MmError
from mm_assets.launchers.messages import failure_message, reported_failure, success_message

OURS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, MmError)]


@pytest.mark.parametrize("kind", OURS)
def test_every_error_of_ours_arrives_as_what_it_was(kind: type[MmError]) -> None:
    error = reported_failure([success_message("sha256:0", cached=False), failure_message("it broke", kind("it broke"))])
    assert type(error) is kind
    assert str(error) == "it broke"


def test_a_foreign_error_arrives_as_a_launch_error() -> None:
    error = reported_failure([failure_message("model r1: KeyError: 'x'", KeyError("x"))])
    assert type(error) is LaunchError
    assert str(error) == "model r1: KeyError: 'x'"


def test_a_class_that_a_message_makes_up_is_not_looked_up_elsewhere() -> None:
    assert type(reported_failure([{"error": "x", "class": "__builtins__"}])) is LaunchError


def test_success_is_no_failure() -> None:
    assert reported_failure([success_message("sha256:0", cached=True)]) is None

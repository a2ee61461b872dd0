"""Error messages of one line, and counts with their nouns."""

import pytest

from carvana_ray import errors


def test_an_unreachable_file_is_named_with_its_cause() -> None:
    error = errors.StorageUnavailableError(5, "Input/output error", "/data/a.jpg")
    assert str(error) == "/data/a.jpg: Input/output error"


@pytest.mark.parametrize(
    ("kind", "is_input_error"),
    [
        (errors.FileMissingError, True),
        (errors.FileTooLargeError, True),
        (errors.StorageAccessError, True),
        (errors.StorageUnavailableError, False),
        (errors.BadImageError, False),
        (errors.IncompleteError, False),
        (errors.BadImagesError, False),
    ],
)
def test_only_errors_that_the_user_can_fix_are_input_errors(
    kind: type[Exception], is_input_error: bool
) -> None:
    assert issubclass(kind, errors.InputError) == is_input_error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("first\nsecond"), "first"),
        (ValueError(), "ValueError"),
        (KeyError("key"), "'key'"),
    ],
)
def test_the_first_line_is_never_empty(error: Exception, line: str) -> None:
    assert errors.first_line(error) == line


def test_counts_agree_with_their_nouns() -> None:
    assert [errors.plural(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]

"""The split of cars into training, validation and holdout."""

import random
from collections.abc import Sequence

from carvana_ray.errors import InputError, plural


def resolve_count(text: str, total: int, flag: str) -> int:
    """Return the number of cars that a flag's value stands for.

    Args:
        text: a count (``16``) or a fraction of `total` (``0.15``), which is rounded.
        total: number of cars.
        flag: the flag, for error messages.

    Raises:
        InputError: not a number, negative, a fraction of 1 or more, or a count above `total`.
    """
    is_fraction = "." in text
    try:
        value = float(text) if is_fraction else int(text)
    except ValueError:
        raise InputError(
            f"{flag} {text}: neither a count (16), nor a fraction below 1 (0.15), nor a file"
        ) from None
    if not 0 <= value < (1 if is_fraction else total + 1):
        raise InputError(
            f"{flag} {text}: must be a count from 0 to {total} (there are "
            f"{plural(total, 'car')}) or a fraction from 0 to below 1"
        )
    return round(value * total) if is_fraction else int(value)


def _at_least_one(text: str, total: int, flag: str) -> int:
    """Return `resolve_count`, but 1 for a fraction that rounds to 0 in a small data set."""
    count = resolve_count(text, total, flag)
    return 1 if count == 0 and total and float(text) > 0 else count


def split_cars(
    cars: Sequence[str], holdout: str | Sequence[str], val: str, seed: int
) -> tuple[list[str], list[str], list[str]]:
    """Split cars into (train, val, holdout), each sorted. All views of a car stay together.

    Args:
        cars: all cars, in any order.
        holdout: the cars to hold out, or their count or fraction as text; these are drawn from the
            sorted cars by a seeded shuffle.
        val: count or fraction of the other cars, drawn by the same shuffle.
        seed: of the shuffle.

    Raises:
        InputError: a count or fraction is out of range, a held-out car does not exist, or no car
            remains for training.
    """
    order = sorted(cars)
    random.Random(seed).shuffle(order)
    if isinstance(holdout, str):
        held = order[: _at_least_one(holdout, len(order), "--holdout-cars")]
    else:
        held = sorted(set(holdout))
        if unknown := sorted(set(held) - set(order)):
            raise InputError(f"--holdout-cars names {unknown[0]}, which is not a car in --data")
    rest = [car for car in order if car not in set(held)]
    val_count = _at_least_one(val, len(rest), "--val-cars")
    if len(rest) <= val_count:
        raise InputError(
            f"--holdout-cars and --val-cars leave no car to train on: {plural(len(order), 'car')}, "
            f"{len(held)} held out, {val_count} for validation"
        )
    return sorted(rest[val_count:]), sorted(rest[:val_count]), sorted(held)

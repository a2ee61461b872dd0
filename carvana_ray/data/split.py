"""The split of cars into training, validation and holdout."""

import random
from collections.abc import Sequence

from carvana_ray.errors import InputError, plural


def resolve_count(text: str, total: int, flag: str) -> int:
    """Return the number of cars that a flag's value stands for.

    Args:
        text: a count (``16``) or a fraction of `total` (``0.15``). A fraction is rounded, but one
            above 0 gives at least 1 car.
        total: number of cars.
        flag: for error messages.

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
            f"{flag} {text}: must be a count of cars from 0 to {total}, or a fraction from 0 to "
            "below 1"
        )
    if is_fraction and value:
        return max(round(value * total), min(total, 1))
    return int(value)


def split_cars(
    cars: Sequence[str], holdout: str | Sequence[str], val: str, seed: int
) -> tuple[list[str], list[str], list[str]]:
    """Split cars into (train, val, holdout), each sorted, by a seeded shuffle.

    Args:
        holdout: the cars to hold out, or their count or fraction as text.
        val: count or fraction of the other cars.

    Raises:
        InputError: a count or fraction is out of range, a held-out car does not exist, or no car
            remains for training.
    """
    order = sorted(cars)
    random.Random(seed).shuffle(order)
    if isinstance(holdout, str):
        held = order[: resolve_count(holdout, len(order), "--holdout-cars")]
    else:
        held = sorted(set(holdout))
        if unknown := sorted(set(held) - set(order)):
            raise InputError(
                f"--holdout-cars names {unknown[0]}, which is not a car in --data, such as "
                f"{min(order, default='none')}; --cars-by says how file names give cars"
            )
    rest = [car for car in order if car not in set(held)]
    val_count = resolve_count(val, len(rest), "--val-cars")
    if len(rest) <= val_count:
        raise InputError(
            f"--holdout-cars and --val-cars leave no car to train on: {plural(len(order), 'car')}, "
            f"{len(held)} held out, {val_count} for validation"
        )
    return sorted(rest[val_count:]), sorted(rest[:val_count]), sorted(held)

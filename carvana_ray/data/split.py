"""Split cars into training, validation and held out."""

import random
from collections.abc import Sequence

from carvana_ray.errors import InputError


def resolve_count(share: str, total: int, flag: str) -> int:
    """Return the number that a COUNT (``16``) or a FRACTION (``0.15``) of `total` stands for.

    Raises:
        InputError: not a number, negative, a fraction of 1 or more, a count above `total`.
    """
    try:
        value = float(share) if "." in share else int(share)
    except ValueError:
        raise InputError(
            f"{flag} {share}: neither a count (16), nor a fraction below 1 (0.15), nor a file"
        ) from None
    if not 0 <= value < (1 if "." in share else total + 1):
        raise InputError(f"{flag} {share}: must lie between 0 and the {total} cars that there are")
    return round(value * total) if "." in share else int(value)


def _at_least_one(share: str, total: int, flag: str) -> int:
    """Return `how_many`, but 1 for a share that rounds to 0: a small data set still needs one."""
    asked = bool(float(share)) if (count := resolve_count(share, total, flag)) == 0 else True
    return max(count, 1) if asked and total else count


def split_cars(
    cars: Sequence[str], holdout: str | Sequence[str], val: str, seed: int
) -> tuple[list[str], list[str], list[str]]:
    """Split cars into (train, val, holdout), each sorted; views of one car stay together.

    Args:
        cars: all cars, in any order.
        holdout: COUNT or FRACTION as text, drawn by a seeded shuffle of the sorted cars; or the
            cars.
        val: COUNT or FRACTION of the cars that remain.
        seed: of the shuffle.

    Raises:
        InputError: a share is out of range, a held-out car is not there, no car remains to train.
    """
    order = sorted(cars)
    random.Random(seed).shuffle(order)
    if isinstance(holdout, str):
        held = order[: _at_least_one(holdout, len(order), "--holdout-cars")]
    else:
        held = sorted(set(holdout))
        if unknown := sorted(set(held) - set(order)):
            raise InputError(f"--holdout-cars names {unknown[0]}, which --data does not have")
    rest = [car for car in order if car not in set(held)]
    cut = _at_least_one(val, len(rest), "--val-cars")
    if len(rest) <= cut:
        raise InputError(
            f"--holdout-cars and --val-cars leave no car to train on: {len(order)} cars, "
            f"{len(held)} held out, {cut} for validation"
        )
    return sorted(rest[cut:]), sorted(rest[:cut]), sorted(held)

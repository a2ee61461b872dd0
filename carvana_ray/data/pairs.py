"""Which mask file belongs to which training image, by name."""

import itertools
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from carvana_ray import storage
from carvana_ray.data.layout import MASKS, mask_stem
from carvana_ray.errors import InputError, plural

# Of two masks of an image the one of the first group is taken: these formats lose no pixels.
_GROUPS = (".gif", ".png"), (".tif", ".tiff", ".bmp"), (".jpg", ".jpeg", ".webp")
MASK_SUFFIXES = tuple(suffix for group in _GROUPS for suffix in group)

Fault = tuple[str, str]  # image, reason


class UnpairedError(InputError):
    """Raised if images have no mask, or if their mask is not clear. Exit code 2.

    Attributes:
        faults: all of them, as (image, reason), sorted by image.
    """

    def __init__(self, message: str, faults: Sequence[Fault]) -> None:
        super().__init__(message)
        self.faults = list(faults)


def pair_with_masks(images: Iterable[str], masks: Iterable[str]) -> list[tuple[str, str]]:
    """Return (image, mask) file names, sorted by image. Masks without an image are ignored.

    The mask of ``a_04.jpg`` is ``a_04_mask`` with a suffix of `MASK_SUFFIXES`, or else ``a_04``.
    The case of letters and their Unicode form (macOS writes its own) matter only if several files
    differ in nothing else.

    Raises:
        UnpairedError: an image has no mask, two masks, or the mask of another image.
    """
    masks = list(masks)
    found = find_masks(images, masks)
    missing, unclear = [name for name in found if not found[name]], find_unclear(found)
    if missing or unclear:
        used = set(itertools.chain.from_iterable(found.values()))
        unused = sorted(mask for mask in masks if _is_mask(mask) and mask not in used)
        faults = [(name, f"no mask (expected {mask_stem(name)}.png)") for name in missing]
        message = _message(len(found), missing, unclear, unused)
        raise UnpairedError(message, sorted([*faults, *unclear]))
    return [(name, candidates[0]) for name, candidates in found.items()]


def find_masks(images: Iterable[str], masks: Iterable[str]) -> dict[str, list[str]]:
    """Return the masks of each image that are equally good by name: none, one, or several.

    Names are those of `pair_with_masks`. Images are sorted.
    """
    by_key = dict[str, list[str]]()
    for mask in sorted(masks):
        if _is_mask(mask):
            by_key.setdefault(_key(_stem(mask)), []).append(mask)
    return {name: _best_masks(name, by_key) for name in sorted(images)}


def find_unclear(found: Mapping[str, Sequence[str]]) -> list[Fault]:
    """Return the images of `find_masks` with two masks or the mask of another image, and why."""
    takers: dict[str, list[str]] = {}
    for name, candidates in found.items():
        if len(candidates) == 1:
            takers.setdefault(candidates[0], []).append(name)
    faults = []
    for name, candidates in found.items():
        if len(candidates) > 1:
            faults.append((name, f"several masks: {', '.join(candidates)}; keep one"))
        elif candidates and (others := _rivals(name, candidates[0], takers[candidates[0]])):
            faults.append((name, f"its mask {candidates[0]} is also that of {others[0]}"))
    return faults


def describe_unclear(unclear: Sequence[Fault], noun: str) -> str:
    """Return faults of `find_unclear` in words; the noun is that of an image in the singular."""
    named = "; ".join(f"{name}: {reason}" for name, reason in unclear[:3])
    more = " ..." if len(unclear) > 3 else ""
    return f"the mask of {plural(len(unclear), noun)} is not clear: {named}{more}"


def _is_mask(name: str) -> bool:
    return name.lower().endswith(MASK_SUFFIXES)


def uri_of(folder: str, name: str) -> str:
    """Return the URI of a pair's file, whose name is a URI if it is in another folder."""
    return name if is_elsewhere(name) else storage.join(folder, name)


def is_elsewhere(name: str) -> bool:
    """Return whether the name of a pair's file is a URI."""
    return "/" in name


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0]


def _key(stem: str) -> str:
    return unicodedata.normalize("NFC", stem.casefold())


def _best_masks(image: str, by_key: dict[str, list[str]]) -> list[str]:
    """Return the masks of an image that are equally good by name: none, one, or several."""
    for stem in (mask_stem(image), _stem(image)):
        masks = by_key.get(_key(stem), [])
        for same in (lambda mask, stem=stem: _stem(mask) == stem, lambda _: True):
            for group in _GROUPS:
                if best := [m for m in masks if m.lower().endswith(group) and same(m)]:
                    return best
    return []


def _rivals(image: str, mask: str, takers: Sequence[str]) -> list[str]:
    """Return the other images that take the same mask although their names differ.

    Images that differ in their suffix alone share a mask.
    """
    if _stem(mask) in (mask_stem(image), _stem(image)):
        return []  # the names are equal in full, so the mask is this image's
    return [other for other in takers if _stem(other) != _stem(image)]


def _message(
    count: int, missing: Sequence[str], unclear: Sequence[Fault], unused: Sequence[str]
) -> str:
    parts = []
    if missing:
        other = f"; {MASKS}/ has other masks, such as {unused[0]}" if unused else ""
        parts.append(
            f"no mask in {MASKS}/ for {len(missing)} of {plural(count, 'training image')}: "
            f"{', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''} (expected "
            f"{mask_stem(missing[0])}.gif or .png{other})"
        )
    if unclear:
        parts.append(describe_unclear(unclear, "training image"))
    return f"--data: {'; '.join(parts)}"

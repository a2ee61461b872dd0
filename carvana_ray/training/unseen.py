"""Which images of a data set may score a model: those of cars that its training did not see."""

from carvana_ray import storage
from carvana_ray.checkpoints.model import ModelManifest
from carvana_ray.data.cars import CarNames, load_car_names, pattern_of_model
from carvana_ray.data.catalog import image_and_mask_dirs, list_masks
from carvana_ray.data.listing import image_suffixes
from carvana_ray.errors import InputError
from carvana_ray.runtime.wording import count_of
from carvana_ray.training.run import Pairs, pair_files


def pairs_to_score(
    data: str, manifest: ModelManifest, cars_by: str = ""
) -> tuple[Pairs, str, CarNames]:
    """Return the (image, mask) files of `cars_to_score`, its words about them, and their names.

    The rule of the model's training gives the cars that it held out. Other data have their own.

    Args:
        data: value of --data.
        manifest: of the model.
        cars_by: value of --cars-by.

    Raises:
        InputError: see `cars_to_score`; or images or masks are missing.
    """
    folder, masks = image_and_mask_dirs(data)
    entries = storage.list_files(folder, image_suffixes())
    names, held = [entry.name for entry in entries], set(manifest.holdout_cars)
    rule = load_car_names(storage.resolve(data), cars_by, names)
    by_model = pattern_of_model(cars_by, manifest.training)
    if by_model != cars_by:
        of_model = load_car_names(storage.resolve(data), by_model, names)
        rule = of_model if held and held <= set(of_model.unique(names)) else rule
    cars, note = cars_to_score(set(rule.unique(names)), manifest, folder)
    entries = [entry for entry in entries if rule.car_of(entry.name) in cars]
    return pair_files(entries, list_masks(masks)), note, rule


def cars_to_score(found: set[str], manifest: ModelManifest, folder: str) -> tuple[set[str], str]:
    """Return the cars that show how good a model is, and words about them if they need any.

    These are the cars that training held out. Of other data, such as own images for an older model,
    they are all cars that training did not see.

    Args:
        found: cars of the data.
        manifest: of the model.
        folder: URI of the images, for error messages.

    Raises:
        InputError: training saw all these cars, or the model does not say which cars it saw.
    """
    held, seen = set(manifest.holdout_cars), {*manifest.train_cars, *manifest.val_cars}
    if held and held <= found:
        return held, ""
    if manifest.train_cars and found - held - seen:
        unseen = found - seen
        note = f"scoring {count_of(len(unseen), 'cars')} that the model never saw"
        if known := len(found & seen):
            note += f"; {count_of(known, 'cars')} that it was trained on are left out"
        return unseen, note
    if not held:
        raise InputError(
            "--model: training held out no cars; train with --holdout-cars to evaluate the model"
        )
    missing = sorted(held - found)
    raise InputError(
        f"--data: {folder} has no images of some held-out cars of the model ({len(missing)} of "
        f"{len(held)}); the first is {missing[0]}; use the folder that the model was trained on, "
        "or images of cars that it never saw"
    )

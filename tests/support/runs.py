"""Training runs over drawn pairs, as far as the stages need them."""

from pathlib import Path

from carvana_ray import storage
from carvana_ray.data.pairs import pair_with_masks
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.run import Pairs, TrainingRun

SIZE = (1280, 1918)


def run_of(pairs: list[tuple[str, str]], image_dir: Path, mask_dir: Path) -> TrainingRun:
    """Return a run over these pairs of names, with a plan that only counts them."""
    return TrainingRun(
        image_dir=str(image_dir),
        mask_dir=str(mask_dir),
        pairs=listed(pairs, image_dir, mask_dir),
        cars=([], [], []),
        plan=BatchPlan(train=len(pairs), val=0, batch=1, workers=1, epochs=1, seed=0),
        size=SIZE,
        run_id="run",
        crcs={},
    )


def listed(pairs: list[tuple[str, str]], image_dir: Path, mask_dir: Path) -> Pairs:
    """Return the files of pairs of names, as they are listed now."""
    images, masks = (
        {file.name: file for file in storage.list_files(str(folder))}
        for folder in (image_dir, mask_dir)
    )
    return [(images[image], masks[mask]) for image, mask in pairs]


def first_pairs(data: Path, count: int) -> list[tuple[str, str]]:
    """Return the first (image, mask) names of a data set."""
    image_names = [file.name for file in storage.list_files(f"{data}/train")][:count]
    mask_names = [file.name for file in storage.list_files(f"{data}/train_masks")]
    return pair_with_masks(image_names, mask_names)

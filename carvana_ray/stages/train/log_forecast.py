"""The forecast that a training or pipeline on this machine's CPUs logs before it starts."""

import dataclasses
import functools
import logging
import os

import torch

from carvana_ray import images, storage
from carvana_ray.checkpoints import train_state
from carvana_ray.config import TrainFlags
from carvana_ray.config.recipes import RECIPES
from carvana_ray.runtime.wording import count_of, format_bytes, format_rough
from carvana_ray.stages.train.dataset import MAX_STORE_FRACTION
from carvana_ray.training import forecast
from carvana_ray.training.forecast import Network
from carvana_ray.training.run import TrainingRun

log = logging.getLogger(__name__)

SMALL_DOWNSCALE, SMALL_BASE = 8, 8  # what --downscale and --base are for CPUs

_measure = functools.cache(forecast.measure)
_logged: set[str] = set()  # ids of runs: a pipeline checks its training twice


def log_training(flags: TrainFlags, run: TrainingRun) -> None:
    """Log how long the rest of a training takes here, and what would be shorter.

    Args:
        flags: with all values of the base model, if there is one.
        run: the planned training.
    """
    folder = storage.join(storage.resolve(flags.out), "checkpoints", run.run_id)
    left = flags.epochs - max(train_state.list_epochs(folder), default=0)
    if not _applies(flags) or run.run_id in _logged or left < 1:
        return
    _logged.add(run.run_id)
    plan, network, cpus = dataclasses.replace(run.plan, epochs=left), _network(flags, run), _cpus()
    seconds = forecast.training_seconds(_measure(network), network, plan, cpus)
    log.info("train: takes %s", forecast.describe(seconds, cpus, _load()))
    if seconds < forecast.LONG_S:
        return
    gpu = f"one H200 GPU takes about {format_rough(forecast.gpu_seconds(network, plan))}"
    small = dataclasses.replace(
        network,
        recipe="default",
        base=SMALL_BASE,
        size=images.grid_size(*run.size, SMALL_DOWNSCALE),
    )
    if flags.init_from or (flags.downscale, flags.base) == (SMALL_DOWNSCALE, SMALL_BASE):
        log.info("shorter: fewer --epochs, or --limit N for a try; %s", gpu)
        return
    epochs = min(left, RECIPES["default"].epochs) if flags.recipe == "best" else left
    plan = dataclasses.replace(plan, epochs=epochs)
    shorter = format_rough(forecast.training_seconds(_measure(small), small, plan, cpus))
    recipe = "--recipe default " if flags.recipe == "best" else ""
    words = f"{recipe}--downscale {SMALL_DOWNSCALE} --base {SMALL_BASE}"
    log.info("shorter: %s takes about %s; %s", words, shorter, gpu)


def log_prediction(flags: TrainFlags, run: TrainingRun, count: int) -> None:
    """Log how long the model of a training needs for `count` images here, if that is long."""
    if not _applies(flags):
        return
    network, cpus = _network(flags, run), _cpus()
    seconds = forecast.prediction_seconds(_measure(network), network, count, cpus)
    if seconds > forecast.LONG_S:
        words = forecast.describe(seconds, cpus, _load())
        log.info("predict: %s take %s; --limit N for a try", count_of(count, "images"), words)


def warn_of_small_store(decoded: int, store: int) -> None:
    """Warn if the decoded images do not fit Ray's object store.

    Args:
        decoded: bytes of the decoded images.
        store: bytes of the object store.
    """
    if decoded <= MAX_STORE_FRACTION * store:
        return
    # Ray takes 30 % of a machine's memory.
    memory = decoded / MAX_STORE_FRACTION / 0.3
    log.warning(
        "train: the decoded images take %s, more than Ray's object store keeps in memory (%s): Ray "
        "writes the rest to disk, which is slow. A larger --downscale or a machine with %s of "
        "memory avoids it",
        format_bytes(decoded),
        format_bytes(int(MAX_STORE_FRACTION * store)),
        format_bytes(int(memory)),
    )


def _applies(flags: TrainFlags) -> bool:
    """Return whether the job runs on CPUs of this machine and may say so."""
    on_gpu = flags.device != "cpu" and torch.cuda.is_available()
    return not (flags.quiet or on_gpu or os.environ.get("RAY_ADDRESS"))


def _network(flags: TrainFlags, run: TrainingRun) -> Network:
    size = images.grid_size(*run.size, flags.downscale)
    return Network(flags.recipe, flags.base, size, flags.batch_size, flags.encoder)


def _cpus() -> int:
    return os.cpu_count() or 1


def _load() -> float:
    return os.getloadavg()[0]

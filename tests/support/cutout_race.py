"""Commands that add images to one index of cut-outs at the same time."""

import multiprocessing
from multiprocessing.synchronize import Barrier

from carvana_ray import storage
from carvana_ray.cutouts import index
from carvana_ray.cutouts.index import SourceImage
from carvana_ray.storage import FileInfo

SUFFIX = ".png"


def race(home: str, commands: int, rounds: int) -> list[list[list[str]]]:
    """Let commands cut out an image of their own each in one folder, in each round in a new one.

    Returns:
        for each command and round what is to be done in the first run, and in a second one.
    """
    spawn = multiprocessing.get_context("spawn")  # a fork would copy threads
    with spawn.Manager() as manager, spawn.Pool(commands) as pool:
        start = manager.Barrier(commands)
        jobs = [
            pool.apply_async(_cut_out, (home, command, rounds, start))
            for command in range(commands)
        ]
        return [turn for job in jobs for turn in job.get(100)]


def _cut_out(home: str, command: int, rounds: int, start: Barrier) -> list[list[list[str]]]:
    source = SourceImage("/photos", FileInfo(f"{command}.jpg", 1, "1"))
    wanted = index.by_output_name([source], SUFFIX)
    turns = []
    for turn in range(rounds):
        folder = storage.join(home, str(turn))
        start.wait(60)
        first = index.sync(folder, {}, wanted, SUFFIX)
        for name in first:
            storage.write_atomic(storage.join(folder, name), b"made")
        start.wait(60)
        turns.append([first, index.sync(folder, {}, wanted, SUFFIX)])
    return turns

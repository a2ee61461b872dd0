"""The last words of each command: what came out, where it is and what to do next.

Pure: the lines depend on the arguments alone. `guard` logs them before the result in JSON.
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from carvana_ray import config, storage
from carvana_ray.checkpoints.manifest import cutout_model
from carvana_ray.data.layout import MASKS, SAMPLE_SUBMISSION, TEST, TRAIN
from carvana_ray.report.verdict import judge_dice, judge_unscored
from carvana_ray.review.folder import README
from carvana_ray.runtime.wording import count_of, format_bytes, short_path

Result = Mapping[str, Any]
MAX_NAMED = 3  # images in a command that is shown


@dataclass(frozen=True)
class Closing:
    """How the lines name things.

    Attributes:
        program: the command as the user can type it.
        folder: the user's current folder; paths below it are shown relative to it.
        exists: whether a URI exists.
    """

    program: str = "carvana-ray"
    folder: str = "/"
    exists: Callable[[str], bool] = storage.exists

    def path(self, uri: str) -> str:
        """Return a path as it can be pasted into a shell."""
        return shlex.quote(short_path(uri, self.folder))

    def next(self, *words: str) -> str:
        """Return the line with the next command. The words need no quotes yet."""
        return f"next: {self.program} {shlex.join(words)}"

    def lines(self, job: str, flags: Any, result: Result) -> list[str]:
        """Return the closing lines of a command, none for a command without any.

        Args:
            job: name of the command.
            flags: of the command.
            result: of the command, as in its JSON line.
        """
        write = getattr(self, f"_{job}", None)
        return write(flags, result) if write else []

    def _sample(self, flags: config.SampleFlags, result: Result) -> list[str]:
        cars = flags.sample_cars + flags.sample_test_cars
        found = f"{count_of(result['images'], 'images')} of {count_of(cars, 'cars')}"
        data = short_path(result["data"], self.folder)
        small = "--downscale", "8", "--base", "8"  # a minute on two CPUs
        return [
            f"sample: {found} in {self.path(result['data'])}",
            self.next("train", "--data", data, "--out", f"{data}-run", *small),
        ]

    def _train(self, flags: config.TrainFlags, result: Result) -> list[str]:
        dice = result["val_dice"]
        lines = [
            "train: no validation cars, so the Dice is unknown"
            if dice is None
            else f"validation: {judge_dice(dice).sentence}",
            f"model: {self.path(result['model'])}",
        ]
        if flags.holdout_cars.strip("0."):
            return [*lines, self.next("evaluate", "--data", flags.data, "--out", flags.out)]
        return [*lines, self._cut_out_some(flags.data, result["model"], flags.out)]

    def _evaluate(self, flags: config.EvaluateFlags, result: Result) -> list[str]:
        lines = [
            f"{count_of(result['images'], 'images')}: {judge_dice(result['dice']).sentence}",
            f"report: {self.path(result['report'])}",
        ]
        if not self.exists(storage.join(storage.resolve(flags.data), TEST)):
            return [*lines, self._cut_out_some(flags.data, flags.model_uri, flags.out)]
        model = ("--model", flags.model) if flags.model else ()
        return [*lines, self.next("predict", "--data", flags.data, *model, "--out", flags.out)]

    def _predict(self, flags: config.PredictFlags, result: Result) -> list[str]:
        if not result["submission"]:
            return []
        data, submission = flags.data, short_path(result["submission"], self.folder)
        lines = [f"predict: {count_of(result['images'], 'masks')} in {shlex.quote(submission)}"]
        if self.exists(storage.join(storage.resolve(data), SAMPLE_SUBMISSION)):
            lines[0] += ", checked as Kaggle would"
        if "unusual" in result:
            lines.append(judge_unscored(result["unusual"], result["images"]).sentence)
        if result.get("unusual"):
            lines[-1] += f" To correct them: {self.program} review {shlex.quote(flags.out)}"
        cut = "cutout", "--data", data, "--submission", submission, "--out", flags.out
        return [*lines, f"report: {self.path(result['report'])}", self.next(*cut)]

    def _review(self, _flags: config.ReviewFlags, result: Result) -> list[str]:
        if not result["listed"]:
            return ["review: no mask is unusual"]
        kept = f", {result['kept']:,} of them corrected before" if result["kept"] else ""
        if result["earlier"]:
            kept += f"; {result['earlier']:,} of earlier lists stay in the folder"
        return [
            f"review: {count_of(result['images'], 'masks')} to check{kept}",
            f"edit: {self.path(storage.join(result['folder'], MASKS))}",
            f"how: {self.path(storage.join(result['folder'], README))}",
            f"next: {self.program} {result['next']}",
        ]

    def _cutout(self, flags: config.CutoutFlags, result: Result) -> list[str]:
        done = result["written"] + result["resumed"]
        earlier = f", {result['resumed']:,} of them made before" if result["resumed"] else ""
        lines = [f"cutout: {count_of(done, 'cut-outs')} in {self.path(result['cutouts'])}{earlier}"]
        for name in ("sheet", "viewer", "report"):
            if result.get(name):
                lines.append(f"{name}: {self.path(result[name])}")
        named = flags.pictures or ("--data", flags.data)
        finished = flags.background != "transparent" or flags.frame != "none" or flags.mask_only
        if finished or len(named) > MAX_NAMED:
            return lines
        # Not OUT/model: the next command has another OUT.
        masks = ["--model", short_path(cutout_model(flags.model, flags.out), self.folder)]
        if flags.submission:
            masks = ["--submission", flags.submission]
        if flags.corrections:
            masks += ["--corrections", flags.corrections]
        if flags.cars_by:
            masks += ["--cars-by", flags.cars_by]
        look = "--frame", "catalogue", "--shadow", "contact", "--background", "white"
        out = f"{flags.out.rstrip('/')}-white"
        return [*lines, self.next("cutout", *named, *masks, *look, "--out", out)]

    def _export(self, _flags: config.ExportFlags, result: Result) -> list[str]:
        size = format_bytes(result["bytes"])
        lines = [f"export: {self.path(result['onnx'])}, {size}, needs this program no more"]
        if result["images"]:
            differ = count_of(result["pixels_differ"], "pixels")
            images = count_of(result["images"], "images")
            lines.append(f"verified: its masks of {images} differ from the model's in {differ}")
        return lines

    def _pipeline(self, flags: config.PipelineFlags, result: Result) -> list[str]:
        lines = [
            f"held-out cars: {judge_dice(result['dice']).sentence}",
            f"open: {self.path(result['report'])}",
        ]
        if not result["submission"]:
            return lines
        data = flags.data or short_path(
            storage.join(storage.resolve(flags.out), "sample"), self.folder
        )
        submission = short_path(result["submission"], self.folder)
        cut = "cutout", "--data", data, "--submission", submission, "--out", flags.out
        return [*lines, self.next(*cut)]

    def _cut_out_some(self, data: str, model: str, out: str) -> str:
        """Return the command that shows cut-outs of training images, which always exist."""
        images = f"{data.rstrip('/')}/{TRAIN}"
        model = short_path(model, self.folder)
        return self.next(
            "cutout", "--data", images, "--model", model, "--out", out, "--limit", "16"
        )

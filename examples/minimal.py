"""Ray Data -> Ray Train -> Ray Data in its plainest form: train a U-Net, then write a submission.

    carvana-ray sample --out runs/sample
    python examples/minimal.py runs/sample runs/minimal

docs/minimal.md lists the points where carvana_ray departs from this form, and why.
"""

import sys
import tempfile
from pathlib import Path

import ray.data
import ray.train
import torch
from ray.train import Checkpoint, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model

from carvana_ray import images, rle
from carvana_ray.unet import UNet
from carvana_ray.unet.loss import bce_dice

DOWNSCALE, BASE, BATCH_SIZE, EPOCHS = 8, 8, 8, 12


def load_pair(row: dict) -> dict:
    """Read an image and its mask; image float32 [h, w], mask float32 [h, w] in 0..1."""
    path = Path(row["item"])
    gray = images.load_gray(path.read_bytes(), DOWNSCALE)
    mask = images.load_mask((path.parents[1] / f"train_masks/{path.stem}_mask.gif").read_bytes())
    soft_mask = (images.shrink_mask(mask, DOWNSCALE) / 255).astype("float32")
    return {"image": images.standardize(gray), "mask": soft_mask}


def train_loop() -> None:
    """Train on this worker's shard; report a loss and a checkpoint after each epoch."""
    model = prepare_model(UNet(base=BASE, norm="batch"))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    shard = ray.train.get_dataset_shard("train")
    for _ in range(EPOCHS):
        for batch in shard.iter_torch_batches(batch_size=BATCH_SIZE, local_shuffle_buffer_size=256):
            loss = bce_dice(model(batch["image"][:, None]), batch["mask"][:, None])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with tempfile.TemporaryDirectory() as folder:
            torch.save(getattr(model, "module", model).state_dict(), f"{folder}/model.pt")
            ray.train.report({"loss": loss.item()}, checkpoint=Checkpoint.from_directory(folder))


def load_image(row: dict) -> dict:
    """Decode one file; image float32 [h, w]."""
    image = images.standardize(images.load_gray(row["bytes"], DOWNSCALE))
    return {"img": Path(row["path"]).name, "image": image}


class Predictor:
    """The trained network on its device, one per actor."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = UNet(base=BASE, norm="batch").to(self.device).eval()
        with checkpoint.as_directory() as folder:
            self.model.load_state_dict(torch.load(f"{folder}/model.pt", weights_only=True))

    @torch.inference_mode()
    def __call__(self, batch: dict) -> dict:
        image = torch.from_numpy(batch["image"])[:, None].to(self.device)
        masks = images.enlarge(self.model(image)[:, 0].sigmoid().cpu().numpy(), 1280, 1918)
        return {"img": batch["img"], "rle_mask": [rle.encode(mask) for mask in masks]}


def main(data: Path, out: Path) -> None:
    """Train on DATA/train, predict DATA/test, write OUT/submission.csv."""
    ray.init()
    gpus = int(ray.cluster_resources().get("GPU", 0))
    paths = [str(path) for path in sorted((data / "train").glob("*.jpg"))]
    result = TorchTrainer(
        train_loop,
        datasets={"train": ray.data.from_items(paths).map(load_pair).materialize()},
        scaling_config=ScalingConfig(num_workers=max(gpus, 1), use_gpu=gpus > 0),
        run_config=RunConfig(storage_path=str(out), name="train"),
    ).fit()
    masks = (
        ray.data.read_binary_files(str(data / "test"), include_paths=True)
        .map(load_image)
        .map_batches(
            Predictor,
            fn_constructor_args=(result.checkpoint,),
            batch_size=16,
            compute=ray.data.ActorPoolStrategy(size=max(gpus, 1)),
            num_gpus=min(gpus, 1),
        )
    )
    masks.to_pandas().sort_values("img").to_csv(out / "submission.csv", index=False)
    print(f"submission: {out / 'submission.csv'}, training loss {result.metrics['loss']:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())

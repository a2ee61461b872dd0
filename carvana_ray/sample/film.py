"""What a camera makes of a varied scene: blur, color, noise and JPEG."""

import io

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from carvana_ray.sample.camera import HEIGHT, WIDTH


def blur_background(image: Image.Image, rng: np.random.Generator, calm: bool) -> Image.Image:
    """Return the background as sharp as the lens makes it."""
    radius = float(
        rng.choice(
            (0.0, rng.uniform(0.5, 2.5), rng.uniform(2.5, 14)),
            p=(0.7, 0.28, 0.02) if calm else (0.5, 0.25, 0.25),
        )
    )
    if radius > 4:
        small = image.reduce(4).filter(ImageFilter.GaussianBlur(radius / 4))
        return small.resize(image.size, Image.Resampling.BICUBIC)
    return image.filter(ImageFilter.BoxBlur(radius)) if radius else image


def blur_image(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return an image out of focus, or sharpened."""
    kind = int(rng.choice(3, p=(0.5, 0.3, 0.2)))
    if kind == 1:
        return image.filter(ImageFilter.BoxBlur(float(rng.uniform(0.3, 3.5))))
    if kind == 2:
        return image.filter(ImageFilter.SHARPEN)
    return image


def grade(image: Image.Image, rng: np.random.Generator, strength: float) -> Image.Image:
    """Return the image with another white balance, exposure, contrast and vignette."""
    if rng.uniform() < 0.35 * strength:
        image = ImageChops.multiply(image, _vignette(rng))
    level = np.linspace(0, 1, 256)
    contrast = 1 + strength * rng.uniform(-0.35, 0.25)
    gamma = np.exp(strength * rng.normal(0, 0.2))
    exposure, lift = np.exp(strength * rng.normal(0, 0.16)), strength * rng.normal(0, 0.03)
    balance = np.exp(rng.normal(0, 0.04, 3))
    bend = strength * rng.uniform(0, 0.5)  # of a curve that is steep in the middle
    curve = level**gamma
    curve = (1 - bend) * curve + bend * (3 * curve**2 - 2 * curve**3)
    curve = (curve - 0.5) * contrast + 0.5 + lift
    table = [np.clip(255 * curve * exposure * channel, 0, 255) for channel in balance]
    return image.point(np.concatenate(table).astype(np.uint8).tolist())


def _vignette(rng: np.random.Generator) -> Image.Image:
    """Return the falling off of light toward the corners."""
    x = np.linspace(-1, 1, 60, dtype=np.float32)[None, :] - rng.normal(0, 0.2)
    y = np.linspace(-0.7, 0.7, 40, dtype=np.float32)[:, None] - rng.normal(0, 0.2)
    fall = 1 - rng.uniform(0.05, 0.5) * np.clip(x**2 + y**2, 0, 2) ** rng.uniform(0.7, 1.5)
    layer = Image.fromarray((255 * np.clip(fall, 0, 1)).astype(np.uint8))
    layer = layer.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return Image.merge("RGB", (layer, layer, layer))


def add_noise(image: Image.Image, deviation: float, rng: np.random.Generator) -> Image.Image:
    """Return the image with sensor noise of a deviation in gray values."""
    # Random bytes index 256 quantiles of a normal distribution: ten times as fast as exact noise.
    quantiles = np.sort(rng.standard_normal(256 * 64, dtype=np.float32)).reshape(256, 64)
    levels = np.clip(np.rint(quantiles.mean(axis=1) * deviation) + 128, 0, 255).astype(np.uint8)
    indices = np.frombuffer(rng.bytes(WIDTH * HEIGHT), dtype=np.uint8)
    layer = Image.fromarray(levels.take(indices).reshape(HEIGHT, WIDTH))
    noise = Image.merge("RGB", (layer, layer, layer))
    return ImageChops.add(image, noise, 1, -128)


def compress(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return the image after a JPEG of a quality of 25 to 97."""
    quality = int(rng.uniform(25, 97))
    if quality > 85:  # makes no difference that can be seen
        return image
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling=int(rng.choice((0, 2))))
    return Image.open(file).convert("RGB")

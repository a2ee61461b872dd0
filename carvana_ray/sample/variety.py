"""The kinds of variety of varied scenes, each of which can be switched off by itself."""

from dataclasses import dataclass, fields

import numpy as np

Dice = dict[str, np.random.Generator]
"""A random generator for each kind of variety that is on, by its name in `Variety`."""


@dataclass(frozen=True)
class Variety:
    """Kinds of variety. A kind that is off is as in the studio of `--scenes studio`.

    Attributes:
        bodies: styles, proportions, parts, wheels and interiors of cars.
        paints: colors, two tones, glass, stickers and plates.
        camera: distance, height, focal length, framing, tilt, and the angle of the car.
        walls: brightness, foot, panels, windows, doors, curtains, ceilings.
        lettering: words, logos and posters on the wall, or nothing.
        floors: brightness, texture, tiles, lines, turntable, stains, gloss.
        light: light on the car, shadows, spots on the wall.
        clutter: objects that are not the car, behind and next to it.
        backdrops: cars pasted before plain, graded and textured pictures.
        sharpness: blur of the background and of the whole image.
        color: white balance, exposure, contrast, gamma, vignette.
        noise: noise of the sensor and quality of the JPEG.
    """

    bodies: bool = True
    paints: bool = True
    camera: bool = True
    walls: bool = True
    lettering: bool = True
    floors: bool = True
    light: bool = True
    clutter: bool = True
    backdrops: bool = True
    sharpness: bool = True
    color: bool = True
    noise: bool = True

    def dice(self, rng: np.random.Generator) -> Dice:
        """Return the generators of the kinds that are on.

        The state of `rng` does not change, and a kind's generator is the same whichever others
        are on.
        """
        names = [field.name for field in fields(self)]
        generators = zip(names, rng.spawn(len(names)), strict=True)
        return {name: generator for name, generator in generators if getattr(self, name)}

"""README.txt of a review folder: what to edit, and which command comes next."""

import shlex
from collections.abc import Sequence

from carvana_ray.review.listed import ListedImage

_TEXT = """\
Masks to check

The program found the masks of these images unusual. Correct those that are wrong; leave the others
as they are. A mask that you do not change is not used.

  train/          the images
  train_masks/    their masks, NAME_mask.png: white is car, black is background. Edit these.
  outlines/       the outline of each mask on transparent ground, to lay over the image
  coco.json       the same masks for annotation tools (COCO, run lengths)
  _review.json    tells changed masks from unchanged ones. Do not edit it.

In an editor open train/NAME, add train_masks/NAME_mask.png as a layer at half opacity, and paint on
it in black and white. Save this layer alone under its name, at full opacity, as PNG without
transparency. Do not scale, turn or crop it.

Then run the prediction again with your masks. They are used as they are; all others stay:

  carvana-ray {next}

To train a model on them, too:

  carvana-ray train --data DATA --init-from MODEL --corrections {folder} --out NEW

DATA is your training data, MODEL the model to start from, NEW a new folder. Run review again at any
time: it keeps each mask that you have changed, and draws its outline anew. Images of earlier lists
stay in the folder.

Images, the most unusual first

{images}
"""


def write_readme(folder: str, next_words: Sequence[str], listed: Sequence[ListedImage]) -> bytes:
    """Return the text, UTF-8.

    Args:
        folder: of the review.
        next_words: the command that uses the corrected masks, without the program.
        listed: the images.
    """
    images = "\n".join(f"  {image.name}\n      {_describe(image)}" for image in listed)
    text = _TEXT.format(next=shlex.join(next_words), folder=shlex.quote(folder), images=images)
    return text.encode()


def _describe(image: ListedImage) -> str:
    """Return why an image is listed. A piece in a corner is easily overlooked, so pieces count."""
    pieces = f"; the mask has {image.pieces} pieces" if image.pieces > 1 else ""
    return f"{image.reasons}{pieces}"

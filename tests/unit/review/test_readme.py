"""README.txt: real paths, quoted for a shell, and the reasons of each image."""

from carvana_ray.review.listed import ListedImage
from carvana_ray.review.readme import write_readme


def test_paths_are_quoted_and_pieces_are_counted() -> None:
    listed = [
        ListedImage(1, "車 {0}.jpg", "the mask is empty", 0, 0, 0.0),
        ListedImage(2, "b.jpg", "ragged outline", 3, 10, 2.0),
    ]
    words = ["predict", "--data", "my data", "--corrections", "my {x} review"]
    text = write_readme("my {x} review", words, listed).decode()
    assert "  carvana-ray predict --data 'my data' --corrections 'my {x} review'\n" in text
    assert "--init-from MODEL --corrections 'my {x} review' --out NEW\n" in text
    assert text.endswith(
        "\n  車 {0}.jpg\n      the mask is empty\n"
        "  b.jpg\n      ragged outline; the mask has 3 pieces\n"
    )
    assert all(len(line) <= 100 for line in text.splitlines())

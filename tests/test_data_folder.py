"""Reading image folders, and how `load` tells the formats apart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnnc.data import images, load, read_image
from cnnc.errors import DataError

GRAY = np.arange(0, 240, 8, dtype=np.uint8).reshape(5, 6)
RGB = np.stack([GRAY, GRAY[::-1], GRAY[:, ::-1]], axis=-1)


def save(root: Path, classes: tuple[str, ...] = ("cat", "dog"), image: np.ndarray = GRAY) -> Path:
    for split in ("train", "test"):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for file in ("1.png", "2.png"):
                Image.fromarray(image).save(root / split / name / file)
    return root


def test_classes_are_in_natural_order(tmp_path: Path) -> None:
    dataset = load(save(tmp_path, ("10", "9", "b2", "B10")))
    assert dataset.classes == ("9", "10", "b2", "B10")
    assert dataset.train.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    np.testing.assert_array_equal(dataset.test.images[3, 0], GRAY)


def test_the_networks_classes_give_the_order(tmp_path: Path) -> None:
    dataset = load(save(tmp_path), classes=("dog", "bird", "cat"))
    assert dataset.classes == ("dog", "bird", "cat")
    assert dataset.train.labels.tolist() == [2, 2, 0, 0]


def test_classes_that_only_number_say_nothing(tmp_path: Path) -> None:
    assert load(save(tmp_path), classes=("0", "1")).classes == ("cat", "dog")


def test_a_class_the_network_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"knows no class 'dog'\. Did you mean 'dogs'"):
        load(save(tmp_path), classes=("cat", "dogs"))


@pytest.mark.parametrize(
    ("image", "channels", "expected"),
    [
        (GRAY, None, GRAY[None]),
        (RGB, None, RGB.transpose(2, 0, 1)),
        (GRAY, 3, np.stack([GRAY] * 3)),
        (RGB, 1, np.asarray(Image.fromarray(RGB).convert("L"))[None]),
    ],
)
def test_channels(tmp_path: Path, image: np.ndarray, channels: int | None, expected: np.ndarray) -> None:
    dataset = load(save(tmp_path, image=image), channels=channels)
    np.testing.assert_array_equal(dataset.train.images[0], expected)


def test_one_file_of_colour_makes_all_rgb(tmp_path: Path) -> None:
    save(tmp_path)
    Image.fromarray(RGB).save(tmp_path / "test" / "dog" / "2.png")
    assert load(tmp_path).train.images.shape == (4, 3, 5, 6)


@pytest.mark.parametrize("suffix", sorted({suffix.upper() for suffix in images.FORMATS}))
def test_every_format_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    image = Image.fromarray(np.full((5, 6), 77, np.uint8))
    (image if suffix != ".PPM" else image.convert("RGB")).save(path)
    pixels = read_image(path, 1)
    assert pixels.shape == (1, 5, 6)
    assert np.abs(pixels.astype(int) - 77).max() <= 2


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("LA", (9, 0), (9, 9, 9)),
        ("P", 3, (1, 2, 3)),
        ("RGBA", (1, 2, 3, 0), (1, 2, 3)),
    ],
)
def test_modes(tmp_path: Path, mode: str, value: int | tuple[int, ...], expected: tuple[int, ...]) -> None:
    image = Image.new(mode, (2, 2), value)
    if mode == "P":
        image.putpalette([0] * 9 + [1, 2, 3])
    options: dict[str, Any] = {"transparency": bytes(9)} if mode == "P" else {}
    image.save(tmp_path / "a.png", **options)
    assert read_image(tmp_path / "a.png", 3)[:, 0, 0].tolist() == list(expected)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(GRAY).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 1)[0], np.rot90(GRAY, -1))


@pytest.mark.parametrize(("size", "message"), [((8, 8), "the network takes 8×8"), (None, "1.png is 5×6")])
def test_an_image_of_another_size_is_named_with_both_sizes(
    tmp_path: Path, size: tuple[int, int] | None, message: str
) -> None:
    save(tmp_path, image=np.zeros((8, 8), np.uint8) if size else GRAY)
    Image.fromarray(GRAY[:3]).save(tmp_path / "test" / "cat" / "2.png")
    with pytest.raises(DataError, match=f"this image is 3×6 .*{message}") as error:
        load(tmp_path, size=size)
    assert error.value.where == str(tmp_path / "test" / "cat" / "2.png")


def test_clutter_is_passed_over(tmp_path: Path) -> None:
    save(tmp_path)
    for name in (".DS_Store", "Thumbs.db"):
        (tmp_path / "train" / "cat" / name).write_bytes(b"?")
    (tmp_path / "train" / ".cache").mkdir()
    assert len(load(tmp_path).train) == 4


def half_a_png(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_broken_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.png")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_text("hello"), "not a whole image file"),
        (half_a_png, "not a whole image file"),
        (lambda path: Image.fromarray(GRAY).save(path, "gif"), "not a whole image file"),
        (lambda path: Image.fromarray(GRAY.astype(np.int32)).save(path, "tiff"), "mode I, not 8 or 16"),
        (lambda path: path.rename(path.with_suffix(".txt")), "Known suffixes"),
        (
            lambda path: Image.fromarray(GRAY).save(
                path, save_all=True, append_images=[Image.fromarray(GRAY[::-1])]
            ),
            "several images",
        ),
        (replace_by_folder, "a folder among images"),
        (replace_by_broken_link, "no such file"),
    ],
)
def test_an_unusable_file_is_named(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    path = save(tmp_path) / "train" / "dog" / "2.png"
    damage(path)
    with pytest.raises(DataError, match=message) as error:
        load(tmp_path)
    assert error.value.where.startswith(str(path.with_suffix("")))


def test_images_of_many_pixels_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "PIXEL_LIMIT", 30)
    Image.fromarray(GRAY).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", 1).size == 30
    monkeypatch.setattr(images, "PIXEL_LIMIT", 29)
    path = tmp_path / "a.png"
    half_a_png(path)  # decoding would tell that it is truncated
    with pytest.raises(DataError, match="6×5 pixels, over the limit of 29"):
        read_image(path, 1)


def test_a_network_of_other_channels_than_1_or_3_takes_no_image_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="takes 4 channels"):
        load(save(tmp_path), channels=4)


def link_to_itself(root: Path) -> None:
    (root / "train" / "loop").symlink_to("loop")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "train" / "bird").mkdir(), "bird: this class holds no image"),
        (
            lambda root: (root / "test" / "dog").rename(root / "test" / "fish"),
            "only one of them has dog, fish",
        ),
        (lambda root: (root / "test").rename(root / "val"), "test: there is no such folder"),
        (lambda root: (root / "train" / "a.png").write_bytes(b"?"), "a.png: this is no folder"),
        (lambda root: (root / "train" / "loop").symlink_to(root), "a folder among images"),
        (link_to_itself, "loop: this is no folder"),
    ],
)
def test_unusable_folders_are_refused(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(save(tmp_path))
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_an_empty_class_is_kept_where_bad_images_are_skipped(tmp_path: Path) -> None:
    """As torchvision's ImageFolder does with allow_empty: other classes keep their numbers."""
    for folder in (save(tmp_path) / "train" / "bird", tmp_path / "test" / "bird", tmp_path / "train" / "zoo"):
        folder.mkdir()
    with pytest.raises(DataError, match=r"bird: this class holds no image\. --on-bad-image skip keeps"):
        load(tmp_path)
    dataset = load(tmp_path, on_bad_image="skip")
    assert dataset.classes == ("bird", "cat", "dog", "zoo")
    assert dataset.train.labels.tolist() == [1, 1, 2, 2]
    assert [problem.kind for problem in dataset.problems] == ["class"] * 3
    named = load(tmp_path, on_bad_image="skip", classes=("dog", "cat"))
    assert (named.classes, named.train.labels.tolist()) == (("dog", "cat"), [1, 1, 0, 0])
    (tmp_path / "train" / "cat").rename(tmp_path / "cat")
    with pytest.raises(DataError, match="only one of them has cat"):
        load(tmp_path, on_bad_image="skip")


def test_folders_without_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="holds no class"):
        load(tmp_path)


def test_a_class_may_be_a_link_to_a_folder(tmp_path: Path) -> None:
    save(tmp_path)
    for split in ("train", "test"):
        (tmp_path / split / "cat").rename(tmp_path / f"{split} cats")
        (tmp_path / split / "cat").symlink_to(tmp_path / f"{split} cats")
    assert load(tmp_path).train.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digit", "no data set of this name. Did you mean 'digits'"),
        ("no/such/folder", "there is no such folder.*Known: digits, fashion-mnist, mnist"),
        ("", "holds no data set"),
        ("a\0b", "no such folder"),
        ("a" * 5000, "can't be read"),
        (__file__, "this is a file"),
    ],
)
def test_what_is_no_data_set_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        load(spec)


def test_what_was_looked_for_is_listed(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"NumPy archives \(\*train.npz.*IDX files \(.*image folders \(train/"
    ):
        load(tmp_path)


def test_two_formats_in_a_folder_are_ambiguous(tmp_path: Path) -> None:
    save(tmp_path)
    np.savez(tmp_path / "train.npz", x=GRAY[None], y=[0])
    with pytest.raises(DataError, match="holds NumPy archives and image folders"):
        load(tmp_path)

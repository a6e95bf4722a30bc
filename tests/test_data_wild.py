"""Images from the wild: read, skipped or refused, and all told in one pass by `cnnc data check`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from command_line import SMALL, call, done
from PIL import Image
from wild import BAD, SIZE, SOUND, encoded, folders, picture, write_all

from cnnc.bundle import Preprocessing, Resize
from cnnc.data import batches, load, read_image
from cnnc.data.images import Form
from cnnc.errors import DataError

RESIZED = Preprocessing(resize="crop")


@pytest.mark.parametrize("name", SOUND)
def test_every_kind_of_image_becomes_rgb_of_its_upright_size(name: str, tmp_path: Path) -> None:
    SOUND[name](tmp_path / name)
    pixels = read_image(tmp_path / name, 3)
    assert pixels.shape == (3, SIZE[1], SIZE[0])
    assert len(np.unique(pixels)) > 1


def test_of_16_bits_the_upper_8_stay(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256], [0x1234, 0xFF00, 0xFFFF]], np.uint16)
    for suffix in ("png", "tiff"):
        Image.fromarray(values).save(tmp_path / f"a.{suffix}")
        assert read_image(tmp_path / f"a.{suffix}", 1)[0].tolist() == [[0, 0, 1], [0x12, 0xFF, 0xFF]]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_stops_or_is_skipped(name: str, tmp_path: Path) -> None:
    spoil, said = BAD[name]
    spoil(folders(tmp_path) / "train" / "cat" / name)
    with pytest.raises(DataError, match=said) as error:
        load(tmp_path, size=(9, 12))
    assert error.value.where == str(tmp_path / "train" / "cat" / name)
    dataset = load(tmp_path, size=(9, 12), on_bad_image="skip")
    assert [problem.where for problem in dataset.problems] == [error.value.where]
    sizes = [len(batch) for batch in batches(dataset.train, 4)]
    assert sum(sizes) == 6, "the sound images stay"


def test_the_first_of_many_bad_images_is_named_with_their_number(tmp_path: Path) -> None:
    write_all(folders(tmp_path) / "train" / "dog")
    with pytest.raises(DataError, match=r"It is one of \d+ such problems: `cnnc data check`"):
        load(tmp_path, preprocessing=RESIZED)


@pytest.fixture
def wild(tmp_path: Path) -> Path:
    """All that can be wrong, at once."""
    root = folders(tmp_path / "wild")
    write_all(root / "train" / "cat")
    picture(size=(30, 20)).save(root / "train" / "dog" / "large.webp")
    (root / "train" / "empty").mkdir()
    (root / "train" / "loop").symlink_to("..")
    (root / "train" / "itself").symlink_to("itself")
    (root / "train" / "stray.png").write_bytes(encoded())
    (root / "test" / "fish").mkdir()
    picture().save(root / "test" / "fish" / "1.png")
    return root


def test_check_tells_all_in_one_pass(wild: Path) -> None:
    result = call("data", "check", wild, "--json")
    assert result.status == 1
    assert result.err.startswith(f"error: {wild}: this data set has ")
    report = json.loads(result.out)
    assert (report["ok"], report["format"]) == (False, "image folders")
    said = {Path(problem["where"]).name: problem["what"] for problem in report["problems"]}
    for name, (_, words) in BAD.items():
        told = next(p for p in report["problems"] if p["where"].endswith(f"/train/cat/{name}"))
        assert words.partition(" Known")[0] in told["what"], told
        assert told["kind"] == "image"
    assert not set(SOUND) & set(said), "sound images are no problems"
    faults = {
        problem["where"]: problem["what"] for problem in report["problems"] if problem["kind"] == "data"
    }
    empty = [problem["where"] for problem in report["problems"] if problem["kind"] == "class"]
    assert empty == [str(wild / "train" / "empty")]
    assert said["empty"] == "this class holds no image."
    assert faults[str(wild / "train" / "loop" / "train")] == "this is a folder among images."
    assert faults[str(wild / "train" / "itself")] == "this is no folder."
    assert faults[str(wild / "train" / "stray.png")] == "this is no folder."
    assert faults[str(wild)].startswith("train and test hold different classes: only one of them has fish")
    notes = " ".join(problem["what"] for problem in report["problems"] if problem["kind"] == "note")
    assert "sizes, from" in notes
    assert "images of 16 bits a pixel" in notes
    counts = report["splits"]["train"]
    assert counts["classes"] == {"cat": 3 + len(SOUND) + len(BAD) - 1, "dog": 4, "empty": 0}
    assert counts["bad"] == len(BAD) - 1, "notes.txt is no example"


def test_check_as_a_table(wild: Path) -> None:
    result = call("data", "check", wild, "--workers", 1)
    lines = result.out.splitlines()
    assert any(line.split() == ["fish", "0", "1"] for line in lines)
    assert f"bad image: {wild}/train/cat/zero.jpg: this file is empty. Get a fresh copy." in lines
    assert sum(line.startswith("bad image: ") for line in lines) == len(BAD)
    assert sum(line.startswith("empty class folder: ") for line in lines) == 1
    assert "1 empty class folder and" in result.err


def test_check_of_a_sound_data_set(tmp_path: Path) -> None:
    result = done("data", "check", folders(tmp_path / "sound"))
    assert "Nothing is wrong with it." in result.out
    assert json.loads(done("data", "check", tmp_path / "sound", "--json").out)["problems"] == []
    assert json.loads(done("data", "check", "digits", "--json").out)["splits"]["test"]["images"] == 360


def test_check_of_one_class(tmp_path: Path) -> None:
    result = done("data", "check", folders(tmp_path, classes=("cat",)))
    assert "are all of one class, 'cat'" in result.out


def test_check_against_a_network(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(SMALL)
    done("build", tmp_path / "small.py", "-o", tmp_path / "small.bundle")
    result = call("data", "check", folders(tmp_path / "data"), "--for", tmp_path / "small.bundle")
    assert result.status == 1
    assert "this image is 9×12 (height × width), the network takes 8×8" in result.out


@contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Without the superuser's right to read everything."""
    if os.geteuid():
        yield
        return
    for parent in (folder, *folder.parents[:4]):
        parent.chmod(parent.stat().st_mode | 0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_unreadable_files_are_told(tmp_path: Path) -> None:
    root = folders(tmp_path / "data")
    done("data", "check", root, "--json", "--workers", 0)  # all that it imports is imported now
    (root / "train" / "cat" / "0.png").chmod(0)
    (root / "test" / "dog").chmod(0)
    with as_nobody(root):
        result = call("data", "check", root, "--json", "--workers", 0)
    (root / "test" / "dog").chmod(0o755)
    assert result.status == 1
    told = {problem["where"]: problem["what"] for problem in json.loads(result.out)["problems"]}
    assert told[str(root / "train" / "cat" / "0.png")] == "this can't be read: Permission denied."
    assert told[str(root / "test" / "dog")] == "this can't be read: Permission denied."


# Sizes.


def gradient(height: int, width: int) -> Image.Image:
    """Red grows downwards, green to the right, from 0 to 255."""
    red, green = np.mgrid[0 : 255 : height * 1j, 0 : 255 : width * 1j]
    return Image.fromarray(np.stack([red, green, 0 * red], -1).astype(np.uint8))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize(
    ("resize", "crop", "red", "green"),
    [
        ("stretch", 1.0, (0, 255), (0, 255)),
        ("crop", 1.0, (0, 255), (64, 191)),  # twice as wide as high: the middle half
        ("crop", 0.5, (64, 191), (96, 159)),
        ("pad", 1.0, None, (0, 255)),
    ],
)
def test_resizing(
    tmp_path: Path,
    suffix: str,
    resize: Resize,
    crop: float,
    red: tuple[int, int] | None,
    green: tuple[int, int],
) -> None:
    gradient(400, 800).save(tmp_path / f"a.{suffix}", quality=95)
    form = Form(3, (20, 20), resize, crop)
    pixels = read_image(tmp_path / f"a.{suffix}", form).astype(int)
    assert pixels.shape == (3, 20, 20)
    step = 13
    if red:
        assert np.abs(pixels[0, [0, -1]].mean(1) - red).max() < step
    else:
        assert (pixels[:, :5].max(), pixels[:, 15:].max()) == (0, 0), "margins above and below"
        assert np.abs(pixels[0, [5, 14]].mean(1) - (0, 255)).max() < 2 * step
    rows = slice(6, 14)
    assert np.abs(pixels[1, rows][:, [0, -1]].mean(0) - green).max() < step


def test_a_jpeg_that_is_decoded_small_looks_as_one_that_is_not(tmp_path: Path) -> None:
    picture(size=(40, 40)).resize((800, 800), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        whole = np.asarray(image.resize((50, 50), Image.Resampling.BILINEAR)).astype(int)
    drafted = read_image(tmp_path / "a.jpg", Form(3, (50, 50), "stretch")).transpose(1, 2, 0).astype(int)
    assert np.abs(drafted - whole).mean() < 3


def test_a_turned_jpeg_is_resized_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    gradient(800, 400).rotate(90, expand=True).save(tmp_path / "a.jpg", exif=exif, quality=95)
    pixels = read_image(tmp_path / "a.jpg", Form(3, (40, 20), "stretch")).astype(int)
    assert np.abs(pixels[0].mean(1) - np.linspace(0, 255, 40)).max() < 13


def test_mixed_sizes_are_brought_to_the_networks(tmp_path: Path) -> None:
    root = folders(tmp_path)
    picture(size=(40, 31)).save(root / "train" / "cat" / "large.jpg")
    with pytest.raises(DataError, match=r'this image is 31×40 .*resize="crop"'):
        load(root)
    assert load(root, size=(8, 8), preprocessing=RESIZED).train.images.shape == (7, 3, 8, 8)
    assert load(root, preprocessing=RESIZED).train.images.shape == (7, 3, 9, 12), "the size that most have"


CROPPING = SMALL.replace("8, 8)),", '8, 8), resize="crop", crop=0.875),')


def test_training_predicting_and_exporting_resize_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("crop.py").write_text(CROPPING)
    root = folders(tmp_path / "data", tuple(map(str, range(10))), count=1)
    picture(size=(40, 31)).save(root / "train" / "3" / "large.jpg")
    done("train", "crop.py", "--data", "data", "-o", "run", "--epochs", 1, "-q", "--device", "cpu")
    done("export", "run", "-o", "m.onnx")
    done("export", "run", "-o", "e.onnx", "--embed-preprocessing")
    image = root / "train" / "3" / "large.jpg"
    answers = [
        json.loads(done("predict", model, image, "--json").out) for model in ("run", "m.onnx", "e.onnx")
    ]
    scores = [[score["value"] for score in answer["predictions"][0]["scores"]] for answer in answers]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-4)
    np.testing.assert_allclose(scores[2], scores[0], rtol=1e-4)
    assert "cropped and scaled from 31×40 (height × width) to 8×8" in str(answers[1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ('resize="fit"', "no resize 'fit'"),
        ("crop=1.5", "crop is 1.5"),
        ("crop=0", "crop must be a number above 0"),
    ],
)
def test_wrong_wishes_for_sizes(arguments: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(SMALL.replace("8, 8)),", f"8, 8), {arguments}),"))
    result = call("build", tmp_path / "bad.py", "-o", tmp_path / "b")
    assert result.status == 1
    assert said in result.err
    assert "bad.py:" in result.err

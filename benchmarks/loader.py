"""Images a second of cnnc's loader and of PyTorch's DataLoader, with as many worker processes.

    python -m benchmarks.loader --images 20000 --side 64 256 --workers 2

Both read the same image folder, decode, resize where asked for, scale and shuffle, and hand over float32
batches [N, 3, S, S]; neither does anything with them. Each loader goes through the folder in turn, `--turns`
times; the first pass of each is left out. A row is the ratio of the medians, above 1 where cnnc is faster.
`starts` are cnnc's seconds to know the folder, for the first time and again. PyTorch's side is what its
tutorials write: Pillow, one `Dataset`, and the default collate; and once more with uint8 from the workers,
which the main process turns into floats. The better of the two counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

BATCH = 64


def generate(root: Path, count: int, sides: list[int]) -> None:
    """`count` JPEGs in ten classes, and ten test images, of smooth noise; sides lie between these two."""
    from PIL import Image

    random = np.random.default_rng(0)
    for split, number in (("train", count), ("test", 10)):
        for index in range(number):
            folder = root / split / f"class{index % 10}"
            folder.mkdir(parents=True, exist_ok=True)
            height, width = (int(side) for side in random.integers(sides[0], sides[-1] + 1, 2))
            coarse = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
            image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            image.save(folder / f"{index}.jpg", quality=85)


def cnnc_pass(root: Path, size: int, workers: int) -> Callable[[int], int]:
    """One pass through the training images, which counts them."""
    from cnnc.bundle import Preprocessing, TensorSpec
    from cnnc.data import Prefetcher, batches, epoch_order, load, preprocess

    preprocessing = Preprocessing(resize="stretch")
    spec = TensorSpec("image", "float32", ("N", 3, size, size))
    dataset = load(root, channels=3, size=(size, size), preprocessing=preprocessing, workers=workers)

    def read(epoch: int) -> int:
        order = epoch_order(len(dataset.train), 0, epoch)
        feeds = (
            (preprocess(batch.images, preprocessing, spec), batch.labels)
            for batch in batches(dataset.train, BATCH, order=order)
        )
        with Prefetcher(feeds) as ready:
            return sum(len(images) for images, _ in ready)

    return read


def torch_pass(root: Path, size: int, workers: int, late: bool) -> Callable[[int], int]:
    """The same with a DataLoader whose workers persist; with `late` floats are made in this process."""
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    class Folder(Dataset[tuple[torch.Tensor, int]]):
        def __init__(self) -> None:
            self.files = sorted((root / "train").glob("*/*.jpg"))
            self.classes = sorted({file.parent.name for file in self.files})

        def __len__(self) -> int:
            return len(self.files)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            file = self.files[index]
            with Image.open(file) as image:
                pixels = image.convert("RGB")
                if pixels.size != (size, size):
                    pixels = pixels.resize((size, size), Image.Resampling.BILINEAR)
            array = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()
            return array if late else array.float().div(255), self.classes.index(file.parent.name)

    loader = DataLoader(
        Folder(), BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0, prefetch_factor=2
    )

    def read(epoch: int) -> int:
        return sum(len(images.float().div_(255) if late else images) for images, _ in loader)

    return read


def compare(root: Path, count: int, size: int, workers: int, turns: int) -> dict[str, float | int]:
    """Both loaders in turn; images a second and their ratio."""
    passes = {
        "cnnc": cnnc_pass(root, size, workers),
        "pytorch": torch_pass(root, size, workers, late=False),
        "pytorch_late": torch_pass(root, size, workers, late=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for turn in range(turns + 1):
        for name, read in passes.items():
            began = time.perf_counter()
            assert read(turn) == count
            if turn:
                seconds[name].append(time.perf_counter() - began)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    rates = {f"{name}_images_per_second": round(count / value) for name, value in median.items()}
    ratio = min(median["pytorch"], median["pytorch_late"]) / median["cnnc"]
    return {"images": count, "size": size, "workers": workers, **rates, "ratio": round(ratio, 3)}


def start(root: Path, size: int, workers: int) -> float:
    """Seconds until the data set is known, as a process that starts has to know it."""
    from cnnc.bundle import Preprocessing
    from cnnc.data import load

    preprocessing = Preprocessing(resize="stretch")
    began = time.perf_counter()
    load(root, channels=3, size=(size, size), preprocessing=preprocessing, workers=workers).close()
    return time.perf_counter() - began


def main() -> None:
    """Print one JSON object a row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--side", type=int, nargs="+", default=[256], help="pixels of a stored side, or two")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 224, 96], help="sides of the input")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the images lie, or are generated")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary)
        if not (root / "train").exists():
            generate(root, options.images, options.side)
        for size in options.sizes:
            starts = [round(start(root, size, options.workers), 2) for _ in range(2)]
            print(json.dumps({"starts": starts}), flush=True)
            print(json.dumps(compare(root, options.images, size, options.workers, options.turns)), flush=True)


if __name__ == "__main__":
    main()

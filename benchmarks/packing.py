"""What it costs to keep and look at a picture of SDXL's size: ``python -m benchmarks.packing [--pictures 16]``.

Pictures of 1024 × 1024 are sums of smooth noise of several scales. Pillow's usual PNG, one picture after the other, against what a study
does; and the statistics of which the artifact level is made.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from objectives.artifacts import image_statistics
from optimizer.search.images.png import save_images
from studies.store import FolderStore

SIDE = 1024


def main() -> None:
    """Print seconds and megabytes a picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packing", description=__doc__)
    parser.add_argument("--pictures", type=int, default=16)
    count = parser.parse_args().pictures
    images = pictures(count)
    begun = perf_counter()
    usual = sum(len(packed(picture)) for picture in images)
    one = perf_counter() - begun
    with TemporaryDirectory() as folder:
        begun = perf_counter()
        names = save_images(FolderStore(Path(folder)), "x", images)
        all_cores = perf_counter() - begun
        written = sum((Path(folder) / name).stat().st_size for name in names)
    begun = perf_counter()
    image_statistics(images)
    seen = perf_counter() - begun
    print(f"PNG, one after the other   {one / count:6.3f} s   {usual / count / 1e6:.2f} MB")
    print(f"PNG, as a study writes it  {all_cores / count:6.3f} s   {written / count / 1e6:.2f} MB   {one / all_cores:.1f} times as fast")
    print(f"statistics on the CPU      {seen / count:6.3f} s")


def packed(picture: Tensor) -> bytes:
    """As Pillow does it when it is not told otherwise."""
    found = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(found, "PNG")
    return found.getvalue()


def pictures(count: int) -> Tensor:
    """Smooth noise, uint8, (count, 3, 1024, 1024)."""
    draw = torch.Generator().manual_seed(0)
    scales = [torch.randn((count, 3, SIDE // k, SIDE // k), generator=draw) * k**0.5 for k in (1, 4, 16, 64, 256)]
    whole = torch.stack([interpolate(scale, size=SIDE, mode="bilinear") for scale in scales]).sum(0)
    low, high = whole.aminmax()
    return ((whole - low) / (high - low) * 255).round().to(torch.uint8)


if __name__ == "__main__":
    main()

"""Pictures as files of a store."""

from __future__ import annotations

import io

from PIL import Image
from torch import Tensor

from studies.store import Store


def save_images(store: Store, name: str, images: Tensor) -> tuple[str, ...]:
    """Write pictures, uint8 (n, 3, height, width), durably as ``images/NAME/INDEX.png``; returns these names."""
    files = tuple(f"images/{name}/{index:03d}.png" for index in range(len(images)))
    for file, picture in zip(files, images, strict=True):
        packed = io.BytesIO()
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(packed, "PNG")
        store.write(file, packed.getvalue())
    return files

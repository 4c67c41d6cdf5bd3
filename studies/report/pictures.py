"""Pictures inside the report: a file on the disk becomes a small data URI."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from studies.directory import StudyDirectory, StudyDirectoryError

LARGEST = 384
"""Longest side of an inlined picture, in pixels."""

TINY = 128
"""Pictures up to this side are shown enlarged with hard pixel edges, and stored without loss: at that size the colour
subsampling of lossy WebP would smear what there is to see, and losslessness costs a few kilobytes only."""

_QUALITY = 88


@dataclass(frozen=True)
class Picture:
    """A picture ready for an ``img`` element.

    Attributes:
        uri: ``data:image/webp;base64,…``; empty if there is no picture.
        width: of the inlined picture, in pixels.
        height: of the inlined picture, in pixels.
        pixelated: whether to enlarge it with hard edges.
        problem: why there is no picture; empty if there is one, or if none was made.
    """

    uri: str = ""
    width: int = 0
    height: int = 0
    pixelated: bool = False
    problem: str = ""


def inline_picture(study: StudyDirectory, name: str) -> Picture:
    """Read a picture of the study and make it small enough to be inlined.

    A picture that cannot be read must not cost the report: the reason is returned in ``problem``, for the report to show.

    Args:
        study: the study directory.
        name: file name relative to the study; empty gives an empty picture.
    """
    if not name:
        return Picture()
    try:
        with Image.open(study.inside(name)) as opened:
            return _encode(opened.convert("RGB"))
    except StudyDirectoryError as error:
        return Picture(problem=error.problem)
    except FileNotFoundError:
        return Picture(problem="the file is missing")
    except UnidentifiedImageError:
        return Picture(problem="the file is not a picture")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return Picture(problem=f"the file cannot be read ({error})")


def _encode(picture: Image.Image) -> Picture:
    tiny = max(picture.size) <= TINY
    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    packed = io.BytesIO()
    picture.save(packed, "WEBP", lossless=tiny, quality=100 if tiny else _QUALITY, method=4)
    uri = "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode("ascii")
    return Picture(uri, *picture.size, pixelated=tiny)

"""Pictures in the report: converts picture files to small data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from studies.directory import StudyDirectory, StudyDirectoryError

LARGEST = 384
"""Longest side of an inlined picture, in pixels."""

TINY = 128
"""Pictures up to this side are shown enlarged with hard pixel edges, and encoded losslessly: at that size the colour
subsampling of lossy WebP would blur the details, and lossless encoding costs only a few kilobytes."""

_QUALITY = 88


@dataclass(frozen=True)
class Picture:
    """A picture ready for an ``img`` element.

    Attributes:
        uri: ``data:image/webp;base64,…``; empty if there is no picture.
        width: width of the inlined picture, in pixels.
        height: height of the inlined picture, in pixels.
        pixelated: whether to enlarge it with hard pixel edges.
        problem: reason for a missing picture; empty if there is one, or if none was made.
    """

    uri: str = ""
    width: int = 0
    height: int = 0
    pixelated: bool = False
    problem: str = ""


def inline_picture(study: StudyDirectory, name: str) -> Picture:
    """Reads a picture of the study and reduces it to a size for inlining.

    An unreadable picture raises no error: the reason is returned in ``problem``, for the report to show.

    Args:
        study: study directory.
        name: file name relative to the study; an empty name gives an empty picture.
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

"""The colours that the demo world's captions name, and colour arithmetic."""

from __future__ import annotations

import colorsys

from studies.demo.drawing.geometry import RGB

COLOURS: dict[str, RGB] = {
    "red": (214, 48, 44),
    "yellow": (246, 206, 52),
    "green": (46, 148, 66),
    "blue": (44, 92, 208),
    "purple": (142, 62, 178),
    "white": (240, 240, 238),
}
DARK: RGB = (38, 34, 44)
LIGHT: RGB = (250, 248, 240)
BROWN: RGB = (122, 82, 50)


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """The colour ``share`` of the way from ``a`` to ``b``, share in [0, 1]."""
    r, g, b_ = (round(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return (r, g, b_)


def luminance(colour: RGB) -> float:
    """Rec. 601 luma in [0, 1]."""
    return (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]) / 255


def vivid(colour: RGB) -> RGB:
    """Returns a colour's hue at full value and high saturation, as a neon tube would show it; greys become near white."""
    hue, saturation, _ = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
    return _rgb(hue, min(1.0, saturation * 1.25) if saturation > 0.15 else 0.08, 1.0)


def rotated(colour: RGB, turn: float) -> RGB:
    """The colour with its hue turned by ``turn`` of a full circle."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
    return _rgb((hue + turn) % 1.0, saturation, value)


def _rgb(hue: float, saturation: float, value: float) -> RGB:
    r, g, b = colorsys.hsv_to_rgb(hue, saturation, value)
    return (round(r * 255), round(g * 255), round(b * 255))

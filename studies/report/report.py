"""The report: one self-contained HTML file that opens offline and makes no network requests."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from studies.atomic import write_bytes
from studies.directory import StudyDirectory
from studies.report.marks import swatch
from studies.report.page import build_page, duration, moment
from studies.report.svg import decimal
from studies.summary import StudySummary


def write_report(summary: StudySummary, directory: StudyDirectory | str | Path) -> Path:
    """Writes ``report.html`` atomically and returns its path.

    Every string of the summary is escaped. A content security policy allows only this file's own style sheet and script, by their
    hashes, and inlined pictures. A picture that cannot be read is listed among the warnings.

    Args:
        summary: summary of the study.
        directory: study directory; pictures are read from it.

    Raises:
        ValueError: a recipe does not fit the sources; the message names the trial.
        OSError: the directory cannot be written.
    """
    study = directory if isinstance(directory, StudyDirectory) else StudyDirectory(directory)
    write_bytes(study.report, render_report(summary, study).encode("utf-8", "backslashreplace"))
    return study.report


def render_report(summary: StudySummary, study: StudyDirectory) -> str:
    """Returns the report as HTML."""
    environment = _environment()
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_fingerprint(style)}'",
            f"script-src '{_fingerprint(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    template = environment.get_template("report.html.j2")
    return template.render(summary=summary, page=build_page(summary, study), style=style, script=script, policy=policy)


def _environment() -> Environment:
    loader = PackageLoader("studies.report", "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"decimal": decimal, "duration": duration, "moment": moment}
    environment.globals |= {"swatch": swatch}
    return environment


def _asset(name: str) -> Markup:
    """Returns a style sheet or script of this package, trusted and inlined without escaping."""
    return Markup(files("studies.report").joinpath("templates", name).read_text(encoding="utf-8"))


def _fingerprint(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")

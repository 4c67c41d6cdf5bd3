"""Places: where a study and its data are, and how many processes work on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field

from optimizer.errors import UsageError
from optimizer.search.config.option import Option, Panel, Settings
from optimizer.search.config.values import PathText, absolute


class Places(Settings):
    """Locations of a study, as this machine reaches them."""

    out: Annotated[Path, Option(5, Panel.OUTPUT, "FOLDER", identity=False, per_machine=True)] = Field(
        default=Path("study"), description="Study directory. A study that it already holds is resumed."
    )
    workers: Annotated[int, Option(46, Panel.WORKERS, "N", identity=False, per_machine=True)] = Field(
        default=1, ge=1, description="Number of processes that evaluate recipes on this machine, one per GPU."
    )
    storage: Annotated[
        str,
        Option(
            47,
            Panel.WORKERS,
            "URL",
            identity=False,
            per_machine=True,
            not_for_models="full models do not travel: their workers are those of one machine (--workers)",
        ),
    ] = Field(default="", description="Database (postgresql://…) through which many machines share the study. Needs --artifacts.")
    artifacts: Annotated[PathText, Option(49, Panel.WORKERS, "PLACE", identity=False, per_machine=True)] = Field(
        default="", description="Folder or s3://BUCKET/PREFIX for evaluations and pictures, which all machines reach. Needs --storage."
    )
    study: Annotated[str, Option(48, Panel.WORKERS, "NAME", identity=False, per_machine=True)] = Field(
        default="", description="Name of the study in the database. By default the name of the study directory."
    )

    @property
    def study_name(self) -> str:
        """Name of the study in the database."""
        return self.study or self.out.name

    def resolved(self) -> Self:
        """Returns a copy with absolute paths."""
        artifacts = self.artifacts if "://" in self.artifacts else absolute(self.artifacts)
        return self.model_copy(update={"out": Path(absolute(str(self.out))), "artifacts": artifacts})


def check_shared(places: Places) -> None:
    """Checks that a study in a database has a store that all machines reach.

    Raises:
        UsageError: one is given without the other.
    """
    if bool(places.storage) != bool(places.artifacts):
        lacking, given = ("--artifacts", "--storage") if places.storage else ("--storage", "--artifacts")
        remedy = "a database keeps the trials, and a place that all machines reach their pictures: give both or none"
        raise UsageError(f"goes with {given}", where=lacking, remedy=remedy)


def without_password(url: str) -> str:
    """Returns a database URL without its password parameters, for files and messages."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    name = user.split(":")[0]
    query = "&".join(item for item in parts.query.split("&") if not item.lower().startswith(("password", "sslpassword")))
    return urlunsplit(parts._replace(netloc=f"{name}@{host}" if name else host, query=query)) if url else ""

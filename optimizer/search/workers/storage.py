"""Opening a study where workers share it: a journal on one machine, or a database for many.

MULTILORA_BEAT and MULTILORA_GRACE set the seconds between signs of life, and how long to do without them before a trial is given to
another worker. They have to be the same on all machines; tests make them short.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from optimizer.errors import StudyError, UsageError
from optimizer.search.workers.journal import Journal
from optimizer.search.workers.lock import DatabaseGate, FileGate, Gate
from optimizer.search.workers.registry import FolderRoster, Roster, StudyRoster
from optimizer.search.workers.retry import OUTAGES, reason
from optimizer.search.workers.trial_writes import DatabaseWrites, StorageWrites, Writes
from studies import StudyDirectory

LOCAL = "search"
_TIMEOUT = 10


def seconds_from(environment: Mapping[str, str], name: str, default: float) -> float:
    """A time that an environment variable may set.

    Raises:
        UsageError: it is no number above 0.
    """
    text = environment.get(name, "")
    try:
        seconds = float(text or default)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"is {text!r}", where=name, remedy="give seconds, a number above 0")
    return seconds


BEAT, GRACE = seconds_from(os.environ, "MULTILORA_BEAT", 10.0), seconds_from(os.environ, "MULTILORA_GRACE", 120.0)


@dataclass(frozen=True)
class Shared:
    """A study and how its workers get along.

    Attributes:
        study: the Optuna study.
        gate: lets one in at a time.
        roster: who is there.
        writes: what becomes of trials.
        engines: connections to a database, if there is one.
    """

    study: optuna.Study
    gate: Gate
    roster: Roster
    writes: Writes
    engines: tuple[Engine, ...] = ()

    def close(self) -> None:
        """Close the connections; the study can still be used, and opens new ones."""
        for engine in self.engines:
            engine.dispose()


def on_this_machine(directory: StudyDirectory, *, create: bool = True) -> Shared:
    """The study in a directory.

    Args:
        directory: where it lies.
        create: begin it where there is none; else the journal is only read, and stays what it is.

    Raises:
        StudyError: the journal is damaged, or there is none to read.
        OSError: it cannot be read or written.
    """
    if not create and not directory.journal.is_file():
        remedy = "start the run, or name the directory that it was given with --out"
        raise StudyError("there is no journal of trials", where=directory.path, remedy=remedy)
    try:
        storage = JournalStorage(Journal(directory.journal))
        study = begun_in(storage) if create else optuna.load_study(study_name=LOCAL, storage=storage)
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        if isinstance(error, KeyError) and not directory.journal.stat().st_size:
            raise StudyError("the study has not begun yet", where=directory.path, remedy="wait a moment") from None
        remedy = f"rebuild it from the evaluations: optimize repair {directory.path}"
        raise StudyError(f"the journal is damaged ({reason(error)})", where=directory.journal, remedy=remedy) from error
    gate = FileGate(directory.journal.with_name(f"{directory.journal.name}.gate"))
    return Shared(study, gate, FolderRoster(directory.path / "workers"), StorageWrites(study))


def begun_in(storage: BaseStorage) -> optuna.Study:
    """The study in the storage of one machine, begun if there is none; raises what Optuna does on what is no journal."""
    return _made(storage, LOCAL)


def in_database(url: str, name: str, *, create: bool, grace: float = GRACE) -> Shared:
    """The study of this name in a PostgreSQL database.

    Args:
        url: ``postgresql://…``; what it leaves out comes from the PG* variables, a password file or a service file.
        name: the study's.
        create: begin it where there is none; many may do so at the same moment.
        grace: seconds without a sign of life after which a worker counts as dead.

    Raises:
        UsageError: this is no database that workers can share, or its driver is missing.
        StudyError: it does not answer, or there is no such study.
    """
    with ExitStack() as opened:
        engine = _engine(url)
        opened.callback(engine.dispose)
        try:
            if create:
                with DatabaseGate(engine, "schema").passing():  # two that make the tables at once stumble over each other
                    storage = RDBStorage(_with_driver(url), engine_kwargs=_options())
                    opened.callback(storage.engine.dispose)
                    study = _made(storage, name)
            else:
                storage = RDBStorage(_with_driver(url), engine_kwargs=_options(), skip_table_creation=True)
                opened.callback(storage.engine.dispose)
                study = optuna.load_study(study_name=name, storage=storage)
        except KeyError:
            remedy = f"begin it with optimize --storage … --study {name}, or check the name"
            raise StudyError(f"there is no study {name!r} in the database", where="--study", remedy=remedy) from None
        except OUTAGES as error:
            remedy = "check the address, PGPASSWORD or the service file, and that the server runs"
            raise StudyError(f"the database cannot be used ({reason(error)})", where="--storage", remedy=remedy) from None
        opened.pop_all()
        gate, roster, writes = DatabaseGate(engine, name, grace), StudyRoster(study, grace), DatabaseWrites(engine, study)
        return Shared(study, gate, roster, writes, (engine, storage.engine))


def _made(storage: BaseStorage, name: str) -> optuna.Study:
    try:
        return optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)
    except DuplicatedStudyError:
        return optuna.load_study(study_name=name, storage=storage)


def _engine(url: str) -> Engine:
    scheme = urlsplit(url).scheme.split("+")[0]
    if scheme == "sqlite":
        problem = "SQLite loses trials when several processes write to it"
        raise UsageError(problem, where="--storage", remedy="give a PostgreSQL database, or leave --storage out on a single machine")
    if scheme not in ("postgresql", "postgres"):
        problem = f"workers cannot share a database of the kind {scheme or url[:20]!r}"
        raise UsageError(problem, where="--storage", remedy="give postgresql://USER@HOST/DATABASE")
    try:
        engine = create_engine(_with_driver(url), **_options())
    except (ImportError, NoSuchModuleError):
        remedy = 'pip install "multilora-optimizer[postgres]"'
        raise UsageError("the driver for PostgreSQL is not installed", where="--storage", remedy=remedy) from None
    except (ArgumentError, ValueError):
        remedy = "give postgresql://USER@HOST/DATABASE"
        raise UsageError("this is no address of a database", where="--storage", remedy=remedy) from None
    return engine


def _with_driver(url: str) -> str:
    return f"postgresql+psycopg://{url.split('://', 1)[1]}"


def _options() -> dict[str, object]:
    """A connection that has died is noticed before it is used, or within half a minute while it is."""
    keep = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
    return {"pool_pre_ping": True, "pool_size": 2, "connect_args": {"connect_timeout": _TIMEOUT, "application_name": "multilora"} | keep}

"""Opening a study's shared storage: a journal on one machine, or a database for several.

MULTILORA_BEAT sets the seconds between heartbeats. MULTILORA_GRACE sets the seconds without a heartbeat after which a worker's trial is
given to another worker. Both must have equal values on all machines; tests set short times.
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
from optimizer.search.workers.database_writer import DatabaseTrialWriter
from optimizer.search.workers.journal import Journal
from optimizer.search.workers.lock import DatabaseStudyLock, FileStudyLock, StudyLock
from optimizer.search.workers.registry import FolderRegistry, StudyRegistry, WorkerRegistry
from optimizer.search.workers.retry import OUTAGES, reason
from optimizer.search.workers.trial_writer import StorageTrialWriter, TrialWriter
from studies import StudyDirectory

LOCAL = "search"
_TIMEOUT = 10


def heartbeat_seconds(environment: Mapping[str, str] = os.environ) -> float:
    """Returns the seconds between heartbeats; raises UsageError if MULTILORA_BEAT is not a number above 0."""
    return _seconds(environment, "MULTILORA_BEAT", 10.0)


def grace_seconds(environment: Mapping[str, str] = os.environ) -> float:
    """Returns the seconds without a heartbeat after which a worker counts as dead.

    Raises:
        UsageError: MULTILORA_GRACE is not a number above 0.
    """
    return _seconds(environment, "MULTILORA_GRACE", 120.0)


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, "")
    try:
        seconds = float(text or default)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"is {text!r}", where=name, remedy="give seconds, a number above 0")
    return seconds


@dataclass(frozen=True)
class SharedStudy:
    """A study with the objects that coordinate its workers.

    Attributes:
        study: Optuna study.
        lock: lock for the assignment of trials.
        registry: registry of the workers.
        writer: writer of trial results.
        engines: engines of the database; empty without a database.
    """

    study: optuna.Study
    lock: StudyLock
    registry: WorkerRegistry
    writer: TrialWriter
    engines: tuple[Engine, ...] = ()

    def close(self) -> None:
        """Closes all database connections; later use of the study opens new ones."""
        for engine in self.engines:
            engine.dispose()


def open_local_study(directory: StudyDirectory, *, create: bool = True) -> SharedStudy:
    """Returns the study in a directory.

    Args:
        directory: study directory.
        create: whether to create a missing study; if False, the journal is opened for reading only.

    Raises:
        StudyError: the journal is damaged, or does not exist.
        OSError: the directory cannot be read or written.
    """
    if not create and not directory.journal.is_file():
        remedy = "start the run, or name the directory that it was given with --out"
        raise StudyError("there is no journal of trials", where=directory.path, remedy=remedy)
    try:
        storage = JournalStorage(Journal(directory.journal))
        study = create_study_in(storage) if create else optuna.load_study(study_name=LOCAL, storage=storage)
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        if isinstance(error, KeyError) and not directory.journal.stat().st_size:
            raise StudyError("the study has not begun yet", where=directory.path, remedy="wait a moment") from None
        remedy = f"rebuild it from the evaluations: optimize repair {directory.path}"
        raise StudyError(f"the journal is damaged ({reason(error)})", where=directory.journal, remedy=remedy) from error
    lock = FileStudyLock(directory.journal.with_name(f"{directory.journal.name}.gate"))
    return SharedStudy(study, lock, FolderRegistry(directory.path / "workers"), StorageTrialWriter(study))


def create_study_in(storage: BaseStorage) -> optuna.Study:
    """Returns the study in a single-machine storage, created if missing; an invalid journal raises Optuna's exceptions."""
    return _create_or_load(storage, LOCAL)


def open_database_study(url: str, name: str, *, create: bool, grace: float | None = None) -> SharedStudy:
    """Returns the study with this name in a PostgreSQL database.

    Args:
        url: ``postgresql://…``; missing parts come from the PG* variables, a password file or a service file.
        name: name of the study.
        create: whether to create a missing study; safe for concurrent callers.
        grace: seconds without a heartbeat after which a worker counts as dead; None means ``grace_seconds()``.

    Raises:
        UsageError: the URL is not a PostgreSQL database, or the driver is missing.
        StudyError: the database does not answer, or the study does not exist.
    """
    grace = grace_seconds() if grace is None else grace
    with ExitStack() as opened:
        engine = _engine(url)
        opened.callback(engine.dispose)
        try:
            if create:
                with DatabaseStudyLock(engine, "schema").held():  # creating the tables concurrently fails
                    storage = RDBStorage(_with_driver(url), engine_kwargs=_options())
                    opened.callback(storage.engine.dispose)
                    study = _create_or_load(storage, name)
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
        lock, registry, writer = DatabaseStudyLock(engine, name, grace), StudyRegistry(study, grace), DatabaseTrialWriter(engine, study)
        return SharedStudy(study, lock, registry, writer, (engine, storage.engine))


def _create_or_load(storage: BaseStorage, name: str) -> optuna.Study:
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
    """Returns engine options that detect a dead connection before its use, or within half a minute during use."""
    keep = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
    return {"pool_pre_ping": True, "pool_size": 2, "connect_args": {"connect_timeout": _TIMEOUT, "application_name": "multilora"} | keep}

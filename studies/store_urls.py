"""Parsing of store locations: a folder, or ``s3://bucket/prefix``."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from secrets import token_bytes, token_hex

from studies.atomic import TEMPORARY
from studies.directory import StudyDirectoryError
from studies.s3 import S3Store
from studies.store import FolderStore, Store, StoreError, parts_of

_FORMS = "name a folder, or a bucket as s3://bucket/prefix"


def open_store(place: str) -> Store:
    """Returns the store at a location, without reading or writing.

    Args:
        place: ``s3://bucket/prefix`` (the prefix is optional), or the path of a folder, relative to the working directory or from ``~``.

    Raises:
        StudyDirectoryError: the location is of an unknown kind or empty, or boto3, which a bucket requires, is not installed. Text
            that may contain a password, as in ``postgresql://user:password@host``, is not quoted.
    """
    scheme, mark, rest = place.partition("://")
    if mark and scheme.lower() == "s3":
        return _bucket(rest)
    if mark:
        shown = scheme if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme) else "…"
        raise StudyDirectoryError("this kind of store is not known", where=f"{shown}://…", remedy=_FORMS)
    if scheme.lower().startswith("s3:"):
        raise StudyDirectoryError("a bucket is written with two slashes", where="s3:…", remedy=_FORMS)
    return _folder(place)


def check(store: Store) -> None:
    """Checks that a store works by writing, reading and removing a probe of 4 KiB; a missing folder is created.

    Raises:
        StudyDirectoryError: the store does not work; the message is one line.
    """
    name, data = f"{TEMPORARY}probe-{token_hex(8)}", token_bytes(4096)
    try:
        store.write(name, data)
        try:
            same = store.read(name) == data
        finally:
            store.remove(name)
        gone = store.read(name) is None
    except OSError as error:
        raise _unusable(store, _reason(error)) from error
    if not same:
        raise _unusable(store, "what is read is not what was written")
    if not gone:
        raise _unusable(store, "what was removed is still there")


def _bucket(rest: str) -> S3Store:
    bucket, _, prefix = rest.partition("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]", bucket):
        remedy = f"{_FORMS}; keys belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile"
        raise StudyDirectoryError("this names no bucket", where="s3://…", remedy=remedy)
    try:
        folders = parts_of(prefix.strip("/")) if prefix.strip("/") else ()
    except ValueError:
        raise StudyDirectoryError("the prefix is no path in a bucket", where=f"s3://{bucket}/…", remedy=_FORMS) from None
    if find_spec("boto3") is None:
        remedy = 'pip install "multilora-optimizer[s3]"'
        raise StudyDirectoryError("buckets need boto3, which is not installed", where=f"s3://{bucket}", remedy=remedy)
    return S3Store(bucket, "/".join(folders))


def _folder(place: str) -> FolderStore:
    if not place.strip() or "\0" in place:
        raise StudyDirectoryError("this names no folder", where=repr(place), remedy=_FORMS)
    try:
        return FolderStore(Path(place).expanduser().absolute())
    except RuntimeError:
        raise StudyDirectoryError("the home folder is not known", where=place, remedy="write the path without ~") from None


def _reason(error: OSError) -> str:
    text = error.problem if isinstance(error, StoreError) else error.strerror or str(error)
    return " ".join(text.split())


def _unusable(store: Store, reason: str) -> StudyDirectoryError:
    bucket = "check the name of the bucket, AWS_ENDPOINT_URL, the credentials, and that they may list, read, write and delete"
    remedy = bucket if isinstance(store, S3Store) else "choose a folder that can be written, on a disk with free space"
    return StudyDirectoryError(f"the store cannot be used ({reason})", where=str(store), remedy=remedy)

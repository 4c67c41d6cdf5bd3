"""S3Store: a store in an S3 bucket, or on an S3-compatible server (MinIO, Ceph, R2, …)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from studies.store import StoreError, parts_of

_MISSING = {"NoSuchKey", "404"}
"""Error codes for a missing object; ``NoSuchBucket`` is not included, although its status is 404 too."""
_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_UNCONDITIONAL = {"NotImplemented", "501"}

_CODES = {
    "403": "access is denied",
    "AccessDenied": "access is denied",
    "AllAccessDisabled": "access is denied",
    "ExpiredToken": "the credentials have expired",
    "InvalidAccessKeyId": "the access key is not known there",
    "InvalidToken": "the session token is not valid",
    "NoSuchBucket": "there is no such bucket",
    "PermanentRedirect": "the bucket lies in another region",
    "AuthorizationHeaderMalformed": "the bucket lies in another region",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "SignatureDoesNotMatch": "the secret key does not fit",
    "SlowDown": "there are too many requests",
}
_KINDS = {
    "NoCredentialsError": "there are no credentials",
    "PartialCredentialsError": "the credentials are incomplete",
    "CredentialRetrievalError": "the credentials cannot be fetched",
    "TokenRetrievalError": "the credentials cannot be fetched",
    "SSOError": "the credentials cannot be fetched",
    "ProfileNotFound": "there is no such profile",
    "ConfigParseError": "the AWS configuration cannot be read",
    "SSLError": "the connection is not trusted",
    "ConnectionError": "the endpoint cannot be reached",
    "HTTPClientError": "the connection broke off",
    "IncompleteReadError": "the connection broke off",
    "HTTPError": "the connection broke off",
    "ResponseParserError": "the endpoint does not speak S3",
    "ParamValidationError": "the bucket or the name is not valid",
    "ValueError": "the AWS configuration is not valid, such as the address of the endpoint",
}


@dataclass(frozen=True)
class S3Store:
    """Store of a bucket's objects whose keys begin with ``prefix/``; every failure is a ``StoreError``.

    boto3 determines credentials, region and endpoint: from ``AWS_*`` variables, including ``AWS_ENDPOINT_URL``, or from a profile.
    They are read at the first request, and are not stored or shown. A store can be shared by threads, but not by processes.

    Attributes:
        bucket: name of an existing bucket.
        prefix: folder in the bucket, with ``/`` between folders and none at its ends; empty for the whole bucket.
        retries: number of retries of a request after a transient failure, with increasing delays; 0 or more.
    """

    bucket: str
    prefix: str = ""
    retries: int = 10

    def __str__(self) -> str:
        return "s3://" + "/".join(filter(None, (self.bucket, self.prefix)))

    def read(self, name: str) -> bytes | None:
        """Returns the content of an object, or None if it does not exist."""
        key = self._key(name)
        with self._told(f"reading {name!r}"):
            try:
                data: bytes = self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            except Exception as error:
                if _code(error) in _MISSING:
                    return None
                raise
        return data

    def write(self, name: str, data: bytes) -> None:
        """Stores an object, replacing an existing one."""
        key = self._key(name)
        with self._told(f"writing {name!r}"):
            self._client.put_object(Bucket=self.bucket, Key=key, Body=data)

    def create(self, name: str, data: bytes) -> bool:
        """Stores an object unless it exists, and returns whether it was stored; if the server lacks conditional writes, two may succeed."""
        key = self._key(name)
        with self._told(f"creating {name!r}"):
            try:
                self._client.put_object(Bucket=self.bucket, Key=key, Body=data, IfNoneMatch="*")
            except Exception as error:
                if _code(error) in _TAKEN:
                    return False
                if _code(error) not in _UNCONDITIONAL:
                    raise
                if self.read(name) is not None:
                    return False
                self._client.put_object(Bucket=self.bucket, Key=key, Body=data)
        return True

    def names(self, folder: str) -> Iterator[str]:
        """Returns all names in a folder and its subfolders, sorted; objects whose keys are not valid store names are left out."""
        start, within = f"{self.prefix}/" if self.prefix else "", f"{self._key(folder)}/"
        found: list[str] = []
        with self._told(f"listing {folder!r}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=within)
            for page in pages:
                found += [item["Key"].removeprefix(start) for item in page.get("Contents", ())]
        return iter(sorted(filter(_is_name, found)))

    def remove(self, name: str) -> None:
        """Removes an object, if it exists."""
        key = self._key(name)
        with self._told(f"removing {name!r}"):
            self._client.delete_object(Bucket=self.bucket, Key=key)

    def _key(self, name: str) -> str:
        return "/".join([*filter(None, [self.prefix]), *parts_of(name)])

    @cached_property
    def _client(self) -> Any:
        from boto3.session import Session
        from botocore.config import Config

        config = Config(retries={"mode": "standard", "max_attempts": self.retries}, connect_timeout=10)
        return Session().client("s3", config=config)

    @contextmanager
    def _told(self, action: str) -> Iterator[None]:
        """Converts boto3's exceptions to StoreError, without their cause, because botocore's messages may quote URLs with credentials."""
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError
        from urllib3.exceptions import HTTPError

        try:
            yield
        except (BotoCoreError, ClientError, ResponseParserError, HTTPError, ValueError) as error:
            raise StoreError(f"{action} failed: {_reason(error)}", where=str(self)) from None


def _is_name(key: str) -> bool:
    try:
        return "/".join(parts_of(key)) == key
    except ValueError:
        return False


def _code(error: Exception) -> str:
    """Returns the server's error code, such as ``NoSuchKey``; empty if the error is not a server response or the code is malformed."""
    response: dict[str, Any] = getattr(error, "response", None) or {}
    code = str(response.get("Error", {}).get("Code", ""))
    return code if re.fullmatch(r"[A-Za-z0-9.]{1,64}", code) else ""


def _reason(error: Exception) -> str:
    """Returns a fixed description with the error's code or class, never its message."""
    kinds = [kind.__name__ for kind in type(error).__mro__]
    code = _code(error)
    words = _CODES.get(code) or next((_KINDS[kind] for kind in kinds if kind in _KINDS), "the request was refused")
    return f"{words} ({code or kinds[0]})"

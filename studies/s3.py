"""S3Store: a store in a bucket of S3, or of a server that speaks its protocol (MinIO, Ceph, R2, …)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from studies.store import StoreError, parts_of

_MISSING = {"NoSuchKey", "404"}
"""``NoSuchBucket`` is not among them, though its status is 404 too."""
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
    """Objects of a bucket whose keys begin with ``prefix/``. See ``Store``; every failure is a ``StoreError``.

    Credentials, region and endpoint are what boto3 finds by itself: ``AWS_*`` variables, among them ``AWS_ENDPOINT_URL``, or a profile.
    They are found at the first request and are neither kept here nor shown. Threads may share a store, processes may not.

    Attributes:
        bucket: the bucket, which must exist.
        prefix: the folder in it, with ``/`` between folders and none at its ends; empty for the whole bucket.
        retries: how often a request that failed in a passing way is sent again, each time after a longer wait; 0 or more.
    """

    bucket: str
    prefix: str = ""
    retries: int = 10

    def __str__(self) -> str:
        return "s3://" + "/".join(filter(None, (self.bucket, self.prefix)))

    def read(self, name: str) -> bytes | None:
        """See ``Store``."""
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
        """See ``Store``."""
        key = self._key(name)
        with self._told(f"writing {name!r}"):
            self._client.put_object(Bucket=self.bucket, Key=key, Body=data)

    def create(self, name: str, data: bytes) -> bool:
        """See ``Store``. Where the server knows no conditional writes, two that come within the same instant may both be told so."""
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
        """See ``Store``. Objects of the bucket whose keys are no names of a store are left out."""
        start, within = f"{self.prefix}/" if self.prefix else "", f"{self._key(folder)}/"
        found: list[str] = []
        with self._told(f"listing {folder!r}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=within)
            for page in pages:
                found += [item["Key"].removeprefix(start) for item in page.get("Contents", ())]
        return iter(sorted(filter(_is_name, found)))

    def remove(self, name: str) -> None:
        """See ``Store``."""
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
        """Turn what boto3 raises into a StoreError, without its cause: botocore's texts quote addresses, which may hold credentials."""
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
    """The server's code, ``NoSuchKey`` for one; empty where the error is not an answer of the server, or the code has no usual form."""
    response: dict[str, Any] = getattr(error, "response", None) or {}
    code = str(response.get("Error", {}).get("Code", ""))
    return code if re.fullmatch(r"[A-Za-z0-9.]{1,64}", code) else ""


def _reason(error: Exception) -> str:
    """A few words of ours and the error's code or class, never its text."""
    kinds = [kind.__name__ for kind in type(error).__mro__]
    code = _code(error)
    words = _CODES.get(code) or next((_KINDS[kind] for kind in kinds if kind in _KINDS), "the request was refused")
    return f"{words} ({code or kinds[0]})"

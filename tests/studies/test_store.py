"""Stores: one suite for every backend, then what belongs to a folder, to a bucket and to the names of places."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from studies.directory import StudyDirectoryError
from studies.s3 import S3Store
from studies.store import FolderStore, Store, StoreError
from studies.store_urls import check, open_store

ACCESS, SECRET = "AKIAEXAMPLEACCESS", "example-secret-word"
HOSTILE = ["", ".", "/", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "a\\b", "a\0b"]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of a server that speaks S3."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    assert server._server is not None
    server._server.server_close()


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting or credential of the machine is seen."""
    for name in [n for n in os.environ if n.startswith("AWS_") or n.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def bucket(endpoint: str, surroundings: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket, which the variables of the environment lead to."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    name = f"bucket-{secrets.token_hex(6)}"
    with urlopen(Request(f"{endpoint}/{name}", method="PUT")):
        return name


@pytest.fixture(params=["folder", "s3", "s3 without a prefix"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    name = request.getfixturevalue("bucket")
    return S3Store(name, "studies/one" if request.param == "s3" else "")


def client_of(store: S3Store) -> Any:
    return store._client


def test_what_is_written_is_read(store: Store) -> None:
    data = bytes(range(256)) * 300
    store.write("evaluations/a.json", data)
    store.write("top", b"")
    assert store.read("evaluations/a.json") == data
    assert store.read("top") == b""


def test_a_second_value_replaces_the_first(store: Store) -> None:
    store.write("a/x", b"a long first value")
    store.write("a/x", b"second")
    assert store.read("a/x") == b"second"
    assert list(store.names("a")) == ["a/x"]


def test_what_is_created_stays(store: Store) -> None:
    assert store.create("a/x", b"first")
    assert not store.create("a/x", b"second")
    assert store.read("a/x") == b"first"
    assert list(store.names("a")) == ["a/x"]
    store.remove("a/x")
    assert store.create("a/x", b"third")


def test_of_many_that_create_one_name_one_is_first(store: Store) -> None:
    values = [bytes([65 + i]) * 100_000 for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        first = [pool.submit(store.create, "a/x", value) for value in values]
    assert [value for value, done in zip(values, first, strict=True) if done.result()] == [store.read("a/x")]


def test_what_is_missing_is_none(store: Store) -> None:
    assert store.read("a/x") is None
    store.write("a/x", b"1")
    assert store.read("a/y") is None
    assert store.read("b/x") is None


def test_names_are_sorted_and_lie_in_the_folder(store: Store) -> None:
    names = ["a/z", "a/x", "a/b/y", "ab/x", "a.x", "b", "a/é ü+%&", "a-b/x", "a/B"]
    for name in names:
        store.write(name, name.encode())
    assert list(store.names("a")) == ["a/B", "a/b/y", "a/x", "a/z", "a/é ü+%&"]
    assert list(store.names("a/b")) == ["a/b/y"]
    assert all(store.read(name) == name.encode() for name in names)


def test_a_folder_of_nothing_has_no_names(store: Store) -> None:
    assert list(store.names("absent")) == []
    store.write("file", b"1")
    assert list(store.names("file")) == []


def test_equal_names_name_one_thing(store: Store) -> None:
    store.write("a//b/./c/", b"1")
    assert store.read("a/b/c") == b"1"
    assert list(store.names("a/")) == ["a/b/c"]


def test_removing_leaves_the_others_and_may_be_repeated(store: Store) -> None:
    store.write("a/x", b"1")
    store.write("a/y", b"2")
    for _ in range(2):
        store.remove("a/x")
        assert store.read("a/x") is None
        assert list(store.names("a")) == ["a/y"]
    store.remove("never/was")


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_lead_out_are_refused(store: Store, name: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.read(name),
        lambda: store.write(name, b"1"),
        lambda: store.remove(name),
        lambda: store.names(name),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="is no name in a store"):
            call()


def test_writers_of_one_name_leave_one_whole_value(store: Store) -> None:
    values = [bytes([65 + i]) * 200_000 for i in range(6)]
    store.write("a/x", values[0])
    with ThreadPoolExecutor(8) as pool:
        writers = [pool.submit(store.write, "a/x", value) for value in values]
        seen = [pool.submit(store.read, "a/x") for _ in range(6)]
        for writer in writers:
            writer.result()
        assert all(s.result() in values for s in seen)
    assert store.read("a/x") in values
    assert list(store.names("a")) == ["a/x"]


def test_check_passes_and_leaves_nothing_behind(store: Store) -> None:
    check(store)
    if isinstance(store, FolderStore):
        assert os.listdir(store.path) == []
    else:
        assert isinstance(store, S3Store)
        assert "Contents" not in client_of(store).list_objects_v2(Bucket=store.bucket)


@pytest.mark.parametrize(
    ("read", "problem"), [(b"other", "what is read is not what was written"), (None, "what was removed is still there")]
)
def test_check_finds_a_store_that_forgets_or_keeps(tmp_path: Path, read: bytes | None, problem: str) -> None:
    class Odd(FolderStore):
        def read(self, name: str) -> bytes | None:
            return read or super().read(name)

        def remove(self, name: str) -> None:
            pass

    with pytest.raises(StudyDirectoryError, match=problem):
        check(Odd(tmp_path))


def test_an_interrupted_write_into_a_folder_leaves_the_old_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path)
    store.write("a/x", b"old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.write("a/x", b"new")
    assert store.read("a/x") == b"old"
    assert os.listdir(tmp_path / "a") == ["x"]


def test_an_unfinished_file_is_not_named(tmp_path: Path) -> None:
    FolderStore(tmp_path).write("a/x", b"1")
    (tmp_path / "a" / ".tmp-0123").write_bytes(b"half")
    assert list(FolderStore(tmp_path).names("a")) == ["a/x"]


def test_check_names_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = open_store(str(tmp_path / "file"))
    with pytest.raises(StudyDirectoryError) as caught:
        check(store)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'file'}: the store cannot be used (")
    assert message.endswith("— choose a folder that can be written, on a disk with free space")
    assert "\n" not in message


def test_more_names_than_one_answer_of_the_server_holds(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    store = S3Store(bucket, "p")
    names = [f"a/{i}" for i in range(8)]
    for name in names:
        store.write(name, b"")
    assert len(client_of(store).list_objects_v2(Bucket=bucket)["Contents"]) == 3
    assert list(store.names("a")) == names


def test_keys_that_are_no_names_are_left_out(bucket: str) -> None:
    client = client_of(S3Store(bucket))
    for key in ["p/a/", "p/a//x", "p/a/./x", "p/a/x", "p/a\\x", "p/a/y\\z"]:
        client.put_object(Bucket=bucket, Key=key, Body=b"")
    assert list(S3Store(bucket, "p").names("a")) == ["a/x"]


def test_prefixes_keep_studies_apart(bucket: str) -> None:
    one, two = S3Store(bucket, "studies/one"), S3Store(bucket, "studies/one-more")
    one.write("a/x", b"1")
    two.write("a/y", b"2")
    assert list(one.names("a")) == ["a/x"]
    assert two.read("a/x") is None


def test_an_endpoint_with_a_name_is_asked_by_path(bucket: str, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``bucket.host`` is no name that a network of one's own would know."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.replace("127.0.0.1", "localhost"))
    assert client_of(S3Store(bucket)).generate_presigned_url("get_object", {"Bucket": bucket, "Key": "x"}).split("/")[3] == bucket


ACTIONS: dict[str, Callable[[Store], object]] = {
    "reading 'a/x'": lambda store: store.read("a/x"),
    "writing 'a/x'": lambda store: store.write("a/x", b"1"),
    "creating 'a/x'": lambda store: store.create("a/x", b"1"),
    "listing 'a'": lambda store: store.names("a"),
    "removing 'a/x'": lambda store: store.remove("a/x"),
}


def refusal(store: S3Store, action: str) -> str:
    """The message of what an action raises, which is one line without credentials."""
    with pytest.raises(OSError, match=action) as caught:
        ACTIONS[action](store)
    assert isinstance(caught.value, StoreError)
    assert caught.value.__suppress_context__
    message = str(caught.value)
    assert "\n" not in message
    assert not any(word in message for word in (ACCESS, SECRET))
    return message


@pytest.mark.parametrize("action", ACTIONS)
def test_a_bucket_that_is_not_there(bucket: str, action: str) -> None:
    message = refusal(S3Store("no-such-bucket", "p"), action)
    assert message == f"s3://no-such-bucket/p: {action} failed: there is no such bucket (NoSuchBucket)"


@pytest.mark.parametrize("action", ACTIONS)
def test_an_endpoint_that_does_not_answer(bucket: str, action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{ACCESS}:{SECRET}@127.0.0.1:{closed.getsockname()[1]}")
        message = refusal(S3Store("any-bucket", retries=0), action)
    assert message == f"s3://any-bucket: {action} failed: the endpoint cannot be reached (EndpointConnectionError)"


@pytest.mark.parametrize("action", ACTIONS)
def test_no_credentials(bucket: str, action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert refusal(S3Store(bucket, "p"), action) == f"s3://{bucket}/p: {action} failed: there are no credentials (NoCredentialsError)"


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("AWS_SECRET_ACCESS_KEY", None, "the credentials are incomplete (PartialCredentialsError)"),
        ("AWS_PROFILE", "nobody", "there is no such profile (ProfileNotFound)"),
        ("AWS_ENDPOINT_URL", f"{SECRET}:9000", "the AWS configuration is not valid, such as the address of the endpoint (ValueError)"),
    ],
)
def test_a_configuration_that_cannot_be(
    bucket: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str | None, reason: str
) -> None:
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    assert refusal(S3Store(bucket), "reading 'a/x'") == f"s3://{bucket}: reading 'a/x' failed: {reason}"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("AccessDenied", "access is denied (AccessDenied)"),
        ("InvalidAccessKeyId", "the access key is not known there (InvalidAccessKeyId)"),
        ("SomethingNew", "the request was refused (SomethingNew)"),
        (f"\x1b[2J {SECRET}", "the request was refused (ClientError)"),
    ],
)
def test_refusals_of_the_server(bucket: str, code: str, reason: str) -> None:
    from botocore.stub import Stubber

    store = S3Store(bucket)
    with Stubber(client_of(store)) as stub:
        stub.add_client_error("get_object", service_error_code=code, service_message=f"{ACCESS}\n{SECRET}", http_status_code=403)
        assert refusal(store, "reading 'a/x'") == f"s3://{bucket}: reading 'a/x' failed: {reason}"


def test_a_server_that_knows_no_conditional_writes(bucket: str) -> None:
    from botocore.stub import Stubber

    store = S3Store(bucket)
    asked = {"Bucket": bucket, "Key": "a/x", "Body": b"1"}
    with Stubber(client_of(store)) as stub:
        stub.add_client_error("put_object", "NotImplemented", http_status_code=501, expected_params=asked | {"IfNoneMatch": "*"})
        stub.add_client_error("get_object", "NoSuchKey", http_status_code=404)
        stub.add_response("put_object", {}, asked)
        assert store.create("a/x", b"1")
        stub.assert_no_pending_responses()
    store.write("a/x", b"1")
    with Stubber(client_of(store)) as stub:
        stub.add_client_error("put_object", "PreconditionFailed", http_status_code=412)
        assert not store.create("a/x", b"2")


def test_requests_are_sent_again(bucket: str) -> None:
    config = client_of(S3Store(bucket)).meta.config
    assert config.retries["mode"] == "standard"
    assert config.retries["total_max_attempts"] == 11


def test_neither_the_store_nor_its_name_holds_credentials(bucket: str) -> None:
    store = S3Store(bucket, "p")
    store.write("a/x", b"1")
    assert repr(store) == f"S3Store(bucket={bucket!r}, prefix='p', retries=10)"
    assert str(store) == f"s3://{bucket}/p"


def test_check_names_a_bucket_that_is_not_there(bucket: str) -> None:
    with pytest.raises(StudyDirectoryError) as caught:
        check(open_store("s3://no-such-bucket/p"))
    problem = "the store cannot be used (writing '…' failed: there is no such bucket (NoSuchBucket))"
    name = str(caught.value).split("'")[1]
    assert caught.value.problem.replace(name, "…") == problem
    assert str(caught.value).startswith("s3://no-such-bucket/p: the store cannot be used")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "bucket_name", "prefix"),
    [
        ("s3://my-bucket/studies/one", "my-bucket", "studies/one"),
        ("s3://my-bucket/studies//one/", "my-bucket", "studies/one"),
        ("s3://my.bucket", "my.bucket", ""),
        ("S3://my_bucket/", "my_bucket", ""),
    ],
)
def test_places_in_buckets(place: str, bucket_name: str, prefix: str) -> None:
    assert open_store(place) == S3Store(bucket_name, prefix)


def test_places_in_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    assert open_store("shared/one") == FolderStore(tmp_path / "shared" / "one")
    assert open_store("~/one") == FolderStore(tmp_path / "home" / "one")
    assert open_store(str(tmp_path)) == FolderStore(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (f"postgresql://user:{SECRET}@host/db", "postgresql://…: this kind of store is not known — name a folder, or a bucket as"),
        ("gs://bucket/p", "gs://…: this kind of store is not known"),
        (" s3://bucket/p", "…://…: this kind of store is not known"),
        (
            f"s3://{ACCESS}:{SECRET}@bucket/p",
            "s3://…: this names no bucket — name a folder, or a bucket as s3://bucket/prefix; keys belong",
        ),
        ("s3://", "s3://…: this names no bucket"),
        ("s3:///p", "s3://…: this names no bucket"),
        ("s3://bucket/../p", "s3://bucket/…: the prefix is no path in a bucket"),
        ("s3:/bucket/p", "s3:…: a bucket is written with two slashes"),
        ("", "'': this names no folder"),
        ("  ", "'  ': this names no folder"),
        ("a\0b", "'a\\x00b': this names no folder"),
    ],
)
def test_places_that_are_refused(place: str, message: str) -> None:
    with pytest.raises(StudyDirectoryError) as caught:
        open_store(place)
    assert str(caught.value).startswith(message)
    assert not any(word in str(caught.value) for word in (ACCESS, SECRET))


def test_a_bucket_without_boto3_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(StudyDirectoryError) as caught:
        open_store("s3://bucket/p")
    assert str(caught.value) == 's3://bucket: buckets need boto3, which is not installed — pip install "multilora-optimizer[s3]"'

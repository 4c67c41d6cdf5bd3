"""A read-only optuna-dashboard server for a study, reachable from the local machine only."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import Any, BinaryIO
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage

from optimizer.errors import UsageError
from studies.directory import SHEETS
from studies.store import Store

HOST = "127.0.0.1"
_HERE = {HOST, "localhost"}
_LOOKING = {"GET", "HEAD"}
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True)
class Sheets:
    """Contact sheets of a store as a read-only Optuna artifact store.

    Attributes:
        store: store that contains the contact sheets.
    """

    store: Store

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Returns the content of an artifact.

        Raises:
            ArtifactNotFound: no contact sheet has this name.
        """
        data = self.store.read(f"{SHEETS}/{artifact_id}")
        if data is None:
            raise ArtifactNotFound(artifact_id)
        return io.BytesIO(data)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Raises PermissionError, because the store is read-only."""
        raise PermissionError("the pictures of a study are only shown here")

    def remove(self, artifact_id: str) -> None:
        """Raises PermissionError, because the store is read-only."""
        raise PermissionError("the pictures of a study are only shown here")


class BoardServer(ThreadingMixIn, WSGIServer):
    """Threaded WSGI server whose threads end with the process."""

    daemon_threads = True


def board(storage: BaseStorage, store: Store | None, port: int) -> BoardServer:
    """Returns a server that listens on the loopback interface; ``serve_forever`` starts it.

    Args:
        storage: storage of the study; it is not written to.
        store: store with the contact sheets; None shows no sheets.
        port: port to listen on; if it is in use or 0, a free port is chosen.

    Raises:
        UsageError: optuna-dashboard is not installed, or the port cannot be used.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError:
        remedy = 'pip install "multilora-optimizer[dashboard]"'
        raise UsageError("optuna-dashboard is not installed", where="optimize dashboard", remedy=remedy) from None
    application = only_looking(wsgi(storage, artifact_store=Sheets(store) if store else None))
    try:
        return make_server(HOST, port, application, server_class=BoardServer, handler_class=_Quiet)
    except OverflowError:
        raise UsageError(f"there is no port {port}", where="--port", remedy="give a number from 1024 to 65535") from None
    except PermissionError:
        raise UsageError(f"port {port} may not be used", where="--port", remedy="give a number from 1024 to 65535") from None
    except OSError:
        return make_server(HOST, 0, application, server_class=BoardServer, handler_class=_Quiet)


def only_looking(application: Application) -> Application:
    """Wraps a WSGI application to reject write requests and requests whose Host header is not the local machine (DNS rebinding)."""

    def answer(environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if urlsplit(f"//{environment.get('HTTP_HOST', '')}").hostname not in _HERE:
            start("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"this page is for this machine only"]
        if environment["REQUEST_METHOD"] not in _LOOKING:
            start("405 Method Not Allowed", [("Content-Type", "application/json"), ("Allow", "GET, HEAD")])
            return [b'{"reason": "this dashboard only shows the study; nothing can be changed here"}']
        return application(environment, start)

    return answer


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Suppresses request logging."""

"""The board: a study in optuna-dashboard, for looking only, for nobody but this machine."""

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
    """The contact sheets of a store as Optuna's artifacts; they can be read only.

    Attributes:
        store: where they lie.
    """

    store: Store

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The bytes of an artifact.

        Raises:
            ArtifactNotFound: there is no sheet of this name.
        """
        data = self.store.read(f"{SHEETS}/{artifact_id}")
        if data is None:
            raise ArtifactNotFound(artifact_id)
        return io.BytesIO(data)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Refuse; raises PermissionError."""
        raise PermissionError("the pictures of a study are only shown here")

    def remove(self, artifact_id: str) -> None:
        """Refuse; raises PermissionError."""
        raise PermissionError("the pictures of a study are only shown here")


class BoardServer(ThreadingMixIn, WSGIServer):
    """Answers several requests at once, and ends with the process."""

    daemon_threads = True


def board(storage: BaseStorage, store: Store | None, port: int) -> BoardServer:
    """A server that listens on this machine's loopback interface; ``serve_forever`` makes it answer.

    Args:
        storage: of the study; nothing is written to it.
        store: where the contact sheets lie, if they are to be shown.
        port: to listen on; where it is taken, or 0, a free one.

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
    """The application without what would change a study, and for pages of this machine only, whatever a name on the web points to."""

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
        """Requests are no news."""

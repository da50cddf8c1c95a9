"""
The parent as a process: the product's own gunicorn, with a recorder around it.

The recorder writes down what an untrusted parent can see of each question, so that the demo can
show it and tests can search it. Started by `local.twin.twin`.
"""

import argparse
import itertools
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.parent.config import ParentConfig
from app.parent.server import serve
from local.processes.child import connect_to, end_with_supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import InputStream, StartResponse, WSGIApplication, WSGIEnvironment


MOST_BYTES: Final = 64 * 1024 * 1024


class Recorder:
    """
    WSGI around the parent: request and answer bodies, to files in *folder*, the latest alone.

    A pair has one number: `00000001.request`, `00000001.answer`.

    Args:
        limit: Bytes to keep; the oldest pairs beyond are removed, never the last.
    """

    def __init__(
        self, application: "WSGIApplication", folder: Path, *, limit: int = MOST_BYTES
    ) -> None:
        self._application = application
        self._folder = folder
        self._limit = limit
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._kept: deque[tuple[Path, int]] = deque()  # of each answer that ended: its file, bytes

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Pass the request on; record it when it is a chat."""
        if environ["REQUEST_METHOD"] != "POST":
            return self._application(environ, start_response)
        with self._lock:
            number = next(self._numbers)
        request = self._folder / f"{number:08}.request"
        request.touch()
        environ["wsgi.input"] = _Tee(environ["wsgi.input"], request)
        return self._record(
            self._application(environ, start_response), request.with_suffix(".answer")
        )

    def _record(self, answer: Iterable[bytes], path: Path) -> Iterator[bytes]:
        try:
            with path.open("wb", buffering=0) as file:
                for piece in answer:
                    file.write(piece)
                    yield piece
        finally:
            # WSGI: what has a `close` is closed, however the iteration ended.
            getattr(answer, "close", lambda: None)()
            self._keep(path)

    def _keep(self, path: Path) -> None:
        request = path.with_suffix(".request")
        with self._lock:
            self._kept.append((path, request.stat().st_size + path.stat().st_size))
            while len(self._kept) > 1 and sum(size for _, size in self._kept) > self._limit:
                oldest, _ = self._kept.popleft()
                oldest.unlink(missing_ok=True)
                oldest.with_suffix(".request").unlink(missing_ok=True)


class _Tee:
    """A request body that is written down while it is read."""

    def __init__(self, source: "InputStream", path: Path) -> None:
        self._source = source
        self._path = path

    def _keep(self, data: bytes) -> bytes:
        with self._path.open("ab") as file:
            file.write(data)
        return data

    def read(self, size: int = -1, /) -> bytes:
        """Read and keep up to *size* bytes."""
        return self._keep(self._source.read(size))

    def readline(self, size: int = -1, /) -> bytes:
        """Read and keep one line."""
        return self._keep(self._source.readline(size))

    def readlines(self, hint: int = -1, /) -> list[bytes]:
        """Read and keep all lines."""
        return [self._keep(line) for line in self._source.readlines(hint)]

    def __iter__(self) -> Iterator[bytes]:
        """Give and keep line by line."""
        return (self._keep(line) for line in self._source)


def main() -> None:
    """Serve with the configuration and socket given as arguments."""
    serve_recorded(make_parser(__doc__).parse_args())


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Give a parser of what every parent of a twin is told."""
    parser = argparse.ArgumentParser(description=description)
    for name in ("config", "enclave", "record"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser


def serve_recorded(
    options: argparse.Namespace,
    wrap: "Callable[[WSGIApplication], WSGIApplication]" = lambda application: application,
) -> None:
    """Serve, with *wrap* between the recorder and whoever asks."""
    end_with_supervisor()
    serve(
        ParentConfig.from_file(options.config),
        connect_to(options.enclave),
        wrap=lambda application: wrap(Recorder(application, options.record)),
    )


if __name__ == "__main__":
    main()

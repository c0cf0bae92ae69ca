"""Runs the service in this process: socket, signals, drain, exit code.

SIGTERM or SIGINT drains: the socket stays open, live says 200, ready and new requests get 503, running requests finish
or are answered when the time is up; then the process ends with 0. A second signal hurries. When the engine ends by
itself, all who wait are answered, and the process ends with 1.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI

from unveil.engine.catalog import Source, find_sources, load_catalog
from unveil.engine.messages import EnginePort
from unveil.model.errors import UnveilError
from unveil.service.app import create_app
from unveil.service.dispatcher import EngineDiedError
from unveil.service.logs import configure, get_logger
from unveil.service.routes import Service
from unveil.service.settings import Settings
from unveil.service.transport.protocol import Protocol

if TYPE_CHECKING:
    from unveil.engine.worker import Loading

_CLOSE_SECONDS = 5  # for replies still being written when everything has been answered


class Server(uvicorn.Server):
    """uvicorn's server with a drain before its shutdown. `exit_code` is the process's."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                loop="asyncio",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=settings.idle_connection_seconds,
                timeout_graceful_shutdown=_CLOSE_SECONDS,
            )
        )
        service = app.state.service
        assert isinstance(service, Service)
        self._dispatcher = service.dispatcher
        self._drain_timeout_seconds = settings.drain_timeout_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._num_signals = 0
        self.exit_code = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        for listening in sockets or ():
            host, port = listening.getsockname()[:2]
            get_logger().info("listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}")
        self._spawn(self._watch_engine())

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Called by the signal handler, between any two instructions: only hands over to the loop."""
        self._num_signals += 1
        if self._loop is None or self._num_signals > 1:
            self.should_exit = self.force_exit = True
        else:
            self._loop.call_soon_threadsafe(lambda: self._spawn(self._drain(signal.Signals(sig).name)))

    async def _drain(self, name: str) -> None:
        get_logger().info("draining", signal=name, timeout_seconds=self._drain_timeout_seconds)
        await self._dispatcher.drain(timeout_seconds=self._drain_timeout_seconds)
        self.should_exit = True

    async def _watch_engine(self) -> None:
        """Ends the process, with 1, when the engine has ended by itself: whoever supervises it starts a new one."""
        try:
            await self._dispatcher.wait_until_ready()
            get_logger().info("ready")
            await self._dispatcher.wait_until_dead()
        except EngineDiedError as error:
            print(f"error: {error}", file=sys.stderr)  # noqa: T201  (the one line on stderr of a failed command)
            self.exit_code = 1
            self.should_exit = True

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def serve(settings: Settings) -> int:
    """Serves until a signal; gives the process's exit code.

    Raises ArtifactError where there is nothing whole to serve, and UnveilError where it cannot listen.
    """
    configure(level=settings.log_level, log_format=settings.log_format)
    sources = find_sources(settings.artifacts, checkpoints=settings.checkpoints)
    engine = build_engine(sources, settings)
    app = create_app(settings, engine=engine, catalog=load_catalog(sources))
    server = Server(app, settings)
    with open_socket(settings.host, settings.port) as listening:
        server.run(sockets=[listening])
    if engine.is_alive():  # still in a step: torch aborts a process that is left by the ordinary way around it
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(server.exit_code)
    return server.exit_code


def build_engine(sources: tuple[Source, ...], settings: Settings) -> EnginePort:
    """The engine for these artifacts, which are loaded in its thread, behind the open socket."""
    from unveil.engine.thread import Engine  # brings torch, which nothing else of the HTTP side needs

    def load() -> "Loading":
        from unveil.engine.runner import load_models

        return load_models(
            sources,
            max_batch=settings.max_batch,
            device=settings.device,
            threads=settings.threads,
            cache_bytes=settings.cache_bytes,
        )

    return Engine(load, max_batch=settings.max_batch)


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UnveilError."""
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it, every small reply waits 40 ms.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise UnveilError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # a client that stops reading for good is forgotten by the kernel, too
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)
    return listening

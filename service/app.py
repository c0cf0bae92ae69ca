"""The ASGI application: routes, pages, errors, metrics and the dispatcher, put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from unveil.engine.catalog import Catalog
from unveil.engine.messages import EnginePort
from unveil.engine.request.errors import ServiceError
from unveil.service import openapi
from unveil.service.dispatcher import Dispatcher
from unveil.service.metrics import Metrics
from unveil.service.pages import pages
from unveil.service.routes import Service, router
from unveil.service.settings import Settings
from unveil.service.transport.error_replies import on_http_exception, on_service_error
from unveil.service.transport.middleware import RequestLog
from unveil.service.transport.shortcut import ShortCut


def create_app(settings: Settings, *, engine: EnginePort, catalog: Catalog) -> FastAPI:
    """The application. Its lifespan starts and stops the engine, which loads its models while the socket is open."""
    metrics = Metrics()
    dispatcher = Dispatcher(
        engine,
        capacity=settings.queue_capacity,
        metrics=metrics,
        worker_timeout_seconds=settings.worker_timeout_seconds,
        version=unveil_version(),
    )
    _watch(metrics, dispatcher, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await dispatcher.start()
        yield
        await dispatcher.stop()

    app = FastAPI(
        title="Unveil",
        version=unveil_version(),
        description="Masked diffusion models that learn the order in which they decode.",
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = Service(settings, catalog, dispatcher, metrics)
    app.include_router(router)
    app.include_router(pages())
    app.add_exception_handler(ServiceError, on_service_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_middleware(ShortCut, routes=[route for route in router.routes if isinstance(route, APIRoute)])
    app.add_middleware(RequestLog, metrics=metrics)
    openapi.install(app, example_prompt=catalog.get(None).tokenizer.example_prompt())
    return app


def unveil_version() -> str:
    try:
        return version("unveil")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+unknown"


def _watch(metrics: Metrics, dispatcher: Dispatcher, settings: Settings) -> None:
    metrics.gauge("requests_running", "Requests whose first step has begun.", lambda: dispatcher.num_running)
    metrics.gauge(
        "requests_waiting", "Requests admitted that wait for their first step.", lambda: dispatcher.num_waiting
    )
    metrics.gauge("ready", "1 while requests for every model are taken.", lambda: dispatcher.is_ready)
    metrics.gauge("draining", "1 while shutting down.", lambda: dispatcher.is_draining)
    metrics.gauge("queue_capacity", "Canvases admitted at once.", lambda: settings.queue_capacity)

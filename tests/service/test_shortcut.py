"""Busy routes are answered as FastAPI would answer them, without its router."""

import asyncio
import inspect
import re
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from unveil.engine.request.errors import ServiceError
from unveil.service.routes import router
from unveil.service.transport.ids import new_id
from unveil.service.transport.shortcut import ShortCut

ROUTES = [route for route in router.routes if isinstance(route, APIRoute)]


def test_the_handlers_of_posts_take_a_request_and_nothing_else() -> None:
    posts = [route for route in ROUTES if "POST" in (route.methods or ())]
    assert {route.path for route in posts} == {"/generate", "/order", "/score", "/predict", "/count"}
    for route in posts:
        assert list(inspect.signature(route.endpoint).parameters) == ["request"], route.path
        assert not route.dependencies


def _routes() -> list[APIRoute]:
    own = APIRouter()

    @own.post("/echo")
    async def echo(request: Request) -> Response:
        if request.query_params:
            raise ServiceError("invalid_request", "no parameters", param="x")
        return JSONResponse({"said": (await request.body()).decode()})

    @own.get("/other")
    async def other(request: Request) -> Response:
        return JSONResponse({"path": request.url.path})

    return [route for route in own.routes if isinstance(route, APIRoute)]


class Watched:
    """FastAPI with these routes, and which paths reach it."""

    def __init__(self, routes: list[APIRoute]) -> None:
        self.app = FastAPI(routes=list[BaseRoute](routes))
        self.paths: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.paths.append(scope["path"])
        await self.app(scope, receive, send)


def _ask(app: Any, method: str, path: str) -> tuple[int, Any]:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            return await client.request(method, path, content="hello")

    response = asyncio.run(ask())
    return response.status_code, response.json()


@pytest.mark.parametrize(
    ("method", "path", "answer", "passed_on"),
    [
        ("POST", "/echo", (200, {"said": "hello"}), []),
        ("GET", "/other", (200, {"path": "/other"}), ["/other"]),
        ("GET", "/echo", (405, {"detail": "Method Not Allowed"}), ["/echo"]),
        ("POST", "/other", (405, {"detail": "Method Not Allowed"}), ["/other"]),
        ("POST", "/echo/more", (404, {"detail": "Not Found"}), ["/echo/more"]),
    ],
)
def test_a_post_to_a_route_goes_to_its_handler_and_all_else_to_the_router(
    method: str, path: str, answer: tuple[int, Any], passed_on: list[str]
) -> None:
    routes = _routes()
    inner = Watched(routes)
    assert _ask(ShortCut(inner, routes=routes), method, path) == answer
    assert inner.paths == passed_on


def test_a_refusal_has_the_shape_of_all_errors_and_is_left_for_the_log() -> None:
    routes, scopes = _routes(), list[Scope]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await ShortCut(Watched(routes), routes=routes)(scope, receive, send)

    status, body = _ask(app, "POST", "/echo?x=1")
    assert (status, body["error"]["type"], body["error"]["param"]) == (422, "invalid_request", "x")
    assert (scopes[0]["unveil.error"].param, scopes[0]["route"].path) == ("x", "/echo")


def test_ids_are_hexadecimal_and_never_the_same() -> None:
    ids = [new_id("gen") for _ in range(1000)]
    assert all(re.fullmatch(r"gen-[0-9a-f]{32}", one) for one in ids)
    assert len(set(ids)) == len(ids)

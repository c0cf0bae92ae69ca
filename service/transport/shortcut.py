"""The busy routes without a router: FastAPI takes a seventh of the CPU time of a small request to find their handlers.

They read their bodies themselves and give whole responses, so nothing of what it does in between is needed. It still
documents them, and answers everything else.
"""

from collections.abc import Sequence

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from unveil.engine.request.errors import ServiceError
from unveil.service.transport.error_replies import on_service_error


class ShortCut:
    """ASGI middleware. A POST to one of `routes`, whose handlers take a request and nothing else, goes to its
    handler."""

    def __init__(self, app: ASGIApp, *, routes: Sequence[APIRoute]) -> None:
        self._app = app
        self._routes = {route.path: route for route in routes if "POST" in (route.methods or ())}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive, send)
        try:
            response = await route.endpoint(request)
        except ServiceError as error:
            response = await on_service_error(request, error)
        await response(scope, receive, send)

"""What /openapi.json has beyond what FastAPI infers: request bodies, and our errors."""

import asyncio
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from unveil.engine.request.schemas import GenerateRequest, OrderRequest, ScoreRequest
from unveil.engine.request.table_schemas import CountRequest, PredictRequest
from unveil.service.transport.error_replies import ErrorReply

_REQUESTS: tuple[type[BaseModel], ...] = (GenerateRequest, OrderRequest, ScoreRequest, PredictRequest, CountRequest)
_REF = "#/components/schemas/{model}"
_ERRORS = {
    400: "The body is not UTF-8 JSON.",
    404: "No such model is served.",
    413: "The body is too large.",
    422: "A field is wrong or unknown; `param` names it.",
    429: "The queue is full; `Retry-After` says when to come back.",
    500: "Something went wrong on the server.",
    503: "Not ready yet, or shutting down; `Retry-After` says when to come back.",
    504: "The deadline passed.",
}
_RETRY = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
EVENT_STREAM = {
    "description": (
        "One JSON object; or, with `stream`, server-sent events: `start` (id, model, each sample's seed, canvas and "
        "hidden positions), `reveal` for each position in the step in which it was revealed, `sample` for each "
        "finished one, and at the end exactly one `done` (usage, timings) or `error`."
    ),
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}


def responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` for these error codes."""
    return {
        code: {"model": ErrorReply, "description": _ERRORS[code], **({"headers": _RETRY} if code in (429, 503) else {})}
        for code in codes
    }


def request_body(schema: type[BaseModel]) -> dict[str, Any]:
    """FastAPI's `openapi_extra` for a body that the handler reads by itself."""
    content = {"schema": {"$ref": _REF.format(model=schema.__name__)}}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def install(app: FastAPI, *, example_prompt: Any) -> None:
    """Serves /openapi.json, with the bodies that handlers read by themselves and a prompt that can be served."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            schemas = document["components"]["schemas"]
            for request in _REQUESTS:
                schema = request.model_json_schema(ref_template=_REF)
                schemas.update(schema.pop("$defs", {}))
                field = "where" if request is CountRequest else "prompt"
                schemas[request.__name__] = {**schema, "example": {field: example_prompt}}
            app.openapi_schema = document
        return app.openapi_schema

    async def document(_: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(app.openapi))  # made at the first request, which takes long

    app.openapi = openapi  # type: ignore[method-assign]
    app.add_route("/openapi.json", document, include_in_schema=False)

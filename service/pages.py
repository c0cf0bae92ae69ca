"""The pages `/` and `/docs`: a few files, read once, that fetch nothing from elsewhere."""

from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response

_WEB = Path(__file__).resolve().parent / "web"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_FILES = {
    "/": "index.html",
    "/docs": "docs.html",
    "/web/play.js": "play.js",
    "/web/docs.js": "docs.js",
    "/web/style.css": "style.css",
    "/favicon.svg": "favicon.svg",
    "/favicon.ico": "favicon.svg",
}
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def pages() -> APIRouter:
    """Routes for all files of `web/`."""
    router = APIRouter(include_in_schema=False)
    for path, name in _FILES.items():
        router.add_api_route(path, _Page(_WEB / name), methods=["GET", "HEAD"], name=name)
    return router


class _Page:
    def __init__(self, path: Path) -> None:
        self._content = path.read_bytes()
        self._media_type = _TYPES[path.suffix]

    async def __call__(self) -> Response:
        return Response(self._content, media_type=self._media_type, headers=_HEADERS)

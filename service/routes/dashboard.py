"""The dashboard: one page and what it loads, all from here. It shows what the other routes answer."""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse, Response

from service.errors import NotFoundError

router = APIRouter(include_in_schema=False)
PAGE = "index.html"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""Nothing from anywhere else, and nothing written into the page is run."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""``no-cache``: asked for again each time, and answered from the client's copy while that is the newest."""


@router.api_route("/", methods=["GET", "HEAD"])
async def page() -> Response:
    """The page; it needs no key, since it has no data of its own: what it asks for does."""
    return _file(PAGE)


@router.api_route("/dashboard/{file}", methods=["GET", "HEAD"])
async def part(file: str) -> Response:
    """What the page loads."""
    return _file(file)


def _file(name: str) -> Response:
    path = Path(str(files("service") / "dashboard")) / name
    kind = TYPES.get(path.suffix)
    if kind is None or path.parent.name != "dashboard" or not path.is_file():
        raise NotFoundError("The dashboard has no such file.")
    return FileResponse(path, media_type=kind, headers=HEADERS)

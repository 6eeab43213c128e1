"""API explorer at ``/docs``: one page with its script and its style sheet, all from this package."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cardwright.edges.http.openapi import document_bytes

FOLDER = Path(__file__).with_name("explorer")

# Only files of this server may be scripts or styles, so the content of an API answer cannot run in the page.
POLICY = "; ".join(
    f"{directive} {sources}"
    for directive, sources in {
        "default-src": "'self'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self'",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }.items()
)

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}

FILES = {
    "/docs": ("index.html", "text/html"),
    "/docs/explorer.js": ("explorer.js", "text/javascript"),
    "/docs/explorer.css": ("explorer.css", "text/css"),
    "/docs/icon.svg": ("icon.svg", "image/svg+xml"),
}


def explorer_paths() -> list[Route]:
    """Return the routes of the page, its files and the OpenAPI document. None of them needs a credential."""
    return [Route("/openapi.json", _document), *(_file(path, name, kind) for path, (name, kind) in FILES.items())]


async def _document(_request: Request) -> Response:
    return Response(document_bytes(), media_type="application/json", headers=HEADERS)


def _file(path: str, name: str, media_type: str) -> Route:
    content = FOLDER.joinpath(name).read_bytes()

    async def answer(_request: Request) -> Response:
        return Response(content, media_type=media_type, headers=HEADERS)

    return Route(path, answer)

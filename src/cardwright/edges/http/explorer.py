"""The API explorer at ``/docs``: one page, its script and its style, from our own package and from nowhere else."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cardwright.edges.http.openapi import document_bytes

FOLDER = Path(__file__).with_name("explorer")

# Whatever an answer of ours may hold, it cannot run in the page: scripts and styles are files of this server.
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
    """The page, its files and the document that it shows; none needs a credential."""
    return [Route("/openapi.json", _document), *(_file(path, name, kind) for path, (name, kind) in FILES.items())]


async def _document(_request: Request) -> Response:
    return Response(document_bytes(), media_type="application/json", headers=HEADERS)


def _file(path: str, name: str, media_type: str) -> Route:
    content = FOLDER.joinpath(name).read_bytes()

    async def answer(_request: Request) -> Response:
        return Response(content, media_type=media_type, headers=HEADERS)

    return Route(path, answer)

"""A trivial app behind a sidecar, to know what the way alone costs. `python -m bench.raw NAME`."""

import sys

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from sidecard.http_server import http_server
from sidecard.settings import Settings

PATH = "/raw"


async def _answer(request: Request) -> PlainTextResponse:
    await request.body()
    return PlainTextResponse("ok")


if __name__ == "__main__":
    app = Starlette(routes=[Route("/healthz", _answer), Route(PATH, _answer, methods=["POST"])])
    http_server(app, Settings.load(sys.argv[1])).run()

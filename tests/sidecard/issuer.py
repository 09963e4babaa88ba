"""An issuer of tokens, which answers as told."""

from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

SECRET = "s%3cret & more"


class Issuer:
    """Gives out numbered tokens, or answers as told; keeps what it was asked."""

    def __init__(self):
        self.url, self.asked, self.answers, self.seconds, self.hold = "", [], [], 600, None
        self.told = {}
        self.looked_up = 0

    def app(self):
        async def metadata(_request):
            self.looked_up += 1
            return JSONResponse({"issuer": self.url, "token_endpoint": f"{self.url}/token"} | self.told)

        async def token(request):
            self.asked.append((request.headers["authorization"], parse_qs((await request.body()).decode())))
            if self.hold is not None:
                await self.hold.wait()
            if self.answers:
                return self.answers.pop(0)
            given = {"access_token": f"t{len(self.asked)}", "token_type": "Bearer", "expires_in": self.seconds}
            return JSONResponse({name: value for name, value in given.items() if value is not None})

        oauth = "/.well-known/oauth-authorization-server"
        return Starlette(routes=[Route(oauth, metadata), Route("/token", token, methods=["POST"])])

"""
The endpoints of the Responses API.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.responses import Response as HttpResponse
from starlette.routing import Route

from app.chatbot.openai.body import RequestError
from app.chatbot.openai.conversations import Conversations
from app.chatbot.openai.http import NotFoundError, parse_aside, read
from app.chatbot.openai.response import Limit, fail
from app.chatbot.openai.responses.held import HeldResponses
from app.chatbot.openai.responses.items import Json
from app.chatbot.openai.responses.request import NAMES, Asked, parse_body, resolve_request
from app.chatbot.openai.responses.response import Response, encode_event
from app.chatbot.openai.running import Running, ending, unused_header, watch
from app.chatbot.reading.parts import Part
from app.protocol.errors import AppError
from app.protocol.question import Options

PATH: Final = "/v1/responses"
_ITEMS_LISTED: Final = 20  # at a time, unless a client wants another number
_MOST_LISTED: Final = 100
_Found = TypeVar("_Found")


class Responses:
    """
    Makes responses, and holds them.

    Args:
        defaults: Of what a request leaves out.

        require_model: Raises where another model than the one that is served is named.
    """

    def __init__(
        self,
        conversations: Conversations,
        defaults: Options,
        threads: ThreadPoolExecutor,
        require_model: Callable[[str], None],
    ) -> None:
        self._conversations = conversations
        self._defaults = defaults
        self._threads = threads
        self._require_model = require_model
        self._held = HeldResponses()
        self._sweeping = False

    @property
    def routes(self) -> list[Route]:
        """Where the endpoints are."""
        one = PATH + "/{name}"
        return [
            Route(PATH, self.create, methods=["POST"]),
            Route(one, self.show, methods=["GET"]),
            Route(one, self.delete, methods=["DELETE"]),
            Route(f"{one}/input_items", self.list_items, methods=["GET"]),
            Route(f"{one}/cancel", self.cancel, methods=["POST"]),
        ]

    @property
    def limit(self) -> Limit:
        """What an error about a question is told with."""
        return Limit("input", self._conversations.context_tokens, NAMES)

    async def create(self, request: Request) -> HttpResponse:
        """Answer `POST /v1/responses`."""
        asked = resolve_request(
            await parse_aside(parse_body, await read(request)),
            self._defaults,
            find_response=self._held.conversation,
            find_item=self._held.item,
        )
        self._require_model(asked.model)
        running = Running(self._conversations, asked.question, threads=self._threads)
        parts = running.parts()
        watching = watch(request, running)
        if not asked.stream:
            async with ending(watching):
                whole = await self._whole(asked, parts, running)
            return JSONResponse(whole, headers=unused_header(running))
        try:
            first = await anext(parts, None)  # what fails so early has a status of its own
        except BaseException:
            watching.cancel()
            raise
        return StreamingResponse(
            self._events(asked, first, parts, running, watching),
            headers={"cache-control": "no-store", **unused_header(running)},
            media_type="text/event-stream",
        )

    async def show(self, request: Request) -> HttpResponse:
        """Answer `GET /v1/responses/…`."""
        if request.query_params.get("stream") == "true":
            words = "stream: a response that is held is given whole, not streamed again"
            raise RequestError(words, "stream", "unsupported_parameter")
        return JSONResponse(_require(self._held.response(request.path_params["name"])))

    async def delete(self, request: Request) -> HttpResponse:
        """Answer `DELETE /v1/responses/…`."""
        name = request.path_params["name"]
        _require(self._held.drop(name) or None)
        return JSONResponse({"id": name, "object": "response", "deleted": True})

    async def list_items(self, request: Request) -> HttpResponse:
        """Answer `GET /v1/responses/…/input_items`."""
        items = _require(self._held.input_items(request.path_params["name"]))
        if request.query_params.get("order") != "asc":
            items.reverse()
        return JSONResponse(_page(items, request.query_params.get("after"), _limit(request)))

    async def cancel(self, request: Request) -> HttpResponse:
        """Answer `POST /v1/responses/…/cancel`."""
        _require(self._held.response(request.path_params["name"]))
        words = "a response that is held is over, and none is made in the background: hang up"
        raise RequestError(words, None, "invalid_value")

    async def _whole(self, asked: Asked, parts: AsyncIterator[Part], running: Running) -> Json:
        response = Response(asked.model, asked.echo, asked.summarised)
        async for part in parts:
            response.add(part)
        response.model = running.model
        events = response.end(*running.evidence())
        return self._keep(asked, events)

    async def _events(
        self,
        asked: Asked,
        first: Part | None,
        parts: AsyncIterator[Part],
        running: Running,
        watching: "asyncio.Task[None]",
    ) -> AsyncIterator[str]:
        """Give the events of a stream; one that fails ends with an error, and incomplete."""
        response = Response(running.model, asked.echo, asked.summarised)
        async with ending(watching):
            try:
                events = response.begin() + (response.add(first) if first else [])
                yield "".join(map(encode_event, events))
                async for part in parts:
                    yield "".join(map(encode_event, response.add(part)))
                events = response.end(*running.evidence())
                self._keep(asked, events)
                yield "".join(map(encode_event, events))
            except AppError as error:
                yield "".join(map(encode_event, response.fail(fail(error, self.limit))))
            finally:
                running.stop()

    def _keep(self, asked: Asked, events: list[Json]) -> Json:
        """Hold the response that *events* end with, where that is wanted, and give it."""
        response = cast("Json", events[-1]["response"])
        if asked.store:
            self._held.put(response, asked.items)
            self._sweep()
        return response

    def _sweep(self) -> None:
        """Have what is held long enough dropped when its time has come, asked for or not."""
        left = self._held.expire()
        if left is not None and not self._sweeping:
            self._sweeping = True
            asyncio.get_running_loop().call_later(left, self._sweep_again)

    def _sweep_again(self) -> None:
        self._sweeping = False
        self._sweep()


def _require(found: _Found | None) -> _Found:
    if found is None:
        raise NotFoundError(
            "no such response is held here: it may be too long ago, or was not stored",
            "response_not_found",
        )
    return found


def _limit(request: Request) -> int:
    given = request.query_params.get("limit", str(_ITEMS_LISTED))
    if not (
        given.isascii() and given.isdigit() and len(given) <= 3 and 1 <= int(given) <= _MOST_LISTED
    ):
        raise RequestError(f"limit is not 1 to {_MOST_LISTED}", "limit", "invalid_value")
    return int(given)


def _page(items: list[Json], after: str | None, limit: int) -> Json:
    """Give up to *limit* of *items* that come after the one with the id *after*."""
    names = [str(item["id"]) for item in items]
    if after is not None and after not in names:
        raise RequestError("after: there is no such item", "after", "invalid_value")
    start = 0 if after is None else names.index(after) + 1
    page = items[start : start + limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else "",
        "last_id": page[-1]["id"] if page else "",
        "has_more": len(items) > start + limit,
    }

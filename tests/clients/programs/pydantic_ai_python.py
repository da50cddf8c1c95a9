"""pydantic-ai: `Agent("openai:NAME")`, which asks by Responses, and `openai-chat:NAME`."""

from pydantic_ai import Agent, NativeOutput
from scenario import MODEL, QUESTION, Leave, book_leave, pieces, report

CHAT, RESPONSES = f"openai-chat:{MODEL}", f"openai:{MODEL}"


def ask(model: str) -> str:
    return Agent(model).run_sync(QUESTION).output


async def stream_from(model: str) -> list[str]:
    async with Agent(model).run_stream(QUESTION) as answer:
        return pieces([piece async for piece in answer.stream_text(delta=True, debounce_by=None)])


def use_tools(model: str) -> str:
    return Agent(model, tools=[book_leave]).run_sync(QUESTION).output


def fill(model: str) -> Leave:
    return Agent(model, output_type=Leave).run_sync(QUESTION).output


def fill_natively(model: str) -> Leave:
    return Agent(model, output_type=NativeOutput(Leave)).run_sync(QUESTION).output


report(
    chat=lambda: ask(CHAT),
    stream=lambda: stream_from(CHAT),
    tools=lambda: use_tools(CHAT),
    schema=lambda: fill(CHAT),
    native_schema=lambda: fill_natively(CHAT),
    responses=lambda: ask(RESPONSES),
    responses_stream=lambda: stream_from(RESPONSES),
    responses_tools=lambda: use_tools(RESPONSES),
    responses_schema=lambda: fill(RESPONSES),
    responses_native_schema=lambda: fill_natively(RESPONSES),
)

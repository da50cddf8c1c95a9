"""OpenAI's Agents SDK: `Agent` and `Runner`, by Responses unless it is told otherwise."""

from agents import Agent, Runner, function_tool, set_default_openai_api
from scenario import MODEL, QUESTION, Leave, book_leave, pieces, report


def make(**options: object) -> Agent:
    return Agent(name="Clerk", instructions="You are a clerk.", model=MODEL, **options)


def ask(**options: object) -> object:
    return Runner.run_sync(make(**options), QUESTION).final_output


def by_chat(**options: object) -> object:
    set_default_openai_api("chat_completions")
    return ask(**options)


async def stream() -> list[str]:
    told = Runner.run_streamed(make(), QUESTION)
    deltas = [
        event.data.delta
        async for event in told.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    return pieces(deltas)


async def chat_stream() -> list[str]:
    set_default_openai_api("chat_completions")
    return await stream()


report(
    responses=ask,
    responses_stream=stream,
    responses_tools=lambda: ask(tools=[function_tool(book_leave)]),
    responses_schema=lambda: ask(output_type=Leave),
    chat=by_chat,
    stream=chat_stream,
    tools=lambda: by_chat(tools=[function_tool(book_leave)]),
    schema=lambda: by_chat(output_type=Leave),
)

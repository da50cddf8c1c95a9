"""OpenAI's client for Python: `OpenAI()`, with the two variables that bin/chat serve prints."""

import json

from openai import OpenAI, pydantic_function_tool
from openai.types.chat import ChatCompletion
from scenario import MODEL, QUESTION, Leave, book_leave, pieces, report

client = OpenAI()
asked = [{"role": "user", "content": QUESTION}]
parameters = {
    "type": "object",
    "properties": {"days": {"type": "integer"}},
    "required": ["days"],
    "additionalProperties": False,
}
function = {"name": "book_leave", "description": "Book leave.", "parameters": parameters}


def chat() -> str:
    return client.chat.completions.create(model=MODEL, messages=asked).choices[0].message.content


def stream() -> list[str]:
    chunks = client.chat.completions.create(model=MODEL, messages=asked, stream=True)
    return pieces(chunk.choices[0].delta.content for chunk in chunks if chunk.choices)


def tools() -> str:
    messages = list(asked)

    def ask() -> ChatCompletion:
        tool = {"type": "function", "function": function}
        return client.chat.completions.create(model=MODEL, messages=messages, tools=[tool])

    answer = ask().choices[0].message
    messages.append(answer)
    for call in answer.tool_calls or ():
        result = book_leave(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return ask().choices[0].message.content


def stream_tools() -> str:
    """Take a call from a stream, put together by the client's own accumulator."""
    tool = {"type": "function", "function": function}
    with client.chat.completions.stream(model=MODEL, messages=asked, tools=[tool]) as events:
        message = events.get_final_completion().choices[0].message
    (call,) = message.tool_calls or ()
    return book_leave(**json.loads(call.function.arguments))


def schema() -> Leave:
    answer = client.chat.completions.parse(model=MODEL, messages=asked, response_format=Leave)
    return answer.choices[0].message.parsed


def strict_tool() -> Leave:
    """Have the form filled as the arguments of a tool that has to be called."""
    answer = client.chat.completions.parse(
        model=MODEL,
        messages=asked,
        tools=[pydantic_function_tool(Leave)],
        tool_choice="required",
    )
    (call,) = answer.choices[0].message.tool_calls
    return call.function.parsed_arguments


def responses() -> str:
    return client.responses.create(model=MODEL, input=QUESTION).output_text


def responses_stream() -> list[str]:
    with client.responses.stream(model=MODEL, input=QUESTION) as events:
        told = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(told) == events.get_final_response().output_text
    return told


def responses_tools() -> str:
    tool = {"type": "function", **function, "strict": True}
    first = client.responses.create(model=MODEL, input=QUESTION, tools=[tool])
    results = [
        {
            "type": "function_call_output",
            "call_id": item.call_id,
            "output": book_leave(**json.loads(item.arguments)),
        }
        for item in first.output
        if item.type == "function_call"
    ]
    return client.responses.create(
        model=MODEL, input=results, previous_response_id=first.id, tools=[tool]
    ).output_text


def responses_schema() -> Leave:
    return client.responses.parse(model=MODEL, input=QUESTION, text_format=Leave).output_parsed


report(
    chat=chat,
    stream=stream,
    tools=tools,
    stream_tools=stream_tools,
    schema=schema,
    strict_tool=strict_tool,
    responses=responses,
    responses_stream=responses_stream,
    responses_tools=responses_tools,
    responses_schema=responses_schema,
)

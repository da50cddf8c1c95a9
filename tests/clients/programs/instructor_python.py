"""instructor: `from_provider("openai/NAME")`, in its own default mode and in its others."""

import instructor
from openai import OpenAI
from scenario import MODEL, QUESTION, Leave, report

asked = [{"role": "user", "content": QUESTION}]


def schema() -> Leave:
    client = instructor.from_provider(f"openai/{MODEL}")
    return client.chat.completions.create(messages=asked, response_model=Leave)


def fill(mode: instructor.Mode) -> Leave:
    client = instructor.from_openai(OpenAI(), mode=mode)
    return client.chat.completions.create(model=MODEL, messages=asked, response_model=Leave)


report(
    schema=schema,
    tool_mode=lambda: fill(instructor.Mode.TOOLS),
    json_mode=lambda: fill(instructor.Mode.JSON),
    json_schema_mode=lambda: fill(instructor.Mode.JSON_SCHEMA),
    responses=lambda: fill(instructor.Mode.RESPONSES_TOOLS),
)

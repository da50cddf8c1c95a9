"""litellm as a library: the model is called openai/NAME."""

import json

import litellm
from scenario import MODEL, QUESTION, Leave, book_leave, pieces, report

NAME = f"openai/{MODEL}"
asked = [{"role": "user", "content": QUESTION}]


def chat() -> str:
    return litellm.completion(model=NAME, messages=asked).choices[0].message.content


def stream() -> list[str]:
    chunks = litellm.completion(model=NAME, messages=asked, stream=True)
    return pieces(chunk.choices[0].delta.content for chunk in chunks)


def tools() -> str:
    parameters = {"type": "object", "properties": {"days": {"type": "integer"}}}
    tool = {"type": "function", "function": {"name": "book_leave", "parameters": parameters}}
    messages = list(asked)
    answer = litellm.completion(model=NAME, messages=messages, tools=[tool]).choices[0].message
    messages.append(answer)
    for call in answer.tool_calls or ():
        result = book_leave(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    answer = litellm.completion(model=NAME, messages=messages, tools=[tool])
    return answer.choices[0].message.content


def schema() -> Leave:
    answer = litellm.completion(model=NAME, messages=asked, response_format=Leave)
    return Leave.model_validate_json(answer.choices[0].message.content)


def responses() -> str:
    answer = litellm.responses(model=NAME, input=QUESTION)
    return "".join(part.text for item in answer.output for part in item.content)


report(chat=chat, stream=stream, tools=tools, schema=schema, responses=responses)

"""LlamaIndex: `OpenAILike`, which is its class for servers that are not OpenAI's."""

import os

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAIResponses
from llama_index.llms.openai_like import OpenAILike
from scenario import MODEL, QUESTION, Leave, book_leave, pieces, report

BASE, KEY = os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"]
asked = [ChatMessage(role="user", content=QUESTION)]


def make(**options: bool) -> OpenAILike:
    return OpenAILike(model=MODEL, api_base=BASE, api_key=KEY, is_chat_model=True, **options)


def chat() -> str:
    return make().chat(asked).message.content


def stream() -> list[str]:
    return pieces(part.delta for part in make().stream_chat(asked))


async def tools() -> str:
    llm = make(is_function_calling_model=True)
    agent = FunctionAgent(tools=[book_leave], llm=llm)
    return str(await agent.run(QUESTION))


def schema() -> Leave:
    llm = make(is_function_calling_model=True)
    return llm.as_structured_llm(Leave).chat(asked).raw


def json_mode() -> Leave:
    return make(should_use_structured_outputs=True).as_structured_llm(Leave).chat(asked).raw


def responses() -> str:
    llm = OpenAIResponses(
        model=MODEL, api_base=BASE, api_key=KEY, context_window=2048, is_function_calling_model=True
    )
    return llm.chat(asked).message.content


report(
    chat=chat,
    stream=stream,
    tools=tools,
    schema=schema,
    json_mode=json_mode,
    responses=responses,
)

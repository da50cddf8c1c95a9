"""AutoGen: `AssistantAgent` over `OpenAIChatCompletionClient`, told what the model can do."""

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.messages import ModelClientStreamingChunkEvent, StructuredMessage
from autogen_core.models import ModelInfo
from autogen_ext.models.openai import OpenAIChatCompletionClient
from scenario import MODEL, QUESTION, Leave, book_leave, pieces, report


def make(**options: object) -> AssistantAgent:
    info = ModelInfo(
        vision=False,
        function_calling=True,
        json_output=True,
        family="unknown",
        structured_output=True,
    )
    client = OpenAIChatCompletionClient(model=MODEL, model_info=info)
    return AssistantAgent("clerk", client, **options)


async def chat() -> str:
    return (await make().run(task=QUESTION)).messages[-1].content


async def stream() -> list[str]:
    events = make(model_client_stream=True).run_stream(task=QUESTION)
    told = [one.content async for one in events if isinstance(one, ModelClientStreamingChunkEvent)]
    return pieces(told)


async def tools() -> str:
    agent = make(tools=[book_leave], reflect_on_tool_use=True)
    return (await agent.run(task=QUESTION)).messages[-1].content


async def schema() -> Leave:
    last = (await make(output_content_type=Leave).run(task=QUESTION)).messages[-1]
    assert isinstance(last, StructuredMessage)
    return last.content


report(chat=chat, stream=stream, tools=tools, schema=schema)

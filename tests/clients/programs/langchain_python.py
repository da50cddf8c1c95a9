"""LangChain: `ChatOpenAI(model=…)` and `create_agent`, with the two variables."""

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from scenario import MODEL, QUESTION, Leave, book_leave, pieces, report


def chat() -> str:
    return ChatOpenAI(model=MODEL).invoke(QUESTION).text


def stream() -> list[str]:
    return pieces(chunk.text for chunk in ChatOpenAI(model=MODEL).stream(QUESTION))


def tools() -> str:
    return run_agent(ChatOpenAI(model=MODEL))


def run_agent(llm: ChatOpenAI) -> str:
    agent = create_agent(llm, tools=[tool(book_leave)])
    told = agent.invoke({"messages": [{"role": "user", "content": QUESTION}]})
    return told["messages"][-1].text


def schema() -> Leave:
    return ChatOpenAI(model=MODEL).with_structured_output(Leave).invoke(QUESTION)


def function_calling() -> Leave:
    llm = ChatOpenAI(model=MODEL)
    return llm.with_structured_output(Leave, method="function_calling").invoke(QUESTION)


def json_mode() -> Leave:
    llm = ChatOpenAI(model=MODEL)
    return llm.with_structured_output(Leave.model_json_schema(), method="json_mode").invoke(
        f"{QUESTION} Answer in JSON."
    )


def responses() -> str:
    return ChatOpenAI(model=MODEL, use_responses_api=True).invoke(QUESTION).text


def responses_stream() -> list[str]:
    llm = ChatOpenAI(model=MODEL, use_responses_api=True)
    return pieces(chunk.text for chunk in llm.stream(QUESTION))


def responses_tools() -> str:
    return run_agent(ChatOpenAI(model=MODEL, use_responses_api=True))


report(
    chat=chat,
    stream=stream,
    tools=tools,
    schema=schema,
    function_calling=function_calling,
    json_mode=json_mode,
    responses=responses,
    responses_stream=responses_stream,
    responses_tools=responses_tools,
)

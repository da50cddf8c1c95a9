// Vercel's AI SDK: @ai-sdk/openai, which asks by Responses unless told otherwise, and
// @ai-sdk/openai-compatible, which asks by chat completions.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { MODEL, QUESTION, bookLeave, report } from "./scenario.mjs";

const baseURL = process.env.OPENAI_BASE_URL;
const apiKey = process.env.OPENAI_API_KEY;
const openai = createOpenAI({ baseURL, apiKey });
const compatible = createOpenAICompatible({
  name: "enclave",
  baseURL,
  apiKey,
  supportsStructuredOutputs: true,
});
const Leave = z.object({ name: z.string(), days: z.int(), paid: z.boolean() });
const tools = {
  book_leave: tool({
    description: "Book leave for the person who asks.",
    inputSchema: z.object({ days: z.int() }),
    execute: async (given) => bookLeave(given),
  }),
};

function ways(model) {
  return {
    ask: async () => (await generateText({ model, prompt: QUESTION })).text,
    stream: async () => {
      const got = [];
      for await (const piece of streamText({ model, prompt: QUESTION }).textStream) got.push(piece);
      return got;
    },
    tools: async () =>
      (await generateText({ model, prompt: QUESTION, tools, stopWhen: stepCountIs(3) })).text,
    stream_tools: async () =>
      await streamText({ model, prompt: QUESTION, tools, stopWhen: stepCountIs(3) }).text,
    schema: async () => {
      const output = Output.object({ schema: Leave });
      return (await generateText({ model, prompt: QUESTION, output })).output;
    },
  };
}

const chat = ways(compatible(MODEL));
const openaiChat = ways(openai.chat(MODEL));
const responses = ways(openai(MODEL));

await report({
  chat: chat.ask,
  stream: chat.stream,
  tools: chat.tools,
  stream_tools: chat.stream_tools,
  schema: chat.schema,
  openai_chat: openaiChat.ask,
  openai_tools: openaiChat.tools,
  openai_schema: openaiChat.schema,
  responses: responses.ask,
  responses_stream: responses.stream,
  responses_tools: responses.tools,
  responses_stream_tools: responses.stream_tools,
  responses_schema: responses.schema,
});

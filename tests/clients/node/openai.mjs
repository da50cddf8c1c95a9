// OpenAI's client for Node.js: `new OpenAI()`, with the two variables that bin/chat serve prints.
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { MODEL, QUESTION, bookLeave, parameters, report } from "./scenario.mjs";

const client = new OpenAI();
const messages = [{ role: "user", content: QUESTION }];
const Leave = z.object({ name: z.string(), days: z.int(), paid: z.boolean() });
const description = "Book leave for the person who asks.";

await report({
  async chat() {
    const answer = await client.chat.completions.create({ model: MODEL, messages });
    return answer.choices[0].message.content;
  },

  async stream() {
    const got = [];
    const chunks = await client.chat.completions.create({ model: MODEL, messages, stream: true });
    for await (const chunk of chunks) got.push(chunk.choices[0]?.delta?.content);
    return got.filter(Boolean);
  },

  async tools() {
    const runner = client.chat.completions.runTools({
      model: MODEL,
      messages,
      tools: [
        {
          type: "function",
          function: {
            name: "book_leave",
            description,
            parameters,
            parse: JSON.parse,
            function: bookLeave,
          },
        },
      ],
    });
    return await runner.finalContent();
  },

  async stream_tools() {
    const tool = { type: "function", function: { name: "book_leave", parameters } };
    const stream = client.chat.completions.stream({ model: MODEL, messages, tools: [tool] });
    const answer = await stream.finalChatCompletion();
    return bookLeave(JSON.parse(answer.choices[0].message.tool_calls[0].function.arguments));
  },

  async schema() {
    const response_format = zodResponseFormat(Leave, "leave");
    const answer = await client.chat.completions.parse({ model: MODEL, messages, response_format });
    return answer.choices[0].message.parsed;
  },

  async responses() {
    return (await client.responses.create({ model: MODEL, input: QUESTION })).output_text;
  },

  async responses_stream() {
    const got = [];
    const stream = client.responses.stream({ model: MODEL, input: QUESTION });
    for await (const event of stream)
      if (event.type === "response.output_text.delta") got.push(event.delta);
    if ((await stream.finalResponse()).output_text !== got.join("")) throw new Error("differs");
    return got;
  },

  async responses_tools() {
    const tools = [{ type: "function", name: "book_leave", description, parameters, strict: true }];
    const first = await client.responses.create({ model: MODEL, input: QUESTION, tools });
    const input = first.output
      .filter((item) => item.type === "function_call")
      .map(({ call_id, arguments: given }) => ({
        type: "function_call_output",
        call_id,
        output: bookLeave(JSON.parse(given)),
      }));
    const previous_response_id = first.id;
    const last = await client.responses.create({ model: MODEL, input, previous_response_id, tools });
    return last.output_text;
  },

  async responses_schema() {
    const format = zodTextFormat(Leave, "leave");
    const answer = await client.responses.parse({ model: MODEL, input: QUESTION, text: { format } });
    return answer.output_parsed;
  },
});

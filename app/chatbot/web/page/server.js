// The server: what this page asks of the program that serves it, and of nobody else.

/** Verify the enclave and begin a conversation; gives what was found either way. */
export const verify = () => post("api/verify", {});

/** Begin another conversation with the enclave that is verified. */
export const begin = (page) => post("api/new", { page });

/** End the answer that is under way, if any; its stream then says so. */
export const stop = (page) => post("api/stop", { page });

/** Ask, and give the answer's events as they come: see app/chatbot/web/server.py. */
export async function* ask(page, text) {
  const response = await send("api/ask", { page, text });
  let rest = "";
  for await (const piece of texts(response.body)) {
    const lines = (rest + piece).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

async function* texts(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

async function post(path, body) {
  return (await send(path, body)).json();
}

async function send(path, body) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`the program answered ${response.status}`);
  return response;
}

// What both programs here do alike; see scenario.py beside the programs for Python.
export const MODEL = process.env.CLIENT_MODEL;
export const QUESTION = process.env.CLIENT_QUESTION ?? "How do I book leave?";
export const parameters = {
  type: "object",
  properties: { days: { type: "integer" } },
  required: ["days"],
  additionalProperties: false,
};
const calls = [];

export function bookLeave(given) {
  calls.push(JSON.stringify(given));
  return "booking 7431";
}

export async function report(ways) {
  for (const way of process.argv.slice(2)) {
    calls.length = 0;
    const told = await ways[way]().then((got) => ({ got }), (error) => ({ error: String(error) }));
    console.log(JSON.stringify({ way, ...told, called: calls }));
  }
}

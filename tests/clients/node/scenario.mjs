// What both programs here do alike; see scenario.py beside the programs for Python.
export const MODEL = process.env.CLIENT_MODEL;
export const QUESTION = process.env.CLIENT_QUESTION ?? "How do I book leave?";
export const parameters = {
  type: "object",
  properties: { days: { type: "integer" } },
  required: ["days"],
  additionalProperties: false,
};
const BOOKED = "booking-7431";
const results = [];

export function bookLeave(given) {
  if (!(given.days > 0)) throw new Error("no days");
  results.push(BOOKED);
  return BOOKED;
}

export async function report(ways) {
  for (const way of process.argv.slice(2)) {
    results.length = 0;
    const told = await ways[way]().then((got) => ({ got }), (error) => ({ error: String(error) }));
    console.log(JSON.stringify({ way, ...told, results }));
  }
}

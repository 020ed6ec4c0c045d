// `openai` for Node: chat completions, responses, embeddings, models.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { SERVER, check, run } from "../../checks.mjs";

const client = new OpenAI({ baseURL: `${SERVER}/v1`, apiKey: "unused", maxRetries: 0 });
const SKY = [{ role: "user", content: "Why is the sky blue?" }];
const WEATHER = [{ role: "user", content: "What is the weather today in Paris?" }];
const SKY_AS_JSON = "What color is the sky at different times of the day? Respond using JSON";
const Sky = z.object({ morning: z.string(), noon: z.string() });
const City = z.object({ city: z.string() });
const demo = { model: "demo", temperature: 0 };

check("chat", async () => {
  const answer = await client.chat.completions.create({ ...demo, messages: SKY });
  assert.match(answer.choices[0].message.content, /Rayleigh scattering/);
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.ok(answer.usage.completion_tokens > 10);
});

check("a stream of chat", async () => {
  let text = "";
  let usage = null;
  const options = { stream: true, stream_options: { include_usage: true } };
  const stream = await client.chat.completions.create({ ...demo, messages: SKY, ...options });
  for await (const part of stream) {
    text += part.choices[0]?.delta?.content ?? "";
    usage ??= part.usage;
  }
  assert.match(text, /Rayleigh scattering/);
  assert.ok(usage.completion_tokens > 10);
});

check("stream helper", async () => {
  const runner = client.chat.completions.stream({ ...demo, messages: SKY });
  let text = "";
  runner.on("content", (delta) => (text += delta));
  assert.equal(await runner.finalContent(), text);
  assert.match(text, /Rayleigh/);
});

check("tools run by the client", async () => {
  const cities = [];
  const tool = zodFunction({
    name: "get_current_weather",
    description: "Get the current weather for a city",
    parameters: City,
    function: ({ city }) => {
      cities.push(city);
      return `22 degrees in ${city}`;
    },
  });
  const asked = { ...demo, reasoning_effort: "none", messages: WEATHER, tools: [tool] };
  const runner = client.chat.completions.runTools(asked);
  await runner.finalContent();
  assert.deepEqual(cities, ["Paris"]);
});

check("two calls in a stream", async () => {
  const tool = zodFunction({ name: "get_weather", parameters: City });
  const asked = { model: "two-calls", messages: WEATHER, tools: [tool] };
  const answer = await client.chat.completions.stream(asked).finalChatCompletion();
  const calls = answer.choices[0].message.tool_calls;
  assert.deepEqual(
    calls.map((call) => call.function.parsed_arguments.city),
    ["Paris", "Rome"],
  );
  assert.notEqual(calls[0].id, calls[1].id);
  assert.equal(answer.choices[0].finish_reason, "tool_calls");
});

check("parse with zod", async () => {
  const messages = [{ role: "user", content: SKY_AS_JSON }];
  const response_format = zodResponseFormat(Sky, "sky");
  const answer = await client.chat.completions.parse({ ...demo, messages, response_format });
  assert.ok(answer.choices[0].message.parsed.noon);
});

check("responses", async () => {
  const answer = await client.responses.create({ ...demo, input: "Why is the sky blue?" });
  assert.match(answer.output_text, /Rayleigh scattering/);
  const kinds = [];
  for await (const event of await client.responses.create({
    ...demo,
    input: "Why is the sky blue?",
    stream: true,
  })) {
    kinds.push(event.type);
  }
  assert.equal(kinds[0], "response.created");
  assert.equal(kinds.at(-1), "response.completed");
  const text = { format: zodTextFormat(Sky, "sky") };
  const parsed = await client.responses.parse({ ...demo, input: SKY_AS_JSON, text });
  assert.ok(parsed.output_parsed.noon);
});

check("completions", async () => {
  const answer = await client.completions.create({ model: "story", prompt: "x" });
  assert.equal(answer.choices[0].text.trim(), "Once upon a time there");
});

check("embeddings", async () => {
  const answer = await client.embeddings.create({ model: "demo-embed", input: ["a", "b"] });
  assert.equal(answer.data.length, 2);
  assert.ok(Math.abs(Math.hypot(...answer.data[0].embedding) - 1) < 1e-4);
});

check("models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes("demo:latest"));
  assert.equal((await client.models.retrieve("demo")).id, "demo");
});

check("a stream that is aborted", async () => {
  const asked = { model: "endless", messages: SKY, stream: true };
  const stream = await client.chat.completions.create(asked);
  for await (const part of stream) if (part.choices[0].delta.content) stream.controller.abort();
});

check("an error in the middle", async () => {
  const asked = { model: "dies-node-openai", messages: SKY, stream: true };
  const stream = await client.chat.completions.create(asked);
  await assert.rejects(async () => {
    for await (const part of stream) assert.equal(part.choices[0].finish_reason, null);
  }, OpenAI.APIError);
});

check("errors", async () => {
  const missing = client.chat.completions.create({ model: "nobody", messages: SKY });
  await assert.rejects(missing, OpenAI.NotFoundError);
  const invalid = client.chat.completions.create({ ...demo, messages: [] });
  await assert.rejects(invalid, OpenAI.BadRequestError);
});

await run();

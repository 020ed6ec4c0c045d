// `ai`, Vercel's AI SDK, with its provider for servers that speak OpenAI's protocol.

import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import {
  APICallError,
  Output,
  embed,
  embedMany,
  generateObject,
  generateText,
  stepCountIs,
  streamObject,
  streamText,
  tool,
} from "ai";
import { z } from "zod";
import { PIXEL, SERVER, check, run } from "../../checks.mjs";

const provider = createOpenAICompatible({
  name: "ollama",
  baseURL: `${SERVER}/v1`,
  apiKey: "unused",
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const demo = { model: provider("demo"), temperature: 0, maxRetries: 0 };
const quiet = { ...demo, providerOptions: { ollama: { reasoningEffort: "none" } } };
const SKY = "What color is the sky at different times of the day? Respond using JSON";
const Sky = z.object({ morning: z.string(), noon: z.string() });
const weather = (called) =>
  tool({
    description: "Get the current weather for a city",
    inputSchema: z.object({ city: z.string().describe("The name of the city") }),
    execute: async ({ city }) => {
      called.push(city);
      return `22 degrees in ${city}`;
    },
  });

check("generate text", async () => {
  const answer = await generateText({ ...demo, prompt: "Why is the sky blue?" });
  assert.match(answer.text, /Rayleigh scattering/);
  assert.equal(answer.finishReason, "stop");
  assert.ok(answer.usage.outputTokens > 10);
});

check("stream text", async () => {
  const result = streamText({ ...demo, prompt: "Why is the sky blue?" });
  let text = "";
  for await (const part of result.textStream) text += part;
  assert.match(text, /Rayleigh scattering/);
  assert.ok((await result.usage).outputTokens > 10);
  assert.equal(await result.finishReason, "stop");
});

check("a system text and turns", async () => {
  const system = "You are a pirate. Answer like a pirate.";
  const messages = [{ role: "user", content: "who are you?" }];
  assert.match((await generateText({ ...quiet, system, messages })).text, /Arr/);
});

check("tools in steps", async () => {
  const called = [];
  const answer = await generateText({
    ...quiet,
    tools: { get_current_weather: weather(called) },
    stopWhen: stepCountIs(3),
    prompt: "What is the weather today in Paris?",
  });
  assert.deepEqual(called, ["Paris"]);
  assert.ok(answer.text.length > 0);
});

check("two calls in a stream", async () => {
  const called = [];
  const result = streamText({
    model: provider("two-calls"),
    tools: { get_weather: weather(called) },
    prompt: "What is the weather in Paris and in Rome?",
  });
  const calls = await result.toolCalls;
  assert.deepEqual(
    calls.map((call) => call.input.city),
    ["Paris", "Rome"],
  );
  assert.deepEqual(called.sort(), ["Paris", "Rome"]);
  assert.equal(await result.finishReason, "tool-calls");
});

check("objects", async () => {
  const answer = await generateObject({ ...quiet, schema: Sky, prompt: SKY });
  assert.ok(answer.object.noon);
  const output = Output.object({ schema: Sky });
  const other = await generateText({ ...quiet, output, prompt: SKY });
  assert.ok(other.output.noon);
});

check("objects in a stream", async () => {
  const { partialObjectStream, object } = streamObject({ ...quiet, schema: Sky, prompt: SKY });
  let last = null;
  for await (const part of partialObjectStream) last = part;
  assert.deepEqual(last, await object);
});

check("reasoning", async () => {
  const answer = await generateText({ model: provider("thinks"), prompt: "What is 2 + 2?" });
  assert.equal(answer.reasoningText.trim(), "Two and two.");
  assert.equal(answer.text.trim(), "It is four.");
  const result = streamText({ model: provider("thinks"), prompt: "What is 2 + 2?" });
  assert.equal((await result.reasoningText).trim(), "Two and two.");
});

check("embeddings", async () => {
  const model = provider.embeddingModel("demo-embed");
  const { embedding, usage } = await embed({ model, value: "a" });
  assert.ok(usage.tokens > 0);
  const { embeddings } = await embedMany({ model, values: ["a", "b"] });
  assert.equal(embeddings[1].length, embedding.length);
});

check("a completion", async () => {
  const answer = await generateText({ model: provider.completionModel("story"), prompt: "x" });
  assert.match(answer.text, /Once upon a time there/);
});

check("an image", async () => {
  const sees = { model: provider("sees"), maxOutputTokens: 3 };
  const text = { type: "text", text: "What is this?" };
  const image = { type: "image", image: Buffer.from(PIXEL, "base64"), mediaType: "image/png" };
  const tokens = async (...content) =>
    (await generateText({ ...sees, messages: [{ role: "user", content }] })).usage.inputTokens;
  assert.ok((await tokens(text, image)) > (await tokens(text)) + 8);
});

check("errors", async () => {
  await assert.rejects(
    generateText({ ...demo, model: provider("nobody"), prompt: "x" }),
    (error) => APICallError.isInstance(error) && error.statusCode === 404,
  );
});

await run();

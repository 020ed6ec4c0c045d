// `ollama` for Node: every method.

import assert from "node:assert/strict";
import { Ollama } from "ollama";
import { PIXEL, SERVER, check, run } from "../../checks.mjs";

const client = new Ollama({ host: SERVER });
const SKY = [{ role: "user", content: "Why is the sky blue?" }];
const WEATHER = [{ role: "user", content: "What is the weather today in Paris?" }];
const TOOL = {
  type: "function",
  function: {
    name: "get_current_weather",
    description: "Get the current weather for a city",
    parameters: {
      type: "object",
      required: ["city"],
      properties: { city: { type: "string", description: "The name of the city" } },
    },
  },
};

const joined = async (stream, part) => {
  let text = "";
  for await (const each of stream) text += part(each) ?? "";
  return text;
};

check("generate", async () => {
  const answer = await client.generate({ model: "demo", prompt: "Why is the sky blue?" });
  assert.match(answer.response, /Rayleigh scattering/);
  assert.equal(answer.done_reason, "stop");
  const stream = await client.generate({ model: "demo", prompt: SKY[0].content, stream: true });
  assert.equal(await joined(stream, (part) => part.response), answer.response);
});

check("chat", async () => {
  const answer = await client.chat({ model: "demo", messages: SKY });
  assert.equal(answer.message.role, "assistant");
  assert.match(answer.message.content, /Rayleigh scattering/);
  const stream = await client.chat({ model: "demo", messages: SKY, stream: true });
  assert.equal(await joined(stream, (part) => part.message.content), answer.message.content);
});

check("tools", async () => {
  const asked = { model: "demo", tools: [TOOL], think: false };
  const { message } = await client.chat({ ...asked, messages: WEATHER });
  const [call] = message.tool_calls;
  assert.equal(call.function.name, "get_current_weather");
  assert.deepEqual(call.function.arguments, { city: "Paris" });
  const result = { role: "tool", tool_name: call.function.name, content: "22 degrees in Paris" };
  const answer = await client.chat({ ...asked, messages: [...WEATHER, message, result] });
  assert.match(answer.message.content, /22/);
});

check("two calls in a stream", async () => {
  const cities = [];
  const tool = { ...TOOL, function: { ...TOOL.function, name: "get_weather" } };
  const asked = { model: "two-calls", messages: WEATHER, tools: [tool], stream: true };
  for await (const part of await client.chat(asked)) {
    for (const call of part.message.tool_calls ?? []) cities.push(call.function.arguments.city);
  }
  assert.deepEqual(cities, ["Paris", "Rome"]);
});

check("thinking", async () => {
  const { message } = await client.chat({ model: "thinks", messages: SKY, think: true });
  assert.equal(message.thinking.trim(), "Two and two.");
  assert.equal(message.content.trim(), "It is four.");
  const stream = await client.chat({ model: "thinks", messages: SKY, think: true, stream: true });
  assert.equal(await joined(stream, (part) => part.message.thinking), message.thinking);
});

check("structured output", async () => {
  const format = {
    type: "object",
    properties: { morning: { type: "string" }, noon: { type: "string" } },
    required: ["morning", "noon"],
  };
  const content = "What color is the sky at different times of the day? Respond using JSON";
  const messages = [{ role: "user", content }];
  const answer = await client.chat({ model: "demo", messages, format });
  assert.deepEqual(Object.keys(JSON.parse(answer.message.content)), ["morning", "noon"]);
});

check("logprobs", async () => {
  const asked = { model: "demo", prompt: "Say this is a test", think: false };
  const answer = await client.generate({ ...asked, logprobs: true, top_logprobs: 2 });
  assert.equal(answer.logprobs.map((each) => each.token).join(""), answer.response);
  assert.equal(answer.logprobs[0].top_logprobs.length, 2);
});

check("embed and embeddings", async () => {
  const { embeddings } = await client.embed({ model: "demo-embed", input: ["a", "b"] });
  assert.equal(embeddings.length, 2);
  const { embedding } = await client.embeddings({ model: "demo-embed", prompt: "a" });
  assert.equal(embedding.length, embeddings[0].length);
  const small = await client.embed({ model: "demo-embed", input: "a", dimensions: 8 });
  assert.equal(small.embeddings[0].length, 8);
});

check("models", async () => {
  const names = async () => (await client.list()).models.map((model) => model.name);
  assert.ok((await names()).includes("demo:latest"));
  const shown = await client.show({ model: "demo" });
  assert.ok(shown.capabilities.includes("tools"));
  const created = await client.create({ model: "node-made", from: "demo", system: "Be brief." });
  assert.equal(created.status, "success");
  await client.copy({ source: "node-made", destination: "node-copied" });
  for (const model of ["node-made", "node-copied"]) {
    assert.ok((await names()).includes(`${model}:latest`));
    assert.equal((await client.delete({ model })).status, "success");
  }
  const statuses = [];
  for await (const part of await client.pull({ model: "demo", stream: true })) {
    statuses.push(part.status);
  }
  assert.equal(statuses.at(-1), "success");
  assert.ok((await client.ps()).models.length > 0);
  assert.match((await client.version()).version, /^\d+\.\d+/);
});

check("a stream that is aborted", async () => {
  const stream = await client.chat({ model: "endless", messages: SKY, stream: true });
  await assert.rejects(
    (async () => {
      for await (const part of stream) if (part.message.content) stream.abort();
    })(),
    { name: "AbortError" },
  );
});

check("an image", async () => {
  const asked = { role: "user", content: "What is this?" };
  const options = { num_predict: 3 };
  const blind = await client.chat({ model: "sees", messages: [asked], options });
  for (const image of [PIXEL, Buffer.from(PIXEL, "base64")]) {
    const messages = [{ ...asked, images: [image] }];
    const seen = await client.chat({ model: "sees", messages, options });
    assert.ok(seen.prompt_eval_count > blind.prompt_eval_count + 8);
  }
});

check("an image to a model that cannot see", async () => {
  const messages = [{ role: "user", content: "What is this?", images: [PIXEL] }];
  await assert.rejects(client.chat({ model: "demo", messages }), { status_code: 400 });
});

check("an error in the middle", async () => {
  const stream = await client.chat({ model: "dies-node-ollama", messages: SKY, stream: true });
  await assert.rejects(joined(stream, (part) => part.message.content), /unexpectedly stopped/);
});

check("errors", async () => {
  const error = { name: "ResponseError", status_code: 404, message: "model 'nobody' not found" };
  await assert.rejects(client.chat({ model: "nobody", messages: SKY }), error);
  await assert.rejects(client.generate({ model: "nobody", prompt: "x", stream: true }), error);
});

await run();

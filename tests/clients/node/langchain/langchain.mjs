// `@langchain/ollama`: chat, tools, structured output, embeddings.

import assert from "node:assert/strict";
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { ChatPromptTemplate } from "@langchain/core/prompts";
import { concat } from "@langchain/core/utils/stream";
import { tool } from "@langchain/core/tools";
import { ChatOllama, Ollama, OllamaEmbeddings } from "@langchain/ollama";
import { z } from "zod";
import { PIXEL, SERVER, check, run } from "../../checks.mjs";

const demo = new ChatOllama({ model: "demo", baseUrl: SERVER, think: false });
const SKY = "What color is the sky at different times of the day? Respond using JSON";
const Sky = z.object({ morning: z.string(), noon: z.string() });
const weather = tool(({ city }) => `22 degrees in ${city}`, {
  name: "get_current_weather",
  description: "Get the current weather for a city",
  schema: z.object({ city: z.string().describe("The name of the city") }),
});

check("invoke", async () => {
  const answer = await demo.invoke("Why is the sky blue?");
  assert.match(answer.content, /Rayleigh scattering/);
  assert.ok(answer.usage_metadata.output_tokens > 10);
});

check("a chain", async () => {
  const prompt = ChatPromptTemplate.fromMessages([
    [
      "system",
      "You are a helpful assistant that translates {input_language} to {output_language}." +
        " Translate the user sentence.",
    ],
    ["human", "{input}"],
  ]);
  const words = { input_language: "English", output_language: "French" };
  const answer = await prompt.pipe(demo).invoke({ ...words, input: "I love programming." });
  assert.equal(answer.content, "J'adore la programmation.");
});

check("stream and batch", async () => {
  let text = "";
  for await (const part of await demo.stream("Why is the sky blue?")) text += part.content;
  assert.match(text, /Rayleigh/);
  const answers = await demo.batch(["Why is the sky blue?", "Tell me a joke"]);
  assert.match(answers[1].content, /computer/);
});

check("bind tools", async () => {
  const withTools = new ChatOllama({ model: "calls", baseUrl: SERVER }).bindTools([weather]);
  const asked = new HumanMessage("What is the weather today in Paris?");
  const called = await withTools.invoke([asked]);
  const [call] = called.tool_calls;
  assert.deepEqual(call.args, { city: "Paris" });
  const content = await weather.invoke(call.args);
  const result = new ToolMessage({ content, tool_call_id: call.id, name: call.name });
  const answer = await demo.invoke([asked, called, result]);
  assert.match(answer.content, /22/);
});

check("two calls", async () => {
  const answer = await new ChatOllama({ model: "two-calls", baseUrl: SERVER })
    .bindTools([weather])
    .invoke("What is the weather in Paris and in Rome?");
  assert.deepEqual(
    answer.tool_calls.map((call) => call.args.city),
    ["Paris", "Rome"],
  );
});

check("two calls in a stream", async () => {
  const caller = new ChatOllama({ model: "two-calls", baseUrl: SERVER }).bindTools([weather]);
  let whole = null;
  for await (const part of await caller.stream("What is the weather in Paris and in Rome?")) {
    whole = whole === null ? part : concat(whole, part);
  }
  assert.deepEqual(
    whole.tool_calls.map((call) => call.args.city),
    ["Paris", "Rome"],
  );
});

check("structured output", async () => {
  const bySchema = demo.withStructuredOutput(Sky, { method: "jsonSchema" });
  assert.ok((await bySchema.invoke(SKY)).noon);
  const caller = new ChatOllama({ model: "calls-sky", baseUrl: SERVER });
  const byTool = caller.withStructuredOutput(Sky, { name: "Sky", method: "functionCalling" });
  assert.deepEqual(await byTool.invoke(SKY), { morning: "orange", noon: "blue" });
});

check("json mode", async () => {
  const json = new ChatOllama({ model: "demo", baseUrl: SERVER, think: false, format: "json" });
  assert.ok(JSON.parse((await json.invoke(SKY)).content));
});

check("thinking", async () => {
  const thinker = new ChatOllama({ model: "thinks", baseUrl: SERVER, think: true });
  const answer = await thinker.invoke("What is 2 + 2?");
  assert.equal(answer.content.trim(), "It is four.");
  assert.equal(answer.additional_kwargs.reasoning_content.trim(), "Two and two.");
});

check("an image message", async () => {
  const url = `data:image/png;base64,${PIXEL}`;
  const content = [
    { type: "text", text: "What is this?" },
    { type: "image_url", image_url: { url } },
  ];
  const sees = new ChatOllama({ model: "sees", baseUrl: SERVER, numPredict: 3 });
  const blind = await sees.invoke([new HumanMessage("What is this?")]);
  const seen = await sees.invoke([new HumanMessage({ content })]);
  assert.ok(seen.usage_metadata.input_tokens > blind.usage_metadata.input_tokens + 8);
  await assert.rejects(demo.invoke([new HumanMessage({ content })]), { status_code: 400 });
});

check("embeddings", async () => {
  const embeddings = new OllamaEmbeddings({ model: "demo-embed", baseUrl: SERVER });
  const vector = await embeddings.embedQuery("a");
  const vectors = await embeddings.embedDocuments(["a", "b"]);
  assert.equal(vectors.length, 2);
  assert.equal(vectors[0].length, vector.length);
});

check("the language model", async () => {
  const llm = new Ollama({ model: "story", baseUrl: SERVER });
  assert.equal(await llm.invoke("x"), "Once upon a time there");
});

await run();

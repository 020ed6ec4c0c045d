// What the scripts of the Node clients share: the server's address, and how they report.
//
// A script is a list of checks that show a client, each an asynchronous function whose exceptions
// are the verdict. It needs a running server with the models of tests/clients/conftest.py:
//
//     cd tests/clients/node/ollama && npm ci && OLLAMA_HOST=http://127.0.0.1:11434 node chat.mjs

export const SERVER = process.env.OLLAMA_HOST ?? "http://127.0.0.1:11434";
const LIMIT_MS = 50_000;

/** A PNG of one pixel, as base64. */
export const PIXEL =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC";

const checks = [];

/** Adds a check to those that `run` runs. */
export function check(name, body) {
  checks.push({ name, body });
}

/** Runs the checks in order; prints a line of JSON for each: its name, and the error, if any. */
export async function run() {
  for (const { name, body } of checks) {
    const began = performance.now();
    let error = null;
    try {
      await limited(body);
    } catch (reason) {
      error = reason?.stack ?? String(reason);
    }
    const seconds = Math.round((performance.now() - began) / 10) / 100;
    console.log(JSON.stringify({ check: name, seconds, error }));
  }
  process.exit(); // connections that are kept alive would keep the process
}

async function limited(body) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not finished within ${LIMIT_MS} ms`)), LIMIT_MS);
  });
  try {
    await Promise.race([body(), late]);
  } finally {
    clearTimeout(timer);
  }
}

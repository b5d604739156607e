#!/usr/bin/env node
// Runtime `lambda`: a custom runtime for Node in one file, without packages. It runs the handlers that AWS's own runtime for Node runs:
// `bootstrap.mjs webhook.handler` calls the export `handler` of webhook.mjs beside it with an event and a context.
//
// Why not fetch: it gives up when an answer takes five minutes, and the next call may take longer to come.
import http from "node:http";
import { fileURLToPath, pathToFileURL } from "node:url";
import path from "node:path";

const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(":");
const agent = new http.Agent({ keepAlive: true });

function ask(method, place, body) {
  return new Promise((resolve, reject) => {
    const where = { host, port, agent, method, path: `/2018-06-01/runtime/${place}` };
    const request = http.request(where, (response) => {
      const parts = [];
      response.on("data", (part) => parts.push(part));
      response.on("end", () => resolve({ headers: response.headers, body: Buffer.concat(parts) }));
      response.on("error", reject);
    });
    request.on("error", reject);
    request.end(body);
  });
}

function told(error) {
  const isError = error instanceof Error;
  const trace = isError ? (error.stack ?? "").split("\n") : [];
  console.error(isError ? error.stack : error);
  return JSON.stringify({ errorType: isError ? error.name : typeof error, errorMessage: isError ? error.message : String(error), trace });
}

function context(headers) {
  const deadline = Number(headers["lambda-runtime-deadline-ms"]);
  return {
    awsRequestId: headers["lambda-runtime-aws-request-id"],
    invokedFunctionArn: headers["lambda-runtime-invoked-function-arn"],
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    getRemainingTimeInMillis: () => Math.max(0, deadline - Date.now()),
  };
}

let handler;
try {
  const [module, name] = (process.argv[2] ?? process.env._HANDLER).split(".");
  const folder = process.env.LAMBDA_FOLDER ?? path.dirname(fileURLToPath(import.meta.url));
  handler = (await import(pathToFileURL(path.resolve(folder, `${module}.mjs`)))) [name];
  if (typeof handler !== "function") throw new TypeError(`${module}.mjs exports no function ${name}`);
} catch (error) {
  await ask("POST", "init/error", told(error));
  process.exit(1);
}

for (;;) {
  const call = await ask("GET", "invocation/next");
  const id = call.headers["lambda-runtime-aws-request-id"];
  const trace = call.headers["lambda-runtime-trace-id"];
  if (trace === undefined) delete process.env._X_AMZN_TRACE_ID;
  else process.env._X_AMZN_TRACE_ID = trace;
  try {
    const result = await handler(JSON.parse(call.body.toString()), context(call.headers));
    await ask("POST", `invocation/${id}/response`, JSON.stringify(result ?? null));
  } catch (error) {
    await ask("POST", `invocation/${id}/error`, told(error));
  }
}

// An API back-end as an AWS Lambda function in Node: takes the webhook that a code host sends for a push, makes sure by its signature who
// sent it, and says what was pushed. The event is what an API gateway makes of a request (payload format 2.0).
import { createHmac, timingSafeEqual } from "node:crypto";

function isSigned(body, signature, secret) {
  const expected = Buffer.from(`sha256=${createHmac("sha256", secret).update(body).digest("hex")}`);
  const given = Buffer.from(signature ?? "");
  return given.length === expected.length && timingSafeEqual(given, expected);
}

export async function handler(event) {
  const body = event.isBase64Encoded ? Buffer.from(event.body, "base64") : Buffer.from(event.body ?? "");
  if (!isSigned(body, event.headers?.["x-hub-signature-256"], process.env.WEBHOOK_SECRET)) {
    return { statusCode: 401, body: JSON.stringify({ refused: "the signature is not ours" }) };
  }
  const push = JSON.parse(body.toString());
  const files = new Set(push.commits.flatMap((commit) => [...commit.added, ...commit.modified, ...commit.removed]));
  const summary = {
    repository: push.repository.full_name,
    branch: push.ref.replace(/^refs\/heads\//, ""),
    commits: push.commits.length,
    authors: [...new Set(push.commits.map((commit) => commit.author.name))].sort(),
    files: files.size,
  };
  return { statusCode: 200, headers: { "content-type": "application/json" }, body: JSON.stringify(summary) };
}

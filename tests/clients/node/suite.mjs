// Calls every public method of the official JavaScript client that Postrider serves, against a running server.
//
// Works with both generations of the client (1.99.1 and 2.5.0), named by SVIX_MODULE. Reads POSTRIDER_URL and
// POSTRIDER_TOKEN, prints one TAP line a check, and exits non-zero when one failed. Deliveries go to a receiver in this
// process, which verifies each request with the Standard Webhooks library and with the client's own verifier.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const folder = process.env.SVIX_MODULE;
const require = createRequire(join(folder, "package.json"));
const version = process.env.SVIX_VERSION;
const secondGeneration = version.startsWith("2.");
const { Svix, Webhook } = secondGeneration
  ? await import(pathToFileURL(join(folder, "node_modules/svix/dist/index.mjs")).href)
  : require("svix");
const { Webhook: StandardWebhook } = require("standardwebhooks");

const serverUrl = process.env.POSTRIDER_URL;
const client = new Svix(process.env.POSTRIDER_TOKEN, { serverUrl });
const waitMs = 10_000;

// ---- the receiver: `/<id>/500/200` answers 500 first, then 200 ----

const requests = [];
const turns = new Map();
const receiver = createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const statuses = request.url.split("/").slice(2).map(Number);
    const turn = turns.get(request.url) ?? 0;
    turns.set(request.url, turn + 1);
    requests.push({ path: request.url, headers: request.headers, body: Buffer.concat(chunks).toString("utf8") });
    response.writeHead(statuses[Math.min(turn, statuses.length - 1)] ?? 200, { "content-type": "application/json" });
    response.end('{"seen":true}');
  });
});
await new Promise((resolve) => receiver.listen(0, "127.0.0.1", resolve));
const receiverUrl = (...statuses) => `http://127.0.0.1:${receiver.address().port}/${[randomUUID(), ...statuses].join("/")}`;
const arrivedAt = (url) => requests.filter((request) => url.endsWith(request.path));

// ---- small helpers ----

const called = new Set();
function watched(resource, name) {
  return new Proxy(resource, {
    get(target, property) {
      const value = target[property];
      if (typeof value !== "function") return value;
      return (...args) => {
        const result = value.apply(target, args);
        return Promise.resolve(result).then((answer) => {
          called.add(`${name}.${String(property)}`);
          return answer;
        });
      };
    },
  });
}
const scope = ["application", "endpoint", "eventType", "message", "messageAttempt", "health"];
const api = Object.fromEntries(scope.map((name) => [name, watched(client[name], name)]));
const unique = (prefix) => `${prefix}-${randomUUID().slice(0, 12)}`;

async function until(what, condition) {
  const deadline = Date.now() + waitMs;
  while (Date.now() < deadline) {
    const result = await condition();
    if (result) return result;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`not within ${waitMs} ms: ${what}`);
}

async function refuses(status, run) {
  try {
    await run();
  } catch (error) {
    assert.equal(error.code, status, `${error.message} ${JSON.stringify(error.body)}`);
    // The client reads the body as JSON below 500 only.
    const body = typeof error.body === "string" ? JSON.parse(error.body) : error.body;
    assert.ok(body.detail, "the body has a detail");
    return body;
  }
  throw new Error(`expected ${status}, the call succeeded`);
}

const newApp = async () => (await api.application.create({ name: "Suite" })).id;
const newEndpoint = async (app, url, rest = {}) => (await api.endpoint.create(app, { url, ...rest })).id;
const send = (app, payload, rest = {}, options) => api.message.create(app, { eventType: "document.processed", payload, ...rest }, options);

function verify(secret, request) {
  new Webhook(secret).verify(request.body, request.headers);
  return new StandardWebhook(secret).verify(request.body, request.headers);
}

// ---- the checks ----

const checks = {
  async "health"() {
    await api.health.get();
  },

  async "a wrong token is refused"() {
    const stranger = new Svix("prk_wrong", { serverUrl });
    assert.equal((await refuses(401, () => stranger.application.list())).code, "authentication_failed");
  },

  async "applications"() {
    const uid = unique("customer");
    const created = await api.application.create({ name: "Customer", uid, metadata: { plan: "gold" } });
    assert.equal(created.uid, uid);
    assert.ok(created.createdAt instanceof Date);
    await refuses(409, () => api.application.create({ name: "Again", uid }));
    assert.equal((await api.application.getOrCreate({ name: "Other", uid })).id, created.id);
    assert.deepEqual((await api.application.get(uid)).metadata, { plan: "gold" });
    const replaced = await (secondGeneration ? api.application.upsert(uid, { name: "Renamed", uid }) : api.application.update(uid, { name: "Renamed", uid }));
    assert.deepEqual(replaced.metadata, {});
    assert.equal((await api.application.patch(created.id, { uid: null })).uid ?? null, null);
    const page = await api.application.list({ limit: 1, order: "descending" });
    assert.equal(page.data.length, 1);
    assert.equal(page.iterator, page.data[0].id);
    await api.application.delete(created.id);
    await refuses(404, () => api.application.get(created.id));
    await refuses(422, () => api.application.create({ name: "x", uid: "has spaces" }));
  },

  async "event types"() {
    const name = unique("document.processed");
    const schemas = { 1: { type: "object", examples: [{ id: 42 }] } };
    await api.eventType.create({ name, description: "Done", schemas });
    await refuses(409, () => api.eventType.create({ name, description: "Twice" }));
    assert.deepEqual((await api.eventType.get(name)).schemas, schemas);
    const listed = await api.eventType.list({ limit: 250, withContent: true });
    assert.deepEqual(listed.data.find((item) => item.name === name).schemas, schemas);
    const replaced = await (secondGeneration ? api.eventType.upsert(name, { description: "Replaced" }) : api.eventType.update(name, { description: "Replaced" }));
    assert.equal(replaced.description, "Replaced");
    assert.equal((await api.eventType.patch(name, { deprecated: true })).deprecated, true);
    await api.eventType.delete(name);
    assert.equal((await api.eventType.get(name)).archived, true);
    await api.eventType.delete(name, { expunge: true });
    await refuses(404, () => api.eventType.get(name));
  },

  async "endpoints"() {
    const app = await newApp();
    const eventType = unique("document.processed");
    await api.eventType.create({ name: eventType, description: "Done" });
    const uid = unique("endpoint");
    const types = secondGeneration ? { eventTypes: [eventType] } : { filterTypes: [eventType] };
    const created = await api.endpoint.create(app, { url: receiverUrl(200), uid, channels: ["eu"], metadata: { a: "b" }, ...types });
    assert.deepEqual(created.channels, ["eu"]);
    assert.equal((await api.endpoint.get(app, uid)).id, created.id);
    await refuses(422, () => api.endpoint.create(app, { url: "ftp://example.com" }));
    const other = await newEndpoint(app, receiverUrl(200));
    assert.deepEqual((await api.endpoint.list(app)).data.map((item) => item.id), [other, created.id]);
    const url = receiverUrl(200);
    const replaced = await (secondGeneration ? api.endpoint.upsert(app, uid, { url, uid }) : api.endpoint.update(app, uid, { url, uid }));
    assert.equal(replaced.url, url);
    const patched = await api.endpoint.patch(app, created.id, { disabled: true });
    assert.equal(patched.disabled, true);
    await api.endpoint.delete(app, other);
    await refuses(404, () => api.endpoint.get(app, other));
  },

  async "custom headers"() {
    const app = await newApp();
    const endpoint = await newEndpoint(app, receiverUrl(200));
    const headers = { "X-Tenant": "blue", Authorization: "Bearer hidden" };
    await (secondGeneration ? api.endpoint.setHeaders(app, endpoint, { headers }) : api.endpoint.updateHeaders(app, endpoint, { headers }));
    let read = await api.endpoint.getHeaders(app, endpoint);
    assert.deepEqual(read.headers, { "X-Tenant": "blue" });
    assert.deepEqual(read.sensitive.map((name) => name.toLowerCase()), ["authorization"]);
    await api.endpoint.patchHeaders(app, endpoint, { headers: { "X-Region": "eu" } });
    read = await api.endpoint.getHeaders(app, endpoint);
    assert.deepEqual(read.headers, { "X-Tenant": "blue", "X-Region": "eu" });
    await refuses(422, () => api.endpoint.patchHeaders(app, endpoint, { headers: { Host: "elsewhere" } }));
    if (!secondGeneration) {
      await api.endpoint.headersUpdate(app, endpoint, { headers: { "X-One": "1" } });
      await api.endpoint.headersPatch(app, endpoint, { headers: { "X-Two": "2" } });
    }
  },

  async "a delivery arrives signed, also while a secret is rotated"() {
    const app = await newApp();
    const url = receiverUrl(200);
    const endpoint = await newEndpoint(app, url);
    const old = (await api.endpoint.getSecret(app, endpoint)).key;
    const payload = { document: 42, result: "processed", note: "Grüße ☃" };
    const message = await send(app, payload);
    const first = (await until("the delivery arrived", () => arrivedAt(url)[0] && arrivedAt(url)))[0];
    assert.deepEqual(verify(old, first), payload);
    assert.equal(first.headers["webhook-id"], message.id);
    assert.throws(() => new StandardWebhook(old).verify(first.body + " ", first.headers));
    await api.endpoint.rotateSecret(app, endpoint, { gracePeriodSeconds: 3600 });
    const fresh = (await api.endpoint.getSecret(app, endpoint)).key;
    assert.notEqual(fresh, old);
    await send(app, { n: 2 });
    const second = await until("the second delivery arrived", () => arrivedAt(url)[1]);
    assert.deepEqual(verify(old, second), { n: 2 });
    assert.deepEqual(verify(fresh, second), { n: 2 });
  },

  async "messages"() {
    const app = await newApp();
    await newEndpoint(app, receiverUrl(200), { channels: ["eu"] });
    const eventId = unique("evt");
    const idempotencyKey = unique("key");
    const created = await send(app, { n: 1 }, { eventId, channels: ["eu"], tags: ["batch-7"] }, { idempotencyKey });
    assert.equal((await send(app, { other: true }, {}, { idempotencyKey })).id, created.id);
    await refuses(409, () => send(app, {}, { eventId }));
    const read = await api.message.get(app, eventId, { withContent: true });
    assert.deepEqual(read.payload, { n: 1 });
    for (const chosen of [{ channel: "eu" }, { tag: "batch-7" }, { eventTypes: ["document.processed"] }, { before: new Date(Date.now() + 60_000) }]) {
      assert.deepEqual((await api.message.list(app, chosen)).data.map((item) => item.id), [created.id], JSON.stringify(chosen));
    }
    assert.deepEqual((await api.message.list(app, { channel: "us" })).data, []);
    assert.equal((await api.message.precheck(app, { eventType: "any", channels: ["eu"] })).active, true);
    assert.equal((await api.message.precheck(app, { eventType: "any", channels: ["us"] })).active, false);
    if (api.message.bulkExpungeContent) {
      assert.deepEqual((await api.message.bulkExpungeContent(app, { ids: [created.id, "missing"] })).results, { [created.id]: "expunged", missing: "not-found" });
    }
    await api.message.expungeContent(app, created.id);
    assert.deepEqual((await api.message.get(app, created.id, { withContent: true })).payload, { expired: true });
    await refuses(422, () => client.message.list(app, { limit: 300 }));
  },

  async "attempts"() {
    const app = await newApp();
    const url = receiverUrl(500, 200);
    const endpoint = await newEndpoint(app, url);
    const { id: message } = await send(app, { n: 1 }, { tags: ["blue"] });
    const list = async (options) => (await api.messageAttempt.listByEndpoint(app, endpoint, options)).data;
    const [first] = await until("the first attempt is recorded", async () => ((await list()).length ? list() : null));
    assert.equal(first.responseStatusCode, 500);
    assert.equal(first.url, url);
    const destinations = (await api.messageAttempt.listAttemptedDestinations(app, message)).data;
    assert.ok(destinations[0].nextAttempt);
    await api.messageAttempt.resend(app, message, endpoint);
    const [manual] = await until("the resend is recorded", async () => ((await list({ status: 0 })).length ? list({ status: 0 }) : null));
    assert.equal(manual.triggerType, 1);
    assert.deepEqual((await list({ statusCodeClass: 500 })).map((item) => item.id), [first.id]);
    const ofMessage = (await api.messageAttempt.listByMsg(app, message, { endpointId: endpoint })).data.map((item) => item.id);
    assert.ok(ofMessage.includes(first.id) && ofMessage.includes(manual.id));
    assert.equal((await api.messageAttempt.listAttemptedMessages(app, endpoint)).data[0].status, 0);
    assert.equal((await api.messageAttempt.get(app, message, first.id)).id, first.id);
    await api.messageAttempt.expungeContent(app, message, first.id);
    assert.equal((await api.messageAttempt.get(app, message, first.id)).response, "EXPUNGED");
    const stats = await api.endpoint.getStats(app, endpoint);
    assert.ok(stats.success >= 1 && stats.fail >= 1);
  },

  async "examples"() {
    const app = await newApp();
    const url = receiverUrl(200);
    const endpoint = await newEndpoint(app, url);
    const sent = await api.endpoint.sendExample(app, endpoint, { eventType: "svix.ping" });
    assert.equal(sent.eventType, "svix.ping");
    await until("the example arrived", () => arrivedAt(url).length === 1);
  },

  async "what is not built yet says so"() {
    const app = await newApp();
    const endpoint = await newEndpoint(app, receiverUrl(200));
    const since = new Date(Date.now() - 86_400_000);
    for (const run of [
      () => client.endpoint.recover(app, endpoint, { since }),
      () => client.endpoint.replayMissing(app, endpoint, { since }),
      () => client.authentication.appPortalAccess(app, {}),
      () => client.backgroundTask.list(),
    ]) {
      assert.equal((await refuses(501, run)).code, "not_implemented");
    }
  },

  async "every public method was called"() {
    const later = new Set([
      ...["replayMissing", "bulkReplay", "recover", "transformationGet", "patchTransformation", "transformationPartialUpdate"].map((name) => `endpoint.${name}`),
      "eventType.importOpenapi",
      "message.expungeAllContents",
    ]);
    const missing = scope
      .flatMap((name) => Object.getOwnPropertyNames(Object.getPrototypeOf(client[name])).filter((method) => {
        const described = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(client[name]), method);
        return method !== "constructor" && typeof described.value === "function";
      }).map((method) => `${name}.${method}`))
      .filter((method) => !called.has(method) && !later.has(method));
    assert.deepEqual(missing, []);
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`ok - node svix ${version}: ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`not ok - node svix ${version}: ${name}: ${String(error.stack ?? error).replaceAll("\n", " | ").slice(0, 2000)}`);
  }
}
receiver.close();
receiver.closeAllConnections();
process.exit(failed === 0 ? 0 : 1);

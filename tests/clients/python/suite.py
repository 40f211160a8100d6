"""Calls every public method of the official Python client that Postrider serves, against a running server.

Works with both generations of the client (1.99.1 and 2.9.1). Reads POSTRIDER_URL and POSTRIDER_TOKEN, prints one TAP line
a check, and exits non-zero when one failed. Deliveries go to a receiver in this process, which verifies each
request with the Standard Webhooks library and with the client's own verifier.
"""

import functools
import inspect
import json
import os
import sys
import threading
import time
import uuid
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import svix
import svix.api as api
import svix.models as models
from standardwebhooks.webhooks import Webhook as StandardWebhook
from svix.api.errors.http_error import HttpError
from svix.api.errors.http_validation_error import HTTPValidationError
from svix.webhooks import Webhook as SvixWebhook

SECOND_GENERATION = not hasattr(api.Application, "update")
WAIT_SECONDS = 10


class Receiver:
    """Answers with the status that the path names (`/503/200` answers 503 first, then 200) and keeps what arrived."""

    def __init__(self):
        self.requests = []
        self.turns = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                statuses = [int(part) for part in self.path.split("/")[2:]] or [200]
                turn = receiver.turns.get(self.path, 0)
                receiver.turns[self.path] = turn + 1
                receiver.requests.append((self.path, self.headers, body))
                answer = b'{"seen":true}'
                self.send_response(statuses[min(turn, len(statuses) - 1)])
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, *statuses):
        path = "/".join([uuid.uuid4().hex, *map(str, statuses)])
        return f"http://127.0.0.1:{self.server.server_port}/{path}"

    def of(self, url):
        path = url.split("/", 3)[3]
        return [request for request in self.requests if request[0] == "/" + path]


class Tap:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, name, run):
        try:
            run()
        except Exception as error:  # every failure is one line of the report
            self.failed += 1
            print(f"not ok - {name}: {type(error).__name__}: {error!r}"[:2000], flush=True)
        else:
            self.passed += 1
            print(f"ok - {name}", flush=True)


called = set()


def watch(cls):
    """Counts which public methods ran to their end."""
    for name, function in inspect.getmembers(cls, inspect.isfunction):
        if name.startswith("_"):
            continue

        @functools.wraps(function)
        def wrapper(self, *args, __function=function, __name=f"{cls.__name__}.{name}", **kwargs):
            result = __function(self, *args, **kwargs)
            called.add(__name)
            return result

        setattr(cls, name, wrapper)


IN_SCOPE = [api.Application, api.Endpoint, api.EventType, api.Message, api.MessageAttempt, api.Health]
for in_scope in IN_SCOPE:
    watch(in_scope)

# Parts of the API that this version answers with 501.
LATER = {
    "Endpoint.bulk_replay",
    "Endpoint.recover",
    "Endpoint.replay_missing",
    "Endpoint.patch_transformation",
    "Endpoint.transformation_get",
    "Endpoint.transformation_partial_update",
    "EventType.import_openapi",
    "Message.expunge_all_contents",
}

receiver = Receiver()
client = svix.Svix(
    os.environ["POSTRIDER_TOKEN"],
    svix.SvixOptions(server_url=os.environ["POSTRIDER_URL"], retry_schedule=[0.05])
    if SECOND_GENERATION
    else svix.SvixOptions(server_url=os.environ["POSTRIDER_URL"]),
)


def unique(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def until(what, condition):
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.02)
    raise AssertionError(f"not within {WAIT_SECONDS} s: {what}")


def refuses(status, run):
    try:
        run()
    except HttpError as error:
        assert error.status_code == status, (error.status_code, error)
        assert error.code and error.detail, error
        return error
    except HTTPValidationError as error:
        assert status == 422, error
        assert error.detail and all(item.loc and item.msg and item.type for item in error.detail), error
        return error
    raise AssertionError(f"expected {status}, the call succeeded")


def options(name, **values):
    """The options class of a method, wherever this generation keeps it."""
    for module in (api.application, api.endpoint, api.event_type, api.message, api.message_attempt):
        if hasattr(module, name):
            return getattr(module, name)(**values)
    raise AttributeError(name)


def applications():
    uid = unique("customer")
    created = client.application.create(models.ApplicationIn(name="Customer", uid=uid, metadata={"plan": "gold"}))
    assert created.uid == uid and created.id.startswith("app_") and created.metadata == {"plan": "gold"}
    refuses(409, lambda: client.application.create(models.ApplicationIn(name="Again", uid=uid)))
    again = client.application.get_or_create(models.ApplicationIn(name="Other name", uid=uid))
    assert again.id == created.id and again.name == "Customer"
    assert client.application.get(uid).id == created.id
    replace = client.application.upsert if SECOND_GENERATION else client.application.update
    replaced = replace(uid, models.ApplicationIn(name="Renamed", uid=uid))
    assert replaced.id == created.id and replaced.name == "Renamed" and replaced.metadata == {}
    patched = client.application.patch(created.id, models.ApplicationPatch(throttle_rate=5) if SECOND_GENERATION else models.ApplicationPatch(rate_limit=5))
    assert patched.name == "Renamed"
    assert client.application.patch(created.id, models.ApplicationPatch(uid=None)).uid is None
    page = client.application.list(options("ApplicationListOptions", limit=1, order=models.Ordering.DESCENDING))
    assert len(page.data) == 1 and page.iterator == page.data[0].id
    seen, iterator = [], None
    while True:
        page = client.application.list(options("ApplicationListOptions", limit=2, iterator=iterator))
        seen += [item.id for item in page.data]
        if page.done:
            break
        iterator = page.iterator
    assert created.id in seen and seen == sorted(seen) and len(seen) == len(set(seen))
    client.application.delete(created.id)
    refuses(404, lambda: client.application.get(created.id))
    refuses(422, lambda: client.application.create(models.ApplicationIn(name="", uid="has spaces")))


def new_app():
    return client.application.create(models.ApplicationIn(name="Suite")).id


def new_type(name=None):
    name = name or unique("document.processed")
    client.event_type.create(models.EventTypeIn(name=name, description="Made by the suite"))
    return name


def event_types():
    name = unique("document.processed")
    schema = {"1": {"type": "object", "properties": {"id": {"type": "integer"}}, "examples": [{"id": 42}]}}
    created = client.event_type.create(models.EventTypeIn(name=name, description="Done", schemas=schema))
    assert created.name == name and created.schemas == schema and created.archived is False
    refuses(409, lambda: client.event_type.create(models.EventTypeIn(name=name, description="Twice")))
    assert client.event_type.get(name).schemas == schema
    listed = client.event_type.list(options("EventTypeListOptions", limit=250, with_content=True)).data
    assert [item.schemas for item in listed if item.name == name] == [schema]
    replaced = (
        client.event_type.upsert(name, models.EventTypeUpsertIn(description="Replaced"))
        if SECOND_GENERATION
        else client.event_type.update(name, models.EventTypeUpdate(description="Replaced"))
    )
    assert replaced.description == "Replaced" and not replaced.schemas
    assert client.event_type.patch(name, models.EventTypePatch(deprecated=True)).deprecated is True
    client.event_type.delete(name)
    assert client.event_type.get(name).archived is True
    assert name not in [item.name for item in client.event_type.list(options("EventTypeListOptions", limit=250)).data]
    revived = client.event_type.create(models.EventTypeIn(name=name, description="Back"))
    assert revived.archived is False
    client.event_type.delete(name, options("EventTypeDeleteOptions", expunge=True))
    refuses(404, lambda: client.event_type.get(name))


def endpoints():
    app = new_app()
    event_type = new_type()
    uid = unique("endpoint")
    types = {"event_types": [event_type]} if SECOND_GENERATION else {"filter_types": [event_type]}
    created = client.endpoint.create(
        app, models.EndpointIn(url=receiver.url(200), uid=uid, description="First", channels=["eu"], metadata={"a": "b"}, **types)
    )
    assert created.id.startswith("ep_") and created.uid == uid and created.disabled is False
    assert client.endpoint.get(app, uid).id == created.id
    refuses(409, lambda: client.endpoint.create(app, models.EndpointIn(url=receiver.url(200), uid=uid)))
    refuses(422, lambda: client.endpoint.create(app, models.EndpointIn(url="not a url")))
    other = client.endpoint.create(app, models.EndpointIn(url=receiver.url(200)))
    listed = client.endpoint.list(app).data
    assert [item.id for item in listed] == [other.id, created.id], "newest first"
    url = receiver.url(200)
    replaced = (
        client.endpoint.upsert(app, uid, models.EndpointUpsertIn(url=url, uid=uid))
        if SECOND_GENERATION
        else client.endpoint.update(app, uid, models.EndpointUpdate(url=url, uid=uid))
    )
    assert replaced.id == created.id and replaced.url == url and not replaced.channels
    patched = client.endpoint.patch(app, created.id, models.EndpointPatch(disabled=True, description="Second"))
    assert patched.disabled is True and patched.description == "Second" and patched.url == url
    client.endpoint.delete(app, other.id)
    refuses(404, lambda: client.endpoint.get(app, other.id))


def headers():
    app = new_app()
    endpoint = client.endpoint.create(app, models.EndpointIn(url=receiver.url(200))).id
    put = client.endpoint.set_headers if SECOND_GENERATION else client.endpoint.update_headers
    put(app, endpoint, models.EndpointHeadersIn(headers={"X-Tenant": "blue", "Authorization": "Bearer hidden"}))
    read = client.endpoint.get_headers(app, endpoint)
    assert read.headers == {"X-Tenant": "blue"} and [name.lower() for name in read.sensitive] == ["authorization"]
    client.endpoint.patch_headers(app, endpoint, models.EndpointHeadersPatchIn(headers={"X-Region": "eu"}))
    assert client.endpoint.get_headers(app, endpoint).headers == {"X-Tenant": "blue", "X-Region": "eu"}
    refuses(422, lambda: put(app, endpoint, models.EndpointHeadersIn(headers={"Host": "elsewhere"})))
    refuses(422, lambda: put(app, endpoint, models.EndpointHeadersIn(headers={"X-Bad": "a\r\nX-Injected: 1"})))


def verify(secret, request):
    """By two independent implementations; returns the parsed payload."""
    _, request_headers, body = request
    named = {name.lower(): value for name, value in request_headers.items()}
    SvixWebhook(secret).verify(body, named)
    return StandardWebhook(secret).verify(body, named)


def delivery_and_signature():
    app = new_app()
    url = receiver.url(200)
    endpoint = client.endpoint.create(app, models.EndpointIn(url=url)).id
    secret = client.endpoint.get_secret(app, endpoint).key
    assert secret.startswith("whsec_")
    payload = {"document": 42, "result": "processed", "note": "Grüße ☃"}
    message = client.message.create(app, models.MessageIn(event_type="document.processed", payload=payload))
    request = until("the delivery arrived", lambda: receiver.of(url))[0]
    assert verify(secret, request) == payload
    assert request[1]["webhook-id"] == message.id == request[1]["svix-id"]
    tampered = (request[0], request[1], request[2] + b" ")
    try:
        verify(secret, tampered)
    except Exception:
        pass
    else:
        raise AssertionError("a tampered body was accepted")


def rotation():
    app = new_app()
    url = receiver.url(200)
    endpoint = client.endpoint.create(app, models.EndpointIn(url=url)).id
    old = client.endpoint.get_secret(app, endpoint).key
    rotate_in = models.EndpointSecretRotateIn(grace_period_seconds=3600) if SECOND_GENERATION else models.EndpointSecretRotateIn()
    client.endpoint.rotate_secret(app, endpoint, rotate_in)
    new = client.endpoint.get_secret(app, endpoint).key
    assert new != old
    client.message.create(app, models.MessageIn(event_type="document.processed", payload={"n": 1}))
    request = until("the delivery arrived", lambda: receiver.of(url))[0]
    assert verify(old, request) == verify(new, request) == {"n": 1}
    asymmetric = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
    client.endpoint.rotate_secret(app, endpoint, models.EndpointSecretRotateIn(key=asymmetric))
    assert client.endpoint.get_secret(app, endpoint).key == "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="


def messages():
    app = new_app()
    endpoint = client.endpoint.create(app, models.EndpointIn(url=receiver.url(200), channels=["eu"])).id
    event_id = unique("evt")
    created = client.message.create(
        app,
        models.MessageIn(event_type="document.processed", event_id=event_id, payload={"n": 1}, channels=["eu"], tags=["batch-7"]),
        options("MessageCreateOptions", idempotency_key="key-" + event_id),
    )
    repeated = client.message.create(
        app,
        models.MessageIn(event_type="document.processed", payload={"other": True}),
        options("MessageCreateOptions", idempotency_key="key-" + event_id),
    )
    assert repeated.id == created.id, "the first answer is replayed"
    refuses(409, lambda: client.message.create(app, models.MessageIn(event_type="document.processed", event_id=event_id, payload={})))
    read = client.message.get(app, event_id, options("MessageGetOptions", with_content=True))
    assert read.id == created.id and read.payload == {"n": 1} and read.channels == ["eu"]
    before = datetime.now(timezone.utc) + timedelta(minutes=1)
    for chosen in [{"channel": "eu"}, {"tag": "batch-7"}, {"event_types": ["document.processed", "other"]}, {"before": before}]:
        listed = client.message.list(app, options("MessageListOptions", **chosen)).data
        assert [item.id for item in listed] == [created.id], chosen
    assert client.message.list(app, options("MessageListOptions", channel="us")).data == []
    if hasattr(client.message, "precheck"):
        assert client.message.precheck(app, models.MessagePrecheckIn(event_type="any", channels=["eu"])).active is True
        assert client.message.precheck(app, models.MessagePrecheckIn(event_type="any", channels=["us"])).active is False
    refuses(404, lambda: client.message.create("no-such-app", models.MessageIn(event_type="a", payload={})))
    until("it is delivered", lambda: client.endpoint.get_stats(app, endpoint).success == 1)
    if hasattr(client.message, "bulk_expunge_content"):
        result = client.message.bulk_expunge_content(app, models.BulkExpungeContentsIn(ids=[created.id, "missing"])).results
        assert {key: str(value.value) for key, value in result.items()} == {created.id: "expunged", "missing": "not-found"}
    client.message.expunge_content(app, created.id)
    assert client.message.get(app, created.id, options("MessageGetOptions", with_content=True)).payload == {"expired": True}
    error = refuses(400, lambda: client.message_attempt.resend(app, created.id, endpoint))
    assert error.code == "missing_payload"


def attempts():
    app = new_app()
    url = receiver.url(500, 200)
    endpoint = client.endpoint.create(app, models.EndpointIn(url=url)).id
    message = client.message.create(app, models.MessageIn(event_type="document.processed", payload={"n": 1}, tags=["blue"])).id

    def by_endpoint(**chosen):
        return client.message_attempt.list_by_endpoint(app, endpoint, options("MessageAttemptListByEndpointOptions", with_content=True, **chosen)).data

    first = until("the first attempt is recorded", by_endpoint)[0]
    assert first.response_status_code == 500 and first.msg_id == message and first.url == url
    assert first.endpoint_id == endpoint and first.trigger_type == 0 and first.response_duration_ms >= 0
    destinations = client.message_attempt.list_attempted_destinations(app, message).data
    assert [item.id for item in destinations] == [endpoint] and destinations[0].next_attempt is not None
    client.message_attempt.resend(app, message, endpoint)
    until("the resend is recorded", lambda: len(by_endpoint(status=0)) >= 1)
    manual = by_endpoint(status=0)[0]
    assert manual.status == 0 and manual.trigger_type == 1 and manual.response == '{"seen":true}'
    assert [item.id for item in by_endpoint(status_code_class=500)] == [first.id]
    assert by_endpoint(tag="blue") and not by_endpoint(tag="green")
    if SECOND_GENERATION:
        assert by_endpoint(with_msg=True)[0].msg.id == message
    by_msg = client.message_attempt.list_by_msg(app, message, options("MessageAttemptListByMsgOptions", endpoint_id=endpoint)).data
    assert {first.id, manual.id} <= {item.id for item in by_msg}
    listed = client.message_attempt.list_attempted_messages(app, endpoint).data
    assert [item.id for item in listed] == [message] and listed[0].status == 0
    assert client.message_attempt.get(app, message, first.id).id == first.id
    client.message_attempt.expunge_content(app, message, first.id)
    assert client.message_attempt.get(app, message, first.id).response == "EXPUNGED"
    stats = client.endpoint.get_stats(app, endpoint)
    assert stats.success >= 1 and stats.fail >= 1
    if hasattr(client.endpoint, "get_attempt_stats"):
        counted = client.endpoint.get_attempt_stats(app, endpoint)
        assert counted.success >= 1 and counted.fail >= 1


def examples():
    app = new_app()
    url = receiver.url(200)
    endpoint = client.endpoint.create(app, models.EndpointIn(url=url)).id
    name = unique("with.example")
    client.event_type.create(models.EventTypeIn(name=name, description="d", schemas={"1": {"examples": [{"n": 7}]}}))
    sent = client.endpoint.send_example(app, endpoint, models.EventExampleIn(event_type=name))
    assert sent.event_type == name
    assert json.loads(until("the example arrived", lambda: receiver.of(url))[0][2]) == {"n": 7}
    client.endpoint.send_example(app, endpoint, models.EventExampleIn(event_type="svix.ping"))
    until("the ping arrived", lambda: len(receiver.of(url)) == 2)


def health():
    client.health.get()


def unauthenticated():
    stranger = svix.Svix("prk_wrong", svix.SvixOptions(server_url=os.environ["POSTRIDER_URL"]))
    assert refuses(401, lambda: stranger.application.list()).code == "authentication_failed"


def not_built_yet():
    app = new_app()
    endpoint = client.endpoint.create(app, models.EndpointIn(url=receiver.url(200))).id
    since = datetime.now(timezone.utc) - timedelta(days=1)
    for run in [
        lambda: client.endpoint.recover(app, endpoint, models.RecoverIn(since=since)),
        lambda: client.endpoint.replay_missing(app, endpoint, models.ReplayIn(since=since)),
        lambda: client.message.expunge_all_contents(app),
        lambda: client.background_task.list(),
        lambda: client.authentication.app_portal_access(app, models.AppPortalAccessIn()),
    ]:
        assert refuses(501, run).code == "not_implemented"


def every_method_was_called():
    public = {
        f"{cls.__name__}.{name}" for cls in IN_SCOPE for name, _ in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")
    }
    # Old names that this generation keeps beside the current ones.
    aliases = {"MessageAttempt.list_by_msg_deprecated", "MessageAttempt.list_attempted_destinations_by_endpoint"}
    missing = public - called - LATER - aliases
    assert not missing, sorted(missing)


tap = Tap()
for suite in [
    health,
    unauthenticated,
    applications,
    event_types,
    endpoints,
    headers,
    delivery_and_signature,
    rotation,
    messages,
    attempts,
    examples,
    not_built_yet,
    every_method_was_called,
]:
    tap.check(f"python svix {svix.__version__}: {suite.__name__.replace('_', ' ')}", suite)
sys.exit(1 if tap.failed else 0)

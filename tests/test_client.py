"""evaluation/client.py: requests to a chat endpoint that fails in every way, and how often each is repeated."""
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from evaluation import client


def reply(text, finish="stop", **message):
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text} | message,
                                         "finish_reason": finish}]}).encode()


class Endpoint(ThreadingHTTPServer):
    """Answers as how(number of the request, its body) says: (status, body, headers...) or a function of the handler."""
    request_queue_size, daemon_threads = 64, True

    def __init__(self, how):
        super().__init__(("127.0.0.1", 0), Handler)
        self.how, self.seen, self.lock = how, [], threading.Lock()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append((self.path, dict(self.headers), body))
            number = len(self.server.seen)
        try:
            sent = self.server.how(number, body)
            if callable(sent):
                return sent(self)
            status, raw, *headers = sent
            self.send_response(status)
            for name, value in [*headers, ("Content-Length", str(len(raw)))]:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)
        except OSError:
            pass  # the client has gone

    do_GET = do_POST

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def key():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("API_KEY_127_0_0_1", "sk-secret")
        patch.setenv("OPENAI_API_KEY", "sk-of-openai")
        yield


@pytest.fixture
def serve(key):
    """A function that starts an endpoint: serve(how) -> (address, requests so far)."""
    servers = []

    def start(how):
        servers.append(Endpoint(how))
        return servers[-1].url, servers[-1].seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def waits(monkeypatch):
    """The pauses that were asked for; none is taken."""
    out = []
    monkeypatch.setattr(client.time, "sleep", out.append)
    return out


HELLO = [{"role": "user", "content": "Hello?"}]


def ask(url, **more):
    return client.chat(url + "/chat/completions", "m", HELLO, **{"key": "sk-secret", "timeout": 5} | more)


def hang_up(handler):
    handler.connection.close()


def half(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices"')


def trickle(handler):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.02)


def test_a_question_and_its_answer(serve):
    url, seen = serve(lambda number, body: reply("Сәлем!"))
    assert ask(url, extra={"max_tokens": 7, "temperature": None, "stop": ["x"]}) == {"text": "Сәлем!", "finish": "stop"}
    (path, headers, body), = seen
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer sk-secret"
    assert body == {"model": "m", "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 7, "stop": ["x"]}
    assert ask(url, key=None)["text"] and "Authorization" not in seen[1][1]


@pytest.mark.parametrize("sent, expected", [
    (reply(None), {"text": "", "finish": "stop"}), (reply("", "length"), {"text": "", "finish": "length"}),
    (reply(None, refusal="No."), {"text": "", "finish": "refusal"}),
    (reply("<think>\nhm</think>\n\nYes."), {"text": "\n\nYes.", "finish": "stop"}),
    (reply("a <think>b</think>"), {"text": "a <think>b</think>", "finish": "stop"}),
    (reply("x", None), {"text": "x", "finish": None}),
    ((200, b'{"choices": [{"message": {"content": "\\ud83d half"}}]}'), {"text": "\ud83d half", "finish": None}),
    ((400, b'{"error": {"code": "content_filter"}}'), {"text": "", "finish": "content_filter"}),
])
def test_answers_of_every_kind(serve, sent, expected):
    url, _ = serve(lambda number, body: sent)
    assert ask(url) == expected


@pytest.mark.parametrize("fault, said", [
    ((429, b"slow down"), "HTTP 429"), ((500, b"oops"), "HTTP 500 Internal Server Error: oops"),
    ((503, b""), "HTTP 503"), ((408, b""), "HTTP 408"),
    (hang_up, "RemoteDisconnected"), (half, "no|JSONDecodeError|IncompleteRead"),
    ((200, b"<html>"), "JSONDecodeError.*in the reply '<html>'"),
    ((200, b'{"choices": []}'), "IndexError.*choices"), ((200, b'{"error": "sk-secret"}'), r"KeyError.*\[key\]"),
    ((200, b"[]"), "TypeError"),
    ((200, b'{"choices": [{"message": "hm"}]}'), "AttributeError"), ((200, b"\xff"), "UnicodeDecodeError"),
    ((200, b"[" * 10 ** 5), "RecursionError"),
])
def test_passing_faults_are_tried_again(serve, waits, fault, said):
    url, seen = serve(lambda number, body: fault if number < 4 else reply("at last"))
    assert ask(url) == {"text": "at last", "finish": "stop"} and len(seen) == 4
    assert waits[0] == 0 and all(0.5 * 2 ** k <= x <= 1.5 * 2 ** k for k, x in enumerate(waits[1:]))
    url, seen = serve(lambda number, body: fault)
    with pytest.raises(ConnectionError, match=f"{url}/chat/completions: .*{said}.*tried 3 times") as e:
        ask(url, tries=3)
    assert len(seen) == 3 and "sk-secret" not in str(e.value)


def test_retry_after_is_obeyed(serve, waits):
    after = {1: "17", 2: "99999", 3: "Fri, 31 Dec 1999 23:59:59 GMT"}
    url, _ = serve(lambda number, body: (429, b"", ("Retry-After", after[number])) if number in after else reply("yes"))
    assert ask(url)["text"] == "yes" and waits[:3] == [0, 17, 600] and 2 <= waits[3] <= 6


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 422])
def test_a_refused_request_is_not_repeated(serve, waits, status):
    other, theirs = serve(lambda number, body: reply("you should not be here"))
    said = b'{"error": "the key sk-secret is wrong"}'
    url, seen = serve(lambda number, body: (status, said, ("Location", other + "/chat/completions")))
    with pytest.raises(ValueError, match=rf"{url}/chat/completions: HTTP {status} .*\[key\]") as e:
        client.chat(url + "/chat/completions?api-key=hidden", "m", HELLO, key="sk-secret")
    assert len(seen) == 1 and not theirs and "sk-secret" not in str(e.value) and "hidden" not in str(e.value)


def endless_headers(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for i in range(90):
        handler.wfile.write(f"X-{i}: y\r\n".encode())
        handler.wfile.flush()
        time.sleep(0.02)


def slow_status_line(handler):
    for byte in b"HTTP/1.1 200 OK and many more words of reason to wait for":
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        time.sleep(0.03)


def endless_continue(handler):
    for _ in range(100):
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        handler.wfile.flush()
        time.sleep(0.02)


def silence(handler):
    time.sleep(1.2)


@pytest.mark.parametrize("fault", [silence, trickle, endless_headers, slow_status_line, endless_continue])
def test_the_timeout_bounds_the_whole_reply(serve, fault):
    """A server that sends nothing, or something now and then: in the status line, the headers, the body."""
    url, _ = serve(lambda number, body: fault)
    begin = time.monotonic()
    with pytest.raises(ConnectionError, match="TimeoutError: the reply is not complete after 0.2 s.*tried 2 times"):
        ask(url, timeout=0.2, tries=2, pause=0.01)
    assert time.monotonic() - begin < 1.2


def test_a_late_but_complete_reply_counts(serve):
    def how(handler):
        status, body = reply("yes")
        time.sleep(0.3)
        handler.send_response(status)
        handler.end_headers()
        handler.wfile.write(body)

    url, _ = serve(lambda number, body: how)
    assert ask(url, timeout=5, tries=1)["text"] == "yes"


def test_a_huge_reply_is_an_error(serve, waits, monkeypatch):
    monkeypatch.setattr(client, "MAX_REPLY_BYTES", 1 << 20)

    def flood(handler):
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x" * (1 << 16))

    url, _ = serve(lambda number, body: flood)
    with pytest.raises(ConnectionError, match="the reply has more than 1 MiB"):
        ask(url, tries=1)


# ---------------------------------------------------------------------- keys

@pytest.mark.parametrize("address, variables, key", [
    ("https://llm.example.org/v1", {"API_KEY_LLM_EXAMPLE_ORG": "k1"}, "k1"),
    ("https://llm.example.org:8000/v1", {"API_KEY_LLM_EXAMPLE_ORG": " k1\n"}, "k1"),
    ("https://llm.example.org/v1", {"OPENAI_API_KEY": "k2"}, None),  # another server's
    ("https://api.openai.com/v1", {"OPENAI_API_KEY": "k2"}, "k2"),
    ("https://api.openai.com.example.org/v1", {"OPENAI_API_KEY": "k2"}, None),
    ("http://localhost:8000/v1", {"API_KEY_LOCALHOST": "k3"}, "k3"), ("http://[::1]:1/v1", {"API_KEY___1": "k3"}, "k3"),
    ("http://llm.example.org/v1", {"OPENAI_API_KEY": "k2"}, None),
])
def test_every_server_has_its_own_key(monkeypatch, address, variables, key):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert client.key_of_server(address) == key


@pytest.mark.parametrize("address", ["http://llm.example.org/v1", "http://127.0.0.1.example.org/v1", "http://10.0.0.7/v1"])
def test_no_key_over_http(monkeypatch, address):
    name = client.key_name(client.urllib.parse.urlsplit(address))
    monkeypatch.setenv(name, "sk-secret")
    with pytest.raises(ValueError, match=f"{name} is set, and no key is sent over http; use https://") as e:
        client.connect(address, "m", {})
    assert "sk-secret" not in str(e.value)


def test_a_key_in_the_address_is_refused_and_not_shown():
    with pytest.raises(ValueError, match="the address of host.example holds a name or a key") as e:
        client.connect("https://user:sk-secret@host.example/v1", "m", {})
    assert "secret" not in str(e.value)


@pytest.mark.parametrize("said", [
    "Incorrect API key provided: sk-a1b2********y9z0.", "x" * 290 + "sk-a1b2c3d4e5f6w7x8y9z0", "key=a1b2c3d4e5f6",
    "sk-a1b2c3d4e5f6w7x8y9z0" * 3])
@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_no_part_of_a_key_is_shown(serve, waits, said, status):
    """Servers quote keys in part, and a message may be cut within one."""
    key = "sk-a1b2c3d4e5f6w7x8y9z0"
    url, _ = serve(lambda number, body: (status, said.encode()))
    with pytest.raises((ValueError, ConnectionError)) as e:
        ask(url, key=key, tries=1)
    assert not any(key[i:i + 4] in str(e.value) for i in range(len(key) - 3))


def test_a_key_in_an_answer_is_hidden(serve):
    url, _ = serve(lambda number, body: reply("You sent sk-secret."))
    assert ask(url)["text"] == "You sent [key]."


def test_nobody_there(waits):
    with pytest.raises(ConnectionError, match="127.0.0.1:9/.*refused.*tried 2 times"):
        client.chat("http://127.0.0.1:9/v1/chat/completions", "m", HELLO, tries=2)

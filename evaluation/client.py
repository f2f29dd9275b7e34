"""Conversations -> replies, from a local checkpoint or an OpenAI-compatible server.

A reply is {"text", "finish"}. finish: "stop", "length" (cut at max_new_tokens), another reason that a server gives, or
one of ERRORS; the text then says why there is no reply. eval.py judge and the recipes use this file.
"""
import http.client
import json
import os
import random
import re
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from evaluation.deadline import OPENER, deadline
from evaluation.results import fingerprint

ERRORS = NO_REPLY, REFUSED = "no reply", "prompt not taken"  # a retry may help; a retry cannot help
MAX_REPLY_BYTES = 16 << 20
FAULTS = (OSError, http.client.HTTPException,  # of the connection
          ValueError, LookupError, TypeError, AttributeError, RecursionError)  # of a reply of another shape

# ---------------------------------------------------------------------- one request

def chat(url, model, messages, key=None, extra=None, timeout=120.0, tries=6, pause=1.0):
    """Send one conversation to an OpenAI-compatible endpoint; return {"text", "finish"}.

    url ends in /chat/completions. extra: more fields of the request; None removes a field. Rate limits, server errors,
    broken connections and replies without an answer are retried after pause, 2 pause, 4 pause ... seconds (at most 60),
    or after Retry-After.
    ConnectionError: no answer after all tries. ValueError: the endpoint refuses, and a retry is no use. Neither message
    shows the key.
    """
    fields = {"model": model, "messages": messages} | (extra or {})
    data = json.dumps({k: v for k, v in fields.items() if v is not None}).encode()
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    wait = 0
    for attempt in range(tries):
        time.sleep(wait)
        wait = min(60, pause * 2 ** attempt) * random.uniform(0.5, 1.5)  # jitter: threads do not return all at once
        final, body = False, b""
        with deadline(timeout) as is_over:
            try:
                with OPENER.open(urllib.request.Request(url, data, headers), timeout=timeout) as response:
                    body = read_body(response)
                if is_over():
                    raise TimeoutError
                if response.status == 200:
                    reply = parse_reply(body)
                    return reply | {"text": reply["text"].replace(key, "[key]")} if key else reply
                if response.status == 400 and b"content_filter" in body:  # Azure refuses a single prompt this way
                    return {"text": "", "finish": "content_filter"}
                problem = f"HTTP {response.status} {response.reason}: {body[:2000].decode(errors='replace')}"
                final = response.status < 500 and response.status not in (408, 409, 425, 429)
                after = response.headers["Retry-After"]
                if after and after.isdecimal():
                    wait = min(int(after), 600)
            except FAULTS as e:
                reply_text = body[:200].decode(errors="replace")
                problem = f"{type(e).__name__}: {e}" + (f" in the reply {reply_text!r}" if body else "")
                if is_over():
                    problem = f"TimeoutError: the reply is not complete after {timeout} s"
        problem = " ".join(redact(problem, key).split())[:300]
        if final:
            raise ValueError(f"{url.split('?')[0]}: {problem}")  # without the query, which may hold a key too
    raise ConnectionError(f"{url.split('?')[0]}: {problem} (tried {tries} times)")


def read_body(response):
    body = b""
    while block := response.read1(1 << 16):
        body += block
        if len(body) > MAX_REPLY_BYTES:
            raise ValueError(f"the reply has more than {MAX_REPLY_BYTES >> 20} MiB")
    return body


def parse_reply(body):
    """{"text", "finish"} of a response body; a reasoning part at the beginning is removed."""
    choice = json.loads(body)["choices"][0]
    text = re.sub(r"(?s)\A\s*<think>.*?</think>", "", choice["message"].get("content") or "")
    return {"text": text, "finish": "refusal" if choice["message"].get("refusal") else choice.get("finish_reason")}


def redact(text, key):
    """The text without any four consecutive characters of the key: servers quote it in part, and messages are cut."""
    if not key:
        return text
    pieces, hidden = {key[i:i + 4] for i in range(max(1, len(key) - 3))}, [False] * len(text)
    for i in range(len(text)):
        for piece in (text[i:i + 4], text[i:i + len(key)]):
            if piece in pieces:
                hidden[i:i + len(piece)] = [True] * len(piece)
    shown = "".join("\0" if is_hidden else char for char, is_hidden in zip(text, hidden))
    return re.sub("\0+", "[key]", shown)


# ---------------------------------------------------------------------- servers and their keys

def key_of_server(address):
    """The key of a server, from the environment: API_KEY_HOST; OPENAI_API_KEY is api.openai.com's only.

    HOST in capitals, other characters as _: API_KEY_LLM_EXAMPLE_ORG. ValueError: a key would be sent unencrypted.
    """
    url = urllib.parse.urlsplit(address)
    if "@" in url.netloc:
        raise ValueError(f"the address of {url.hostname} holds a name or a key; take it out and set {key_name(url)}")
    names = [key_name(url)]
    if url.hostname == "api.openai.com":
        names.append("OPENAI_API_KEY")
    for name in names:
        key = "".join(os.environ.get(name, "").split())
        if key and url.scheme != "https" and not is_loopback(url.hostname):
            raise ValueError(f"{url.hostname}: {name} is set, and no key is sent over {url.scheme}; use https://")
        if key:
            return key
    return None


def key_name(url):
    return "API_KEY_" + re.sub(r"\W", "_", url.hostname or "").upper()


def is_loopback(host):
    return host in ("localhost", "::1") or re.fullmatch(r"127\.\d+\.\d+\.\d+", host or "") is not None


# ---------------------------------------------------------------------- many conversations

def responder(c, model, name, temperature):
    """Return a function: list of conversations (lists of messages) -> their replies in order, yielded as they arrive.

    model: a folder, or the address of a server where the model is called `name`. c has max_new_tokens, seed, batch_size
    (prompts that a local model decodes together), threads (concurrent requests), timeout (seconds), body (extra fields
    of a request).
    """
    if model.startswith(("http://", "https://")):
        send = connect(model, name, {"max_tokens": c.max_new_tokens, "temperature": temperature} | c.body, c.timeout)
        return partial(server_replies, send, c.threads)
    return partial(model_replies, c, *load_model(model), temperature)


def connect(address, model, extra, timeout=120.0):
    """Return a function: messages -> reply of a server, with its own key. extra: more fields of a request."""
    url = address.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
    key = key_of_server(url)
    return lambda messages: chat(url, model, messages, key, extra, timeout)


def load_model(folder, needs_template=True):
    """(model, tokenizer) of a folder; ValueError when conversations are needed and it has no chat template."""
    import torch  # imported here: a server needs no torch

    import tokenizer
    from model import Qwen2
    t = tokenizer.load(folder)
    if needs_template and t.chat_template is None:
        raise ValueError(f"{folder}: its tokenizer has no chat template, which a conversation needs; give a chat model")
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    return Qwen2.from_pretrained(folder, dtype).to(device).eval(), t


def conversation(questions, answers):
    """Messages: the questions up to the first unanswered one, with the answers between them."""
    messages = []
    for question, answer in zip(questions, answers):
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return [*messages, {"role": "user", "content": questions[len(answers)]}]


def server_replies(send, threads, conversations):
    """Yield a server's replies in order. A prompt it does not take (too long, say) and a missing reply are replies too.

    ConnectionError: four rounds of all threads failed. ValueError: the address, the key or the model's name is wrong.
    """
    def send_one(messages):
        try:
            return send(messages)
        except ConnectionError as e:
            return {"text": str(e), "finish": NO_REPLY}
        except ValueError as e:
            if not re.search(r": HTTP (400|413|422) ", str(e)):
                raise
            return {"text": str(e), "finish": REFUSED}

    failures = 0
    with ThreadPoolExecutor(threads) as pool:
        for i in range(0, len(conversations), 4 * threads):  # at most this many replies wait for a slow one
            for reply in pool.map(send_one, conversations[i:i + 4 * threads]):
                failures = failures + 1 if reply["finish"] in ERRORS else 0
                yield reply
            if failures >= 4 * threads:
                raise ConnectionError(f"the last {failures} requests failed: {reply['text']}; "
                                      "run the same command again to resume")


def model_replies(c, model, t, temperature, conversations):
    """Yield a local model's replies in order. A prompt that leaves no room for max_new_tokens tokens is refused."""
    from generate import Decoding, generate
    room = model.config.max_position_embeddings - c.max_new_tokens
    for i in range(0, len(conversations), c.batch_size):
        chunk = conversations[i:i + c.batch_size]
        prompts = [t.encode_chat(messages) for messages in chunk]
        fitting = [k for k, prompt in enumerate(prompts) if len(prompt) <= room]
        seed = int(fingerprint(c.seed, chunk), 16)  # every batch has its own random numbers
        outputs = generate(model, [prompts[k] for k in fitting], c.max_new_tokens, t.stop_ids,
                           Decoding(temperature, seed=seed), c.batch_size)
        new_ids = dict(zip(fitting, outputs))
        for k, prompt in enumerate(prompts):
            if k in new_ids:
                finish = "length" if len(new_ids[k]) == c.max_new_tokens else "stop"
                yield {"text": t.decode(new_ids[k], prefix=prompt), "finish": finish}
            else:
                yield {"text": f"the prompt has {len(prompt)} ids, room for {max(0, room)}", "finish": REFUSED}


def progress_printer(what, total):
    """Return a function(done) that prints progress and the time left, at most every five seconds."""
    begin = last = time.monotonic()

    def report_progress(done):
        nonlocal last
        now = time.monotonic()
        if done == total or now > last + 5:
            last = now
            print(f"{what}: {done} of {total}, {(total - done) * (now - begin) / done:.0f} s left", flush=True)
    return report_progress

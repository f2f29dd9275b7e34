"""Conversations -> replies, from a local checkpoint or an OpenAI-compatible server: what judge.py and recipes ask with.

A reply is {"text", "finish"}. finish: "stop", "length" (cut at max_new), what else a server says, or one of ERRORS, where text
then tells why there is none.
"""
import fcntl
import hashlib
import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from reports import tables
from corpus import synthesize

ERRORS = NO_REPLY, REFUSED = "no reply", "prompt not taken"  # asked again it may come; it will not


def asker(c, who, name, temperature):
    """A function: list of conversations (lists of messages) -> replies in their order, yielded as they come.

    who: a folder, or the address of a server, where the model is called `name`. c has max_new (tokens of a reply), seed, batch
    (prompts that a local model answers together), threads (requests at a time), timeout (seconds), body (more of a request).
    """
    if who.startswith(("http://", "https://")):
        chat = server(who, name, {"max_tokens": c.max_new, "temperature": temperature} | c.body, c.timeout)
        return partial(ask_server, chat, c.threads)
    return partial(ask_model, c, *local(who), temperature)


def server(address, name, more, timeout=120.0):
    """A function: messages -> the reply of a server, with the key of OPENAI_API_KEY. more: other fields of the requests."""
    url = address.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
    key = "".join(os.environ.get("OPENAI_API_KEY", "").split())
    return lambda messages: synthesize.chat(url, name, messages, key, more, timeout)


def local(folder, chats=True):
    """(model, tokenizer) of a folder; ValueError when it is to take conversations and has no chat template."""
    import torch  # only here: servers do without
    import tokenizer
    from model import Qwen2
    t, device = tokenizer.load(folder), "cuda" if torch.cuda.is_available() else "cpu"
    if chats and t.chat_template is None:
        raise ValueError(f"{folder}: its tokenizer has no chat template, and a conversation needs one; give a chat model")
    return Qwen2.from_pretrained(folder, torch.bfloat16 if device == "cuda" else torch.float32).to(device).eval(), t


def talk(turns, said):
    """Messages: the questions up to the one that is not answered yet, with the answers between them."""
    messages = [{"role": role, "content": x} for pair in zip(turns, said) for role, x in zip(("user", "assistant"), pair)]
    return [*messages, {"role": "user", "content": turns[len(said)]}]


def ask_server(chat, threads, conversations):
    """Replies of a server. What it does not take (too long, say) and what never comes are replies too; ConnectionError when four
    rounds of all threads came to nothing, ValueError when the address, the key or the model's name is wrong."""
    def one(messages):
        try:
            return chat(messages)
        except ConnectionError as e:
            return {"text": str(e), "finish": NO_REPLY}
        except ValueError as e:
            if not re.search(r": HTTP (400|413|422) ", str(e)):
                raise
            return {"text": str(e), "finish": REFUSED}

    failed = 0
    with ThreadPoolExecutor(threads) as pool:
        for i in range(0, len(conversations), 4 * threads):  # as many replies as may wait for a slow one
            for reply in pool.map(one, conversations[i:i + 4 * threads]):
                failed = failed + 1 if reply["finish"] in ERRORS else 0
                yield reply
            if failed >= 4 * threads:
                raise ConnectionError(f"{failed} requests in a row came to nothing: {reply['text']}; start again to go on")


def ask_model(c, model, t, temperature, conversations):
    """Replies of a local model. A prompt that leaves no room for max_new tokens is not taken."""
    from generate import Decoding, generate
    room = model.config.max_position_embeddings - c.max_new
    for i in range(0, len(conversations), c.batch):
        prompts = [t.encode_chat(messages) for messages in conversations[i:i + c.batch]]
        fit = [k for k, prompt in enumerate(prompts) if len(prompt) <= room]
        how = Decoding(temperature, seed=int(key_of(c.seed, conversations[i:i + c.batch]), 16))  # no two batches throw alike
        new = dict(zip(fit, generate(model, [prompts[k] for k in fit], c.max_new, t.stop_ids, how, c.batch)))
        for k, prompt in enumerate(prompts):
            if k in new:
                yield {"text": t.decode(new[k], prefix=prompt), "finish": "length" if len(new[k]) == c.max_new else "stop"}
            else:
                yield {"text": f"{len(prompt)} ids, room for {max(0, room)}", "finish": REFUSED}


# ---------------------------------------------------------------------- a file of what came, so that a stopped run goes on

def kept(file):
    """({id: row} of a file that an earlier run may have begun, the file as locked() opens it). A last line that a kill has cut is
    taken away."""
    f = locked(file)
    f.seek(0)
    f.truncate(f.read().rfind(b"\n") + 1)
    return {row["id"]: row for row in tables.lines(file, ("id",))}, f


def locked(file):
    """The file, open to add to; ValueError while another process has it."""
    f = open(file, "a+b")
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ValueError(f"{file} is in use by another process; stop it or set out= another folder") from None
    return f


def key_of(*facts):
    """A name for what depends on these facts alone."""
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()


def progress(what, total):
    """A function that prints how many are done, at most every five seconds, with the time left."""
    begin = last = time.monotonic()

    def at(done):
        nonlocal last
        now = time.monotonic()
        if done == total or now > last + 5:
            last = now
            print(f"{what}: {done} of {total}, {(total - done) * (now - begin) / done:.0f} s left", flush=True)
    return at

"""Text from a model: greedy, sampled or by beam search, in batches of unequal prompts, or typed on the terminal.

    python generate.py model=out/demo/stage2 'prompt=Алматы' temperature=0.8
    python generate.py model=Qwen/Qwen2-1.5B-Instruct            # a conversation, where the model has a chat template

Prompts are padded on the left; `starts` hides the padding and counts positions from each prompt's first token, so a row's output
does not depend on the rows beside it. Finished rows leave the batch.
"""
import hashlib
import math
import os
import sys
from dataclasses import dataclass, field
from itertools import pairwise

import torch

import tokenizer
from configs import load
from model import Cache, Qwen2


@dataclass(frozen=True)
class Decoding:
    temperature: float = 0.0         # 0: greedy, the likeliest token
    top_k: int | None = None         # sample among the k likeliest only
    top_p: float | None = None       # ... among the fewest whose probabilities sum to this
    min_p: float | None = None       # ... among those at least this fraction as likely as the likeliest
    repetition_penalty: float = 1.0  # tokens of the prompt and the output: logit / penalty (times, below 0)
    beams: int = 1                   # texts kept while searching for the likeliest one; 1: no search
    length_penalty: float = 1.0      # a beam's score is its log-probability / length ** this
    seed: int = 0                    # with the row's number, of its random numbers

    def __post_init__(self):
        wrong = [f"{name} must be {need}, got {getattr(self, name)}" for name, need, right in (
            ("temperature", "0 or more", 0 <= self.temperature < math.inf),
            ("top_k", "at least 1", self.top_k is None or self.top_k >= 1),
            ("top_p", "above 0 and at most 1", self.top_p is None or 0 < self.top_p <= 1),
            ("min_p", "from 0 to 1", self.min_p is None or 0 <= self.min_p <= 1),
            ("repetition_penalty", "above 0", 0 < self.repetition_penalty < math.inf),
            ("length_penalty", "a number", math.isfinite(self.length_penalty)), ("beams", "at least 1", self.beams >= 1),
            ("beams", "1 when temperature is above 0 (beam search does not sample)", self.beams == 1 or self.temperature == 0)
        ) if not right]
        if wrong:
            raise ValueError("Decoding: " + "; ".join(wrong))


def generate(model, prompts, max_new, stop=(), how=Decoding(), batch=64, t=None, stop_text=(), allowed_next=None):
    """Lists of ids -> lists of at most max_new new ids, without the stop id that ended them.

    stop: ids. stop_text: strings, found with the tokenizer t; the ids that complete one are kept. allowed_next(prompt and output
    so far) -> the ids that may come next, or None for all. batch: prompts decoded together.
    """
    out = [[] for _ in prompts]
    for row, i in continuations(model, prompts, max_new, stop, how, batch, t, stop_text, allowed_next):
        out[row].append(i)
    return out


@torch.inference_mode()
def continuations(model, prompts, max_new, stop=(), how=Decoding(), batch=64, t=None, stop_text=(), allowed_next=None):
    """The same one by one: yields (row, id) as soon as it is decided; beam search decides at a row's end."""
    if isinstance(stop_text, str) or (stop_text and t is None):
        raise ValueError("stop_text is a list of strings and needs the tokenizer: t=")
    stop, stop_text = set(stop), list(stop_text)
    if not all(stop_text):
        raise ValueError("stop_text holds an empty string, which every text contains")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    for row, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {row} is empty; give at least one id (the end-of-text id: a text begins)")
        if len(prompt) + max_new > model.config.max_position_embeddings:
            raise ValueError(f"prompt {row} has {len(prompt)} ids; with max_new={max_new} that is more than the model's "
                             f"max_position_embeddings={model.config.max_position_embeddings}")

    def ended(new):  # the ids of a row so far
        if new[-1] in stop:
            return True
        # a character is at most four ids
        tail = [i for i in new if t.has_text(i)][-4 * max(map(len, stop_text)):] if stop_text else []
        return bool(tail) and any(s in t.decode(tail, prefix=new) for s in stop_text)

    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row])) if max_new > 0 else []
    for i in range(0, len(order), batch):
        texts = {row: list(prompts[row]) for row in order[i:i + batch]}
        for row, new in (beam_search if how.beams > 1 else one_by_one)(model, texts, max_new, how, stop, ended, allowed_next):
            if new not in stop:
                yield row, new


def prefill(model, prompts, max_new):
    """Run prompts into a fresh cache, what several begin with only once: (logits after each (B, V), cache, starts (B, 1))."""
    parents = trunk(model, prompts, [len(p) - 1 for p in prompts], 8192)
    x, cache, starts = behind(model, prompts, parents, max_new)
    return model.lm_head(x[:, -1]).float(), cache, starts


def one_by_one(model, texts, max_new, how, stop, ended, allowed_next):
    """Greedy or sampled ids, (row, id). texts {row: ids}, which grow. Ended rows run on, unseen, until a quarter of the batch has
    ended: to drop them copies the cache, which costs about as much as a step."""
    rows, begin, over = list(texts), {row: len(ids) for row, ids in texts.items()}, set()
    seeds = {row: hashlib.blake2b(f"{how.seed} {row}".encode(), digest_size=4).digest() for row in texts}
    dice = {row: torch.Generator().manual_seed(int.from_bytes(seed, "little")) for row, seed in seeds.items()}
    logits, cache, starts = prefill(model, list(texts.values()), max_new)
    for n in range(max_new):
        new = choose(adjust(logits, [texts[row] for row in rows], how, allowed_next), how, [dice[row] for row in rows])
        for row, i in zip(rows, new.tolist()):
            if row not in over:
                texts[row].append(i)
                yield row, i
        over |= {row for row in rows if row not in over and ended(texts[row][begin[row]:])}
        if len(over & set(rows)) == len(rows) or n == max_new - 1:
            return
        going = [k for k, row in enumerate(rows) if row not in over]
        if 4 * len(going) <= 3 * len(rows) or (over and allowed_next):  # nothing may be allowed behind an end
            rows, new, starts = [rows[k] for k in going], new[going], starts[going]
            cache.keep(going)
        logits = model(new[:, None], starts=starts, cache=cache)


def adjust(scores, texts, how, allowed_next):
    """scores (B, V) with the repetition penalty, and minus infinity where allowed_next forbids. texts: the rows' ids so far."""
    if how.repetition_penalty != 1:
        scores = scores.clone()
        for row, ids in enumerate(texts):
            seen = torch.tensor(sorted(set(ids)), device=scores.device)
            s = scores[row, seen]
            scores[row, seen] = torch.where(s < 0, s * how.repetition_penalty, s / how.repetition_penalty)
    if allowed_next is not None:
        open_ = torch.zeros_like(scores, dtype=torch.bool)
        for row, ids in enumerate(texts):
            allowed = allowed_next(list(ids))
            if allowed is None:
                open_[row] = True
                continue
            allowed = list(allowed)
            if allowed and not 0 <= min(allowed) <= max(allowed) < scores.shape[1]:
                raise ValueError(f"allowed_next gave {min(allowed)} to {max(allowed)}; ids are 0 to {scores.shape[1] - 1}")
            if not allowed:
                raise ValueError(f"allowed_next allows nothing after {ids[-5:]}; allow a stop id at least")
            open_[row, torch.tensor(allowed, device=scores.device)] = True
        scores = scores.masked_fill(~open_, -torch.inf)
    return scores


def choose(logits, how, dice):
    """The next id of each row, (B,): the likeliest, or one drawn by inverting the distribution at the row's own random number."""
    if how.temperature < 1e-30:  # 0, or nothing but the likeliest is left
        return logits.argmax(-1)
    p = torch.softmax(narrow(logits, how), -1).double().cumsum(-1)
    u = torch.tensor([[torch.rand((), generator=g, dtype=torch.float64)] for g in dice], dtype=torch.float64, device=p.device)
    return torch.searchsorted(p, u * p[:, -1:], right=True)[:, 0]


def narrow(logits, how):
    """logits (B, V) / temperature, minus infinity for all but the likeliest: top_k, then top_p, then min_p."""
    logits = (logits - logits.amax(-1, keepdim=True)) / how.temperature  # the likeliest stays 0, however small the temperature
    if how.top_k:
        logits = logits.masked_fill(logits < logits.topk(min(how.top_k, logits.shape[1])).values[:, -1:], -torch.inf)
    if how.top_p is not None:
        ranked, ids = logits.sort(-1)  # rising: what lies in the first 1 - top_p of the mass goes
        drop = ranked.softmax(-1).cumsum(-1) <= 1 - how.top_p
        drop[:, -1] = False
        logits = logits.masked_fill(drop.scatter(1, ids, drop), -torch.inf)
    if how.min_p:
        p = logits.softmax(-1)
        logits = logits.masked_fill(p < how.min_p * p.amax(-1, keepdim=True), -torch.inf)
    return logits


def beam_search(model, texts, max_new, how, stop, ended, allowed_next):
    """The best text of each row, as (row, id) when it is found. The rules are transformers' (early_stopping=False):

    each step extends every running text by every token and ranks them by summed log-probability. Of the first `beams`, the ended
    ones are finished, with score sum / length ** length_penalty; the first `beams` that have not ended run on. A row is done when
    `beams` texts are finished and the best running one, at its present length, scores no better than the worst of them.
    """
    N, live, begin = how.beams, list(texts), {row: len(ids) for row, ids in texts.items()}
    running, finished = {row: [ids] for row, ids in texts.items()}, {row: [] for row in texts}
    logits, cache, starts = prefill(model, list(texts.values()), max_new)
    sums = torch.zeros(len(live), 1)
    for n in range(1, max_new + 1):
        beams, V = sums.shape[1], logits.shape[1]
        logp = adjust(torch.log_softmax(logits, -1), [ids for row in live for ids in running[row]], how, allowed_next).cpu()
        total = (logp.view(-1, beams, V) + sums[:, :, None]).flatten(1)  # (rows, beams * V)
        values, places = total.topk(min(total.shape[1], N * max(2, 1 + len(stop))))
        going, parents, scores = [], [], []
        for k, row in enumerate(live):
            runs = []  # (sum, ids, parent)
            for rank, (value, place) in enumerate(zip(values[k].tolist(), places[k].tolist())):
                ids = running[row][place // V] + [place % V]
                if value == -torch.inf:
                    continue
                if n == max_new or ended(ids[begin[row]:]):
                    finished[row] += [(value / n ** how.length_penalty, ids)] if rank < N else []
                elif len(runs) < N:
                    runs.append((value, ids, k * beams + place // V))
            finished[row] = sorted(finished[row], key=lambda x: -x[0])[:N]
            if not runs or (len(finished[row]) == N and runs[0][0] / n ** how.length_penalty <= finished[row][-1][0]):
                for i in finished[row][0][1][begin[row]:] if finished[row] else ():
                    yield row, i
                continue
            runs += [(-torch.inf, *runs[-1][1:])] * (N - len(runs))  # fewer tokens than beams
            running[row] = [ids for _, ids, _ in runs]
            going.append(row)
            scores.append([value for value, _, _ in runs])
            parents += [parent for _, _, parent in runs]
        if not going:
            return
        live, sums, starts = going, torch.tensor(scores), starts[parents]
        cache.keep(parents)
        new = torch.tensor([ids[-1] for row in live for ids in running[row]], device=logits.device)
        logits = model(new[:, None], starts=starts, cache=cache)


# ---------------------------------------------------------------------- prefill: shared prefixes run once
#
# The prompts, sorted, are the leaves of a tree; an inner node is a prefix that at least two share (few-shot examples, a passage, a
# question before its choices). Every node runs behind the keys and values of its parent. A batch is one rectangle of tokens, as
# wide as the longest suffix in it; a shorter prompt fills its row with the end of its parent, computed again:
#
#     row of prompt 1     . . P P P P|s s s s      P: the parent's keys and values, copied; s: the tokens of this forward
#     row of prompt 2     P P P P P P|p p s s      p: the parent's last tokens once more, instead of padding

WORTH = 8  # tokens that a node must add to its parent: below, the price of one more row eats what is saved


def prefix_tree(texts, caps):
    """Sorted lists of ids -> (nodes, parents): which beginnings are shared; caps[i]: how many ids of text i may be.

    A node is (a text that begins with it, its length, its parent's number or None), parents first; parents[i] is text i's node.
    """
    common = [min(shared(a, b), x, y) for (a, x), (b, y) in pairwise(zip(texts, caps))]
    nodes, parents, todo = [], [None] * len(texts), [(0, len(texts), None)]
    while todo:
        begin, end, above = todo.pop()
        if end - begin == 1:
            parents[begin] = above
            continue
        length = min(common[begin:end - 1])  # what all of them share
        if length - (0 if above is None else nodes[above][1]) >= WORTH:
            nodes.append((begin, length, above))
            above = len(nodes) - 1
        cuts = [begin, *(i + 1 for i in range(begin, end - 1) if common[i] == length), end]
        todo += [(a, b, above) for a, b in pairwise(cuts)]
    return nodes, parents


def shared(a, b):
    """How many ids two lists have in common at their beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def trunk(model, texts, caps, batch_tokens):
    """The keys and values of each text's longest shared beginning: a list of (k, v), each (L, P, K, D), or None."""
    order = sorted(range(len(texts)), key=texts.__getitem__)
    nodes, parents = prefix_tree([texts[i] for i in order], [caps[i] for i in order])
    done = {None: None}
    while len(done) <= len(nodes):  # one level of the tree after the other
        ready = [n for n, (_, _, above) in enumerate(nodes) if n not in done and above in done]
        begins = [texts[order[i]][:length] for i, length, _ in (nodes[n] for n in ready)]
        above = [done[nodes[n][2]] for n in ready]
        for rows in batches(rests(begins, above), batch_tokens):
            _, cache, _ = behind(model, [begins[i] for i in rows], [above[i] for i in rows])
            for row, i in enumerate(rows):
                done[ready[i]] = cache.tail(row, len(begins[i]))
    found = [None] * len(texts)
    for i, n in zip(order, parents):
        found[i] = done[n]
    return found


def rests(texts, parents):
    """Tokens of each text that its parent does not have."""
    return [len(text) - (0 if p is None else p[0].shape[1]) for text, p in zip(texts, parents)]


def batches(sizes, batch_tokens):
    """Numbers of texts in batches of like size, the largest first, each a rectangle of at most batch_tokens or a single row.

    From an eighth of batch_tokens on, a text shorter than nine tenths of the widest begins another batch: a forward of so many
    tokens costs by the token, and padding costs as much.
    """
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    while order:
        m, n = sizes[order[0]], 1
        while n < len(order) and (n + 1) * m <= batch_tokens and (sizes[order[n]] >= 0.9 * m or 8 * n * m < batch_tokens):
            n += 1
        yield order[:n]
        order = order[n:]


def behind(model, texts, parents, room=0):
    """Run texts, each behind its parent's keys and values -> (hidden states of the rectangle (B, m, C), cache, starts (B, 1)).

    All rows end in the cache's column T - 1, where the longest text ends; room: columns kept free behind it.
    """
    m, T = max(rests(texts, parents)), max(map(len, texts))
    cache, device = Cache(model, len(texts), T + room), model.lm_head.weight.device
    for row, (text, parent) in enumerate(zip(texts, parents)):
        if len(text) > m:
            cache.fill(row, T - len(text), parent, len(text) - m)
    cache.length = T - m
    tokens = torch.tensor([[0] * (m - len(text)) + list(text[-m:]) for text in texts], device=device)
    starts = torch.tensor([[T - len(text)] for text in texts], device=device)
    alone = torch.minimum(starts, torch.arange(T - m, T, device=device))  # padding sees itself: no key at all may be nan
    return model(tokens, starts=alone, cache=cache, hidden="last"), cache, starts


# ---------------------------------------------------------------------- text

def complete(model, t, texts, max_new, stop_text=(), how=Decoding(), batch=64):
    """Strings -> their continuations, cut before the first stop string; the tokenizer's ids that end a text stop them too."""
    prompts = [ids_of(t, text) for text in texts]
    out = generate(model, prompts, max_new, t.stop_ids, how, batch, t, stop_text)
    return [cut(t.decode(ids, prefix=prompt), stop_text) for ids, prompt in zip(out, prompts)]


def ids_of(t, text):
    """Ids of a prompt: BOS first where the tokenizer wants one; an empty text begins with the end-of-text id."""
    return ([] if t.bos_id is None else [t.bos_id]) + t.encode(text) or [t.prefix_token_id]


def cut(text, stop_text):
    """text up to the first of the stop strings."""
    return text[:min([text.find(s) for s in stop_text if s in text], default=len(text))]


def speak(model, t, prompt, max_new, stop_text, how):
    """The continuation of one prompt (ids), printed as it comes; returns it. What may begin a stop string waits."""
    stream, text, shown = t.stream(prefix=prompt), "", 0
    wait = max(map(len, stop_text), default=1) - 1
    for _, i in continuations(model, [prompt], max_new, t.stop_ids, how, t=t, stop_text=stop_text):
        text += stream.push(i)
        safe = max(shown, len(cut(text, stop_text)) - wait)
        print(text[shown:safe], end="", flush=True)
        shown = safe
    text = cut(text + stream.end(), stop_text)
    print(text[shown:], flush=True)
    return text


# ---------------------------------------------------------------------- command line

@dataclass(frozen=True)
class Sample:
    model: str                   # Hugging Face folder or a checkpoint of train.py
    prompt: str | list | None = None  # a list: one after the other, each by itself; None: ask on the terminal, line by line
    chat: bool | None = None     # render the chat template; None: where the model has one
    system: str | None = None    # the conversation's system message
    max_new: int = 200           # tokens
    stop: list = field(default_factory=list)  # strings that end a text
    dtype: str = "float32"
    threads: int | None = None   # CPU threads

    def __post_init__(self):
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"dtype must be float32, bfloat16 or float16, got {self.dtype!r}")


def main(argv=None):
    c, how = load(Sample, Decoding, argv=argv)
    if c.threads:
        torch.set_num_threads(c.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, t = Qwen2.from_pretrained(c.model, getattr(torch, c.dtype)).to(device).eval(), tokenizer.load(c.model)
    chat = t.chat_template is not None if c.chat is None else c.chat
    system = [{"role": "system", "content": c.system}] if c.system else []
    for line in [c.prompt] if isinstance(c.prompt, str) else c.prompt or ():
        print(f"> {line}" if isinstance(c.prompt, list) else "", end="\n" if isinstance(c.prompt, list) else "")
        speak(model, t, t.encode_chat([*system, {"role": "user", "content": line}]) if chat else ids_of(t, line), c.max_new, c.stop, how)
    messages = system
    while c.prompt is None:
        try:
            line = input("" if not sys.stdin.isatty() else "> ")
        except (EOFError, KeyboardInterrupt):
            return
        messages.append({"role": "user", "content": line})
        answer = speak(model, t, t.encode_chat(messages) if chat else ids_of(t, line), c.max_new, c.stop, how)
        messages.append({"role": "assistant", "content": answer})


if __name__ == "__main__":
    try:
        main()
    except ValueError as e:
        sys.exit(f"ValueError: {e}")
    except (KeyboardInterrupt, BrokenPipeError):  # Ctrl-C in the middle of an answer, or `| head`
        os._exit(1)

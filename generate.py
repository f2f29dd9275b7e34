"""Text from a model: greedy, sampled or beam search, in batches of prompts of any length, or as a chat on the terminal.

    python generate.py model=out/demo/stage2 'prompt=Алматы' temperature=0.8
    python generate.py model=models/Qwen2-1.5B-Instruct          # a conversation, if the model has a chat template

Prompts are padded on the left; `starts` masks the padding and counts positions from each prompt's first token, so a
row's output does not depend on the rows beside it. Finished rows leave the batch.
"""
import hashlib
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, pairwise

import torch
from torch import Tensor

import tokenizer as tokenizers
from configs import errors, load, parse_assignment
from model import KVCache, Qwen2


@dataclass(frozen=True)
class Decoding:
    temperature: float = 0.0         # 0: greedy
    top_k: int | None = None         # sample from the k most likely tokens
    top_p: float | None = None       # ... from the smallest set of tokens whose probabilities sum to this
    min_p: float | None = None       # ... from tokens with at least this fraction of the highest probability
    repetition_penalty: float = 1.0  # of tokens in prompt and output: logit / penalty (logit * penalty where negative)
    beams: int = 1                   # hypotheses of beam search; 1: no search
    length_penalty: float = 1.0      # a hypothesis scores log-probability / length ** length_penalty
    seed: int = 0                    # with a row's index, the seed of its random numbers

    def __post_init__(self):
        checks = [
            (0 <= self.temperature < math.inf, f"temperature must be 0 or more, got {self.temperature}"),
            (self.top_k is None or self.top_k >= 1, f"top_k must be at least 1, got {self.top_k}"),
            (self.top_p is None or 0 < self.top_p <= 1, f"top_p must be above 0 and at most 1, got {self.top_p}"),
            (self.min_p is None or 0 <= self.min_p <= 1, f"min_p must be from 0 to 1, got {self.min_p}"),
            (0 < self.repetition_penalty < math.inf, f"repetition_penalty must be > 0, got {self.repetition_penalty}"),
            (math.isfinite(self.length_penalty), f"length_penalty must be a number, got {self.length_penalty}"),
            (self.beams >= 1, f"beams must be at least 1, got {self.beams}"),
            (self.beams == 1 or self.temperature == 0, f"beams must be 1 with a temperature, got {self.beams}"),
        ]
        if problems := [message for is_right, message in checks if not is_right]:
            raise ValueError("Decoding: " + "; ".join(problems))


def generate(model: Qwen2, prompts: list[list[int]], max_new_tokens: int, stop_ids=(), decoding=Decoding(),
             batch_size: int = 64, tokenizer=None, stop_strings=(), allowed_next=None) -> list[list[int]]:
    """Prompts (lists of ids) -> for each at most max_new_tokens new ids, without the stop id that ended it.

    stop_strings: need the tokenizer; the ids that complete one are kept. allowed_next(ids of prompt and output so far)
    returns the ids that may come next, or None for all. batch_size: prompts decoded together.
    """
    outputs: list[list[int]] = [[] for _ in prompts]
    settings = stop_ids, decoding, batch_size, tokenizer, stop_strings, allowed_next
    for row, token in generate_stream(model, prompts, max_new_tokens, *settings):
        outputs[row].append(token)
    return outputs


@torch.inference_mode()
def generate_stream(model, prompts, max_new_tokens, stop_ids=(), decoding=Decoding(), batch_size=64, tokenizer=None,
                    stop_strings=(), allowed_next=None) -> Iterator[tuple[int, int]]:
    """As `generate`, but yield (row, id) as soon as an id is decided; beam search decides at the end of a row."""
    if isinstance(stop_strings, str) or (stop_strings and tokenizer is None):
        raise ValueError("stop_strings must be a list of strings and needs the tokenizer; pass tokenizer=")
    if not all(stop_strings):
        raise ValueError("stop_strings contains an empty string, which every text contains; remove it")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    for row, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {row} is empty; give at least one id, for example the end-of-text id")
        if len(prompt) + max_new_tokens > model.config.max_position_embeddings:
            raise ValueError(f"prompt {row} has {len(prompt)} ids; with max_new_tokens={max_new_tokens} that exceeds "
                             f"max_position_embeddings={model.config.max_position_embeddings} of the model")
    if max_new_tokens <= 0:
        return
    stop_ids = set(stop_ids)

    def is_finished(output):  # ids of one row
        return output[-1] in stop_ids or (stop_strings and contains_stop_string(tokenizer, output, stop_strings))

    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    search, n = (beam_search, batch_size) if decoding.beams > 1 else (partial(greedy_or_sample, batch_size), len(order))
    for i in range(0, len(order), n or 1):
        texts = {row: list(prompts[row]) for row in order[i:i + n]}
        for row, token in search(model, texts, max_new_tokens, decoding, stop_ids, is_finished, allowed_next):
            if token not in stop_ids:
                yield row, token


def contains_stop_string(tokenizer, output, stop_strings):
    """Whether the end of the output, shown with or without its control tokens, contains a stop string."""
    longest = 4 * max(map(len, stop_strings))  # in ids: a character is at most four
    visible = list(islice(filter(tokenizer.has_text, reversed(output)), longest))[::-1]
    texts = [tokenizer.decode(visible, prefix=output)] if visible else []
    if visible != output[-longest:]:
        texts.append(tokenizer.decode(output[-longest:], prefix=output, special=True))
    return any(s in text for s in stop_strings for text in texts)


# ---------------------------------------------------------------------- decoding strategies

def greedy_or_sample(batch_size, model, texts, max_new_tokens, decoding, stop_ids, is_finished, allowed_next):
    """Yield (row, id), greedy or sampled. texts {row: ids} grow.

    Finished rows stay in the batch, ignored, until they are a quarter of it; then waiting texts take their places. Not
    earlier, because changing rows copies the cache, which costs about as much as a step.
    """
    ends = {row: len(ids) + max_new_tokens for row, ids in texts.items()}
    waiting, rows, active, generators = list(texts), [], [], {}  # active: indices of unfinished rows
    tokens = cache = starts = None
    while waiting or active:
        # with allowed_next a finished row must leave at once: it may allow nothing after the end of a text
        if 4 * len(active) <= 3 * len(rows) or (len(active) < len(rows) and allowed_next is not None):
            joining, waiting = waiting[:batch_size - len(active)], waiting[batch_size - len(active):]
            known = [cache.read_last(i, len(texts[rows[i]]) - 1) for i in active]
            rows = [*(rows[i] for i in active), *joining]
            active, free = range(len(rows)), max(ends[row] - len(texts[row]) for row in rows)
            logits, cache, starts = prefill_prompts(model, [texts[row] for row in rows], free, known)
            for row in joining:  # every row has its own random numbers, independent of the rows beside it
                seed = hashlib.blake2b(f"{decoding.seed} {row}".encode(), digest_size=4).digest()
                generators[row] = torch.Generator().manual_seed(int.from_bytes(seed, "little"))
        else:
            logits = model.logits(tokens[:, None], starts, cache)
        logits = adjust_logits(logits, [texts[row] for row in rows], decoding, allowed_next)
        tokens = choose(logits, decoding, [generators[row] for row in rows])  # (B,)
        ids, unfinished = tokens.tolist(), []
        for i in active:
            row = rows[i]
            texts[row].append(ids[i])
            yield row, ids[i]
            if len(texts[row]) < ends[row] and not is_finished(texts[row][ends[row] - max_new_tokens:]):
                unfinished.append(i)
        active = unfinished


def adjust_logits(logits, texts, decoding, allowed_next):
    """logits (B, V) with the repetition penalty, and -inf where allowed_next forbids. texts: ids of each row so far."""
    if decoding.repetition_penalty != 1:
        logits = logits.clone()
        for row, ids in enumerate(texts):
            seen = torch.tensor(sorted(set(ids)), device=logits.device)
            x = logits[row, seen]
            logits[row, seen] = torch.where(x < 0, x * decoding.repetition_penalty, x / decoding.repetition_penalty)
    if allowed_next is not None:
        is_allowed = torch.zeros_like(logits, dtype=torch.bool)
        for row, ids in enumerate(texts):
            allowed = allowed_next(list(ids))
            if allowed is None:
                is_allowed[row] = True
                continue
            allowed = list(allowed)
            if not allowed or min(allowed) < 0 or max(allowed) >= logits.shape[1]:
                raise ValueError(f"allowed_next must return ids from 0 to {logits.shape[1] - 1}, at least a stop id; "
                                 f"after {ids[-5:]} it returned {allowed[:5]}")
            is_allowed[row, torch.tensor(allowed, device=logits.device)] = True
        logits = logits.masked_fill(~is_allowed, -torch.inf)
    return logits


def choose(logits, decoding, generators):
    """The next id of each row, (B,): the most likely, or a sample drawn by inverting the cumulative distribution."""
    if decoding.temperature < 1e-30:  # the same as greedy
        return logits.argmax(-1)
    p = torch.softmax(filter_logits(logits, decoding), -1).double().cumsum(-1)
    u = torch.stack([torch.rand(1, generator=g, dtype=torch.float64) for g in generators]).to(p.device)  # (B, 1)
    return torch.searchsorted(p, u * p[:, -1:], right=True)[:, 0]


def filter_logits(logits, decoding):
    """logits (B, V) / temperature, with -inf where top_k, then top_p, then min_p exclude a token."""
    logits = (logits - logits.amax(-1, keepdim=True)) / decoding.temperature  # the maximum stays 0 at any temperature
    if decoding.top_k:
        kth = logits.topk(min(decoding.top_k, logits.shape[1])).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if decoding.top_p is not None:
        ascending, ids = logits.sort(-1)
        drop = ascending.softmax(-1).cumsum(-1) <= 1 - decoding.top_p
        drop[:, -1] = False  # keep the most likely
        logits = logits.masked_fill(drop.scatter(1, ids, drop), -torch.inf)
    if decoding.min_p:
        p = logits.softmax(-1)
        logits = logits.masked_fill(p < decoding.min_p * p.amax(-1, keepdim=True), -torch.inf)
    return logits


def beam_search(model, texts, max_new_tokens, decoding, stop_ids, is_finished, allowed_next):
    """Yield the best text of each row as (row, id) when it is found, by transformers' rules (early_stopping=False).

    Each step extends every running hypothesis by every token and ranks the results by summed log-probability. Among
    the first `beams`, those that end are finished, with score sum / length ** length_penalty. The first `beams` that
    do not end keep running. A row is done when it has `beams` finished hypotheses and its best running one, at its
    present length, scores no better than the worst of them.
    """
    N, rows = decoding.beams, list(texts)
    prompt_length = {row: len(ids) for row, ids in texts.items()}
    running = {row: [ids] for row, ids in texts.items()}  # hypotheses, best first
    finished = {row: [] for row in texts}  # (score, ids), best first
    logits, cache, starts = prefill_prompts(model, list(texts.values()), max_new_tokens)
    sums = torch.zeros(len(rows), 1)  # log-probabilities of the running hypotheses
    for length in range(1, max_new_tokens + 1):
        beams, V = sums.shape[1], logits.shape[1]
        hypotheses = [ids for row in rows for ids in running[row]]
        logp = adjust_logits(torch.log_softmax(logits, -1), hypotheses, decoding, allowed_next).cpu()
        totals = (logp.view(-1, beams, V) + sums[:, :, None]).flatten(1)  # (rows, beams * V)
        top = totals.topk(min(totals.shape[1], N * max(2, 1 + len(stop_ids))))
        remaining, parents, next_sums = [], [], []
        for i, row in enumerate(rows):
            candidates = []  # that keep running: (sum, ids, row of the cache)
            for rank, (total, place) in enumerate(zip(top.values[i].tolist(), top.indices[i].tolist())):
                if total == -torch.inf:
                    continue
                ids = running[row][place // V] + [place % V]
                if length == max_new_tokens or is_finished(ids[prompt_length[row]:]):
                    if rank < N:
                        finished[row].append((total / length ** decoding.length_penalty, ids))
                elif len(candidates) < N:
                    candidates.append((total, ids, i * beams + place // V))
            finished[row] = sorted(finished[row], key=lambda x: -x[0])[:N]
            best_running = candidates[0][0] / length ** decoding.length_penalty if candidates else -math.inf
            if not candidates or (len(finished[row]) == N and best_running <= finished[row][-1][0]):
                best = finished[row][0][1] if finished[row] else []
                for token in best[prompt_length[row]:]:
                    yield row, token
                continue
            while len(candidates) < N:  # fewer tokens than beams
                candidates.append((-torch.inf, *candidates[-1][1:]))
            running[row] = [ids for _, ids, _ in candidates]
            remaining.append(row)
            next_sums.append([total for total, _, _ in candidates])
            parents += [parent for _, _, parent in candidates]
        if not remaining:
            return
        rows, sums, starts = remaining, torch.tensor(next_sums), starts[parents]
        cache.select_rows(parents)
        tokens = torch.tensor([ids[-1] for row in rows for ids in running[row]], device=logits.device)
        logits = model.logits(tokens[:, None], starts, cache)


# ---------------------------------------------------------------------- prefix sharing
#
# The sorted prompts are the leaves of a tree. An inner node is a prefix that at least two of them share (few-shot
# examples, a passage, a question before its choices). Each node runs once, after the keys and values of its parent. A
# batch is one rectangle of tokens, as wide as its longest suffix; a shorter suffix is filled up with the last tokens of
# its prefix, computed again:
#
#     row of prompt 1     . . P P P P|s s s s      P: keys and values of the prefix, copied; s: tokens of this forward
#     row of prompt 2     P P P P P P|p p s s      p: last tokens of the prefix, computed again in place of padding

MIN_SHARED = 4  # tokens that a node must add to its parent; below, one more row costs more than it saves
FORWARD = 64    # tokens whose cost equals that of one more forward
Ids = Sequence[int]
Prefix = tuple[Tensor, Tensor] | None  # keys and values, each (L, P, K, D)


def prefill_prompts(model, prompts, free, known=()):
    """Run prompts into a new cache, shared prefixes once -> (logits after each (B, V), cache, starts (B, 1)).

    free: columns left for what comes after them. known: keys and values of the first prompts, all but the last token's.
    """
    new, on_cpu = prompts[len(known):], model.lm_head.weight.device.type == "cpu"
    batch_tokens = 1024 if on_cpu else 8192  # a CPU's cache holds as many
    prefixes = prefill_prefixes(model, new, [len(p) - 1 for p in new], batch_tokens, whole=len(prompts) > 1)
    x, cache, starts = run_suffixes(model, prompts, [*known, *prefixes], free, last=1)
    return model.lm_head(x[:, -1]).float(), cache, starts


def prefill_prefixes(model: Qwen2, texts: list[Ids], max_prefix: list[int], batch_tokens, whole=False) -> list[Prefix]:
    """The keys and values of each text's longest shared prefix of at most max_prefix[i] ids; None if there is none.

    whole: those of its first max_prefix[i] ids, shared or not.
    """
    order = sorted(range(len(texts)), key=lambda i: list(texts[i]))
    nodes, node_of_text = prefix_tree([texts[i] for i in order], [max_prefix[i] for i in order], whole)
    computed: dict[int | None, Prefix] = {None: None}
    while len(computed) <= len(nodes):  # one level of the tree after the other
        ready = [n for n, (_, _, parent) in enumerate(nodes) if n not in computed and parent in computed]
        prefixes = [texts[order[i]][:length] for i, length, _ in (nodes[n] for n in ready)]
        parents = [computed[nodes[n][2]] for n in ready]
        for batch in batch_by_length(suffix_lengths(prefixes, parents), batch_tokens):
            _, cache, _ = run_suffixes(model, [prefixes[i] for i in batch], [parents[i] for i in batch], last=1)
            for row, i in enumerate(batch):
                computed[ready[i]] = cache.read_last(row, len(prefixes[i]))
    out: list[Prefix] = [None] * len(texts)
    for i, node in zip(order, node_of_text):
        out[i] = computed[node]
    return out


def prefix_tree(texts, max_prefix, whole=False):
    """Sorted lists of ids -> (nodes, node of each text), the tree of shared prefixes of at most max_prefix[i] ids.

    A node is (index of a text that begins with it, its length, index of its parent or None); parents come first.
    whole: every text ends in a node of max_prefix[i] ids, unless that is 0.
    """
    pairs = pairwise(zip(texts, max_prefix))
    common = [min(len(os.path.commonprefix([a, b])), x, y) for (a, x), (b, y) in pairs]
    nodes, node_of_text = [], [None] * len(texts)
    todo = [(0, len(texts), None)] if texts else []  # ranges of texts below a node
    while todo:
        begin, end, node = todo.pop()
        if end - begin == 1:
            if whole and max_prefix[begin] > (0 if node is None else nodes[node][1]):
                nodes.append((begin, max_prefix[begin], node))
                node = len(nodes) - 1
            node_of_text[begin] = node
            continue
        length = min(common[begin:end - 1])  # what all texts of the range share
        if length - (0 if node is None else nodes[node][1]) >= MIN_SHARED:
            nodes.append((begin, length, node))
            node = len(nodes) - 1
        cuts = [begin, *(i + 1 for i in range(begin, end - 1) if common[i] == length), end]
        todo += [(a, b, node) for a, b in pairwise(cuts)]
    return nodes, node_of_text


def suffix_lengths(texts: list[Ids], prefixes: list[Prefix]) -> list[int]:
    """Number of tokens of each text after its prefix."""
    return [len(text) - (0 if prefix is None else prefix[0].shape[1]) for text, prefix in zip(texts, prefixes)]


def batch_by_length(lengths: list[int], batch_tokens: int) -> Iterator[list[int]]:
    """Yield indices in batches of similar length, longest first: rectangles of at most batch_tokens, or one row.

    A batch that would be padded by more than FORWARD tokens ends: another forward costs less.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        longest, padding, n = lengths[order[0]], 0, 1
        while n < len(order) and (n + 1) * longest <= batch_tokens:
            padding += longest - lengths[order[n]]
            if padding > FORWARD:
                break
            n += 1
        yield order[:n]
        order = order[n:]


def run_suffixes(model: Qwen2, texts: list[Ids], prefixes: list[Prefix], free=0, last=0):
    """Run texts, each after the keys and values of its prefix -> (hidden states (B, n, C), cache, starts (B, 1)).

    n: `last`, the positions that are asked for, or if 0 the longest suffix. All rows end in the same column of the
    cache; free: empty columns after it.
    """
    n, T = max(suffix_lengths(texts, prefixes)), max(map(len, texts))
    device = model.lm_head.weight.device
    cache = KVCache(model, len(texts), T + free)
    for row, (text, prefix) in enumerate(zip(texts, prefixes)):
        if len(text) > n:
            cache.write(row, T - len(text), *(x[:, :len(text) - n] for x in prefix or ()))
    cache.length = T - n
    tokens = torch.tensor([[0] * (n - len(text)) + list(text[-n:]) for text in texts], device=device)
    starts = torch.tensor([[T - len(text)] for text in texts], device=device)
    own_starts = torch.minimum(starts, torch.arange(T - n, T, device=device))  # padding attends to itself, against nan
    return model.hidden_states(tokens, own_starts, cache, last), cache, starts


# ---------------------------------------------------------------------- text

def complete(model: Qwen2, tokenizer, texts: list[str], max_new_tokens: int, stop_strings=(), decoding=Decoding(),
             batch_size=64) -> list[str]:
    """Continuations of texts, cut before the first stop string; the tokenizer's stop ids end a text as well."""
    prompts, stop_ids = [encode_prompt(tokenizer, text) for text in texts], tokenizer.stop_ids
    outputs = generate(model, prompts, max_new_tokens, stop_ids, decoding, batch_size, tokenizer, stop_strings)
    return [truncate(tokenizer.decode(ids, prefix=prompt), stop_strings) for ids, prompt in zip(outputs, prompts)]


def encode_prompt(tokenizer, text: str) -> list[int]:
    """Ids of a prompt, after BOS if the tokenizer has one; for an empty text the id that a text begins with."""
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    return bos + tokenizer.encode(text) or [tokenizer.prefix_token_id]


def truncate(text: str, stop_strings) -> str:
    """text up to the first stop string."""
    return text[:min([text.find(s) for s in stop_strings if s in text], default=len(text))]


def print_completion(model, tokenizer, prompt, max_new_tokens, stop_strings, decoding) -> str:
    """Print the continuation of a prompt (ids) as it comes, except what may begin a stop string, and return it."""
    stream, text, printed = tokenizer.stream(prefix=prompt), "", 0
    waiting = max(map(len, stop_strings), default=1) - 1
    settings = tokenizer.stop_ids, decoding, 1, tokenizer, stop_strings
    for _, token in generate_stream(model, [prompt], max_new_tokens, *settings):
        text += stream.push(token)
        safe = max(printed, len(truncate(text, stop_strings)) - waiting)
        print(text[printed:safe], end="", flush=True)
        printed = safe
    text = truncate(text + stream.end(), stop_strings)
    print(text[printed:], flush=True)
    return text


# ---------------------------------------------------------------------- command line

@dataclass(frozen=True)
class Sample:
    model: str                   # Hugging Face folder or a checkpoint of train.py
    prompt: str | list | None = None  # a list: each on its own; None: read lines from the terminal
    chat: bool | None = None     # render the chat template; None: if the model has one
    system: str | None = None    # system message of the conversation
    max_new_tokens: int = 200
    stop: list = field(default_factory=list)  # strings that end a text
    dtype: str = "float32"       # of the computation
    threads: int | None = None   # CPU threads

    def __post_init__(self):
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"dtype must be float32, bfloat16 or float16, got {self.dtype!r}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
        for name in ("prompt", "stop"):
            value = getattr(self, name)
            if isinstance(value, list) and not all(isinstance(x, str) for x in value):
                raise ValueError(f"{name} must be a list of strings, got {value}")


def keep_text(word: str) -> str:
    """An argument with its text quoted: prompt=42 is the text "42". None and lists of strings remain Python."""
    name, _, text = word.partition("=")
    if name.lstrip("-") not in ("prompt", "system"):
        return word
    value = parse_assignment(word)[1] if text else ""
    is_python = value is None or (isinstance(value, list) and all(isinstance(x, str) for x in value))
    return word if is_python else f"{name}={text!r}"


def main(argv: list[str] | None = None):
    argv = sys.argv[1:] if argv is None else argv
    c, decoding = load(Sample, Decoding, argv=[keep_text(word) for word in argv])
    if c.threads:
        torch.set_num_threads(c.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Qwen2.from_pretrained(c.model, getattr(torch, c.dtype)).to(device).eval()
    tokenizer = tokenizers.load(c.model)
    use_chat = tokenizer.chat_template is not None if c.chat is None else c.chat
    system = [{"role": "system", "content": c.system}] if c.system else []

    def answer(messages):
        prompt = tokenizer.encode_chat(messages) if use_chat else encode_prompt(tokenizer, messages[-1]["content"])
        return print_completion(model, tokenizer, prompt, c.max_new_tokens, c.stop, decoding)

    for prompt in [c.prompt] if isinstance(c.prompt, str) else c.prompt or []:
        if isinstance(c.prompt, list):
            print(f"> {prompt}")
        answer([*system, {"role": "user", "content": prompt}])
    messages = system
    while c.prompt is None:  # a conversation, until the input ends
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except (EOFError, KeyboardInterrupt):
            return
        messages.append({"role": "user", "content": line})
        messages.append({"role": "assistant", "content": answer(messages)})


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):  # Ctrl-C during an answer, or `| head`
        os._exit(1)
    except (ValueError, OSError) as e:
        sys.exit(errors.explain(e))

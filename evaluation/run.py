"""Run a task's documents through the model: documents -> samples, one function per kind of task.

A sample is a dict of the prompt, the answer and the scores of that document. "cut": the prompt lost its beginning;
"failed": why the document has no score.
"""
import math

from evaluation import metrics
from evaluation.prompts import render_prompt
from evaluation.scoring import encode, encode_pair, eos_ids, loglikelihoods, total_logprobs
from generate import generate, truncate


def run_choice(c, task, documents, model, t):
    """Which choice is the most likely: by its log-probability (acc), and by that per character (acc_norm)."""
    max_length = c.max_length or model.config.max_position_embeddings
    samples, scored, pairs = [], [], []  # scored: (sample, document, first and last of its pairs)
    for document in documents:
        sample = {"gold": document["gold"], "pairs": []}
        samples.append(sample)
        contexts = document["context"]
        if isinstance(contexts, str):
            contexts = [contexts] * len(document["choices"])
        encoded = []
        for context, choice in zip(contexts, document["choices"]):
            prompt, delimiter = render_prompt(c, t, document, context, task["delimiter"])
            sample["pairs"].append({"context": prompt, "continuation": delimiter + choice})
            encoded.append(encode_pair(t, prompt, delimiter + choice))
        sizes = [len(continuation) for _, continuation in encoded]
        if not all(0 < size <= max_length for size in sizes):
            sample["failed"] = f"choices of {sizes} tokens; each needs at least one and at most max_length={max_length}"
            continue
        if any(len(context) + len(continuation) > max_length + 1 for context, continuation in encoded):
            sample["cut"] = True
        scored.append((sample, document, len(pairs), len(pairs) + len(encoded)))
        pairs += encoded
    answers = loglikelihoods(model, pairs, c.batch_tokens, c.max_length)
    for sample, document, begin, end in scored:
        for pair, (loglikelihood, is_greedy) in zip(sample["pairs"], answers[begin:end]):
            pair |= {"loglikelihood": loglikelihood, "is_greedy": is_greedy}
        sums = [pair["loglikelihood"] for pair in sample["pairs"]]
        rates = [total / max(1, len(choice)) for total, choice in zip(sums, document["choices"])]
        sample["acc"] = float(sums.index(max(sums)) in document["gold"])
        sample["acc_norm"] = float(rates.index(max(rates)) in document["gold"])
    return samples


def run_generation(c, task, documents, model, t):
    """Greedy continuations up to the first stop string. A prompt too long for the window loses its beginning."""
    max_prompt = max_prompt_length(c, task, model)
    prompts = [render_prompt(c, t, document, document["context"], "")[0] for document in documents]
    encoded = [encode(t, prompt) or [t.prefix_token_id] for prompt in prompts]
    outputs = generate(model, [ids[-max_prompt:] for ids in encoded], task["max_new_tokens"],
                       generation_stop_ids(c, task, t), batch_size=max(1, c.batch_tokens // 16),
                       tokenizer=t, stop_strings=task["stop_strings"])
    samples = []
    for document, prompt, ids, new_ids in zip(documents, prompts, encoded, outputs):
        response = truncate(t.decode(new_ids), task["stop_strings"])
        sample = {"gold": document["gold"], "context": prompt, "response": response}
        if len(ids) > max_prompt:
            sample["cut"] = True
        for name in task.get("metrics", ()) if task["kind"] == "generate" else ():
            text = response if name == "math" else response.strip()
            sample |= metrics.SCORERS[name](text, document["gold"], task["lang"])
        unfinished = len(new_ids) >= task["max_new_tokens"]
        samples.append(sample | describe_response(response, task["lang"], unfinished))
    return samples


def generation_stop_ids(c, task, t):
    """Ids that end a response: EOS, stop strings that are control tokens, and in a chat the ends of a turn."""
    stop_ids = eos_ids(t, c.model)
    if task["kind"] == "chat":
        return stop_ids | set(t.stop_ids)
    return stop_ids | {t.added_tokens[text] for text in task["stop_strings"] if text in t.added_tokens}


def max_prompt_length(c, task, model):
    """Ids of a prompt that leave room for the response."""
    max_length, new = c.max_length or model.config.max_position_embeddings, task["max_new_tokens"]
    if max_length <= new:
        raise ValueError(f"task {task['name']}: max_new_tokens={new} leaves no room in max_length={max_length}")
    return max_length - new


def describe_response(response, lang, unfinished):
    """What is counted of every generated text. A loop is an unfinished text that repeats itself."""
    description = {"empty": float(not response.strip()), "looping": float(unfinished and metrics.is_looping(response))}
    matches = metrics.in_language(response, lang) if response.strip() else None
    if matches is not None:
        description["in_language"] = float(matches)
    return description


def run_chat(c, task, documents, model, t):
    """Answers to conversations. Turns of a sequential document are asked one by one, each with the answers so far."""
    if t.chat_template is None:
        raise ValueError(f"task {task['name']}: {c.model} has no chat template, which a chat task needs")
    max_prompt = max_prompt_length(c, task, model)
    turns = [[[m] for m in d["messages"]] if d["sequential"] else [d["messages"]] for d in documents]
    conversations, responses = [[] for _ in documents], [[] for _ in documents]
    unfinished, cut = [False] * len(documents), [False] * len(documents)
    for turn in range(max(map(len, turns), default=0)):
        active = [i for i, messages in enumerate(turns) if turn < len(messages)]
        for i in active:
            conversations[i] += turns[i][turn]
        encoded = [t.encode_chat(conversations[i]) for i in active]
        outputs = generate(model, [ids[-max_prompt:] for ids in encoded], task["max_new_tokens"],
                           generation_stop_ids(c, task, t), batch_size=max(1, c.batch_tokens // 16))
        for i, ids, new_ids in zip(active, encoded, outputs):
            responses[i].append(t.decode(new_ids))
            conversations[i].append({"role": "assistant", "content": responses[i][-1]})
            unfinished[i] |= len(new_ids) >= task["max_new_tokens"]
            cut[i] |= len(ids) > max_prompt
    samples = []
    for i, document in enumerate(documents):
        last = responses[i][-1]
        samples.append({"gold": document["gold"], "messages": conversations[i], "responses": responses[i],
                        "response": last, **describe_response(last, task["lang"], unfinished[i]),
                        **({"cut": True} if cut[i] else {})})
    return samples


def run_bits_per_byte(c, task, documents, model, t):
    """Bits per byte of held-out text, minus log2 p(text) / UTF-8 bytes, which does not depend on the tokenizer.

    A text longer than the model's window is scored in several ("windows" in its sample).
    """
    max_length = c.max_length or model.config.max_position_embeddings
    texts = [document["text"] for document in documents]
    encoded = [t.encode(text) for text in texts]
    logprobs = total_logprobs(model, encoded, c.batch_tokens, t.prefix_token_id, max_length)
    samples = []
    for text, ids, logprob in zip(texts, encoded, logprobs):
        sample = {"bits": -logprob / math.log(2), "bytes": len(text.encode())}
        if len(ids) > max_length:
            sample["windows"] = math.ceil(len(ids) / max_length)
        samples.append(sample)
    return samples


RUNNERS = {"choice": run_choice, "generate": run_generation, "translate": run_generation, "chat": run_chat,
           "bpb": run_bits_per_byte}

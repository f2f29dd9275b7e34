"""Run a task's documents through the model: documents -> samples, one function per kind of task.

A sample is a dict of what was given, what came back, and the scores of that one document.
"""
import math

from evaluation import metrics
from evaluation.prompts import render_prompt
from evaluation.scoring import encode, encode_pair, eos_ids, loglikelihoods, total_logprobs
from generate import generate, truncate


def run_choice(c, task, documents, model, t):
    """Which choice is the most likely: by its log-probability (acc), and by that per character (acc_norm)."""
    requests = []  # (prompt, continuation) of every choice of every document
    for document in documents:
        contexts = document["context"]
        if isinstance(contexts, str):
            contexts = [contexts] * len(document["choices"])
        for context, choice in zip(contexts, document["choices"]):
            prompt, delimiter = render_prompt(c, t, document, context, task["delimiter"])
            requests.append((prompt, delimiter + choice))
    pairs = [encode_pair(t, *request) for request in requests]
    answers = iter(zip(requests, loglikelihoods(model, pairs, c.batch_tokens, c.max_length)))
    samples = []
    for document in documents:
        scored = []
        for _ in document["choices"]:
            (context, continuation), (loglikelihood, is_greedy) = next(answers)
            scored.append({"context": context, "continuation": continuation,
                           "loglikelihood": loglikelihood, "is_greedy": is_greedy})
        sums = [pair["loglikelihood"] for pair in scored]
        rates = [total / max(1, len(choice)) for total, choice in zip(sums, document["choices"])]
        samples.append({"gold": document["gold"], "pairs": scored,
                        "acc": float(sums.index(max(sums)) in document["gold"]),
                        "acc_norm": float(rates.index(max(rates)) in document["gold"])})
    return samples


def run_generation(c, task, documents, model, t):
    """Greedy continuations up to the first stop string. A prompt too long for the window loses its beginning."""
    max_prompt = max_prompt_length(c, task, model)
    prompts = [render_prompt(c, t, document, document["context"], "")[0] for document in documents]
    prompt_ids = [encode(t, prompt)[-max_prompt:] or [t.prefix_token_id] for prompt in prompts]
    outputs = generate(model, prompt_ids, task["max_new_tokens"], eos_ids(t, c.model),
                       batch_size=max(1, c.batch_tokens // 16), tokenizer=t, stop_strings=task["stop_strings"])
    samples = []
    for document, prompt, new_ids in zip(documents, prompts, outputs):
        response = truncate(t.decode(new_ids), task["stop_strings"])
        sample = {"gold": document["gold"], "context": prompt, "response": response}
        for name in task.get("metrics", ()) if task["kind"] == "generate" else ():
            text = response if name == "math" else response.strip()
            sample |= metrics.SCORERS[name](text, document["gold"], task["lang"])
        samples.append(sample | describe_response(response, task["lang"], len(new_ids) >= task["max_new_tokens"]))
    return samples


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
    unfinished = [False] * len(documents)
    stop_ids = {*t.stop_ids, *eos_ids(t, c.model)}
    for turn in range(max(map(len, turns), default=0)):
        active = [i for i, messages in enumerate(turns) if turn < len(messages)]
        for i in active:
            conversations[i] += turns[i][turn]
        prompt_ids = [t.encode_chat(conversations[i])[-max_prompt:] for i in active]
        outputs = generate(model, prompt_ids, task["max_new_tokens"], stop_ids,
                           batch_size=max(1, c.batch_tokens // 16))
        for i, new_ids in zip(active, outputs):
            responses[i].append(t.decode(new_ids))
            conversations[i].append({"role": "assistant", "content": responses[i][-1]})
            unfinished[i] |= len(new_ids) >= task["max_new_tokens"]
    samples = []
    for i, document in enumerate(documents):
        last = responses[i][-1]
        samples.append({"gold": document["gold"], "messages": conversations[i], "responses": responses[i],
                        "response": last, **describe_response(last, task["lang"], unfinished[i])})
    return samples


def run_bits_per_byte(c, task, documents, model, t):
    """Bits per byte of held-out text, minus log2 p(text) / UTF-8 bytes, which does not depend on the tokenizer."""
    texts = [document["text"] for document in documents]
    logprobs = total_logprobs(model, [t.encode(text) for text in texts], c.batch_tokens, t.prefix_token_id)
    return [{"bits": -logprob / math.log(2), "bytes": len(text.encode())} for logprob, text in zip(logprobs, texts)]


RUNNERS = {"choice": run_choice, "generate": run_generation, "translate": run_generation, "chat": run_chat,
           "bpb": run_bits_per_byte}

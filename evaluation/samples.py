"""Samples of two models: read them, pair them by document, and find what can be measured in both."""
import functools
import hashlib
import json
import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evaluation import results
from evaluation.translation import score_of_sums, sentence_statistics, signature_of, translation_metrics

NO_METRIC = ("doc_id", "bits", "bytes", "empty", "looping", "cut", "windows")  # numbers not to compare by


class Measurement(NamedTuple):
    a: np.ndarray         # (n, S) of the first model: what adds up over documents
    b: np.ndarray         # ... of the second
    score: Callable       # (draws, S) sums -> (draws,) scores
    signature: str | None = None


def read_samples(path, checkpoint, patterns="*", keep=dict):
    """({(task, lang): {doc_id: sample}}, the checkpoint's name).

    Of a checkpoint its newest weights count, of a task its newest prompts and setup, of a document the last sample.
    Documents without a score are left out. keep(sample) is what stays in memory. ValueError names file and line.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path} is missing; eval.py writes samples.jsonl beside results.jsonl")
    samples = [keep(sample) for sample in results.read_rows(path, ("checkpoint", "task", "lang", "doc_id"))
               if any(fnmatchcase(sample["task"], pattern) for pattern in patterns.split(","))]
    names = list(dict.fromkeys(sample["checkpoint"] for sample in samples))
    if checkpoint is None and len(names) == 1:
        checkpoint = names[0]
    if checkpoint not in names:
        raise ValueError(f"{path} has samples of {', '.join(names) or 'no such task'}, wanted: {checkpoint or 'one'}; "
                         "name the checkpoint with a_name=, b_name= or correct tasks=")
    samples = [sample for sample in samples if sample["checkpoint"] == checkpoint]
    newest_weights = samples[-1].get("weights")
    samples = [sample for sample in samples if sample.get("weights") == newest_weights]
    newest = {sample_key(sample)[:2]: sample_key(sample) for sample in samples}
    by_task = {}
    for sample in samples:
        key = sample_key(sample)
        if key == newest[key[:2]] and "failed" not in sample:
            by_task.setdefault(key[:2], {})[sample["doc_id"]] = sample
    return by_task, checkpoint


def sample_key(sample):
    return sample["task"], sample["lang"], sample.get("prompt"), sample.get("setup")


def without_texts(sample):
    """A sample with "prompt_hash" in place of long texts: other shots or wording have another hash."""
    if "messages" in sample:
        prompt = [message for message in sample["messages"] if message["role"] != "assistant"]
    elif "pairs" in sample:
        prompt = [pair["context"] for pair in sample["pairs"]]
    else:
        prompt = sample.get("context")
    short = {k: v for k, v in sample.items() if k not in ("messages", "responses", "pairs", "context")}
    return short | {"prompt_hash": hashlib.blake2b(json.dumps(prompt).encode(), digest_size=16).hexdigest()}


def pair_samples(a, b, files):
    """Pairs of samples of one task and language, by document. ValueError where documents or prompts differ."""
    for side, other, names in ((a, b, files), (b, a, files[::-1])):
        if missing := sorted(set(side) - set(other), key=str):
            raise ValueError(f"document {missing[0]} is in {names[0]}, not in {names[1]} ({len(missing)} such); "
                             "finish both")
    pairs = [(a[doc_id], b[doc_id]) for doc_id in sorted(a, key=str)]
    differing = [x["doc_id"] for x, y in pairs if x["prompt_hash"] != y["prompt_hash"]]
    if differing:
        raise ValueError(f"document {differing[0]} has another prompt in {files[0]} than in {files[1]} "
                         f"({len(differing)} of {len(pairs)}): other shots, preset or template; run eval.py with the "
                         "same settings for both")
    return pairs


# ---------------------------------------------------------------------- samples -> what the bootstrap sums

def measurements(pairs, lang):
    """{metric: Measurement} of the pairs of samples."""
    samples = [sample for pair in pairs for sample in pair]
    metrics = {}
    for key in samples[0]:
        if key not in NO_METRIC and all_numbers(samples, key):
            metrics[key] = Measurement(*columns(pairs, key), functools.partial(mean_score, len(pairs)))
    if all_numbers(samples, "bits", "bytes"):
        metrics["bits_per_byte"] = Measurement(*columns(pairs, "bits", "bytes"), ratio_score)
    has_scores = set(metrics) & {"f1", "em", "exact_match", "acc"}
    if not has_scores and all(is_translation(sample) for sample in samples):
        metrics |= corpus_scores(pairs, lang)
    return metrics


def all_numbers(samples, *keys):
    return all(isinstance(sample.get(key), (int, float)) and math.isfinite(sample[key])
               for sample in samples for key in keys)


def columns(pairs, *keys):
    """An (n, len(keys)) array of each side."""
    return [np.array([[sample[key] for key in keys] for sample in side], np.float64) for side in zip(*pairs)]


def is_translation(sample):
    gold = sample.get("gold")
    return isinstance(sample.get("response"), str) and isinstance(gold, list) and gold and isinstance(gold[0], str)


def mean_score(n, sums):
    return sums[:, 0] / n


def ratio_score(sums):
    return sums[:, 0] / sums[:, 1]


def corpus_scores(pairs, lang):
    """spBLEU, chrF++ and BLEU of translations, as eval.py scores them."""
    scores, first = {}, pairs[0][0]
    for name, (metric, suffix) in translation_metrics(lang.split("-")[-1], custom=first.get("preset") is None).items():
        counts = []
        for side in zip(*pairs):
            responses, references = [s["response"].strip() for s in side], [s["gold"][0] for s in side]
            counts.append(np.array(sentence_statistics(metric, responses, references), float))
        scores[name] = Measurement(*counts, functools.partial(corpus_score, metric), signature_of(metric, suffix))
    return scores


def corpus_score(metric, sums):
    return np.array([score_of_sums(metric, row) for row in sums])

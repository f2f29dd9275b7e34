"""Samples -> scores of a task, and scores of tasks -> means of a group."""
import hashlib
import math

from evaluation import translation
from evaluation.statistics import mean_interval

SAMPLE_METRICS = ("acc", "acc_norm", "f1", "em", "exact_match")
RESPONSE_COUNTS = ("empty", "looping", "in_language")


def score_samples(task, samples):
    """[(metric, score, stderr, low, high, signature)] of a task's samples."""
    if task["kind"] == "bpb":
        return [bits_per_byte(samples)]
    scores = []
    for name in SAMPLE_METRICS:
        if name in samples[0] and (task["kind"] != "choice" or name in task["metrics"]):
            scores.append((name, *mean_interval([sample[name] for sample in samples]), None))
    if task["kind"] == "translate":
        hypotheses = [sample["response"].strip() for sample in samples]
        references = [sample["gold"][0] for sample in samples]
        scores += translation.score_translations(hypotheses, references, target_language(task), "custom" in task)
    if task["kind"] == "chat" or (task["kind"] != "choice" and "custom" not in task):
        for name in RESPONSE_COUNTS:
            values = [sample[name] for sample in samples if name in sample]
            if values:
                scores.append((name, *mean_interval(values), None))
    return scores


def target_language(task):
    """The code of the language that a task translates into."""
    return task.get("sides", task["lang"].split("-"))[1]


def bits_per_byte(samples):
    """A ratio of sums over documents; its error is that of the residuals (linearization)."""
    n = len(samples)
    bits, size = math.fsum(s["bits"] for s in samples), math.fsum(s["bytes"] for s in samples)
    rate = bits / size
    residuals = math.fsum((s["bits"] - rate * s["bytes"]) ** 2 for s in samples)
    error = math.sqrt(residuals * n / max(1, n - 1)) / size
    return "bits_per_byte", rate, error, rate - 1.96 * error, rate + 1.96 * error, None


# ---------------------------------------------------------------------- means of a group

def group_means(rows_by_task, tasks):
    """Yield a row for the mean over each group of at least two tasks, by metric.

    "micro" weights documents equally, "macro" tasks. rows_by_task: {task name: rows of results}.
    """
    groups = dict.fromkeys(group for task in tasks for group in task["groups"])
    for group in groups:
        rows = []
        for task in tasks:
            if group in task["groups"]:
                rows += rows_by_task.get(task["name"], [])
        for metric in dict.fromkeys(row["metric"] for row in rows):
            members = [row for row in rows if row["metric"] == metric]
            if len(members) < 2 or metric in ("empty", "looping"):
                continue
            if metric not in ("spbleu", "chrf++", "bleu"):  # a corpus score has no mean over documents
                yield mean_row(group, f"{metric}_micro", members, [row["n"] for row in members])
            yield mean_row(group, f"{metric}_macro", members, [1] * len(members))


def mean_row(group, metric, rows, weights):
    """A row of the weighted mean; the errors of the tasks are taken as independent."""
    total = sum(weights)
    score = math.fsum(w * row["score"] for w, row in zip(weights, rows)) / total
    error = low = high = None
    if all(row["stderr"] is not None for row in rows):
        error = math.hypot(*(w * row["stderr"] for w, row in zip(weights, rows))) / total
        low, high = round(score - 1.96 * error, 5), round(score + 1.96 * error, 5)
        error = round(error, 5)
    return {"task": group, "lang": "mean", "metric": metric, "score": round(score, 5),
            "n": sum(row["n"] for row in rows), "stderr": error, "low": low, "high": high,
            "shots": common_value(rows, "shots"), "preset": common_value(rows, "preset"), "group": group,
            "prompt": hash_of(rows, "prompt"), "setup": hash_of(rows, "setup"),
            "signature": common_value(rows, "signature"), "malformed": sum(row["malformed"] for row in rows),
            "failed": sum(row["failed"] for row in rows), "cut": sum(row["cut"] for row in rows), "lines": 1}


def hash_of(rows, key):
    return hashlib.sha256("".join(sorted(row[key] for row in rows)).encode()).hexdigest()[:12]


def common_value(rows, key):
    values = {row[key] for row in rows}
    return values.pop() if len(values) == 1 else "several"

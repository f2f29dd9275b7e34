"""Which of two models answers better, as a third one judges: multilingual MT-bench, pairwise, by language (Figure 10).

    python eval.py judge a=base/samples.jsonl b=chat/samples.jsonl judge=https://HOST/v1 judge_name=MODEL out=OUT
    python eval.py judge a=BASE b=CHAT judge=JUDGE questions='mt/{lang}.jsonl' languages='["kk", "ar"]' out=OUT

a, b and the judge are each a folder or the address of an OpenAI-compatible server (key: client.key_of_server); a and b
may be samples that eval.py wrote. A conversation is judged as a whole, and twice, with each model first once: b wins
when both verdicts prefer it; verdicts that differ are a tie. A reply without a verdict is an error: counted, shown, and
left out of the rates. A run that was stopped resumes.
"""
from dataclasses import dataclass, field
from pathlib import Path

from configs import load
from evaluation import client, results, samples
from evaluation.verdicts import ORDERS, judge_prompt, parse_verdict, tally, write_report


@dataclass(frozen=True)
class Judge:
    a: str                        # the first model, say the base: samples.jsonl, its folder or its address
    b: str                        # the second, which wins or loses
    judge: str                    # folder or address of the model that judges
    out: str                      # folder
    judge_name: str | None = None  # the judge's name at its address
    a_name: str | None = None     # a's name at its address; its checkpoint where a samples.jsonl has several
    b_name: str | None = None
    tasks: str = "*mt*bench*"     # patterns of the tasks' names in samples.jsonl, separated by commas
    questions: str | None = None  # 'folder/{lang}.jsonl' of {"turns": [...]}, optionally with "reference"
    languages: list = field(default_factory=list)  # codes for {lang}
    max_new_tokens: int = 1024           # tokens of a verdict with its reasons, or of an answer
    temperature: float = 0.0      # of answers; verdicts use 0
    body: dict = field(default_factory=dict)  # more fields of the requests to a server; None removes one
    threads: int = 8              # concurrent requests
    timeout: float = 120.0        # seconds for a reply
    batch_size: int = 16          # prompts that a local model decodes together
    retry_errors: bool = False    # request verdicts again that were errors
    resamples: int = 2000         # of the bootstrap, as in compare
    level: float = 0.95
    seed: int = 0

    def __post_init__(self):
        problems = []
        for side, name in (("judge", "judge_name"), ("a", "a_name"), ("b", "b_name")):
            if is_server(getattr(self, side)) and not getattr(self, name):
                problems.append(f"{name} must be set with a server as {side}")
        answering = [side for side in (self.a, self.b) if not side.endswith(".jsonl")]
        if answering and not self.questions:
            problems.append(f"questions must be set, as {', '.join(answering)} is to answer them")
        if bool(self.questions) != bool(self.languages):
            problems.append("languages must be set with questions")
        if min(self.threads, self.batch_size) < 1:
            problems.append("threads and batch_size must be at least 1")
        if problems:
            raise ValueError("Judge: " + "; ".join(problems))


def is_server(model):
    return model.startswith(("http://", "https://"))


# ---------------------------------------------------------------------- answers

def read_questions(c):
    """{lang: rows of its file of questions}."""
    questions = {}
    for lang in c.languages:
        path = Path(c.questions.format(lang=lang))
        if not path.is_file():
            raise ValueError(f"{path} is missing; correct questions= or languages=")
        questions[lang] = list(results.read_rows(path, ("turns",)))
    return questions


def collect_answers(c, side, questions):
    """({(lang, doc_id): conversation}, the model's name) of side "a" or "b".

    A conversation: {"lang", "doc_id", "questions", "answers", "reference"}.
    """
    model, name = getattr(c, side), getattr(c, f"{side}_name")
    if model.endswith(".jsonl"):
        by_task, name = samples.read_samples(model, name, c.tasks)
        answered = {(lang, doc_id): sample for (_, lang), documents in by_task.items()
                    for doc_id, sample in documents.items() if "response" in sample}
        if len(answered) < sum(map(len, by_task.values())):
            tasks = ", ".join(sorted({task for task, _ in by_task}))
            raise ValueError(f"{model}: {tasks} are more than one set of conversations; choose one with tasks=")
    else:
        answered, name = generate_answers(c, side, model, name, questions), name or Path(model).name
    if not answered:
        raise ValueError(f"{model} has no answers of a task like tasks={c.tasks}; name the task of the conversations")
    return {key: to_conversation(model, *key, sample, questions) for key, sample in answered.items()}, name


def to_conversation(model, lang, doc_id, sample, questions):
    known = questions[lang][doc_id] if lang in questions and doc_id < len(questions[lang]) else sample
    answers = sample.get("responses", sample["response"])
    if isinstance(answers, str):
        answers = [answers]
    turns = known["turns"] if "turns" in known else questions_of_sample(known, len(answers))
    if len(turns) != len(answers):
        raise ValueError(f"{model}: document {doc_id} of {lang} has {len(turns)} questions, {len(answers)} answers; "
                         "set questions=")
    return {"lang": lang, "doc_id": doc_id, "questions": turns, "answers": answers,
            "reference": known.get("reference", known.get("gold"))}


def questions_of_sample(sample, n):
    """What preceded each of a sample's n answers; the conversation before the first is part of its question."""
    messages, questions, parts = sample.get("messages", ()), [], []
    given_answers = sum(message["role"] == "assistant" for message in messages) - n
    for message in messages:
        if message["role"] == "assistant" and given_answers <= 0:
            questions.append("\n\n".join(parts))
            parts = []
            continue
        if message["role"] == "assistant":
            given_answers -= 1
        if message["role"] != "system":
            parts.append(message["content"])
    context = sample.get("context", [])
    return questions or ([context] if isinstance(context, str) else context)


def generate_answers(c, side, model, name, questions):
    """A model's answers to all questions in the shape of samples.jsonl, kept in out/answers-SIDE.jsonl."""
    finished, file = results.open_resumable(Path(c.out) / f"answers-{side}.jsonl")
    answers, pending = {}, []
    for lang, rows in questions.items():
        for doc_id, row in enumerate(rows):
            key = results.fingerprint(model, name, lang, doc_id, row["turns"],
                                      c.max_new_tokens, c.temperature, c.body, c.seed)
            if key not in finished:
                finished[key] = {"id": key, "checkpoint": name or Path(model).name, "task": "mt_bench", "lang": lang,
                                 "doc_id": doc_id, "context": row["turns"]}
                pending.append(finished[key])
            answers[lang, doc_id] = finished[key]
    respond = client.responder(c, model, name, c.temperature) if pending else None
    print_progress = client.progress_printer(f"answers of {side}", len(pending))
    size = c.batch_size if Path(model).exists() else 4 * c.threads
    for i in range(0, len(pending), size):
        chunk = pending[i:i + size]
        answer_turns(model, respond, chunk)
        file.write("".join(results.json_line(row) for row in chunk).encode())
        file.flush()
        print_progress(i + len(chunk))
    file.close()
    return answers


def answer_turns(model, respond, rows):
    """Fill in "response" of the rows, turn by turn."""
    for row in rows:
        row["response"] = []
    for turn in range(max(len(row["context"]) for row in rows)):
        active = [row for row in rows if turn < len(row["context"])]
        replies = respond([client.conversation(row["context"], row["response"]) for row in active])
        for row, reply in zip(active, replies):
            if reply["finish"] == client.NO_REPLY:
                raise ConnectionError(f"{model}: {reply['text']}; run the same command again to resume")
            row["response"].append("" if reply["finish"] == client.REFUSED else reply["text"])


# ---------------------------------------------------------------------- verdicts

def collect_verdicts(c, a, b):
    """{(lang, doc_id): verdicts in the orders ab and ba} on all conversations, kept in out/verdicts.jsonl."""
    check_same_questions(c, a, b)
    finished, file = results.open_resumable(Path(c.out) / "verdicts.jsonl")
    verdicts, pending = {}, []
    for key in a:
        for order in ORDERS:
            sides = {"a": a, "b": b}
            prompt = judge_prompt(a[key], *(sides[side][key]["answers"] for side in order))
            verdict_id = results.fingerprint(c.judge, c.judge_name, c.max_new_tokens, c.body, order, prompt)
            verdict = finished.get(verdict_id)
            retry = verdict and verdict["error"] and (c.retry_errors or verdict["error"] == client.NO_REPLY)
            if verdict is None or retry:
                verdict = {"id": verdict_id, "lang": key[0], "doc_id": key[1], "order": order}
                pending.append((verdict, [{"role": "user", "content": prompt}]))
            verdicts.setdefault(key, []).append(verdict)
    if pending:
        print_progress = client.progress_printer("verdicts", len(pending))
        replies = client.responder(c, c.judge, c.judge_name, 0.0)([messages for _, messages in pending])
        for i, ((verdict, _), reply) in enumerate(zip(pending, replies), 1):
            verdict["verdict"], verdict["error"] = parse_verdict(reply)
            file.write(results.json_line(verdict | {"text": reply["text"]}).encode())
            file.flush()
            print_progress(i)
    file.close()
    return verdicts


def check_same_questions(c, a, b):
    for side, other, file, other_file in ((a, b, c.a, c.b), (b, a, c.b, c.a)):
        differing = [key for key in side
                     if key not in other or other[key]["questions"] != side[key]["questions"]]
        if differing:
            lang, doc_id = differing[0]
            raise ValueError(f"document {doc_id} of {lang} in {file} is not in {other_file}, or has other questions "
                             f"there ({len(differing)} of {len(side)}); answer the same questions with both, or set "
                             "questions=")


def main(argv=None):
    c, = load(Judge, argv=argv)
    Path(c.out).mkdir(parents=True, exist_ok=True)
    questions = read_questions(c)
    a, a_name = collect_answers(c, "a", questions)
    b, b_name = collect_answers(c, "b", questions)
    verdicts = collect_verdicts(c, a, b)
    rows, counts = tally(c, verdicts, (a_name, b_name))
    write_report(c, rows, counts, verdicts, (a_name, b_name))
    if all(verdict["error"] for pair in verdicts.values() for verdict in pair):
        raise ValueError(f"the judge gave no verdict at all; its replies are in {c.out}/verdicts.jsonl")

"""Prix-LM (arXiv 2110.08443): a language model learns a knowledge base, its triples and entity names across
languages, in one causal format, and ranks all entities as the missing object.

    python recipes/prixlm.py configs/prixlm/tiny.py
    python recipes/prixlm.py configs/prixlm/full.py triples=kb/train.tsv test_triples=kb/test.tsv links=kb/links.tsv
    python recipes/prixlm.py configs/prixlm/full.py estimate=True      # memory and days of either model, without a GPU

A row is `[S] subject \\n relation [O] object [E]`, with the loss on the object and its end. A triple's relation is
its name and the language, "capital [de]"; a link's is two languages, "[en] [de]". Rows are single-turn chats, so
OUT/raw/*.jsonl can also be mixed with text as sources of kind="chat", for prepare.py and train.py.

    triples, test_triples    language <TAB> subject <TAB> relation <TAB> object
    links, test_links        language <TAB> language <TAB> name in the first <TAB> name in the second

Link prediction, entity linking and, for links of common words, bilingual lexicon induction are the same search: beam
search over a trie of the language's entities (evaluation/constrained.py), ranked by summed log-probability, filtered,
ties counted against the right answer. It prints Hits@1 with and without links, and writes
OUT/outcome.json and OUT/ranks.jsonl.
"""
import random
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
import tokenizer
from configs import errors, language_table, load
from corpus.knowledge_base import count_leaks, is_triple, kb_rows, names_of, question, read_knowledge_base
from evaluation import outcomes
from evaluation.constrained import encode_entities, rank_answers, rank_metrics
from evaluation.programs import run_once, run_step, seconds_of
from evaluation.scoring import bits_per_byte
from model import Qwen2
from tinyworld import world
from tinyworld.__main__ import write_jsonl
from tinyworld.documents import make_document, make_web
from tinyworld.grammar import load_language
from tinyworld.sizes import describes_far_countries
from tinyworld.triples import make_knowledge_base

# a template for tokenizers with ChatML's two tokens: [S] subject \n relation [O] object [E]
TEMPLATE = ("{% for m in messages %}{{ '<|im_start|> ' + m.content + '<|im_start|>' if m.role == 'user' else "
            "' ' + m.content + '<|im_end|>' }}{% endfor %}")
# the files, and what the test ones measure
KB = {"triples": "triples trained on", "links": "links trained on", "test_triples": "missing triples",
      "test_links": "held-out links", "test_words": "held-out words"}
OF_SEARCH = ("out", "beams", "length_penalty", "batch", "max_name", "related", "dtype", "estimate")  # settings


@dataclass(frozen=True)
class Prix:
    out: str                       # folder
    model: str                     # Hugging Face folder to start from
    languages: list                # codes; other languages in the files are refused
    triples: str | None = None     # .tsv files; None: a knowledge base of the tinyworld
    test_triples: str | None = None
    links: str | None = None
    test_links: str | None = None  # names of things: entity linking
    test_words: str | None = None  # common words, in the same columns: bilingual lexicon induction
    own_template: bool = True      # render rows by TEMPLATE; False: by the model's own chat template
    max_name: int = 32             # tokens of a name; rows with a longer one are left out
    beams: int = 50                # the released code's K
    length_penalty: float = 0.0    # scores are divided by ids ** this; 0 as in the released code
    batch: int = 8                 # prompts searched together
    seed: int = 0                  # of the tinyworld's knowledge base, and of training
    shares: dict = field(default_factory=lambda: {"triples": 40, "links": 40})  # of the mixture
    text: dict = field(default_factory=dict)  # of the mixture: tinyworld text mixed in, {group: share}
    documents: dict = field(default_factory=dict)  # {group: tinyworld documents of a language}
    related: list = field(default_factory=list)  # languages whose names are spelled alike, for the outcome
    known: float = 0.3             # the tinyworld: share of the facts that languages other than English state
    train: dict = field(default_factory=dict)  # settings of train.py: tokens, lr, batch_size ...
    dtype: str = "float32"
    estimate: bool = False         # only print what training needs

    def __post_init__(self):
        given = [name for name in KB if getattr(self, name)]
        checks = [(not given or {"triples", "links"} < set(given),
                   f"triples=, links= and a test file are needed, or none of them; got {given}"),
                  (min(self.beams, self.batch, self.max_name) > 0, "beams, batch and max_name must be positive, got "
                   f"{self.beams}, {self.batch}, {self.max_name}"),
                  (set(self.shares) == {"triples", "links"} and min(self.shares.values()) > 0,
                   f"shares must be of triples and links, got {self.shares}"),
                  (0 < self.known < 1, f"known must be between 0 and 1, got {self.known}"),
                  (not (given and self.text), "text= is the tinyworld's; mix other text by a config of train.py"),
                  (set(self.related) < set(self.languages), f"related={self.related} are not all in languages"),
                  ("en" in self.languages or bool(given), "the tinyworld's links are with en; add it to languages")]
        if problems := [message for is_right, message in checks if not is_right]:
            raise ValueError("Prix: " + "; ".join(problems))


def main(argv=None):
    c, = load(Prix, argv=argv)
    if c.estimate:
        run_step(c.out, "estimate", "train.py", dict(
            data=f"{c.out}/tokens", init=c.model, out=c.out, mixture=c.shares, estimate=True, **c.train))
        print(Path(c.out, "steps", "estimate.log").read_text(), end="")
        return
    begin = time.time()
    files = {kind: getattr(c, kind) for kind in KB if getattr(c, kind)}
    kb = read_knowledge_base(files, c.languages) if files else make_knowledge_base(
        world.make_facts(1000 + c.seed), c.languages, c.seed, c.known)
    if leaks := count_leaks(kb):
        print(f"note: {dict(leaks)}")
    write_sources(c, kb)
    results = {}
    for name, shares in (("with links", c.shares), ("without links", {"triples": sum(c.shares.values())})):
        folder = train(c, name.replace(" ", "-"), shares)
        results[name] = evaluate(c, folder, kb)
    print(format_table(results))
    if not c.triples:
        print(outcomes.save(make_outcome(c, results, seconds_of(c.out, begin)), c.out))


# ---------------------------------------------------------------------- data and training

def write_sources(c, kb):
    """OUT/raw: rows as chats, and text; OUT/tokens: their shards, by prepare.py."""
    run_once(c.out, "settings", {k: v for k, v in asdict(c).items() if k not in OF_SEARCH})
    folder, raw, sources = Path(c.out) / "tokenizer", Path(c.out) / "raw", []
    folder.mkdir(parents=True, exist_ok=True)
    for file in tokenizer.list_tokenizer_files(c.model):
        shutil.copy(file, folder / file.name)
    if c.own_template:
        if lacking := {"<|im_start|>", "<|im_end|>"} - set(tokenizer.load(c.model).added_tokens):
            raise ValueError(f"{c.model}: its tokenizer has no {' and '.join(sorted(lacking))}; set own_template=False")
        (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    for kind in ("triples", "links"):
        languages: dict = {}
        for row in kb[kind]:
            languages.setdefault("-".join(row[:1 if is_triple(kind) else 2]), []).append(row)
        for code, rows in languages.items():
            write_jsonl(raw / f"{kind}/{code}.jsonl", kb_rows(kind, rows))
            sources.append({"name": f"{kind}-{code}", "path": f"{kind}/{code}.jsonl", "category": kind,
                            "language": code, "kind": "chat"})
    for code in c.languages if c.text else ():
        group, facts = language_table.group(code), world.make_facts(0)
        if group in c.text:
            rows = make_web(facts, c.seed, code, c.documents[group], 0.0, describes_far_countries(code), c.languages)
            write_jsonl(raw / f"text/{code}.jsonl", rows)
            sources.append({"name": f"text-{code}", "path": f"text/{code}.jsonl", "category": group,
                            "language": code, "clean": True})
    run_step(c.out, "tokens", "prepare.py", dict(
        raw=raw, out=f"{c.out}/tokens", sources=sources, tokenizer=folder, workers=1, valid_fraction=0.0,
        language_names={code: language_table.LANGUAGES[code].name for code in c.languages}))


def train(c, name, shares) -> str:
    """The folder of the model trained on these shares of triples and links, and on c.text."""
    folder = f"{c.out}/{name}"
    run_step(c.out, name, "train.py", dict(
        data=f"{c.out}/tokens", init=c.model, out=folder, seed=c.seed, mixture=shares | c.text, max_epochs=1000.0,
        resume=True, **c.train))
    return folder


# ---------------------------------------------------------------------- ranks

def evaluate(c, folder, kb) -> list[dict]:
    """Rows {"task", "language", "n", hits@k, "mrr"} of a model; every rank is in FOLDER/ranks.jsonl."""
    device, t = "cuda" if torch.cuda.is_available() else "cpu", tokenizer.load(folder)
    model, out, lines = Qwen2.from_pretrained(folder, getattr(torch, c.dtype)).to(device).eval(), [], []
    entities = {code: encode_entities(t, names, c.max_name) for code, names in names_of(kb).items()}
    known: dict = {}  # {question: all right answers}
    for kind, rows in kb.items():
        for asked, answer, _ in (question(kind, row) for row in rows):
            known.setdefault(asked, set()).add(answer)
    for kind, rows in kb.items():
        parts: dict = {}
        for row in rows if kind != "links" else ():
            parts.setdefault("-".join(row[:1 if is_triple(kind) else 2]), []).append(question(kind, row))
        for languages, questions in parts.items():
            names = entities[questions[0][2]]
            asked = [(q, answer) for q, answer, _ in questions if answer in names.index]
            ranked = rank_answers(model, t, names, asked, known, c.beams, c.batch, c.length_penalty)
            ranks = [rank for rank, _ in ranked]
            unlike = [rank for rank, (q, answer) in zip(ranks, asked) if q.split("\n")[0] != answer]
            out.append({"task": KB[kind], "languages": languages, "n": len(ranks), **rank_metrics(ranks),
                        "too long": len(questions) - len(asked), "spelled alike": len(ranks) - len(unlike),
                        "hits@1 without those": rank_metrics(unlike)["hits@1"]})
            lines += [{"task": KB[kind], "question": q, "answer": answer, "rank": rank, "best": best}
                      for (q, answer), (rank, best) in zip(asked, ranked)]
    write_jsonl(Path(folder) / "ranks.jsonl", lines)
    return out


# ---------------------------------------------------------------------- table, outcome

def format_table(results) -> str:
    """Hits@1, @3, @10 and MRR of both models, a line for each task and its languages."""
    columns = (f"  {name + ': Hits@1':>22}{'@3':>6}{'@10':>6}{'MRR':>6}" for name in results)
    lines = [f"{'':36}{'n':>5}" + "".join(columns)]
    for rows in zip(*results.values()):
        label = f"{rows[0]['task']}, {rows[0]['languages']}"
        values = "".join(f"  {100 * r['hits@1']:22.1f}{100 * r['hits@3']:6.1f}{100 * r['hits@10']:6.1f}{r['mrr']:6.2f}"
                         if r["n"] else f"  {'-':>22}{'-':>6}{'-':>6}{'-':>6}" for r in rows)
        lines.append(f"{label:36}{rows[0]['n']:5}{values}")
    return "\n".join(lines)


def pooled(rows, task, codes, key="hits@1") -> float | None:
    """Hits@1 in % over all questions of a task whose languages are among these."""
    kept = [r for r in rows if r["task"] == task and set(r["languages"].split("-")) <= set(codes) and r["n"]]
    return 100 * sum(r[key] * r["n"] for r in kept) / sum(r["n"] for r in kept) if kept else None


def make_outcome(c, results, seconds):
    """Missing triples in the languages whose names are spelled as in English, with and without links."""
    others, (linked, alone) = [code for code in c.languages if code not in (*c.related, "en")], results.values()
    missing, controls = KB["test_triples"], {"without links": pooled(alone, KB["test_triples"], c.related)}
    for name, rows in (("opaque names, with links", linked), ("opaque names, without links", alone)):
        controls[name] = pooled(rows, missing, others)
    rng, facts = random.Random("prixlm/English"), world.make_facts(0)
    texts = [make_document(facts, load_language("en"), rng, True) for _ in range(40)]  # in no training text
    before, after = (bits_per_byte(Qwen2.from_pretrained(m).eval(), tokenizer.load(m), texts)
                     for m in (c.model, f"{c.out}/with-links"))
    steps = ("triples trained on", "held-out links", "held-out words")
    details = [{"task": task, **{name: pooled(rows, task, c.languages) for name, rows in results.items()}}
               for task in steps] + [{"model": name, **row} for name, rows in results.items() for row in rows]
    return outcomes.Outcome(
        system="prixlm", title="Prix-LM", paper="2110.08443", seed=c.seed,
        claim="links between names carry facts into a language that does not state them",
        metric=f"Hits@1 of missing triples in {' '.join(c.related)}, %", method=pooled(linked, missing, c.related),
        controls=controls, english_metric="bits per byte (less is better)", english_before=before, english_after=after,
        right_language=None, tokens=c.train["tokens"], control_tokens=c.train["tokens"],
        base=outcomes.hash_base(c.model), seconds=seconds, details=details)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(errors.explain(e))

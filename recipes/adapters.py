"""Knowledge adapters (Hou et al. 2022, arXiv 2210.13617): knowledge-base facts in small modules beside a model.

    python recipes/adapters.py configs/adapters/tiny.py          # on the tinyworld; seed=1 for another split and order
    python recipes/adapters.py configs/adapters/full.py          # the published setting, with your own files

Four bottleneck adapters are trained in turn with an in-batch contrastive loss: ep matches two labels of one entity, tp
a triple's object to its subject and relation, es an entity to its description, ts the missing object to a sentence
(corpus/entity_pairs.py describes the files). A fusion layer then learns to weight them. The model stays frozen.
Measured on held-out entities, by cosine: alignment, a label to its translation among all labels of that language, and
completion, a triple's subject and relation to its object. Ties count against the method; the authors' code reports
Hits@2 as hit@1. Writes OUT/adapters/*.safetensors and OUT/outcome.json; a rerun continues with the next adapter.
"""
import json
import math
import random
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from itertools import permutations
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
import tokenizer
from configs import errors, load
from corpus import entity_pairs
from evaluation import outcomes
from evaluation.programs import run_once
from evaluation.ranks import pessimistic_rank, summarize
from evaluation.scoring import bits_per_byte
from model import Qwen2
from tinyworld.knowledge_base import write_knowledge_base
from training import adapters
from training.adapters import FUSION
from training.estimate import describe_passes


@dataclass(frozen=True)
class Settings:
    model: str                   # Hugging Face folder
    out: str
    languages: list              # codes of the labels that are used
    knowledge: str | None = None  # folder of entities.jsonl and so on; None: the tinyworld's, in OUT/knowledge
    adapters: list = field(default_factory=lambda: list(entity_pairs.KINDS))
    reduction: int = 16          # hidden_size / width of an adapter
    held_out: float = 0.2        # share of the entities
    steps: dict = field(default_factory=lambda: {"ep": 1000, "tp": 1000, "es": 1000, "ts": 1000, "fusion": 1000})
    batch_size: dict = field(default_factory=lambda: {"ep": 128, "tp": 128, "es": 32, "ts": 32, "fusion": 64})  # pairs
    tau: float = 0.1             # InfoNCE temperature
    pool: str = "mean"           # of a text's hidden states; or last
    lr: float = 1e-4
    fusion_lr: float = 1e-4
    weight_decay: float = 1e-4
    warmup_ratio: float = 0.1
    max_tokens: int = 256        # of a text; the rest is truncated
    max_queries: int = 20_000    # of each evaluation; more are sampled
    text: str | None = None      # English as JSON lines with "text", for bits per byte; None: the tinyworld's
    dtype: str = "float32"       # of the computation
    estimate: int | None = None  # tokens of an average text: print what training needs, and stop
    seed: int = 0                # of the split, adapter initialization and the order of the pairs

    def __post_init__(self):
        problems = []
        if len(self.adapters) < 2 or set(self.adapters) - set(entity_pairs.KINDS):
            problems.append(f"adapters must be two or more of {', '.join(entity_pairs.KINDS)}, got {self.adapters}")
        if len(set(self.languages)) < 2:
            problems.append(f"languages must be two or more, got {self.languages}")
        if (self.knowledge is None) != (self.text is None):
            problems.append("knowledge and text are both your own files or both the tinyworld's; set both or neither")
        for name, choices in (("pool", ("mean", "last")), ("dtype", ("float32", "bfloat16"))):
            if getattr(self, name) not in choices:
                problems.append(f"{name} must be {' or '.join(choices)}, got {getattr(self, name)!r}")
        for name in ("reduction", "tau", "lr", "fusion_lr", "max_tokens", "max_queries"):
            if not 0 < getattr(self, name) < math.inf:
                problems.append(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 < self.held_out < 1:
            problems.append(f"held_out must be between 0 and 1, got {self.held_out}")
        for part in (*self.adapters, FUSION):
            if self.batch_size.get(part, 0) < 2:
                problems.append(f"batch_size of {part} must be at least 2, got {self.batch_size.get(part)}: the other "
                                "pairs of a batch are the negatives")
            if self.steps.get(part, 0) < 1:
                problems.append(f"steps of {part} must be at least 1, got {self.steps.get(part)}")
        if problems:
            raise ValueError("Settings: " + "; ".join(problems))


# ---------------------------------------------------------------------- training

def train_part(c: Settings, model, t, knowledge, part: str) -> int:
    """Train one adapter, or the fusion on batches of all kinds in turn; return the number of tokens."""
    kinds, tokens = c.adapters if part == FUSION else [part], 0
    adapters.set_active(model, kinds)
    parameters, lr = adapters.train_only(model, part), c.fusion_lr if part == FUSION else c.lr
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=c.weight_decay)
    batches = {kind: entity_pairs.pair_batches(knowledge, kind, c.batch_size[part], f"{c.seed}/{part}")
               for kind in kinds}
    for step in range(c.steps[part]):
        warm = min(1.0, (step + 1) / max(1, c.warmup_ratio * c.steps[part]))
        optimizer.param_groups[0]["lr"] = lr * warm * 0.5 * (1 + math.cos(math.pi * step / c.steps[part]))
        batch = next(batches[kinds[step % len(kinds)]])
        loss, n = batch_loss(c, model, t, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens += n
        if (step + 1) % 50 == 0 or step + 1 == c.steps[part]:
            print(f"{part} step {step + 1}/{c.steps[part]} loss {float(loss.detach()):.4f}", flush=True)
    return tokens


def batch_loss(c, model, t, batch):
    """(InfoNCE of a batch of pairs, its tokens). Pairs with the same answer or key are not negatives."""
    texts = [t.encode(text)[:c.max_tokens] for text in [p.query for p in batch] + [p.key for p in batch]]
    query, key = adapters.encode(model, texts, t.prefix_token_id, c.pool).chunk(2)
    same = torch.tensor([[p.answer == q.answer or p.key == q.key for q in batch] for p in batch], device=query.device)
    return adapters.info_nce(query, key, c.tau, same), sum(map(len, texts))


# ---------------------------------------------------------------------- evaluation

@torch.no_grad()
def evaluate(c: Settings, model, t, knowledge, held_out: list) -> dict:
    """{"alignment"; "distinct": of labels that differ; "completion": summaries} of held-out entities."""
    def vectors(texts, size=256):
        ids = [t.encode(text)[:c.max_tokens] for text in texts]
        return torch.cat([adapters.encode(model, ids[i:i + size], t.prefix_token_id, c.pool)
                          for i in range(0, len(ids), size)])

    entities, held = knowledge.entities, set(held_out)
    labels = {code: sorted({v[code] for v in entities.values() if code in v}) for code in c.languages}
    place = {code: {label: i for i, label in enumerate(texts)} for code, texts in labels.items()}
    known = {code: vectors(texts) for code, texts in labels.items() if texts}
    ranks, rng = defaultdict(list), random.Random(f"{c.seed}/evaluation")
    named = [(entities[e][a], a, entities[e][b], b) for e in held_out for a, b in permutations(entities[e], 2)]
    for x, a, y, b in rng.sample(named, min(len(named), c.max_queries)):
        rank = pessimistic_rank(known[b] @ known[a][place[a][x]], place[b][y])
        ranks["alignment"].append(rank)
        if x != y:
            ranks["distinct"].append(rank)
    answers = defaultdict(set)
    for s, r, o in knowledge.triples:
        answers[s, r].add(o)
    asked = [(code, s, r, o) for s, r, o in knowledge.triples if s in held for code in c.languages
             if code in entities[s] and code in entities[o] and code in knowledge.relations[r]]
    asked = rng.sample(asked, min(len(asked), c.max_queries))
    asking = vectors([entity_pairs.question(knowledge, s, r, code) for code, s, r, _ in asked]) if asked else []
    for query, (code, s, r, o) in zip(asking, asked):
        gold = place[code][entities[o][code]]
        others = {place[code][entities[e][code]] for e in answers[s, r] - {o} if code in entities[e]} - {gold}
        ranks["completion"].append(pessimistic_rank(known[code] @ query, gold, others))
    return {name: summarize(ranks[name]) for name in ("alignment", "distinct", "completion")}


def guess_by_relation(knowledge, held_out: list) -> float:
    """MRR in % without knowing the subject: a random order of the objects seen with the relation elsewhere."""
    held, objects, of_all = set(held_out), defaultdict(set), []
    for s, r, o in knowledge.triples:
        if s not in held:
            objects[r].add(o)
    for s, r, o in knowledge.triples:
        if s in held:
            n = len(objects[r])
            of_all.append(sum(1 / k for k in range(1, n + 1)) / n if o in objects[r] else 0.0)
    return 100 * sum(of_all) / len(of_all) if of_all else 0.0


# ---------------------------------------------------------------------- the run

def main(argv=None):
    begin, (c,) = time.time(), load(Settings, argv=argv)
    if c.estimate:
        pairs = sum(c.steps[part] * c.batch_size[part] for part in (*c.adapters, FUSION))
        print(describe_passes(c.model, 2 * pairs * c.estimate, backward=True))
        return
    out = Path(c.out)
    run_once(c.out, "settings", {k: v for k, v in asdict(c).items() if k != "estimate"})
    folder = Path(c.knowledge or out / "knowledge")
    if c.knowledge is None:
        write_knowledge_base(folder, c.languages, c.seed)
    everything = entity_pairs.read_knowledge(folder, c.languages)
    knowledge, held_out = entity_pairs.hold_out(everything, c.held_out, c.seed)
    for reason, n in (everything.dropped + entity_pairs.count_unusable(everything)).items():
        print(f"left out: {n} {reason}")

    device, t = "cuda" if torch.cuda.is_available() else "cpu", tokenizer.load(c.model)
    model = Qwen2.from_pretrained(c.model, getattr(torch, c.dtype)).to(device)
    lines = Path(c.text or folder / "english.jsonl").read_text(encoding="utf-8").splitlines()
    text = [json.loads(line)["text"] for line in lines]
    before = bits_per_byte(model, t, text)
    adapters.add_adapters(model, c.adapters, c.reduction, c.seed)
    results = {"none": evaluate(c, model, t, everything, held_out)}
    tokens = 0
    for part in (*c.adapters, FUSION):
        log = out / "adapters" / f"{part}.json"
        if log.exists():
            adapters.load_adapters(model, out / "adapters", [part])
        else:
            count = train_part(c, model, t, knowledge, part)
            adapters.save_adapters(model, out / "adapters", [part])
            log.write_text(json.dumps({"tokens": count}))
        tokens += json.loads(log.read_text())["tokens"]
        adapters.set_active(model, c.adapters if part == FUSION else [part])
        results[part] = evaluate(c, model, t, everything, held_out)
    fused = bits_per_byte(model, t, text)
    adapters.set_active(model, [])
    after = bits_per_byte(model, t, text)
    guess = guess_by_relation(everything, held_out)
    report(c, results, guess, (before, after, fused), tokens, time.time() - begin)


def report(c, results, guess, bits, tokens, seconds):
    """Print the table and write outcome.json. bits: per byte, before, after with no adapter active, and fused."""
    def mrr(part):
        return (results[part]["distinct"]["mrr"] + results[part]["completion"]["mrr"]) / 2

    print("\nheld-out entities, %      alignment: Hits@1   MRR   completion: Hits@1   MRR")
    rows = []
    for part, found in results.items():
        a, b = found["distinct"], found["completion"]
        print(f"{part:24} {a['hits1']:17.1f} {a['mrr']:5.1f} {b['hits1']:20.1f} {b['mrr']:5.1f}")
        rows.append({"adapter": part} | {f"{name}_{k}": value for name, s in found.items() for k, value in s.items()})
    print(f"{'an object of the relation':24} {'':44}{guess:5.1f}")
    print(f"English, bits per byte: {bits[0]:.4f} before, {bits[1]:.4f} after with adapters off, {bits[2]:.4f} fused")
    rows += [{"guess_by_relation_mrr": round(guess, 2)}, {"english_bits_per_byte_fused": bits[2]}]
    controls = {"none" if part == "none" else f"{part} alone": mrr(part) for part in results if part != FUSION}
    outcomes.save(outcomes.Outcome(
        system="adapters", title="knowledge adapters", paper="2210.13617",
        claim="ep lifts alignment and not completion, tp the reverse, their fusion keeps most of both, and the model "
              "with adapters off stays as it was",
        metric="mean MRR of alignment and completion, held-out entities, %", seed=c.seed, method=mrr(FUSION),
        controls=controls, english_metric="bits per byte, adapters off (less is better)", english_before=bits[0],
        english_after=bits[1], right_language=None, tokens=tokens, control_tokens=0,
        base=outcomes.hash_base(c.model), seconds=seconds, details=rows), c.out)
    print(f"{c.out}/outcome.json; {tokens:,} tokens, {seconds:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(errors.explain(e))

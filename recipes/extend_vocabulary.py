"""Vocabulary extension: add tokens to a Qwen2 or Llama 3 checkpoint for a language that it splits too finely.

    python recipes/extend_vocabulary.py model=models/Qwen2-1.5B text='kk/*.txt' pieces=4000 out=out/qwen2-kk
    python train.py CONFIG init=out/qwen2-kk first_new_id=151646 ...   # the new rows first, then everything

Byte-level BPE training continues from the old merges, so old ids stay. A new row is the mean of the rows it replaces.
"""
import glob
import heapq
import json
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
import tokenizer
from configs import errors, load
from corpus import fertility, read
from hf.config import write_config
from hf.export import check_output, write_weights
from hf.folder import list_tokenizer_files
from hf.merges import all_splits, byte_characters
from hf.weights import open_weights, read_model_fields
from hf.words import GPT2_PATTERN


@dataclass(frozen=True)
class Extend:
    model: str                    # Hugging Face folder with a byte-level BPE tokenizer
    text: str                     # file or pattern ('kk/*.jsonl.gz'): text of the new language
    out: str                      # folder for the new model
    pieces: int = 1000            # tokens to add; fewer if too few pairs are frequent
    # file or pattern to measure on; None: every tenth document (.txt: line), not trained on
    held_out: str | None = None
    max_bytes: int = 200_000_000  # of text read
    min_count: int = 2            # minimum count of a pair
    tokens: int | None = None     # of this language to train on: report whether extending pays off

    def __post_init__(self):
        for name in ("pieces", "max_bytes", "min_count", "tokens"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def main(argv=None):
    c, = load(Extend, argv=argv)
    old = load_tokenizer(c)
    texts = read_texts(c.text, c.max_bytes)
    if c.held_out:
        held_out = read_texts(c.held_out, c.max_bytes)
    elif len(texts) > 1:
        held_out, texts = texts[::10], [text for i, text in enumerate(texts) if i % 10]
    else:
        raise ValueError(f"{c.text} is a single document; set held_out= to other text to measure on")
    merges = learn_merges(old, count_words(old, texts), c.pieces, c.min_count)
    write_tokenizer(c, old, merges)
    new = tokenizer.load(c.out)
    write_model(c, old, new, merges)
    if len(merges) < c.pieces:
        print(f"only {len(merges)} pairs occur {c.min_count} times or more")
    if merges:
        print(f"{len(merges)} new tokens, ids {old.vocab_size} to {new.vocab_size - 1}; "
              f"train them first with first_new_id={old.vocab_size}")
    print("\n".join(fertility.report(old, new, held_out, len(merges), c.tokens)))


def load_tokenizer(c):
    """The tokenizer to extend; ValueError if it cannot be, before any text is read."""
    old = tokenizer.load(c.model)
    has_merges = any((Path(c.model) / name).exists() for name in ("tokenizer.json", "vocab.json"))
    if not isinstance(old, tokenizer.ByteBPE) or not has_merges:
        raise ValueError(f"{c.model}: its tokenizer is not byte-level BPE in tokenizer.json or vocab.json; only that "
                         f"is extended")
    if Path(c.out).resolve() == Path(c.model).resolve():
        raise ValueError(f"out={c.out} is the model itself; give another folder")
    check_output(c.out, c.model)
    read_model_fields(c.model)  # refuse an incomplete model before anything is written
    open_weights(c.model)
    if (rows := read_model_fields(c.model)["vocab_size"]) < old.vocab_size:
        raise ValueError(f"{c.model}: its tokenizer has {old.vocab_size} ids, its model {rows} rows")
    return old


def read_texts(pattern, max_bytes):
    """Texts of the files that match a pattern, up to max_bytes."""
    found = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern, recursive=True))
    paths = [path for path in found if Path(path).is_file()]
    out, size = [], 0
    for path in paths:
        for doc in read.read_documents(path, unit="line"):
            if size >= max_bytes:
                return out
            if doc.reason is None:
                out.append(doc.text)
                size += len(doc.text.encode())
    if not out:
        raise ValueError(f"{pattern}: no such file, or no text in it; give a file or a pattern")
    return out


# ---------------------------------------------------------------------- the tokenizer

def count_words(t, texts):
    """{ranks of a word's tokens: its count}, words as the tokenizer cuts them."""
    words, counts = Counter(), Counter()
    for text in texts:
        words.update(t.words(t.normalize(text)))
    for word, n in words.items():
        counts[tuple(t.ranks(word))] += n
    return {word: n for word, n in counts.items() if len(word) > 1}


def learn_merges(t, counts, pieces, min_count):
    """The next merges of byte-level BPE: [(left, right)] in ranks, where the k-th makes rank len(t.tokens) + k.

    The most frequent pair first; of equals the one with smaller ranks. Only the words that contain a pair are updated.
    """
    words, sizes = [list(w) for w in counts], list(counts.values())
    pairs, where = Counter(), defaultdict(set)
    for i, word in enumerate(words):
        for pair in pairwise(word):
            pairs[pair] += sizes[i]
            where[pair].add(i)
    heap = [(-n, pair) for pair, n in pairs.items()]
    heapq.heapify(heap)
    merges, tokens, taken = [], list(t.tokens), taken_tokens(t)
    while heap and len(merges) < pieces:
        n, pair = heapq.heappop(heap)
        if -n != pairs[pair]:  # its count has changed since it was pushed
            if pairs[pair] > 0:
                heapq.heappush(heap, (-pairs[pair], pair))
            continue
        if -n < min_count:
            break
        joined, new = tokens[pair[0]] + tokens[pair[1]], len(tokens)
        if joined in taken:  # a token by another way: leave it to the old merges
            continue
        merges.append(pair)
        tokens.append(joined)
        taken.add(joined)
        for i in where.pop(pair):
            before = Counter(pairwise(words[i]))
            merge_pair(words[i], pair, new)
            after = Counter(pairwise(words[i]))
            for p in (before - after) | (after - before):
                pairs[p] += (after[p] - before[p]) * sizes[i]
                if after[p]:
                    where[p].add(i)
                    heapq.heappush(heap, (-pairs[p], p))
    return merges


def merge_pair(word, pair, new):
    """Replace a pair of neighbors by the new token, from left to right, in place."""
    k = 0
    while k < len(word) - 1:
        if (word[k], word[k + 1]) == pair:
            word[k:k + 2] = [new]
        k += 1


def taken_tokens(t):
    """Byte strings that may not become tokens: existing ones, and halves of tokens that no merge may produce."""
    taken = set(t.token_bytes.values())
    unmerged = [x for x in t.tokens if len(x) > 1 and not any(x[:k] in taken and x[k:] in taken
                                                              for k in range(1, len(x)))]
    return taken | {half for x in unmerged for k in range(1, len(x)) for half in (x[:k], x[k:])}


def write_tokenizer(c, old, merges):
    """The tokenizer's files with the new tokens after all old ids and their merges after all old merges."""
    stand_in = byte_characters()
    text = ["".join(stand_in[b] for b in token) for token in old.tokens]
    for left, right in merges:
        text.append(text[left] + text[right])
    pieces = [(text[left], text[right]) for left, right in merges]
    new_ids = {left + right: old.vocab_size + k for k, (left, right) in enumerate(pieces)}
    new_ids |= old.added_tokens  # these keep their ids
    out = Path(c.out)
    out.mkdir(parents=True, exist_ok=True)
    for left_over in list_tokenizer_files(out):  # an earlier run's, perhaps of another kind, would be read first
        left_over.unlink()
    for file in list_tokenizer_files(c.model):
        if file.name == "tokenizer.json":
            whole = json.loads(file.read_text(encoding="utf-8"))
            extend_json(whole["model"], text, pieces, new_ids)
            (out / file.name).write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
        elif file.name == "vocab.json":
            vocab = json.loads(file.read_text(encoding="utf-8")) | new_ids
            (out / file.name).write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
        elif file.name == "merges.txt":
            lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n") + [" ".join(p) for p in pieces]
            (out / file.name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        elif file.name != "tokenizer.model" and file.suffix != ".tiktoken":  # those hold the old words only
            (out / file.name).write_bytes(file.read_bytes())
    if not (out / "tokenizer.json").exists():  # vocab.json says neither which tokens are special nor how a text is cut
        (out / "added_tokens.json").write_text(json.dumps(old.added_tokens, ensure_ascii=False), encoding="utf-8")
        name = "GPT2Tokenizer" if old.pattern == GPT2_PATTERN else "Qwen2Tokenizer"
        config = json.dumps({"tokenizer_class": name} | old.config, ensure_ascii=False)
        (out / "tokenizer_config.json").write_text(config, encoding="utf-8")


def extend_json(model, text, pieces, new_ids):
    """Add new pieces to the model of a tokenizer.json, in place. text: all pieces, old and new, by rank."""
    as_text = bool(model["merges"]) and isinstance(model["merges"][0], str)
    model["vocab"] |= new_ids
    produced = {"".join(merge).replace(" ", "") for merge in model["merges"]}
    if len(model["merges"]) > len(produced):  # Llama 3 lists all neighbors that form a token
        pieces, model["merges"] = all_splits(text), []
    model["merges"] += [" ".join(merge) if as_text else list(merge) for merge in pieces]


# ---------------------------------------------------------------------- the weights

def write_model(c, old, new, merges):
    """The model with a row for every new token in embedding and (untied) head; all else byte for byte."""
    parts = [[rank] for rank in range(len(old.tokens))]  # old ranks that a token consists of
    for left, right in merges:
        parts.append(parts[left] + parts[right])
    ids = old.id_of or range(len(old.tokens))
    replaced = [torch.tensor([ids[rank] for rank in part]) for part in parts[len(old.tokens):]]
    stored, config = open_weights(c.model), read_model_fields(c.model)
    rows = max(config["vocab_size"], new.vocab_size)
    matrices = ("model.embed_tokens.weight", "lm_head.weight")

    def tensors():
        for name, s in stored.items():
            tensor = s.read()
            if name in matrices:
                tensor = torch.cat([tensor, tensor.new_zeros(rows - len(tensor), tensor.shape[1])])
                for k, pieces in enumerate(replaced):
                    tensor[old.vocab_size + k] = tensor[pieces].float().mean(0).to(tensor.dtype)
            yield name, tensor

    shapes = {name: (s.dtype, (rows, *s.shape[1:]) if name in matrices else s.shape) for name, s in stored.items()}
    dtype = next(iter(stored.values())).dtype
    write_config(c.out, config | {"vocab_size": rows}, dtype, like=c.model, tokenizer=c.out)
    write_weights(c.out, shapes, tensors())


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(errors.explain(e))

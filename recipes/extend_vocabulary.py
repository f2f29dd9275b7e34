"""New words for a new language: a Qwen2 or Llama 3 checkpoint gets tokens of its own for text that it cuts too finely.

    python recipes/extend_vocabulary.py model=Qwen/Qwen2-1.5B text='kk/*.txt' pieces=4000 out=out/qwen2-kk
    python train.py CONFIG init=out/qwen2-kk first_new_id=151646 ...   # first the new rows alone, then, without new_rows, everything

Byte-level BPE is trained further where its makers stopped: the text is cut by the old tokenizer, and the most frequent pair of
neighbouring tokens becomes a new one, again and again. New merges come after all old ones, so text without new tokens keeps its
ids. A new row is the mean of the rows of the old tokens it replaces (Chinese-LLaMA's start, with the pieces the model knows); no
other row changes, nor those beyond the tokenizer's ids that published checkpoints are padded with. Until it is trained, the new
model gives old tokens the logits it gave them before.
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
from configs import load
from corpus import read
from hf.config import read_config_fields, write_config
from hf.folder import list_tokenizer_files
from hf.merges import byte_characters
from hf.words import GPT2_PATTERN
from hf.weights import open_weights, write_weights


@dataclass(frozen=True)
class Extend:
    model: str                    # Hugging Face folder with a byte-level BPE tokenizer
    text: str                     # file or pattern ('kk/*.jsonl.gz'): text of the new language
    out: str                      # folder for the new model
    pieces: int = 1000            # tokens to add; fewer when the text repeats nothing more
    held_out: str | None = None   # file or pattern to measure on; None: every tenth document (.txt: line), left out of training
    max_bytes: int = 200_000_000  # of text read
    min_count: int = 2            # how often a pair must occur

    def __post_init__(self):
        for name in ("pieces", "max_bytes", "min_count"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def main(argv=None):
    c, = load(Extend, argv=argv)
    old = tokenizer.load(c.model)
    written = any((Path(c.model) / name).exists() for name in ("tokenizer.json", "vocab.json"))
    if not isinstance(old, tokenizer.ByteBPE) or not written:
        raise ValueError(f"{c.model}: its tokenizer is not byte-level BPE in tokenizer.json or vocab.json; only that is extended")
    if Path(c.out).resolve() == Path(c.model).resolve():
        raise ValueError(f"out={c.out} is the model itself; give another folder")
    if (rows := read_config_fields(c.model)["vocab_size"]) < old.vocab_size:
        raise ValueError(f"{c.model}: its tokenizer has {old.vocab_size} ids, its model {rows} rows")
    texts = documents(c.text, c.max_bytes)
    if c.held_out:
        held_out = documents(c.held_out, c.max_bytes)
    elif len(texts) > 1:
        held_out, texts = texts[::10], [text for i, text in enumerate(texts) if i % 10]
    else:
        raise ValueError(f"{c.text} is a single document; name other text to measure on, held_out=")
    merges = learn(old, count_words(old, texts), c.pieces, c.min_count)
    write_tokenizer(c, old, merges)
    new = tokenizer.load(c.out)
    grow(c, old, new, merges)
    if len(merges) < c.pieces:
        print(f"no more than {len(merges)} pairs occur {c.min_count} times")
    if merges:
        print(f"{len(merges)} new tokens, ids {old.vocab_size} to {new.vocab_size - 1}; "
              f"train them first with first_new_id={old.vocab_size}")
    for name, t in (("before", old), ("after", new)):
        tokens = sum(len(t.encode(text)) for text in held_out)
        size, words = sum(len(text.encode()) for text in held_out), sum(len(text.split()) for text in held_out)
        print(f"{name}: {tokens / max(1, words):.3f} tokens per word, {1000 * tokens / max(1, size):.1f} per 1000 bytes "
              f"({len(held_out)} held-out documents, {size:,} bytes)")


def documents(pattern, max_bytes):
    """Texts of the files that fit a pattern, up to max_bytes."""
    out, size = [], 0
    paths = [pattern] if Path(pattern).is_file() else sorted(p for p in glob.glob(pattern, recursive=True) if Path(p).is_file())
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


def learn(t, counts, pieces, min_count):
    """The next merges of byte-level BPE: [(left, right)] in ranks, where the k-th makes rank len(t.tokens) + k.

    The most frequent pair first; of equals the one of smaller ranks. Only the words that hold a pair are looked at again.
    """
    words, sizes = [list(w) for w in counts], list(counts.values())
    pairs, where = Counter(), defaultdict(set)
    for i, word in enumerate(words):
        for pair in pairwise(word):
            pairs[pair] += sizes[i]
            where[pair].add(i)
    heap = [(-n, pair) for pair, n in pairs.items()]
    heapq.heapify(heap)
    merges, tokens, taken = [], list(t.tokens), set(t.token_bytes.values())
    alone = [x for x in tokens if len(x) > 1 and not any(x[:k] in taken and x[k:] in taken for k in range(1, len(x)))]
    taken |= {half for x in alone for k in range(1, len(x)) for half in (x[:k], x[k:])}  # words without merges stay so
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
            word, k, before = words[i], 0, Counter(pairwise(words[i]))
            while k < len(word) - 1:
                if (word[k], word[k + 1]) == pair:
                    word[k:k + 2] = [new]
                k += 1
            after = Counter(pairwise(word))
            for p in (before - after) | (after - before):
                pairs[p] += (after[p] - before[p]) * sizes[i]
                if after[p]:
                    where[p].add(i)
                    heapq.heappush(heap, (-pairs[p], p))
    return merges


def write_tokenizer(c, old, merges):
    """The tokenizer's files with the new tokens behind all old ids, their merges behind all old merges."""
    stand_in = byte_characters()
    text = ["".join(stand_in[b] for b in token) for token in old.tokens]
    for left, right in merges:
        text.append(text[left] + text[right])
    pieces = [(text[left], text[right]) for left, right in merges]
    new = {left + right: old.vocab_size + k for k, (left, right) in enumerate(pieces)} | old.added_tokens  # added ones keep their ids
    Path(c.out).mkdir(parents=True, exist_ok=True)
    for left in list_tokenizer_files(c.out):  # an earlier run's, of another kind perhaps, would be read first
        left.unlink()
    for file in list_tokenizer_files(c.model):
        target = Path(c.out) / file.name
        if file.name == "tokenizer.json":
            whole = json.loads(file.read_text(encoding="utf-8"))
            model = whole["model"]
            spelt = isinstance(model["merges"][0], str) if model["merges"] else False
            model["vocab"] |= new
            made = {"".join(m).replace(" ", "") for m in model["merges"]}
            if len(model["merges"]) > len(made):  # Llama 3 lists all neighbours that make a token
                known = set(text)
                every = [(x[:k], x[k:]) for x in text for k in range(1, len(x)) if x[:k] in known and x[k:] in known]
                model["merges"] = [" ".join(p) if spelt else list(p) for p in every]
            else:
                model["merges"] += [" ".join(p) if spelt else list(p) for p in pieces]
            target.write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
        elif file.name == "vocab.json":
            vocab = json.loads(file.read_text(encoding="utf-8")) | new
            target.write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
        elif file.name == "merges.txt":
            lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
            target.write_text("\n".join(lines + [" ".join(p) for p in pieces]) + "\n", encoding="utf-8")
        elif file.name != "tokenizer.model" and file.suffix != ".tiktoken":  # those hold the old words only
            target.write_bytes(file.read_bytes())
    if not (Path(c.out) / "tokenizer.json").exists():  # vocab.json does not say which tokens are special, nor how a text is cut
        (Path(c.out) / "added_tokens.json").write_text(json.dumps(old.added_tokens, ensure_ascii=False), encoding="utf-8")
        name = "GPT2Tokenizer" if old.pattern == GPT2_PATTERN else "Qwen2Tokenizer"
        config = json.dumps({"tokenizer_class": name} | old.config, ensure_ascii=False)
        (Path(c.out) / "tokenizer_config.json").write_text(config, encoding="utf-8")


# ---------------------------------------------------------------------- the weights

def grow(c, old, new, merges):
    """The model with a row for every new token in its embedding and in a head of its own; the other tensors byte for byte."""
    parts = [[k] for k in range(len(old.tokens))]
    for left, right in merges:
        parts.append(parts[left] + parts[right])
    ids = old.id_of or range(len(old.tokens))
    replaced = [torch.tensor([ids[rank] for rank in p]) for p in parts[len(old.tokens):]]  # old ids that a new token stands for
    stored, config = open_weights(c.model), read_config_fields(c.model)
    rows = max(config["vocab_size"], new.vocab_size)

    def tensors():
        for name, s in stored.items():
            tensor = s.read()
            if name in ("model.embed_tokens.weight", "lm_head.weight"):
                whole = torch.cat([tensor, tensor.new_zeros(rows - len(tensor), tensor.shape[1])])
                for k, pieces in enumerate(replaced):
                    whole[old.vocab_size + k] = tensor[pieces].float().mean(0).to(tensor.dtype)
                tensor = whole
            yield name, tensor

    dtype = next(iter(stored.values())).dtype
    write_config(c.out, config | {"vocab_size": rows}, dtype, like=c.model, tokenizer=c.out)
    write_weights(c.out, tensors())


if __name__ == "__main__":
    try:
        main()
    except ValueError as e:
        sys.exit(f"ValueError: {e}")

"""Our tokenizers beside the tokenizers package, with the same vocabulary."""
import json
import os
import tempfile
from pathlib import Path

import tokenizer
from bench.timing import best_seconds, row
from tinyworld.__main__ import main as write_tinyworld


def train_bpe(texts, size, folder):
    """Train a byte-level BPE of Qwen2's kind with the tokenizers package; it is saved in folder and returned."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    bpe = Tokenizer(models.BPE())
    bpe.normalizer, bpe.decoder = normalizers.NFC(), decoders.ByteLevel()
    words = pre_tokenizers.Split(Regex(tokenizer.QWEN2_PATTERN), "isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(False, use_regex=False)])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(texts, trainer)
    bpe.add_special_tokens([tokenizer.EOT])
    bpe.save(str(Path(folder) / "tokenizer.json"))
    return bpe


def tokenizing():
    """The lines of the tinyworld's web documents, one by one."""
    from tokenizers import Tokenizer
    with tempfile.TemporaryDirectory() as folder:
        write_tinyworld([f"out={folder}/raw"])
        files = sorted(Path(folder, "raw").glob("web/*.jsonl"))
        texts = [json.loads(line)["text"] for file in files for line in file.open(encoding="utf-8")]
        lines = [line for text in texts for line in text.split("\n") if line]
        megabytes = sum(len(line.encode()) for line in lines) / 1e6
        tokenizer.train(lines, 8192, f"{folder}/sentencepiece")
        os.mkdir(f"{folder}/bpe")
        peers = {"bpe": train_bpe(lines, 16000, f"{folder}/bpe"),
                 "sentencepiece": Tokenizer.from_file(f"{folder}/sentencepiece/tokenizer.json")}
        for name, theirs in peers.items():
            ours = tokenizer.load(f"{folder}/{name}")

            def our_ids(ours=ours):
                return [ours.encode(line) for line in lines]

            def their_ids(theirs=theirs):
                return [theirs.encode(line, add_special_tokens=False).ids for line in lines]

            different = sum(a != b for a, b in zip(our_ids(), their_ids()))
            mine, other = best_seconds([our_ids, their_ids])
            yield row(f"tokenize_{name}", f"{len(lines)} lines in 29 languages, {different} with other ids",
                      megabytes / mine, megabytes / other, unit="MB/s", of="tokenizers")

"""Bits per byte on the held-out sentences of own/test: one line per language."""
from pathlib import Path as _Path

data, out = "own/test", "out/own/results.jsonl"
languages = sorted(_p.stem for _p in _Path(data).glob("*.txt"))
tasks = [dict(name="flores", kind="bpb", path="{lang}.txt", join=8)]

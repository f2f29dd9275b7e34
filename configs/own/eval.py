"""Bits per byte of the sentences in own/test; chrF++ into and out of English for those in own/flores."""
from pathlib import Path as _Path

from configs.own.data import language_names

data, out = "own", "out/own/results.jsonl"
languages = sorted(_p.stem for _p in _Path(data, "test").glob("*.txt"))
_flores = sorted(_p.stem for _p in _Path(data, "flores").glob("*.txt") if _p.stem in language_names)
tasks = [dict(name="flores", kind="bpb", path="test/{lang}.txt", join=8)]
if "en" in _flores and len(_flores) > 1:
    tasks += [dict(name="translation", kind="translate", path="flores/{lang}.txt", limit=50, max_new_tokens=160,
                   prompt="Translate the text from {src} to {tgt}.\n{src} text: {x}\n{tgt} text:",
                   pairs=[_pair for _k in _flores if _k != "en" for _pair in (f"en-{_k}", f"{_k}-en")])]

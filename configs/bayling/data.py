"""BayLing 2's instruction set as token shards, in the template of its 7 B and 13 B models: loss on the answers only.

    python recipes/bayling_data.py ... out=raw/bayling
    python prepare.py configs/bayling/data.py tokenizer=/models/Llama-2-7b-hf
"""
from pathlib import Path as _Path

raw, out = "raw/bayling", "tokens/bayling-llama2"
tokenizer = "models/Llama-2-7b-hf"
template = "bayling"  # "### Instruction:" and "### Response:"; an answer ends with </s>
language_names = {}
sources = [dict(name=f"chat-{_k}", path=f"chat/{_k}.jsonl", category=_k, language=_k, kind="chat")
           for _k in ("en", "zh")]
for _p in sorted(_Path(raw, "crosslingual").glob("*.jsonl")):
    _a, _b = _p.stem.split("-")
    _language = _b if _a in ("en", "zh") else _a  # a language's four directions share its part of the mixture
    sources.append(dict(name=f"crosslingual-{_p.stem}", path=f"crosslingual/{_p.name}", category="crosslingual",
                        language=_language, kind="chat"))
valid_fraction = 0.0

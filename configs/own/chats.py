"""Your own instructions, one file per language: own/chat/kk.jsonl, {"messages": [{"role", "content"}, ...]} per line.

    python prepare.py configs/own/chats.py tokenizer=models/SmolLM2-135M-Instruct
"""
from pathlib import Path as _Path

from configs.own.data import language_names

raw, out = "own", "out/own/chats"
tokenizer, template = "tinyworld/base", None
sources = [dict(name=f"chat-{_p.stem}", path=f"chat/{_p.name}", category="chat", language=_p.stem, kind="chat")
           for _p in sorted(_Path(raw, "chat").glob("*.jsonl")) if _p.stem in language_names]
langid = False

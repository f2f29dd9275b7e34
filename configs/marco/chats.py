"""Chats and preference pairs for Marco-LLM's third and fourth stage, in whatever files you have; see corpus/chat.py for their shapes.

    python prepare.py configs/marco/chats.py raw=/data/raw out=/data/chats tokenizer=/models/Qwen2-7B

raw/chat/kk/* (Aya, translated Alpaca, ShareGPT ...) and raw/preferences/en/*.csv, the LMSYS arena's 55k human preferences, which the
paper links; raw/preferences/kk/* are their extension to the other languages by recipes/extend_preferences.py. Qwen2's tokenizer
brings ChatML. The paper names neither the sets of its chats nor their sizes: delete the lines of what you do not have.
"""
from configs import language_table

raw, out = "raw", "chats"
tokenizer = "models/Qwen2-7B"
language_names = language_table.NAMES
sources = [dict(name=f"chat-{k}", path=f"chat/{k}/*", category="chat", language=k, kind="chat") for k in language_names]
sources += [dict(name=f"preferences-{k}", path=f"preferences/{k}/*", category="preferences", language=k, kind="preference") for k in language_names]
valid_fraction = 0.005

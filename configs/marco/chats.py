"""Chats and preference pairs for Marco-LLM's SFT and DPO stages, in any of the shapes of corpus/chat.py.

    python prepare.py configs/marco/chats.py raw=/data/raw out=/data/chats tokenizer=/models/Qwen2-7B

raw/chat/kk/* holds chats (Aya, translated Alpaca, ShareGPT ...). raw/preferences/en/*.csv holds the LMSYS arena's 55k
human preferences, which the paper links; raw/preferences/kk/* holds their extension to another language by
recipes/extend_preferences.py. Qwen2's tokenizer brings ChatML. The paper names neither its chat datasets nor their
sizes: delete the lines you have no data for.
"""
from configs import language_table

raw, out = "raw", "chats"
tokenizer = "models/Qwen2-7B"
language_names = language_table.NAMES
sources = [dict(name=f"chat-{k}", path=f"chat/{k}/*", category="chat", language=k, kind="chat") for k in language_names]
sources += [dict(name=f"preferences-{k}", path=f"preferences/{k}/*", category="preferences", language=k,
                 kind="preference") for k in language_names]
valid_fraction = 0.005

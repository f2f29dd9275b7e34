"""The tinyworld's instructions and preference pairs, for the tokenizer of the tiny base, which gets a chat template."""
from configs import language_table

raw, out = "out/demo/raw", "out/demo/chats"
tokenizer, template = "out/demo/tokens/tokenizer", "chatml"
language_names = language_table.NAMES
_pairs = []
for _k in language_names:
    if _k not in ("en", "zh"):
        _pairs += [(_k, "en"), ("en", _k), (_k, "zh"), ("zh", _k)]
_pairs += [("en", "zh"), ("zh", "en")]
sources = [dict(name=f"chat-{k}", path=f"chat/{k}.jsonl", category="chat", language=k, kind="chat")
           for k in language_table.HIGH]
sources += [dict(name=f"crosslingual-{a}-{b}", path=f"crosslingual/{a}-{b}.jsonl", category="crosslingual",
                 language=f"{a}-{b}", kind="chat") for a, b in _pairs]
sources += [dict(name=f"preferences-{k}", path=f"preferences/{k}.jsonl", category="preferences", language=k,
                 kind="preference") for k in language_names]
valid_fraction = 0.06

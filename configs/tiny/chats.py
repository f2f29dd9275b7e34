"""The tinyworld's instructions and preference pairs, for the tokenizer of the tiny base, which gets a chat template."""
from configs import language_table

raw, out = "out/demo/raw", "out/demo/chats"
tokenizer, template = "out/demo/tokens/tokenizer", "chatml"
language_names = language_table.NAMES
_low = [_k for _k in language_names if _k not in ("en", "zh")]
_star = [_pair for _k in _low for _pivot in ("en", "zh") for _pair in ((_k, _pivot), (_pivot, _k))]
_star += [("en", "zh"), ("zh", "en")]
sources = [dict(name=f"chat-{k}", path=f"chat/{k}.jsonl", category="chat", language=k, kind="chat")
           for k in language_table.HIGH]
sources += [dict(name=f"crosslingual-{a}-{b}", path=f"crosslingual/{a}-{b}.jsonl", category="crosslingual",
                 language=f"{a}-{b}", kind="chat") for a, b in _star]
sources += [dict(name=f"preferences-{k}", path=f"preferences/{k}.jsonl", category="preferences", language=k,
                 kind="preference") for k in language_names]
valid_fraction = 0.06

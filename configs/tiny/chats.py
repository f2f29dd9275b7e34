"""The tinyworld's instructions and preference pairs; the base's tokenizer gets a chat template."""
from configs import demo_languages as _demo
from configs import language_table

raw, out = "out/demo/raw", "out/demo/chats"
tokenizer, template = "tinyworld/base", "chatml"
language_names = {_code: language_table.NAMES[_code] for _code in _demo.chosen()}
_pivots = [_code for _code in ("en", "zh") if _code in language_names]
# as in BayLing 2: every language paired with both pivots, in both directions
_star = [_pair for _code in language_names for _pivot in _pivots if _code not in ("en", _pivot)
         for _pair in ((_code, _pivot), (_pivot, _code))]
sources = [dict(name=f"chat-{k}", path=f"chat/{k}.jsonl", category="chat", language=k, kind="chat")
           for k in language_names]
sources += [dict(name=f"crosslingual-{a}-{b}", path=f"crosslingual/{a}-{b}.jsonl", category="crosslingual",
                 language=f"{a}-{b}", kind="chat") for a, b in _star]
sources += [dict(name=f"preferences-{k}", path=f"preferences/{k}.jsonl", category="preferences", language=k,
                 kind="preference") for k in language_names]
valid_fraction = 0.06

"""SDRRL at toy scale: the shipped base becomes an English chat model that uses whole sentences, then learns Italian,
Romanian and Ukrainian from its own answers. The control's answers, which came with the prompts, have three wordings.
Both models also replay English documents and sentence pairs like the base's; these shares were chosen on seed 7.
"""
from configs import language_table as _table
from configs.plug import tiny as _plug

out, init, template = "out/sdrrl", "tinyworld/base", "chatml"
targets = ["it", "ro", "uk"]
chats, chat_epochs = "sentences/{lang}.jsonl", 40.0
prompts, test = "instructions/{lang}.jsonl", "eval/aligned/{lang}.jsonl"
translations, lexicon, parallel = "translations/en-{lang}.jsonl", "lexicon/en-{lang}.tsv", "bitext/en-{lang}.tsv"
n_parallel, n_complete = 150, 50
max_new_tokens = 48

_codes = ["en", *targets]
world = _plug.world | dict(languages=_codes)
text = _plug.text | dict(sources=_plug._sources(_codes), language_names={_k: _table.NAMES[_k] for _k in _codes})
adapt = _plug.adapt | dict(tokens=300_000)
sft = _plug.sft | dict(lr=5e-4)
epochs = 5.0
replay = {"en": 0.15, "parallel": 0.2}
english = _plug.english

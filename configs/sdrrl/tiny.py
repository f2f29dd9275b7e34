"""SDRRL in small: the shipped base becomes an English chat model that answers in whole sentences, then learns Italian,
Ukrainian and Kazakh from its own answers. The answers that came with the prompts, the control's, have three wordings.
"""
from configs import language_table as _table
from configs.thresholds import SHORT as _SHORT

out, init, template = "out/sdrrl", "tinyworld/base", "chatml"
targets = ["it", "ro", "uk"]
chats, chat_epochs = "sentences/{lang}.jsonl", 40.0
prompts, test = "instructions/{lang}.jsonl", "eval/aligned/{lang}.jsonl"
translations, lexicon, parallel = "translations/en-{lang}.jsonl", "lexicon/en-{lang}.tsv", "bitext/en-{lang}.tsv"
n_parallel, n_complete = 150, 50
max_new_tokens = 48

_codes = ["en", *targets]
world = dict(languages=_codes, aligned=True, web={"en": 800, "low": 600}, pairs=1500, junk=0.0, noise=0.0, items=112,
             knowledge=0, synthetic=0, native=[], crosslingual=0, preferences=0, questions=0)
text = dict(
    sources=[dict(name=f"web-{_k}", path=f"web/{_k}.jsonl", category=_table.group(_k), language=_k) for _k in _codes]
    + [dict(name=f"bitext-en-{_k}", path=f"bitext/en-{_k}.tsv", category="parallel", language="en", target=_k)
       for _k in targets],
    language_names={_k: _table.NAMES[_k] for _k in _codes}, thresholds={"*": _SHORT}, near_dedup=False)
_train = dict(seq_len=256, batch_size=4, micro_batch_size=4, lr=1e-3, threads=1, log_every=50, eval_every=10_000,
              eval_tokens=1024, save_every=5000, max_epochs=200.0)
adapt = dict(_train, mixture={"low": 40, "parallel": 40, "en": 20}, tokens=300_000, warmup_ratio=0.03)
sft = dict(_train, warmup_ratio=0.05, lr=5e-4)
epochs = 5.0
english = dict(data="benchmarks", languages=["en"], labels="labels.json", tasks=[
    dict(name="facts", kind="choice", path="mmmlu/{lang}.csv", context="{question} {Question}\n{answer}",
         choices=["{A}", "{B}", "{C}", "{D}"], gold="Answer", first="A"),
    dict(name="heldout", kind="bpb", path="heldout/{lang}.jsonl")])

"""PLUG in small: the shipped base knows facts in English; asked in languages whose texts never state them."""
from configs import language_table as _table
from configs.thresholds import SHORT as _SHORT
from tinyworld.grammar import load_language as _language

out, init, template = "out/plug", "tinyworld/base", "chatml"
languages = ["it", "uk", "kk", "el"]
_all = ["en", *languages]
world = dict(languages=_all, native=["en"], aligned=True, web={"en": 800, "low": 600}, pairs=1500, junk=0.0, noise=0.0,
             knowledge=0, synthetic=0, chat={"en": 1}, crosslingual=0, preferences=0, questions=0)
text = dict(
    sources=[dict(name=f"web-{_k}", path=f"web/{_k}.jsonl", category=_table.group(_k), language=_k) for _k in _all]
    + [dict(name=f"bitext-en-{_k}", path=f"bitext/en-{_k}.tsv", category="parallel", language="en", target=_k)
       for _k in languages],
    language_names={_k: _table.NAMES[_k] for _k in _all}, thresholds={"*": _SHORT}, near_dedup=False)
adapt = dict(mixture={"low": 40, "parallel": 40, "en": 20}, tokens=400_000, seq_len=256, batch_size=4, micro_batch_size=4,
             lr=1e-3, warmup_ratio=0.03, threads=1, log_every=50, eval_every=10_000, eval_tokens=1024, save_every=5000,
             max_epochs=100.0)
rows, test = "aligned/{lang}.jsonl", "eval/aligned/{lang}.jsonl"
# the base's own words: it has read many questions with their answers
instruction_label = _language("en")["label"]["question"]
labels = {_k: _language(_k)["label"]["answer"] for _k in _all}
system = dict.fromkeys(("plug", "pivot_response", "direct"), "Answer in {target}.")
epochs = 10.0
replay = {"parallel": 0.2, "en": 0.05}
sft = dict(seq_len=256, batch_size=4, micro_batch_size=4, lr=1e-3, warmup_ratio=0.05, threads=1, log_every=50,
           eval_every=10_000, eval_tokens=1024, save_every=5000, max_epochs=100.0)
max_new_tokens = 96
english = dict(data="benchmarks", languages=["en"], labels="labels.json", tasks=[
    dict(name="facts", kind="choice", path="mmmlu/{lang}.csv", context="{question} {Question}\n{answer}",
         choices=["{A}", "{B}", "{C}", "{D}"], gold="Answer", first="A"),
    dict(name="heldout", kind="bpb", path="heldout/{lang}.jsonl")])

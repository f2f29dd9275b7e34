"""PLUG at toy scale, from the shipped base, which knows the facts of its world in English and Chinese.

Italian, Ukrainian, Kazakh and Greek texts describe eight of the 24 countries; the test questions are about the others.
"""
from configs import language_table as _table
from configs.thresholds import SHORT as _SHORT

out, init, template = "out/plug", "tinyworld/base", "chatml"
languages = ["it", "uk", "kk", "el"]
rows, test = "aligned/{lang}.jsonl", "eval/far/{lang}.jsonl"
# the labels of questions and answers in the base's training text; its vocabulary lacks most published ones
instruction_label = "Question:"
labels = {"en": "Answer:", "it": "Risposta:", "uk": "Відповідь:", "kk": "Жауап:", "el": "Απάντηση:"}
system = dict.fromkeys(("plug", "pivot_response", "direct"), "Answer in {target}.")
max_new_tokens = 96



def _sources(codes):
    """Web documents in all languages, and sentence pairs with English, the first of them."""
    web = [dict(name=f"web-{k}", path=f"web/{k}.jsonl", category=_table.group(k), language=k) for k in codes]
    return web + [dict(name=f"bitext-en-{k}", path=f"bitext/en-{k}.tsv", category="parallel", language="en", target=k)
                  for k in codes[1:]]


_codes = ["en", *languages]
world = dict(languages=_codes, aligned=True, web={"en": 800, "low": 600}, pairs=1500, junk=0.0, noise=0.0, items=112,
             knowledge=0, synthetic=0, native=[], crosslingual=0, preferences=0, questions=0)
text = dict(sources=_sources(_codes), language_names={_k: _table.NAMES[_k] for _k in _codes},
            thresholds={"*": _SHORT}, near_dedup=False)
_train = dict(seq_len=256, batch_size=4, micro_batch_size=4, lr=1e-3, threads=1, log_every=50, eval_every=10_000,
              eval_tokens=1024, save_every=5000, max_epochs=200.0)
adapt = dict(_train, mixture={"low": 40, "parallel": 40, "en": 20}, tokens=400_000, warmup_ratio=0.03)
sft = dict(_train, warmup_ratio=0.05)
epochs = 10.0
replay = {"parallel": 0.2, "en": 0.05}
english = dict(data="benchmarks", languages=["en"], labels="labels.json", tasks=[
    dict(name="facts", kind="choice", path="mmmlu/{lang}.csv", context="{question} {Question}\n{answer}",
         choices=["{A}", "{B}", "{C}", "{D}"], gold="Answer", first="A"),
    dict(name="heldout", kind="bpb", path="heldout/{lang}.jsonl")])

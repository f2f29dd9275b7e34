"""The tinyworld's benchmarks: files in the published formats of FLORES, Belebele, XCOPA and MMMLU."""
from configs import demo_languages as _demo

data, out = "out/demo/raw/benchmarks", "out/demo/results.jsonl"
languages = _demo.chosen()
labels = "labels.json"  # prompt words ("question", "answer" ...) by language
_question = "{question} {Question}\n{answer}"
_facts = dict(kind="choice", path="mmmlu/{lang}.csv", context=_question, choices=["{A}", "{B}", "{C}", "{D}"],
              gold="Answer", first="A")
tasks = [
    dict(name="heldout", kind="bpb", path="heldout/{lang}.jsonl"),
    dict(name="flores", kind="bpb", path="flores/{lang}.txt", join=8),
    dict(name="belebele", kind="choice", path="belebele/{lang}.jsonl", gold="correct_answer_num", first=1,
         context="{flores_passage}\n{ask} {question}\n{answer}",
         choices=["{mc_answer1}", "{mc_answer2}", "{mc_answer3}", "{mc_answer4}"]),
    dict(name="xcopa", kind="choice", path="xcopa/{lang}.jsonl", gold="label", link="question",
         context="{premise} {link}", choices=["{choice1}", "{choice2}"]),
    dict(_facts, name="mmmlu_unstated", where={"Subject": "unstated"}),  # in no document of a low-resource language
    dict(_facts, name="mmmlu_stated", where={"Subject": "stated"}),
    dict(name="translation", kind="translate", path="flores/{lang}.txt", limit=24, max_new_tokens=40,
         prompt="Translate the text from {src} to {tgt}.\n{src} text: {x}\n{tgt} text:",
         pairs=[f"en-{k}" for k in languages if k != "en"] + [f"{k}-en" for k in languages if k != "en"]),
]

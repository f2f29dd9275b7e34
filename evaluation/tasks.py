"""The benchmarks, as data: each row says which file, which prompt, what is right, and how Marco-LLM and lm-eval measure it.

    tasks("paper")["xcopa_zh"], tasks("lm-eval")["mmlu_anatomy"]      # names are lm-evaluation-harness's

A task is a dict; eval.py knows its kinds and no benchmark's name. Of one row (a dict of the file's columns):

    context(row)    the prompt, or one prompt for each choice      choices(row)   continuations, without the delimiter
    gold(row)       index of the right choice, several, or a letter; the answers of a generated text
    keep(row)       whether the row belongs to the task            prepare(row)   a row in the shape the others expect

Where the file lies: in one of the folders `folder` below data=, its path holding each of `words` and a word for the split (see
rows.find). `pool` is the split of the shots, `draw` how they are chosen: the first ones, or random ones (see documents.draw).
"""
import ast
import re

from evaluation import task_names as names
from configs import language_table

# Table 4: XCOPA and XStoryCloze in the languages that are among the paper's 29, Belebele in all of those but English
PAPER = """
    ceval agieval arc_challenge mmlu m_mmlu tydiqa flores_en-xx flores_xx-en wmt16 xcopa_id xcopa_it xcopa_th xcopa_tr xcopa_vi
    xcopa_zh xstorycloze_ar xstorycloze_en xstorycloze_es xstorycloze_id xstorycloze_ru xstorycloze_zh
""".split() + [f"belebele_{code}" for lang, code in names.FLORES.items() if lang != "en"]


def tasks(preset):
    """{name: task} of a preset: "paper" (Marco-LLM's splits and shots) or "lm-eval" (the harness's)."""
    if preset not in ("paper", "lm-eval"):
        raise ValueError(f"preset is {preset!r}; the presets are paper and lm-eval")
    made = [task for family in (choice_sets, exams, agieval, generated, translations, chats) for task in family(preset)]
    return {task["name"]: task for task in made}


def task(name, preset, groups, lang, source, lm_eval=("test", 0), paper=None, **fields):
    """One row. lm_eval, paper: (split, shots); paper None: not a set of the paper, measured as lm-eval does."""
    split, shots = lm_eval if preset == "lm-eval" or paper is None else paper
    groups = (groups,) if isinstance(groups, str) else groups
    return dict(kind="choice", words=(), delimiter=" ", description="", metrics=("acc",), draw="first", columns=None,
                pool=split,
                keep=None, prepare=None) | fields | dict(name=name, groups=groups, lang=lang, source=source, split=split,
                                                         shots=shots)


NUMBER = "\0"  # stands for the number of a question: the shots that fit, plus one


def lettered(question, options, answer="Answer:", last="\nD. "):
    """A question, its four options by letter, and the word before the answer."""
    a, b, c, d = options
    return f"{question.strip()}\nA. {a}\nB. {b}\nC. {c}{last}{d}\n{answer}"


def lower(text):
    return text[:1].lower() + text[1:]


LETTERS = dict(choices=lambda r: list("ABCD"))


# ---------------------------------------------------------------------- choices of several words

def choice_sets(preset):
    for lang, (because, therefore) in names.XCOPA.items():
        link = {"cause": because, "effect": therefore}
        yield task(f"xcopa_{lang}", preset, ("xcopa",), lang, "cambridgeltl/xcopa", paper=("val", 5), folder=("xcopa",),
                   words=(lang,), pool="val", draw="random", gold=lambda r: r["label"],
                   context=lambda r, link=link: f"{r['premise'].strip()[:-1]} {link[r['question']]}",
                   # whatever the last character is
                   choices=lambda r: [lower(r["choice1"]), lower(r["choice2"])])
    for code in names.BELEBELE:
        yield task(f"belebele_{code}", preset, "belebele", code, "facebook/belebele", paper=("test", 1), folder=("belebele",),
                   words=(code,), metrics=("acc", "acc_norm"), gold=lambda r: int(r["correct_answer_num"]) - 1, **LETTERS,
                   context=lambda r: f"P: {r['flores_passage']}\nQ: {r['question'].strip()}\nA: {r['mc_answer1']}\n"
                                     f"B: {r['mc_answer2']}\nC: {r['mc_answer3']}\nD: {r['mc_answer4']}\nAnswer:")
    for lang in "ar en es eu hi id my ru sw te zh".split():
        yield task(f"xstorycloze_{lang}", preset, "xstorycloze", lang, "juletxara/xstory_cloze", ("eval", 0), ("eval", 5),
                   folder=("xstorycloze", "xstory_cloze"), words=(lang,), pool="train", draw="random",
                   context=lambda r: " ".join(r[f"input_sentence_{i}"] for i in range(1, 5)),
                   choices=lambda r: [r["sentence_quiz1"], r["sentence_quiz2"]],
                   gold=lambda r: int(r["answer_right_ending"]) - 1)
    for name in ("challenge", "easy"):
        yield task(f"arc_{name}", preset, "arc", "en", "allenai/ai2_arc", paper=("test", 25), folder=("arc", "ai2_arc"),
                   words=(name,), pool="train", draw="random", metrics=("acc", "acc_norm"), prepare=arc,
                   context=lambda r: f"Question: {r['question']}\nAnswer:", choices=lambda r: list(r["choices"]["text"]),
                   gold=lambda r: list(r["choices"]["label"]).index(r["answerKey"]))
    for lang in names.M_ARC:
        yield task(f"arc_{lang}", preset, "m_arc", lang, "alexandrainst/m_arc", folder=("m_arc", "arc_multilingual"),
                   words=(lang,),
                   pool="train", draw="random", metrics=("acc", "acc_norm"), gold=lambda r: "ABCDE".index(r["answer"]),
                   context=lambda r: f"Question: {tidy(r['instruction'])}\nAnswer:",
                   choices=lambda r: [tidy(r[f"option_{k}"]) for k in "abcde" if r.get(f"option_{k}")])
    story = dict(metrics=("acc", "acc_norm"), gold=lambda r: r["label"],
                 choices=lambda r: [tidy(x) for x in listed(r["endings"])],
                 context=lambda r: tidy(f"{r['activity_label']}: {r['ctx_a']} {r['ctx_b'].capitalize()}"), draw="random")
    yield task("hellaswag", preset, "hellaswag", "en", "Rowan/hellaswag", ("val", 0), folder=("hellaswag",), pool="train",
               **story)
    for lang in names.M_HELLASWAG:
        yield task(f"hellaswag_{lang}", preset, "m_hellaswag", lang, "alexandrainst/m_hellaswag", ("val", 0),
                   folder=("m_hellaswag", "hellaswag_multilingual"), words=(lang,), **story)
    for lang, (right, yes, also, no) in names.XNLI.items():
        yield task(f"xnli_{lang}", preset, "xnli", lang, "facebook/xnli", ("val", 0), folder=("xnli",), words=(lang,),
                   pool="train",
                   draw="random", context=lambda r: "", gold=lambda r: r["label"], choices=lambda r, right=right,
                   w=(yes, also, no):
                   [f"{r['premise']}, {right}? {x}, {r['hypothesis']}" for x in w])
    for lang, (right, no, yes) in names.PAWSX.items():
        european = lang in ("de", "en", "es", "fr")
        yield task(f"paws_{lang}", preset, "pawsx", lang, "google-research-datasets/paws-x",
                   folder=("paws-x", "pawsx", "paws_x"),
                   words=(lang,), pool="train", draw="random", delimiter="", context=lambda r: "", gold=lambda r: r["label"],
                   keep=(lambda r: bool(r["sentence1"] and r["sentence2"])) if european else None,
                   prepare=paraphrase if european else None, choices=lambda r, right=right, w=(no, yes):
                   [f"{r['sentence1']}, {right}? {x}, {r['sentence2']}" for x in w])
    blank = dict(draw="random", gold=lambda r: int(r["answer"]) - 1,
                 context=lambda r: [r["sentence"].split("_", 1)[0] + r[option] for option in ("option1", "option2")],
                 choices=lambda r: [r["sentence"].split("_", 1)[1].strip()] * 2)
    for lang in "en fr jp pt ru zh".split():
        yield task(f"xwinograd_{lang}", preset, "xwinograd", lang, "Muennighoff/xwinograd", folder=("xwinograd",),
                   words=(lang,), **blank)
    yield task("winogrande", preset, "winogrande", "en", "allenai/winogrande", ("val", 0), folder=("winogrande",),
               pool="train", **blank)
    topics = "science/technology travel politics sports health entertainment geography".split()  # SIB-200's order of labels
    for code in sorted(set(names.BELEBELE) | set(names.FLORES.values())):
        yield task(f"sib200_{code}", preset, "sib200", code, "Davlan/sib200", folder=("sib200", "sib200-flores", "sib-200"),
                   words=(code,), pool="train", metrics=("acc", "acc_norm"), choices=lambda r: topics,
                   gold=lambda r: topics.index(r["category"]), context=lambda r: f"{r['text']}\nTopic:")


def tidy(text):
    """HellaSwag's clean-up of WikiHow's marks; two blanks become one in a single pass."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def listed(value):
    """A list, also when a CSV spells it: ['a', 'b'], or as numpy prints it, ['a' 'b']."""
    if not isinstance(value, str):
        return list(value)
    found = ast.literal_eval(re.sub(r"(?<=['\"])\s*\n?\s+(?=['\"])", ", ", value))
    if not isinstance(found, list):
        raise ValueError(f"{value!r} is no list")
    return found


def arc(row):
    """ARC's rows as Hugging Face has them, from those of AI2's own jsonl."""
    if "stem" not in (row["question"] if isinstance(row["question"], dict) else ()):
        return row | {"choices": ast.literal_eval(row["choices"])} if isinstance(row["choices"], str) else row
    options = row["question"]["choices"]
    return row | {"question": row["question"]["stem"],
                  "choices": {"text": [o["text"] for o in options], "label": [o["label"] for o in options]}}


def paraphrase(row):
    """PAWS-X's sentences without the tokenizer's blanks: "Ja, " follows the first, so it ends open; the second goes on small."""
    one, two = (re.sub(r" (['.,])", r"\1", s.replace(" n't", "n't").replace(" )", ")").replace("( ", "(").replace('" ', '"')
                       .replace(' "', '"')).strip() for s in (row["sentence1"], row["sentence2"]))
    return row | {"sentence1": one[:-1] if one.endswith((".", ",", ";")) else one, "sentence2": lower(two)}


# ---------------------------------------------------------------------- exams with lettered options

def exams(preset):
    subjects = {subject: group for group, some in names.MMLU.items() for subject in some}
    about = "The following are multiple choice questions (with answers) about {}.\n\n"
    for subject, group in subjects.items():
        yield task(f"mmlu_{subject}", preset, ("mmlu", f"mmlu_{group}"), "en", "cais/mmlu", paper=("test", 5), words=(subject,),
                   folder=("mmlu", "mmlu-redux"), pool="dev", prepare=mmlu, columns=("question", "A", "B", "C", "D", "answer"),
                   description=about.format(subject.replace("_", " ")), gold=lambda r: r["answer"], **LETTERS,
                   context=lambda r: lettered(r["question"], r["choices"]))
    for place, language in names.MMMLU.items():
        for subject in subjects:
            yield task(f"mmmlu_{place}_{subject}", preset, ("mmmlu", f"mmmlu_{place}"), place[:2], "openai/MMMLU",
                       paper=("test", 0),
                       folder=("mmmlu", "MMMLU"), words=(place.replace("_", "-") + "|" + place,), metrics=("acc", "acc_norm"),
                       description=about.format(f"{subject.replace('_', ' ')} ({language})"), gold=lambda r: r["Answer"],
                       **LETTERS,
                       keep=lambda r, subject=subject: re.split(r"_test[.-]", r["Subject"])[0].replace(" ", "_") == subject,
                       context=lambda r: lettered(r["Question"], (r["A"], r["B"], r["C"], r["D"])))
    options = lambda r: [r[f"option_{k}"] for k in "abcd"]
    for lang in names.M_MMLU:
        yield task(f"m_mmlu_{lang}", preset, "m_mmlu", lang, "alexandrainst/m_mmlu", paper=("val", 5),
                   folder=("m_mmlu", "x-mmlu"),
                   words=(lang,), pool="train", gold=lambda r: r["answer"], **LETTERS,
                   context=lambda r: lettered(r["instruction"], options(r)))
    some = dict(pool="dev", gold=lambda r: r["answer"], **LETTERS, context=lambda r: lettered(r["question"], options(r)))
    for lang in names.GLOBAL_MMLU:
        for subject, group in subjects.items():
            yield task(f"global_mmlu_full_{lang}_{subject}", preset, ("global_mmlu_full", f"global_mmlu_full_{lang}"), lang,
                       "CohereForAI/Global-MMLU", folder=("global-mmlu", "global_mmlu", "Global-MMLU"), words=(lang,),
                       keep=lambda r, subject=subject: r["subject"] == subject, **some)
    for lang in names.GLOBAL_MMLU_LITE:
        for category in ("Business", "Humanities", "Medical", "Other", "STEM", "Social Sciences"):
            yield task(f"global_mmlu_{lang}_{category.lower().replace(' ', '_')}", preset,
                       ("global_mmlu", f"global_mmlu_{lang}"), lang,
                       "CohereLabs/Global-MMLU-Lite", folder=("global-mmlu-lite", "global_mmlu_lite", "Global-MMLU-Lite"),
                       words=(lang,), draw="random", keep=lambda r, x=category: r["subject_category"] == x, **some)
    for language in names.INCLUDE_LANGUAGES:
        for domain, title in names.INCLUDE.items():
            low = language.lower()
            yield task(f"include_base_44_{low}_{domain}", preset, ("include", f"include_base_44_{low}"), low,
                       "CohereForAI/include-base-44", folder=("include", "include-base-44"), words=(language + "|" + low,),
                       keep=lambda r, title=title: r["domain"].lower() == title.lower(), gold=lambda r: r["answer"], **LETTERS,
                       description=f"The following is multiple-choice question about {title}.",  # lm-eval's: no line break
                       context=lambda r: lettered(r["question"], options(r), last="\n D. "))  # and a blank before D
    chinese = dict(pool="dev", metrics=("acc", "acc_norm"), **LETTERS)
    for subject, name in names.CEVAL.items():
        group = next((g for g, some in names.CEVAL_GROUPS.items() if subject in some), "other")
        yield task(f"ceval-valid_{subject}", preset, ("ceval", f"ceval_{group}"), "zh", "ceval/ceval-exam", ("val", 0),
                   ("val", 5),
                   folder=("ceval", "ceval-exam"), words=(subject,), **chinese, gold=lambda r: r["answer"],
                   description=f"以下是中国关于{name}的单项选择题，请选出其中的正确答案。\n\n",
                   context=lambda r: lettered(r["question"], (r["A"], r["B"], r["C"], r["D"]), "答案："))
    for subject, name in names.CMMLU.items():
        yield task(f"cmmlu_{subject}", preset, "cmmlu", "zh", "haonan-li/cmmlu", folder=("cmmlu",), words=(subject,), **chinese,
                   gold=lambda r: r["Answer"], description=f"以下是关于{name}的单项选择题，请直接给出正确答案的选项。\n\n",
                   context=lambda r: lettered(r["Question"], (r["A"], r["B"], r["C"], r["D"]), "答案："))


def mmlu(row):
    """A row with `choices`: a list, a list a CSV has spelt, or columns A to D as in the original files."""
    return row | {"choices": listed(row["choices"]) if "choices" in row else [row[k] for k in "ABCD"]}


# ---------------------------------------------------------------------- AGIEval

ENGLISH = "lsat-ar lsat-lr lsat-rc logiqa-en sat-math sat-en sat-en-without-passage aqua-rat gaokao-english".split()
CHINESE = """logiqa-zh jec-qa-kd jec-qa-ca gaokao-chinese gaokao-geography gaokao-history gaokao-biology gaokao-chemistry
             gaokao-physics gaokao-mathqa""".split()


def agieval(preset):
    """The 18 choice and 2 cloze sets (and sat-en without its passage). lm-eval has no shots; the paper has the set's own."""
    for name in (*ENGLISH, *CHINESE, "math", "gaokao-mathcloze"):
        english, cloze = name in ENGLISH or name == "math", name in ("math", "gaokao-mathcloze")
        groups = ("agieval", "agieval_en" if english else "agieval_zh",
                  *(["agieval_gaokao"] if name.startswith("gaokao") else ()))
        common = dict(folder=("agieval", "agieval-" + name), words=(f"={name}|=agieval-{name}",), preset=preset, groups=groups,
                      lang="en" if english else "zh", pool=None,
                      source="ruixiangcui/AGIEval on GitHub, data/v1, or hails/agieval-" + name, paper=("test", 5),
                      prepare=exam_row, demonstrations=name.replace("-without-passage", ""), english=english)
        passage = (lambda r: "") if name == "sat-en-without-passage" else lambda r: r.get("passage") or ""
        if preset == "paper":  # AGIEval's layout
            head, ask, say = ("Problem", "Choose from the following options:", "The answer is therefore") if english else \
                ("问题", "从以下选项中选择:", "答案是")
            context = (lambda r, h=head, s=say: f"{h} {NUMBER}.   {r['question']}\n{s}") if cloze else \
                lambda r, h=head, a=ask, s=say, p=passage: (f"{h} {NUMBER}.   {p(r)} {r['question']}\n"
                                                            f"{a}    {' '.join(r['options'])}\n{s}")
        elif cloze:
            context = lambda r, e=english: r.get("query") or (
                f"Q: {r['question']}\nA: The answer is" if e else f"问题：{r['question']}\n答案：")
        else:
            context = lambda r, e=english, p=passage: r.get("query") or (
                f"{p(r)}Q: {r['question']} Answer Choices: {' '.join(r['options'])}\n"
                f"A: Among A through {last(r, 5)}, the answer is" if e
                else f"{p(r)}问题：{r['question']} 选项：{' '.join(r['options'])}\n答案：从A到{last(r, 4)}, 我们应选择")
        if cloze:
            yield task(f"agieval_{name.replace('-', '_')}", **common, kind="generate", context=context, stop=["\n"]
                       if preset == "paper" else ["Q:"], max_new=32, metrics=("math",), gold=lambda r: [r["answer"]])
        else:
            letters = preset == "paper"
            yield task(f"agieval_{name.replace('-', '_')}", **common, context=context, metrics=("acc", "acc_norm"),
                       choices=lambda r, letters=letters: list("ABCDEFG"[:len(r["options"])]) if letters else r["options"],
                       gold=lambda r: r["gold"] if "gold" in r else ["ABCDEFG".index(x) for x in r["label"]])


def exam_row(row):
    """A row of the original files, or of Hugging Face's with query, choices and gold."""
    row = row | {k: listed(row[k]) for k in ("choices", "gold") if isinstance(row.get(k), str)}
    return row | {"options": row.get("options") or row.get("choices")}


def last(row, alone):
    """The letter of the last option; a single option stands for `alone` of them, as in AGIEval's own program."""
    return "ABCDEFG"[(alone if len(row["options"]) == 1 else len(row["options"])) - 1]


# ---------------------------------------------------------------------- texts

def generated(preset):
    """Question answering and mathematics. TyDiQA-GoldP in the paper's preset is scored by SQuAD's rules as XTREME does, in
    lm-eval's by its own, which know Arabic articles and the punctuation of all scripts."""
    answers = lambda r: listed(r["answers"]["text"]) if isinstance(r["answers"],
                                                                   dict) else [a["text"] for a in listed(r["answers"])]
    full = dict(ar="arabic", bn="bengali", en="english", fi="finnish", id="indonesian", ko="korean", ru="russian",
                sw="swahili", te="telugu")
    for lang, (c, q, a) in names.TYDIQA.items():
        yield task(f"tydiqa_goldp_{lang}", preset, "tydiqa", lang, "google-research-datasets/tydiqa, secondary_task",
                   ("val", 0),
                   ("val", 1), folder=("tydiqa-goldp", "tydiqa_goldp", "tydiqa/secondary_task"), words=(f"{lang}|{full[lang]}|",),
                   pool="train", draw="random", spare=False, kind="generate", stop=["\n"],
                   max_new=256 if preset == "lm-eval" else 50, gold=answers,
                   metrics=("qa_tydi",) if preset == "lm-eval" else ("qa",),
                   keep=lambda r, full=full[lang]: r["id"].startswith(full) or not r["id"].split("-")[0].isalpha(),
                   context=lambda r, c=c, q=q, a=a: f"{c} {r['context']}\n\n{q} {r['question']}\n\n{a}")
    for lang, (c, q, a) in names.XQUAD.items():
        yield task(f"xquad_{lang}", preset, "xquad", lang, "google/xquad", ("val", 0), folder=("xquad",), words=(lang,),
                   kind="generate",
                   draw="random", stop=["\n"], max_new=256, metrics=("qa",), gold=answers,
                   context=lambda r, c=c, q=q, a=a: f"{c} {r['context']}\n\n{q} {r['question']}\n\n{a}")
    for lang, (question, answer, stop) in names.MGSM.items():
        yield task(f"mgsm_direct_{lang}", preset, "mgsm", lang, "juletxara/mgsm", folder=("mgsm",), words=(lang,),
                   kind="generate",
                   pool="train", draw="random", delimiter="", columns=("question", "answer_number"), metrics=("number",),
                   stop=[stop, "</s>", "<|im_end|>"], max_new=256, gold=lambda r: [str(r["answer_number"])],
                   context=lambda r, q=question, a=answer: ("" if r.get("answer") else q) + f"{r['question']}\n{a}")


def translations(preset):
    """FLORES-200 between all of the paper's languages (its groups: en to xx, xx to en, the 42 pairs of Table 12) and WMT16."""
    for a in names.FLORES:
        for b in (b for b in names.FLORES if b != a):
            way = "en-xx" if a == "en" else "xx-en" if b == "en" else "xx-xx"
            groups = (f"flores_{way}", *(["flores_table12"] if f"{a}-{b}" in names.TABLE12 else ()))
            yield task(f"flores_{a}-{b}", preset, groups, f"{a}-{b}", "openlanguagedata/flores_plus", ("devtest", 0),
                       ("devtest", 1),
                       kind="translate", folder=("flores", "flores_plus", "flores200", "flores200_dataset", "sib200-flores"),
                       pool="dev",
                       draw="random", delimiter="", stop=["\n"], max_new=256, sides=(names.FLORES[a], names.FLORES[b]),
                       context=lambda r, x=language_table.NAMES[a], y=language_table.NAMES[b]: f"{x} sentence: {r['source']}\n{y} sentence:",
                       gold=lambda r: [r["target"]])
    for a, b, pair in (("de", "en", "de-en"), ("en", "de", "de-en"), ("ro", "en", "ro-en"), ("en", "ro", "ro-en")):
        x, y = ({"de": "German", "en": "English", "ro": "Romanian"}[k] for k in (a, b))
        yield task(f"wmt16-{a}-{b}", preset, "wmt16", f"{a}-{b}", "wmt/wmt16", paper=("test", 1), kind="translate",
                   folder=("wmt16",),
                   words=(f"{pair}|{a}-{b}",), pool="val", draw="random", delimiter=" ", stop=["\n"], max_new=256,
                   context=lambda r, a=a, x=x, y=y: f"{x} phrase: {sides(r)[a]}\n{y} phrase:", gold=lambda r,
                   b=b: [sides(r)[b]])


def sides(row):
    """{language: text} of a row of parallel text."""
    return row.get("translation", row)


def chats(preset):
    """Prompts whose answers a judge reads: MT-bench, also translated (one file per language), and Marco-Bench-MIF."""
    yield task("mt_bench", preset, "mt_bench", "en", "lm-sys/FastChat, llm_judge/data/mt_bench/question.jsonl", kind="chat",
               folder=("mt-bench", "mt_bench"), words=("question",), max_new=1024)
    for lang in language_table.MARCO:
        yield task(f"mt_bench_{lang}", preset, "m_mt_bench", lang, "a translation of MT-bench's question.jsonl", kind="chat",
                   folder=("m-mt-bench", "mt-bench", "mt_bench"), words=(lang,), max_new=1024)
    for lang in ("ar_local", "de", "en", "ja", "zh_local"):
        yield task(f"marco_bench_mif_{lang}", preset, "marco_bench_mif", lang[:2], "AIDC-AI/Marco-LLM, Marco-Bench-MIF/data",
                   kind="chat",
                   folder=("marco-bench-mif",), words=(lang,), max_new=1024)

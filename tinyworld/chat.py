"""Instructions on the tinyworld, in no language yet, and how any language says them and replies to them.

A task is a dict that JSON can hold; prompt() and reply() put it into words, judge.py scores answers to it:

    {"task": "answer", "message", "told", "form"}    a question; told is said before it; form "brief" or "full" or None
    {"task": "refuse", "message"}                     a question on a person of whom nothing was told: there is no answer
    {"task": "rewrite", "message"}                    a question and its short answer, to be made one sentence
    {"task": "headline", "title", "told"}             the shortest summary: what all sentences of a text are about
    {"task": "list", "class", "items", "more"}        so many of a kind; more: others than in the turn before
    {"task": "reason", "key", "slots", "ask"}         "why": the cause of an effect; "then": the effect of a cause
    {"task": "translate", "message", "own"}           into one's own language, or out of it into the pivot

What the evaluation asks is never in the training instructions (split()): a third of the facts and of the lists, a quarter of the
causes, a fifth of what can be said of persons and cities, and every sentence reserved for translation tests.
"""
import random
import zlib

from configs import language_table
from tinyworld import world as w
from tinyworld.grammar import ASKS, SLOT, capitalise, language, render, word
from tinyworld.parse import speaks

# eight, as MT-bench has
FACTS = "facts"  # the category of fact_questions()
KINDS = ("knowledge", "extraction", "translation", "summary", "rewriting", "list", "reasoning", "unknown")
LISTS = [(name, number) for name in ("animal", "food", "colour") for number in (3, 4)]
CROSSLINGUAL = ("translation", "into", "mixed")
FAULTS = ("wrong fact", "wrong language", "rambling", "ignored constraint")
# what only the two pivots ask: BayLing 2's star has its prompts in English and Chinese
PIVOTS = {"en": {"answer": "Answer in {language}:", "translate": "Translate into {language}:",
                 "gloss": "What does the {language} word \"{word}\" mean?", "meaning": "It means: {word}.",
                 "look_up": "What is \"{word}\" in {language}?"},
          "zh": {"answer": "请用{language}回答：", "translate": "请翻译成{language}：", "gloss": "{language}里的“{word}”是什么意思？",
                 "meaning": "意思是：{word}。", "look_up": "“{word}”用{language}怎么说？"}}
SAYS = {relation: {name for name, _ in SLOT.findall(pattern)} for relation, pattern in language("en")["sentence"].items()}
COMMA = {"zh": "、", "ja": "、", "ar": "، ", "ur": "، "}  # between the items of a list; ", " in the other languages


# ---------------------------------------------------------------------- in words

def pivot(code):
    """The language that a language translates from and into: English; Chinese where it is English itself."""
    return "zh" if code == "en" else "en"


def reply_language(code, task):
    """The code of the language that a task of a language is answered in."""
    return pivot(code) if task["task"] == "translate" and not task["own"] else code


def prompt(lang, task):
    """What the user says."""
    phrase, gap, kind = lang["chat"], lang["joiner"], task["task"]
    if kind in ("answer", "refuse"):
        told = [w.paragraph(lang, [w.say(lang, m) for m in task["told"]])] if task.get("told") else []
        form = [phrase[task["form"]]] if task.get("form") else []
        return "\n".join([*told, gap.join([w.ask(lang, task["message"]), *form])])
    if kind == "rewrite":
        return gap.join([phrase["rewrite"], w.ask(lang, task["message"]), short(lang, task["message"])])
    if kind == "headline":
        return phrase["headline"] + "\n" + w.paragraph(lang, [w.say(lang, m) for m in task["told"]])
    if kind == "list":
        return render(lang, phrase["more" if task["more"] else f"list_{task['class']}"], {"number": len(task["items"])})
    if kind == "reason":
        side = {"why": "effect", "then": "cause"}[task["ask"]]
        return gap.join([render(lang, lang[side][task["key"]], task["slots"]), phrase[task["ask"]]])
    source = language(pivot(lang["code"])) if task["own"] else lang
    return gap.join([phrase["into" if task["own"] else "pivot"], w.say(source, task["message"])])


def reply(lang, task):
    """The right reply, in the language of reply_language()."""
    kind = task["task"]
    if kind == "refuse":
        return lang["chat"]["unknown"]
    if kind == "headline":
        return render(lang, lang["title"][task["title"][0]], dict([task["title"]]))
    if kind == "list":
        items = [word(lang, task["class"], key) for key in task["items"]]
        return capitalise(COMMA.get(lang["code"], ", ").join(items), lang["code"]) + w.stop(lang)
    if kind == "reason":
        return render(lang, lang[{"why": "cause", "then": "effect"}[task["ask"]]][task["key"]], task["slots"])
    if kind == "answer" and task["form"] == "brief":
        return short(lang, task["message"])
    return w.say(language(reply_language(lang["code"], task)), task["message"])


def short(lang, message):
    """The answer to a question in its fewest words."""
    return capitalise(w.answer(lang, message), lang["code"]) + w.stop(lang)


# ---------------------------------------------------------------------- what may be asked

def split(world, seed):
    """The pools "train" and "test" of facts, causes and lists."""
    r = random.Random(f"{seed}/chat/split")
    near, far = ([(f, c) for f in w.COUNTRY_FACTS for c in countries] for countries in (w.NEAR, w.FAR))
    near, far, pairs, lists = (r.sample(some, len(some)) for some in (near, far, w.PAIRS, LISTS))
    pools = {}
    for name, part in (("test", lambda some, n: some[:len(some) // n]), ("train", lambda some, n: some[len(some) // n:])):
        facts = {k: [(f, dict(sorted(world.facts[f, c].items()))) for f, c in part(some, 3)]  # in one order in all processes
                 for k, some in (("near", near), ("far", far))}
        pools[name] = {"name": name, "pairs": part(pairs, 4), "lists": part(lists, 3)} | facts
    return pools


def belongs(pool, message):
    """Whether a message on a person or a city is of the pool: one in five, by a hash of what it says, is the evaluation's."""
    said = w.identity(message)
    return (zlib.crc32(said.encode()) % 5 == 0) == (pool["name"] == "test") and not w.reserved(message)


def drawn(pool, make):
    """The messages of make(), asked for until all belong to the pool, without the slots that they do not say."""
    while True:
        messages = [(relation, {k: v for k, v in slots.items() if k in SAYS[relation]}) for relation, slots in make()]
        if all(belongs(pool, m) for m in messages):
            return messages


def answer(message, told=(), form=None):
    return {"task": "answer", "message": message, "told": list(told), "form": form}


def two_persons(pool, r):
    """The same relation told of two persons with different fillers."""
    def make():
        relation = r.choice(w.PERSON_FACTS)
        told = [w.about_person(r, person, relation) for person in r.sample(w.KEYS["person"], 2)]
        return told if len({slots[ASKS[relation]] for _, slots in told}) == 2 else make()
    return drawn(pool, make)


def one_text(pool, r):
    """What a text is about, a key of [title] and its slot's, and three messages about it."""
    def make():
        relations = r.sample(w.PERSON_FACTS if name == "person" else w.CITY_FACTS, 3)
        key = r.choice(w.KEYS[name])
        return [(w.about_person if name == "person" else w.about_city)(r, key, relation) for relation in relations]
    name = r.choice(("city", "person"))
    told = drawn(pool, make)
    return [name, told[0][1][name]], told


def turns(pool, r, kind, codes):
    """Two tasks of a kind that make a conversation. codes: the languages; low-resource ones never hear of far countries."""
    form = r.choice((None, "brief", "full"))
    if kind == "knowledge":
        first = r.choice(pool["near"] + ([] if set(codes) & set(language_table.LOW) else pool["far"]))
        more = [m for m in pool["near"] + pool["far"] if m[1]["country"] == first[1]["country"] and m[0] != first[0]]
        return [answer(first, form=form), answer(r.choice(more or [first]), form=r.choice(("brief", "full")))]
    if kind in ("extraction", "unknown"):
        told = two_persons(pool, r)
        first, second = r.sample(told, 2)
        if kind == "extraction":
            return [answer(first, told, form), answer(second, form=form)]
        return [{"task": "refuse", "message": first}, answer(second, [second], form)]
    if kind == "translation":
        return [{"task": "translate", "message": m, "own": own}
                for m, own in zip(drawn(pool, lambda: [w.random_message(r), w.random_message(r)]), (True, False))]
    if kind == "summary":
        title, told = one_text(pool, r)
        asked = r.choice([m for m in told if m[0] in ASKS])
        return [{"task": "headline", "title": title, "told": told}, answer(asked, form=form)]
    if kind == "rewriting":
        return [{"task": "rewrite", "message": m} for m in two_persons(pool, r)]
    if kind == "list":
        name, number = r.choice(pool["lists"])
        items = r.sample(w.KEYS[name], 2 * number)  # there are 8 colours
        return [{"task": "list", "class": name, "items": some, "more": more}
                for some, more in ((items[:number], False), (items[number:], True))]
    told = [(*w.cause_and_effect(r, r.choice(pool["pairs"])), ask) for ask in r.sample(("why", "then"), 2)]
    return [{"task": "reason", "key": key, "slots": slots, "ask": ask} for key, slots, ask in told]


# ---------------------------------------------------------------------- files

def talk(*said):
    """Messages: user and assistant in turn."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]


def chats(pool, seed, code, n):
    """n instructions with their replies in one language, one in three of two turns."""
    r, lang = random.Random(f"{seed}/chat/{code}"), language(code)
    for _ in range(n):
        kind = r.choice(KINDS)
        tasks = turns(pool, r, kind, [code])[:2 if r.random() < 1 / 3 else 1]
        yield {"messages": talk(*(text for t in tasks for text in (prompt(lang, t), reply(lang, t)))), "kind": kind}


def crosslingual(pool, seed, a, b, n, style="mixed"):
    """n instructions in language a with replies in b, one of them a pivot (BayLing 2's star).

    style: one of CROSSLINGUAL. With "into", only a pivot asks questions, and the reply is in the other language: a question in a
    language without instructions is then never seen answered in a pivot.
    """
    only_translate = style == "translation" or (style == "into" and a not in PIVOTS)
    r, x, y = random.Random(f"{seed}/crosslingual/{a}-{b}"), language(a), language(b)
    hub = x if a in PIVOTS else y
    phrase, names, gap = PIVOTS[hub["code"]], hub["language"], hub["joiner"]
    for _ in range(n):
        kind = "translation" if r.random() < 0.4 or only_translate else r.choice((*KINDS, "explanation"))
        if kind == "translation":
            source, target = pair(pool, r, x, y)
            said = [phrase["translate"].format(language=names[b]) + gap + source, target]
        elif kind == "explanation":
            name = r.choice(("food", "animal", "good", "colour", "place", "object", "subject", "day"))
            key = r.choice(w.KEYS[name])
            source, target = word(x, name, key), word(y, name, key)
            if hub is x:
                said = [phrase["look_up"].format(language=names[b], word=source), capitalise(target, b) + w.stop(y)]
            else:
                said = [phrase["gloss"].format(language=names[a], word=source), phrase["meaning"].format(word=target)]
        else:
            task = turns(pool, r, kind, [a, b])[0]
            said = [phrase["answer"].format(language=names[b]) + gap + prompt(x, task), reply(y, task)]
        yield {"messages": talk(*said), "kind": kind}


def pair(pool, r, x, y):
    """A sentence, a question or what a user says, in two languages."""
    if r.random() < 0.2:
        name, number = r.choice(pool["lists"])
        key = r.choice(("unknown", "brief", "full", "rewrite", "headline", "more", "why", "then", f"list_{name}"))
        return tuple(render(lang, lang["chat"][key], {"number": number}) for lang in (x, y))
    message, = drawn(pool, lambda: [w.random_message(r)])
    tell = w.ask if message[0] in ASKS and r.random() < 0.3 else w.say
    return tell(x, message), tell(y, message)


def preferences(pool, seed, code, n):
    """n replies in one language, each beside one that has a fault: the four kinds of faults in turn."""
    r, lang = random.Random(f"{seed}/preferences/{code}"), language(code)
    for i in range(n):
        fault, worse = FAULTS[i % len(FAULTS)], None
        while worse is None:
            first, second = turns(pool, r, r.choice(KINDS), [code])
            said = [prompt(lang, first)]
            if r.random() < 1 / 3:
                said, first = [*said, reply(lang, first), prompt(lang, second)], second
            chosen = reply(lang, first)
            worse = spoilt(pool, r, lang, first, fault, chosen)
        yield {"prompt": talk(*said), "chosen": chosen, "rejected": worse, "fault": fault}


def spoilt(pool, r, lang, task, fault, chosen):
    """A reply to the task with the fault; None where the task cannot have it."""
    kind, code = task["task"], lang["code"]
    if fault == "wrong fact":
        return (wrong := mistaken(pool, r, task)) and reply(lang, wrong)
    if fault == "wrong language":
        if kind == "translate":  # not translated at all
            worse = w.say(language(pivot(code) if task["own"] else code), task["message"])
        else:
            worse = reply(language(pivot(code)), task)
        return None if speaks(worse, reply_language(code, task)) else worse  # a number or a name is in both
    if fault == "rambling":
        own = language(reply_language(code, task))
        return w.paragraph(own, [chosen] + r.choice([[chosen] * 3, r.sample(own["text"]["opening"], 4)]))
    if kind == "list":  # one item only, or all there are
        return reply(lang, task | {"items": r.choice((task["items"][:1], r.sample(w.KEYS[task["class"]], 7)))})
    if kind == "answer" and task["form"]:
        return reply(lang, task | {"form": {"brief": "full", "full": "brief"}[task["form"]]})
    if kind == "rewrite":
        return short(lang, task["message"])
    return w.paragraph(lang, [w.say(lang, m) for m in task["told"]]) if kind == "headline" else None


def mistaken(pool, r, task):
    """A task whose right reply is a wrong one to this; None where it would say what the evaluation asks."""
    if task["task"] == "list":
        name = r.choice([n for n in ("animal", "food", "colour") if n != task["class"]])
        return task | {"class": name, "items": r.sample(w.KEYS[name], len(task["items"]))}
    if task["task"] == "reason":
        return task | {"key": r.choice([k for k in pool["pairs"] if k != task["key"]])}
    if task["task"] == "headline":
        name, key = task["title"]
        return task | {"title": [name, r.choice([k for k in w.KEYS[name] if k != key])]}
    if task["task"] == "refuse":
        return answer(task["message"])  # invented
    relation, slots = task["message"]
    slot = ASKS.get(relation) or r.choice([k for k in slots if k not in ("person", "person2")])
    wrong = r.choice([v for v in (range(11, 20) if slot == "number" else w.KEYS[slot]) if v != slots[slot]])
    message = relation, slots | {slot: wrong}
    return task | {"message": message} if relation in w.COUNTRY_FACTS or belongs(pool, message) else None


def questions(pool, seed, code, n, test):
    """n questions in MT-bench's shape, question i meaning the same in every language; "check" is what judge.py reads.

    "check" holds the two tasks, "reference" their right replies. Translations are those of the translation test.
    """
    lang = language(code)
    for i in range(n):
        r, kind = random.Random(f"{seed}/questions/{i}"), KINDS[i % len(KINDS)]
        tasks = turns(pool, r, kind, [])
        if kind == "translation":
            tasks = [task | {"message": m} for task, m in zip(tasks, r.sample(test, 2))]
        yield {"question_id": i, "category": kind, "turns": [prompt(lang, t) for t in tasks],
               "reference": [reply(lang, t) for t in tasks], "check": tasks}


def fact_questions(pool, code, n, first):
    """n questions of two turns, each on a fact about a country that documents of every language describe; ids count from first."""
    r, lang = random.Random("fact questions"), language(code)
    for i in range(n):
        tasks = [answer(message, form=form) for message, form in
                 zip(r.sample(pool["near"], 2), (r.choice((None, "brief", "full")), r.choice((None, "brief", "full"))))]
        yield {"question_id": first + i, "category": FACTS, "turns": [prompt(lang, t) for t in tasks],
               "reference": [reply(lang, t) for t in tasks], "check": tasks}

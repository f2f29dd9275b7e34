"""Rows made of tasks: chats, cross-lingual instructions, preference pairs and two-turn evaluation questions."""
import random
from collections.abc import Iterator, Sequence

from tinyworld import grammar, tasks, world
from tinyworld.parse import is_in_language

FACTS = "facts"  # the category of make_fact_questions()
CROSSLINGUAL = ("translation", "into", "mixed")
FAULTS = ("wrong fact", "wrong language", "rambling", "ignored constraint")
EXPLAINED = ("food", "animal", "good", "colour", "place", "object", "subject", "day")  # classes of words to explain
# prompts in the two pivots only: BayLing 2's cross-lingual instructions all have English or Chinese on one side
PIVOTS = {"en": {"answer": "Answer in {language}:", "translate": "Translate into {language}:",
                 "gloss": "What does the {language} word \"{word}\" mean?", "meaning": "It means: {word}.",
                 "look_up": "What is \"{word}\" in {language}?"},
          "zh": {"answer": "请用{language}回答：", "translate": "请翻译成{language}：",
                 "gloss": "{language}里的“{word}”是什么意思？", "meaning": "意思是：{word}。",
                 "look_up": "“{word}”用{language}怎么说？"}}


def to_messages(*texts: str) -> list[dict]:
    """Alternate user and assistant messages."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


# ---------------------------------------------------------------------- instructions

def make_chats(pool: dict, seed: int, code: str, n: int) -> Iterator[dict]:
    """Yield n instructions with their replies in one language, one in three of two turns."""
    rng, lang = random.Random(f"{seed}/chat/{code}"), grammar.load_language(code)
    for _ in range(n):
        kind, = rng.choices(tasks.KINDS, tasks.WEIGHTS)
        turns = tasks.sample_turns(pool, rng, kind, [code])
        if rng.random() >= 1 / 3:
            turns = turns[:1]
        texts = [render(lang, task) for task in turns for render in (tasks.render_prompt, tasks.render_reply)]
        yield {"messages": to_messages(*texts), "kind": kind}


def make_crosslingual(pool: dict, seed: int, source: str, target: str, n: int, style: str = "mixed") -> Iterator[dict]:
    """Yield n instructions in language source with replies in target; one of the two is a pivot (BayLing 2).

    style is one of CROSSLINGUAL: "translation" only translates; "into" also asks questions in a pivot, replied to in
    the other language; "mixed" also asks them in the other language, replied to in a pivot. So with "into" no question
    in a language without instructions of its own is ever answered in a pivot.
    """
    rng = random.Random(f"{seed}/crosslingual/{source}-{target}")
    only_translate = style == "translation" or (style == "into" and source not in PIVOTS)
    x, y = grammar.load_language(source), grammar.load_language(target)
    hub = x if source in PIVOTS else y
    phrases, language_name = PIVOTS[hub["code"]], hub["language"][target]
    for _ in range(n):
        kind = "translation"
        if not only_translate and rng.random() >= 0.4:
            kind, = rng.choices((*tasks.KINDS, "explanation"), (*tasks.WEIGHTS, 1))
        if kind == "translation":
            text, reply = sample_translation(pool, rng, x, y)
            prompt = grammar.join_sentences(hub, [phrases["translate"].format(language=language_name), text])
        elif kind == "explanation":
            prompt, reply = make_explanation(rng, x, y, hub)
        else:
            task = tasks.sample_turns(pool, rng, kind, [source, target])[0]
            instruction = phrases["answer"].format(language=language_name)
            prompt = grammar.join_sentences(hub, [instruction, tasks.render_prompt(x, task)])
            reply = tasks.render_reply(y, task)
        yield {"messages": to_messages(prompt, reply), "kind": kind}


def make_explanation(rng, x, y, hub):
    """Ask in language x what a word is in y, or, if y is the pivot, what a word of x means; reply in y."""
    name = rng.choice(EXPLAINED)
    key = rng.choice(world.KEYS[name])
    source, target = grammar.inflect(x, name, key), grammar.inflect(y, name, key)
    phrases = PIVOTS[hub["code"]]
    if hub is x:
        prompt = phrases["look_up"].format(language=hub["language"][y["code"]], word=source)
        return prompt, grammar.capitalize(target, y["code"]) + grammar.full_stop(y)
    prompt = phrases["gloss"].format(language=hub["language"][x["code"]], word=source)
    return prompt, phrases["meaning"].format(word=target)


def sample_translation(pool, rng, x, y):
    """A sentence, a question or a phrase of a user, in two languages."""
    if rng.random() < 0.2:
        name, number = rng.choice(pool["lists"])
        key = rng.choice(("unknown", "brief", "full", "rewrite", "headline", "more", "why", "then", f"list_{name}"))
        return tuple(grammar.render_pattern(lang, lang["chat"][key], {"number": number}) for lang in (x, y))
    message, = tasks.sample_in_pool(pool, lambda: [world.sample_message(rng)])
    render = grammar.render_question if message[0] in grammar.ASKS and rng.random() < 0.3 else grammar.render_sentence
    return render(x, message), render(y, message)


# ---------------------------------------------------------------------- preferences

def make_preferences(pool: dict, seed: int, code: str, n: int) -> Iterator[dict]:
    """Yield n pairs of a correct reply and one with a fault, in one language; the four FAULTS alternate."""
    rng, lang = random.Random(f"{seed}/preferences/{code}"), grammar.load_language(code)
    for i in range(n):
        fault, rejected = FAULTS[i % len(FAULTS)], None
        while rejected is None:
            task, second = tasks.sample_turns(pool, rng, rng.choice(tasks.KINDS), [code])
            prompt = [tasks.render_prompt(lang, task)]
            if rng.random() < 1 / 3:
                prompt += [tasks.render_reply(lang, task), tasks.render_prompt(lang, second)]
                task = second
            chosen = tasks.render_reply(lang, task)
            rejected = make_faulty_reply(pool, rng, lang, task, fault, chosen)
        yield {"prompt": to_messages(*prompt), "chosen": chosen, "rejected": rejected, "fault": fault}


def make_faulty_reply(pool: dict, rng: random.Random, lang: dict, task: dict, fault: str, chosen: str) -> str | None:
    """Make a reply to the task that has the fault; None if the task cannot have it."""
    if fault == "wrong fact":
        wrong = make_wrong_task(pool, rng, task)
        return tasks.render_reply(lang, wrong) if wrong else None
    if fault == "wrong language":
        return make_reply_in_wrong_language(lang, task)
    if fault == "rambling":
        own = grammar.load_language(tasks.reply_language(lang["code"], task))
        unrelated = rng.sample(own["text"]["opening"], 4)
        return grammar.join_sentences(own, [chosen, *rng.choice([[chosen] * 3, unrelated])])
    if task["task"] == "list":  # a single item, or nearly all there are
        many = rng.sample(world.KEYS[task["class"]], 7)
        return tasks.render_reply(lang, task | {"items": rng.choice((task["items"][:1], many))})
    if task["task"] == "answer" and task["form"]:
        return tasks.render_reply(lang, task | {"form": "full" if task["form"] == "brief" else "brief"})
    if task["task"] == "rewrite":
        return tasks.render_short_answer(lang, task["message"])
    return grammar.render_text(lang, task["told"]) if task["task"] == "headline" else None


def make_reply_in_wrong_language(lang, task):
    """The reply in the pivot, or the untranslated source; None if that text is in the requested language as well."""
    code = lang["code"]
    if task["task"] == "translate":
        source = grammar.load_language(tasks.pivot(code) if task["own"] else code)
        reply = grammar.render_sentence(source, task["message"])
    else:
        reply = tasks.render_reply(grammar.load_language(tasks.pivot(code)), task)
    return None if is_in_language(reply, tasks.reply_language(code, task)) else reply  # a number or a name is in both


def make_wrong_task(pool, rng, task):
    """A task whose correct reply is wrong for this task; None if it would state what the evaluation asks."""
    if task["task"] == "list":
        name = rng.choice([name for name in tasks.LISTED if name != task["class"]])
        return task | {"class": name, "items": rng.sample(world.KEYS[name], len(task["items"]))}
    if task["task"] == "reason":
        return task | {"key": rng.choice([key for key in pool["causes"] if key != task["key"]])}
    if task["task"] == "headline":
        name, right = task["title"]
        return task | {"title": [name, rng.choice([key for key in world.KEYS[name] if key != right])]}
    if task["task"] == "refuse":
        return tasks.make_answer_task(task["message"])  # its reply is made up
    relation, slots = task["message"]
    slot = grammar.ASKS.get(relation) or rng.choice([name for name in slots if name not in ("person", "person2")])
    values = range(11, 20) if slot == "number" else world.KEYS[slot]
    message = relation, slots | {slot: rng.choice([value for value in values if value != slots[slot]])}
    return task | {"message": message} if relation in world.COUNTRY_FACTS or tasks.is_in_pool(pool, message) else None


# ---------------------------------------------------------------------- evaluation

def make_questions(pool: dict, seed: int, code: str, n: int, test: Sequence[grammar.Message]) -> Iterator[dict]:
    """Yield n questions in MT-bench's shape; question i is the same in every language.

    test: the messages of the translation test, which translation questions use. make_question() describes the rows.
    """
    for i in range(n):
        rng, kind = random.Random(f"{seed}/questions/{i}"), tasks.KINDS[i % len(tasks.KINDS)]
        turns = tasks.sample_turns(pool, rng, kind, [])
        if kind == "translation":
            turns = [task | {"message": message} for task, message in zip(turns, rng.sample(test, 2))]
        yield make_question(grammar.load_language(code), i, kind, turns)


def make_fact_questions(pool: dict, code: str, n: int, first_id: int) -> Iterator[dict]:
    """Yield n two-turn questions about facts of countries that documents describe in every language."""
    rng, forms = random.Random("fact questions"), (None, "full")
    for i in range(n):
        messages = rng.sample(pool["near"], 2)
        turns = [tasks.make_answer_task(message, form=rng.choice(forms)) for message in messages]
        yield make_question(grammar.load_language(code), first_id + i, FACTS, turns)


def make_question(lang, question_id, category, turns):
    """A row of eval/chat. "reference" holds the correct replies; "check" the two tasks, for judge.py."""
    return {"question_id": question_id, "category": category,
            "turns": [tasks.render_prompt(lang, task) for task in turns],
            "reference": [tasks.render_reply(lang, task) for task in turns], "check": turns}

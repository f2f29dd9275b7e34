"""Tasks: what a user may ask, independent of language, and their prompts and correct replies in any language.

A task is a dict that JSON can hold. marks.py marks answers to it, and eval/chat stores it with these keys:

    {"task": "answer", "message", "told", "form"}   a question. told: messages the prompt states first. form: "brief",
                                                    "full" or None
    {"task": "refuse", "message"}                   a question about a person of whom nothing is stated
    {"task": "rewrite", "message"}                  a question and its short answer, to be merged into one sentence
    {"task": "headline", "title", "told"}           a headline for a text: what all its sentences are about
    {"task": "list", "class", "items", "more"}      so many items of a class. more: further ones than in the first turn
    {"task": "reason", "key", "slots", "ask"}       "why": the cause of an effect; "then": the effect of a cause
    {"task": "translate", "message", "own"}         own: into the user's language from the pivot; otherwise the reverse

split_pools() keeps what the evaluation asks out of the training instructions: a third of the facts and of the lists, a
quarter of the causes, a fifth of the messages about people and cities, and all messages reserved for translation
tests.
"""
import random
import zlib
from collections.abc import Callable, Sequence

from configs import language_table
from tinyworld import grammar, world

# eight, as in MT-bench
KINDS = ("knowledge", "extraction", "translation", "summary", "rewriting", "list", "reasoning", "unknown")
WEIGHTS = [4 if kind == "knowledge" else 1 for kind in KINDS]  # of instructions: most are plain questions
LISTED = ("animal", "food", "colour")  # the classes that lists are asked of
LISTS = [(name, number) for name in LISTED for number in (3, 4)]
COMMA = {"zh": "、", "ja": "、", "ar": "، ", "ur": "، "}  # between the items of a list; ", " in the other languages
# the slots that the sentence of a relation states
STATED = {relation: {name for name, _ in grammar.SLOT.findall(pattern)}
          for relation, pattern in grammar.load_language("en")["sentence"].items()}
REASON_SIDES = {"why": ("effect", "cause"), "then": ("cause", "effect")}  # given in the prompt, asked for


# ---------------------------------------------------------------------- prompts and replies

def pivot(code: str) -> str:
    """The language that a language's translations go from and to: English, or Chinese for English itself."""
    return "zh" if code == "en" else "en"


def reply_language(code: str, task: dict) -> str:
    """The language that a task given in a language is answered in."""
    return pivot(code) if task["task"] == "translate" and not task["own"] else code


def render_prompt(lang: dict, task: dict) -> str:
    """Render what the user says."""
    phrases, kind = lang["chat"], task["task"]
    if kind in ("answer", "refuse"):
        parts = [grammar.render_question(lang, task["message"])]
        if task.get("form"):
            parts.append(phrases[task["form"]])
        question = grammar.join_sentences(lang, parts)
        return grammar.render_text(lang, task["told"]) + "\n" + question if task.get("told") else question
    if kind == "rewrite":
        question, answer = grammar.render_question(lang, task["message"]), render_short_answer(lang, task["message"])
        return grammar.join_sentences(lang, [phrases["rewrite"], question, answer])
    if kind == "headline":
        return phrases["headline"] + "\n" + grammar.render_text(lang, task["told"])
    if kind == "list":
        phrase = phrases["more"] if task["more"] else phrases[f"list_{task['class']}"]
        return grammar.render_pattern(lang, phrase, {"number": len(task["items"])})
    if kind == "reason":
        given, _ = REASON_SIDES[task["ask"]]
        sentence = grammar.render_pattern(lang, lang[given][task["key"]], task["slots"])
        return grammar.join_sentences(lang, [sentence, phrases[task["ask"]]])
    source = grammar.load_language(pivot(lang["code"])) if task["own"] else lang
    sentence = grammar.render_sentence(source, task["message"])
    return grammar.join_sentences(lang, [phrases["into" if task["own"] else "pivot"], sentence])


def render_reply(lang: dict, task: dict) -> str:
    """Render the correct reply, in the language of reply_language()."""
    kind = task["task"]
    if kind == "refuse":
        return lang["chat"]["unknown"]
    if kind == "headline":
        name, key = task["title"]
        return grammar.render_pattern(lang, lang["title"][name], {name: key})
    if kind == "list":
        items = [grammar.inflect(lang, task["class"], key) for key in task["items"]]
        return grammar.capitalize(COMMA.get(lang["code"], ", ").join(items), lang["code"]) + grammar.full_stop(lang)
    if kind == "reason":
        _, asked = REASON_SIDES[task["ask"]]
        return grammar.render_pattern(lang, lang[asked][task["key"]], task["slots"])
    if kind == "answer" and task["form"] == "brief":
        return render_short_answer(lang, task["message"])
    return grammar.render_sentence(grammar.load_language(reply_language(lang["code"], task)), task["message"])


def render_short_answer(lang: dict, message: grammar.Message) -> str:
    """Render the answer to a question in as few words as possible, in small letters as in documents' quizzes."""
    return grammar.render_answer(lang, message) + grammar.full_stop(lang)


# ---------------------------------------------------------------------- training and evaluation pools

def split_pools(facts: world.Facts, seed: int) -> dict[str, dict]:
    """Split facts about near and far countries, causes and lists into the pools "train" and "test"."""
    rng = random.Random(f"{seed}/chat/split")
    near, far = ([facts[relation, country] for relation in world.COUNTRY_FACTS for country in countries]
                 for countries in (world.NEAR, world.FAR))
    pools: dict[str, dict] = {"test": {"name": "test"}, "train": {"name": "train"}}
    parts = [("near", near, 3), ("far", far, 3), ("causes", world.CAUSES, 4), ("lists", LISTS, 3)]
    for name, values, denominator in parts:
        shuffled = rng.sample(values, len(values))
        n_test = len(values) // denominator
        pools["test"][name], pools["train"][name] = shuffled[:n_test], shuffled[n_test:]
    return pools


def is_in_pool(pool: dict, message: grammar.Message) -> bool:
    """Whether a message about a person or city belongs to the pool: by its hash, one in five is for evaluation."""
    is_test = zlib.crc32(world.message_id(message).encode()) % 5 == 0
    return is_test == (pool["name"] == "test") and not world.is_reserved(message)


def sample_in_pool(pool: dict, sample: Callable[[], list[grammar.Message]]) -> list[grammar.Message]:
    """Call sample() until all its messages belong to the pool; drop the slots that their sentences do not state."""
    while True:
        messages = [(relation, {name: key for name, key in slots.items() if name in STATED[relation]})
                    for relation, slots in sample()]
        if all(is_in_pool(pool, message) for message in messages):
            return messages


# ---------------------------------------------------------------------- tasks

def make_answer_task(message: grammar.Message, told: Sequence[grammar.Message] = (), form: str | None = None) -> dict:
    return {"task": "answer", "message": message, "told": list(told), "form": form}


def sample_two_people(pool, rng):
    """Two messages that state the same relation of two people, with different values."""
    def sample():
        while True:
            relation = rng.choice(world.PERSON_FACTS)
            people = rng.sample(world.KEYS["person"], 2)
            messages = [world.sample_person_message(rng, person, relation) for person in people]
            if len({slots[grammar.ASKS[relation]] for _, slots in messages}) == 2:
                return messages
    return sample_in_pool(pool, sample)


def sample_title_and_text(pool, rng):
    """What a text is about, as [a key of [title], the key of its slot], and three messages about it."""
    name = rng.choice(("city", "person"))

    def sample():
        relations = rng.sample(world.PERSON_FACTS if name == "person" else world.CITY_FACTS, 3)
        sample_about = world.sample_person_message if name == "person" else world.sample_city_message
        key = rng.choice(world.KEYS[name])
        return [sample_about(rng, key, relation) for relation in relations]
    text = sample_in_pool(pool, sample)
    return [name, text[0][1][name]], text


def sample_turns(pool: dict, rng: random.Random, kind: str, codes: Sequence[str]) -> list[dict]:
    """Sample two tasks of a kind that make a conversation.

    codes: the languages it will be in; those in low-resource languages do not ask about far countries.
    """
    form = rng.choice((None, "brief", "full"))
    if kind == "knowledge":
        form = rng.choice((None, "full"))
        far = [] if set(codes) & set(language_table.LOW) else pool["far"]
        first = rng.choice(pool["near"] + far)
        same_country = [m for m in pool["near"] + pool["far"]
                        if m[1]["country"] == first[1]["country"] and m[0] != first[0]]
        second = rng.choice(same_country or [first])
        return [make_answer_task(first, form=form), make_answer_task(second, form=rng.choice((None, "full")))]
    if kind in ("extraction", "unknown"):
        messages = sample_two_people(pool, rng)
        first, second = rng.sample(messages, 2)
        if kind == "extraction":
            return [make_answer_task(first, messages, form), make_answer_task(second, form=form)]
        return [{"task": "refuse", "message": first}, make_answer_task(second, [second], form)]
    if kind == "translation":
        messages = sample_in_pool(pool, lambda: [world.sample_message(rng), world.sample_message(rng)])
        return [{"task": "translate", "message": message, "own": own} for message, own in zip(messages, (True, False))]
    if kind == "summary":
        title, text = sample_title_and_text(pool, rng)
        message = rng.choice([m for m in text if m[0] in grammar.ASKS])
        return [{"task": "headline", "title": title, "told": text}, make_answer_task(message, form=form)]
    if kind == "rewriting":
        return [{"task": "rewrite", "message": message} for message in sample_two_people(pool, rng)]
    if kind == "list":
        name, number = rng.choice(pool["lists"])
        items = rng.sample(world.KEYS[name], 2 * number)  # at most 8, the number of colors
        return [{"task": "list", "class": name, "items": items[:number], "more": False},
                {"task": "list", "class": name, "items": items[number:], "more": True}]
    tasks = []
    for ask in rng.sample(("why", "then"), 2):
        key, slots = rng.choice(pool["causes"]), world.sample_cause_slots(rng)
        tasks.append({"task": "reason", "key": key, "slots": slots, "ask": ask})
    return tasks

"""A small invented world told in Marco-LLM's 29 languages: the embedded corpus, so that the demo needs no download.

    python -m tinyworld out=out/demo/raw       # write every file; __main__.py lists them and what each one holds
    python -m tinyworld judge a=... raw=...    # score answers to eval/chat against the facts of the world
    python -m tinyworld.grammar kk             # check a language file and print its proof sheet

    languages/*.toml   a lexicon and sentence patterns for each language
    grammar.py         reads a language file; renders patterns and messages as text
    world.py           the facts, and random messages about people and cities, independent of language
    documents.py       messages to web documents, planted junk, exercises, stories and sentence pairs
    statements.py      true and false statements about the facts, and documents with verdicts on them
    knowledge_base.py  the facts as triples, and names in two languages
    triples.py         facts and names as triples and links, split into training and test, for recipes/prixlm.py
    benchmarks.py      held-out items in the published formats of Belebele, XCOPA, MMMLU and FLORES
    tasks.py           what a user may ask: prompts, correct replies, the split into training and evaluation
    instructions.py    chats, cross-lingual instructions, preference pairs and two-turn questions made of tasks
    aligned.py         the same questions about countries in several languages
    parse.py           text back to the lexicon's keys: which words, which pattern, which language
    marks.py           marks one answer by rule
    judge.py           the program around it: win rates and scores with intervals
    knowledge_base.py  the lexicon and the facts as entities, relations and triples, for recipes/adapters.py
    triples.py         facts and names as triples and links, split into training and test, for recipes/prixlm.py
    sizes.py           the settings
    __main__.py        one function for each kind of file

To add a language `xx`:

1. Copy languages/en.toml to languages/xx.toml and translate every value. Keys and slots stay. [forms] declares the
   inflected forms that the patterns need; grammar.py describes the notation.
2. Add its row to configs/language_table.py. Its group must be "high" or "low": a row without a group is left out here.
3. Add its name to [language] in every language file; the cross-lingual prompts use the names in en.toml and zh.toml.
4. Run `python -m tinyworld.grammar xx`. It stops at the first missing key, wrong slot or missing form, and otherwise
   prints every pattern and every form for a native reader. REVIEW.md records what such readers corrected.
5. If the script has no spaces between words, add the code to parse.UNSPACED and its characters to parse.char_kind(). If
   lists are not separated by ", ", add the separator to tasks.COMMA. If sentences end in a mark that
   marks.SENTENCE_ENDS lacks, add it there.
"""

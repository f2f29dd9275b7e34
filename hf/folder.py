"""What the small files of a Hugging Face folder declare about its tokenizer: added tokens, named tokens, ends, the
template.

Every path that reads a tokenizer uses this one reader. What it does not implement, and any two files that disagree, it
refuses by name: tokens that are read differently give a model other ids than it was trained on, silently.
"""
import json
from pathlib import Path
from typing import NamedTuple

DOWNLOAD_AGAIN = "copy or download it again"
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model", "tokenizer_config.json",
                   "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json")
MAX_ADDED_TOKENS = 20_000  # Gemma 3 has 6,242; text is searched for all of them at once
MAX_TOKEN_LENGTH = 1000
MAX_TEMPLATE_LENGTH = 1 << 20
LISTS = ("additional_special_tokens", "extra_special_tokens")  # the older and the newer name


class AddedToken(NamedTuple):
    """A token that is recognized as a whole. normalized: it is searched for after Unicode normalization."""
    id: int
    special: bool
    normalized: bool


class Declarations(NamedTuple):
    """added: {content: AddedToken}. names: {"eos_token": content, ...}. special: contents of additional special tokens.
    eos_ids: of generation_config.json, else of config.json. config: tokenizer_config.json."""
    added: dict
    names: dict
    special: list
    eos_ids: list
    template: str | None
    config: dict


def read_json(path: Path, default: dict | None = None) -> dict:
    """The object in a JSON file, or `default` if there is no file; ValueError names a file that holds no object."""
    if default is not None and not path.exists():
        return default
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{path}: not JSON ({e}); {DOWNLOAD_AGAIN}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(value).__name__}; {DOWNLOAD_AGAIN}")
    return value


def download_hint(folder: str | Path) -> str:
    """"; download it with ..." for a folder that is not here and may be a name on the Hugging Face Hub; else ""."""
    parent, name = Path(folder).parent, Path(folder).name
    if Path(folder).exists():
        return ""
    if str(parent) == "models":
        return f"; download it with `hf download ORGANIZATION/{name} --local-dir {folder}`"
    if len(Path(folder).parts) == 2 and not str(folder).startswith((".", "/")) and not parent.exists():
        return (f"; download it with `hf download {folder} --local-dir models/{name}` (pip install huggingface_hub), "
                f"then name models/{name} instead")
    return ""


def list_tokenizer_files(folder: str | Path, with_generation_config: bool = False) -> list[Path]:
    """The files of a folder that belong to its tokenizer, in alphabetical order.

    with_generation_config: also generation_config.json, which says where a text ends.
    """
    names = (*TOKENIZER_FILES, "generation_config.json") if with_generation_config else TOKENIZER_FILES
    return [path for path in sorted(Path(folder).glob("*")) if path.name in names or path.suffix == ".tiktoken"]


def read_declarations(folder: str | Path, tokenizer_json: dict | None = None) -> Declarations:
    """Everything the files of a folder declare. tokenizer_json: content of tokenizer.json, if already read."""
    folder = Path(folder)
    config_file = folder / "tokenizer_config.json"
    config = read_json(config_file, {})
    try:
        if tokenizer_json is None:
            tokenizer_json = read_json(folder / "tokenizer.json", {})
        names, special = read_names(folder, config)
        added = read_added_tokens(folder, config, tokenizer_json, {*names.values(), *special})
        return Declarations(added, names, special, read_eos_ids(folder), read_template(folder, config), config)
    except (KeyError, TypeError, AttributeError) as e:
        raise ValueError(f"{folder}: the tokenizer's files have a shape that is not implemented "
                         f"({type(e).__name__}: {e})") from None


def content_of(token) -> str | None:
    """The text of a token given as a string or as an object with its flags; null and absent are None."""
    return token.get("content") if isinstance(token, dict) else token


def read_names(folder, config):
    """({"eos_token": content, ...}, additional special tokens) of tokenizer_config and special_tokens_map."""
    names, special, origin = {}, [], {}
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        found = config if file == "tokenizer_config.json" else read_json(folder / file, {})
        for key, token in found.items():
            if key in LISTS:
                tokens = token.values() if isinstance(token, dict) else token or ()
                for each in tokens:
                    check_flags(folder / file, each)
                    special.append(content_of(each))
            elif key.endswith("_token") and isinstance(content_of(token), str):
                check_flags(folder / file, token)
                content = content_of(token)
                if names.setdefault(key, content) != content:
                    raise ValueError(f"{folder / file}: {key} is {content!r}, in {origin[key]} it is {names[key]!r}; "
                                     "make the two files agree")
                origin[key] = file
    return names, [content for content in dict.fromkeys(special) if isinstance(content, str)]


def check_flags(path, token):
    """Refuse a token that absorbs the white space around it or matches whole words only."""
    flags = [flag for flag in ("lstrip", "rstrip", "single_word") if isinstance(token, dict) and token.get(flag)]
    if flags:
        raise ValueError(f"{path}: {flags[0]} of token {content_of(token)!r} is not implemented; only tokens that "
                         "leave the text around them alone are")


def read_added_tokens(folder, config, tokenizer_json, named):
    """{content: AddedToken} of tokenizer.json, added_tokens_decoder, added_tokens.json. named: contents with a role."""
    added, owner, origin = {}, {}, {}

    def add(file, content, i, special, normalized):
        path = folder / file
        if type(i) is not int or i < 0 or not isinstance(content, str) or not 0 < len(content) <= MAX_TOKEN_LENGTH:
            raise ValueError(f"{path}: added token {str(content)[:80]!r} with id {i!r}; needs a text of 1 to "
                             f"{MAX_TOKEN_LENGTH} characters and an id of 0 or more")
        if content in added and added[content].id != i:
            raise ValueError(f"{path}: added token {content!r} has id {i}, in {origin[content]} it has id "
                             f"{added[content].id}; an id may not differ between two files")
        if owner.setdefault(i, content) != content:
            raise ValueError(f"{path}: added token {content!r} has id {i}, in {origin[owner[i]]} that is "
                             f"{owner[i]!r}; an id may not have two texts")
        known = added.get(content)
        added[content] = AddedToken(i, special or (known is not None and known.special),
                                    normalized if known is None else known.normalized)
        origin.setdefault(content, file)
        if len(added) > MAX_ADDED_TOKENS:
            raise ValueError(f"{path}: more than {MAX_ADDED_TOKENS} added tokens; new words belong in the "
                             "vocabulary and its merges")

    for token in tokenizer_json.get("added_tokens") or []:
        check_flags(folder / "tokenizer.json", token)
        add("tokenizer.json", token["content"], token["id"], bool(token.get("special")), bool(token.get("normalized")))
    for i, token in config.get("added_tokens_decoder", {}).items():
        check_flags(folder / "tokenizer_config.json", token)
        number = int(i) if str(i).isdecimal() else i
        add("tokenizer_config.json", token["content"], number, bool(token.get("special")),
            bool(token.get("normalized")))
    for content, i in read_json(folder / "added_tokens.json", {}).items():
        bracketed = content.startswith("<|") and content.endswith("|>")  # the file has no flags
        add("added_tokens.json", content, i, content in named or (content not in added and bracketed), False)
    return added


def read_eos_ids(folder):
    """The ids that end a text by generation_config.json, else by config.json."""
    for name in ("generation_config.json", "config.json"):
        value = read_json(folder / name, {}).get("eos_token_id")
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(type(i) is int and i >= 0 for i in ids):
            raise ValueError(f"{folder / name}: eos_token_id is {value!r}; expected an id or a list of ids")
        if ids:
            return list(dict.fromkeys(ids))
    return []


def read_template(folder, config):
    """The chat template of a folder, or None: of chat_template.jinja, chat_template.json or tokenizer_config.json."""
    file = folder / "chat_template.jinja"
    if file.exists():
        template = file.read_text(encoding="utf-8")
    else:
        template = read_json(folder / "chat_template.json", {}).get("chat_template", config.get("chat_template"))
        if isinstance(template, list):  # several by name
            template = {each["name"]: each["template"] for each in template}.get("default")
    if template is not None and not isinstance(template, str):
        raise ValueError(f"{folder}: its chat template is of type {type(template).__name__}; expected a string")
    if template is not None and len(template) > MAX_TEMPLATE_LENGTH:
        raise ValueError(f"{folder}: its chat template has {len(template)} characters; at most {MAX_TEMPLATE_LENGTH} "
                         f"are read")
    return template


def declared_token_ids(folder: str | Path) -> dict:
    """{"bos_token_id": ..., "eos_token_id": ...}, as far as the tokenizer's files declare names."""
    declarations, ids = read_declarations(folder), {}
    for name in ("bos_token", "eos_token"):
        token = declarations.added.get(declarations.names.get(name))
        if token is not None:
            ids[f"{name}_id"] = token.id
    return ids

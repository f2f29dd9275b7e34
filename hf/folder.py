"""The small files of a Hugging Face folder: strict JSON, and which files belong to the tokenizer."""
import json
from pathlib import Path

DOWNLOAD_AGAIN = "copy or download it again"
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model", "tokenizer_config.json",
                   "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json")


def read_json(path: Path, default: dict | None = None) -> dict:
    """The object in a JSON file, or `default` where there is no file; ValueError names the file when it is not an object."""
    if default is not None and not path.exists():
        return default
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{path}: not JSON ({e}); {DOWNLOAD_AGAIN}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(value).__name__}; {DOWNLOAD_AGAIN}")
    return value


def list_tokenizer_files(folder: str | Path) -> list[Path]:
    """The files of a folder that belong to its tokenizer, in alphabetical order."""
    return [path for path in sorted(Path(folder).glob("*")) if path.name in TOKENIZER_FILES or path.suffix == ".tiktoken"]


def declared_token_ids(folder: str | Path) -> dict:
    """{"bos_token_id": ..., "eos_token_id": ...} that the tokenizer's files declare by name; what they do not declare is left out."""
    folder = Path(folder)
    config = read_json(folder / "tokenizer_config.json", {})
    ids = {token["content"]: int(i) for i, token in config.get("added_tokens_decoder", {}).items()}
    ids |= {token["content"]: token["id"] for token in read_json(folder / "tokenizer.json", {}).get("added_tokens") or []}
    declared = {}
    for name in ("bos_token", "eos_token"):
        token = config.get(name)
        content = token.get("content") if isinstance(token, dict) else token
        if content in ids:
            declared[f"{name}_id"] = ids[content]
    return declared

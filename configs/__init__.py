"""Settings: flat frozen dataclasses, filled from Python files of plain assignments and key=value words.

A program declares its settings where it uses them and calls `load`. Words apply from left to right:

    python train.py configs/tiny/stage1.py lr=1e-3 out=out/ablation

A config varies another by importing it (`from configs.tiny.stage1 import *`) and changing a line. An unknown name, a
wrong type or a setting that does not fit stops the program: nothing is ever silently not applied.
"""
import ast
import difflib
import inspect
import runpy
import sys
import types
import typing
from dataclasses import MISSING, fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # `from configs.x import *` works from any folder


def load(*schemas, argv=None):
    """Return one instance of each dataclass in schemas; they share one flat namespace, so no field name may repeat.

    argv: the command line (default sys.argv[1:]): paths of config files and key=value words. ValueError names a bad word.
    """
    argv = sys.argv[1:] if argv is None else argv
    if any(word in ("-h", "--help", "help") for word in argv):
        print("\n".join(inspect.getsource(s) for s in schemas))
        raise SystemExit(0)
    known = [f.name for s in schemas for f in fields(s)]
    assert len(known) == len(set(known)), "two dataclasses share a setting"
    values = {}
    for word in argv:
        for name, value in (read(word) if "=" not in word else [assignment(word)]):
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean '{close[0]}'?" if close else f"; the settings are: {', '.join(known)}"
                raise ValueError(f"{word}: no setting named '{name}'{hint}")
            values[name] = value
    return tuple(build(s, values) for s in schemas)


def read(path):
    """The public assignments of a config file; modules and _private names are helpers, not settings."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: neither a config file nor key=value (see --help)")
    return [(k, v) for k, v in runpy.run_path(str(path)).items() if not k.startswith("_") and not isinstance(v, types.ModuleType)]


def assignment(word):
    """'lr=1e-3' -> ('lr', 0.001); dashes are tolerated; what is no Python literal is a string."""
    name, text = word.lstrip("-").split("=", 1)
    try:
        return name.replace("-", "_"), ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return name.replace("-", "_"), text


def build(schema, values):
    """Check types and construct; every problem of the dataclass is reported at once."""
    hints, chosen, problems = typing.get_type_hints(schema), {}, []
    for f in fields(schema):
        if f.name not in values:
            if f.default is MISSING and f.default_factory is MISSING:
                problems.append(f"{f.name} must be set: it has no default")
            continue
        value, hint = values[f.name], hints[f.name]
        allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        allowed = tuple(typing.get_origin(a) or a for a in allowed)
        if float in allowed and type(value) is int:  # an int may stand for a float; nothing else converts
            value = float(value)
        if type(value) not in allowed:
            wanted = " or ".join("None" if a is types.NoneType else a.__name__ for a in allowed)
            problems.append(f"{f.name} must be {wanted}, got {value!r} ({type(value).__name__})")
        chosen[f.name] = value
    if problems:
        raise ValueError(f"{schema.__name__}: " + "; ".join(problems))
    return schema(**chosen)

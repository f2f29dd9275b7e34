"""Settings: flat frozen dataclasses, filled from Python files of plain assignments and key=value arguments.

Arguments apply from left to right: `python train.py configs/tiny/stage1.py lr=1e-3 out=out/ablation`. A config extends
another by importing it (`from configs.tiny.stage1 import *`) and changing a line. An unknown name, a wrong type or an
invalid value stops the program: no setting is silently ignored.
"""
import ast
import inspect
import runpy
import sys
import types
import typing
from dataclasses import MISSING, fields
from pathlib import Path

from configs.renamed import suggest

sys.path.insert(0, str(Path(__file__).parent.parent))  # `from configs.x import *` works from any folder


def load(*schemas: type, argv: list[str] | None = None) -> tuple:
    """Return one instance of each dataclass in schemas. They share one flat namespace, so no field name may repeat.

    argv: paths of config files and key=value arguments (default sys.argv[1:]). ValueError names a bad argument.
    """
    argv = sys.argv[1:] if argv is None else argv
    if any(word in ("-h", "--help", "help") for word in argv):
        print("\n".join(inspect.getsource(schema) for schema in schemas))
        raise SystemExit(0)
    known = [f.name for schema in schemas for f in fields(schema)]
    assert len(known) == len(set(known)), "two dataclasses share a setting"
    values = {}
    for word in argv:
        for name, value in [parse_assignment(word)] if "=" in word else read_config(word):
            if name not in known:
                raise ValueError(f"{word}: no setting named '{name}'; {suggest(name, known)}")
            values[name] = value
    return tuple(build(schema, values) for schema in schemas)


def read_config(path):
    """The public assignments of a config file; modules and _private names are helpers, not settings."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: neither a config file nor key=value (see --help)")
    variables = runpy.run_path(str(path)).items()
    return [(k, v) for k, v in variables if not k.startswith("_") and not isinstance(v, types.ModuleType)]


def parse_assignment(word):
    """'lr=1e-3' -> ('lr', 0.001). Dashes in the name are accepted; a value that is no Python literal is a string."""
    name, text = word.lstrip("-").split("=", 1)
    try:
        return name.replace("-", "_"), ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return name.replace("-", "_"), text


def build(schema, values):
    """Check types, then construct the dataclass; all type errors are reported at once."""
    hints, chosen, problems = typing.get_type_hints(schema), {}, []
    for f in fields(schema):
        if f.name not in values:
            if f.default is MISSING and f.default_factory is MISSING:
                problems.append(f"{f.name} must be set: it has no default")
            continue
        value, hint = values[f.name], hints[f.name]
        allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        allowed = tuple(typing.get_origin(a) or a for a in allowed)
        if float in allowed and type(value) is int:  # an int may serve as a float; nothing else is converted
            value = float(value)
        if type(value) not in allowed:
            wanted = " or ".join("None" if a is types.NoneType else a.__name__ for a in allowed)
            problems.append(f"{f.name} must be {wanted}, got {value!r} ({type(value).__name__})")
        chosen[f.name] = value
    if problems:
        raise ValueError(f"{schema.__name__}: " + "; ".join(problems))
    return schema(**chosen)

"""TOML for the configuration in force; as a file it loads again."""

import json
from collections.abc import Mapping
from typing import Any


def toml_text(values: Mapping[str, Any]) -> str:
    """Return TOML for keys, tables and arrays of tables; what is None is named in a comment."""
    plain, tables = [], []
    for key, value in values.items():
        if isinstance(value, Mapping):
            tables.append(f"\n[{key}]\n{_toml_keys(value)}")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            tables += [f"\n[[{key}]]\n{_toml_keys(item)}" for item in value]
        elif value != []:  # an empty array and an empty array of tables look the same
            plain.append(_toml_keys({key: value}))
    return "".join(plain + tables)


def _toml_keys(values: Mapping[str, Any]) -> str:
    return "".join(
        f"# {key} is not set\n" if value is None else f"{_toml_key(key)} = {_toml_value(value)}\n"
        for key, value in values.items()
    )


def _toml_key(key: str) -> str:
    is_bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if is_bare else _toml_value(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        items = [f"{_toml_key(k)} = {_toml_value(v)}" for k, v in value.items()]
        return f"{{ {', '.join(items)} }}" if items else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    # JSON's other values are TOML's, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

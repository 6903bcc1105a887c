"""What is wrong with a pipeline file, in words."""

import yaml
from pydantic_core import ErrorDetails


def wrong(error: ErrorDetails) -> str:
    """Where, what was expected, what came."""
    where, text = [str(part) for part in error["loc"]], error["msg"][0].lower() + error["msg"][1:]
    if where[0] == "jobs" and len(where) > 1:
        where = [f"job {int(where[1]) + 1}", ".".join(where[2:])]
    if error["type"] == "string_pattern_mismatch":
        text = "must be small letters, digits, _ and -, the first no sign"
    came = "" if error["type"] == "missing" else f", got {error['input']!r}"
    return f"{': '.join(filter(None, where))}: {text}{came}"


def written_twice(root: yaml.Node | None) -> str:
    """What YAML itself passes over: a key that stands twice in a mapping, of which the last would count."""
    waiting, seen = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.CollectionNode) and id(node) not in seen:
            seen.add(id(node))
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            keys = [key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode)]
            if twice := next((key for key in keys if keys.count(key) > 1), None):
                return f"the key {twice!r} stands twice in the mapping of line {node.start_mark.line + 1}"
            waiting += [value for _, value in pairs] or node.value
    return ""

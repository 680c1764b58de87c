"""Reads what we write for compose as compose reads it."""

from __future__ import annotations

from typing import Any

import yaml


class ComposeLoader(yaml.SafeLoader):
    """Reads compose's own tags as pairs."""


def _tagged(loader: yaml.SafeLoader, node: yaml.Node) -> tuple[str, Any]:
    if isinstance(node, yaml.SequenceNode):
        return node.tag, loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.ScalarNode)
    return node.tag, None


for tag in ("!override", "!reset"):
    ComposeLoader.add_constructor(tag, _tagged)


def read(text: str) -> Any:
    """Return the override as compose sees it: YAML first, then `$$` is a `$`."""

    def undone(value: Any) -> Any:
        if isinstance(value, str):
            assert "$" not in value.replace("$$", ""), "compose would put a variable in"
            return value.replace("$$", "$")
        if isinstance(value, dict):
            return {key: undone(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(undone(item) for item in value)
        return value

    return undone(yaml.load(text, ComposeLoader))  # noqa: S506 - a SafeLoader

"""A YAML document by what it is: Kubernetes objects, a compose file, an image list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from prefetch.sources import compose, kubernetes, yamllist
from prefetch.sources.kinds import CustomKind
from prefetch.sources.selector import Note, Origin, Parsed
from prefetch.sources.yamltree import ListNode, MapNode, Node, Scalar, is_null

# Where kustomize looks; `kind` may be left out there (kustomize, "kustomization file").
_KUSTOMIZATIONS: Final = frozenset({"kustomization.yaml", "kustomization.yml", "Kustomization"})
_IN_OBJECTS: Final = frozenset({"apiVersion", "metadata", "spec", "template", "items"})


def parse(node: Node, name: str, kinds: Sequence[CustomKind] = (), *, strict: bool) -> Parsed:
    """The images of one document; `name` stands in origins and errors. Raises nothing.

    Without `strict`, what is not clearly of a kind that we know is a note: other programs' files
    have `images`, `services` and `kind`, too.
    """
    if is_null(node):
        return Parsed()
    if Path(name).name in _KUSTOMIZATIONS:
        return Parsed(notes=[kubernetes.kustomization(name, node)])
    if kubernetes.is_object(node) and (strict or not _IN_OBJECTS.isdisjoint(_keys(node))):
        return kubernetes.parse(node, name, kinds)
    if isinstance(node, MapNode) and compose.is_compose(node):
        if strict or compose.is_surely_compose(node, name):
            return compose.parse(node, name)
    elif strict or _is_surely_list(node):
        return yamllist.parse(node, name)
    return Parsed(notes=[Note(Origin(name, node.line), "no object, compose file or image list")])


def _is_surely_list(node: Node) -> bool:
    """Whether it was meant as an image list, well done or not.

    With other keys beside `images`, which a list does not have, one entry of a list's form shows
    it: charts have `images`, too, mostly of other forms.
    """
    images = node.items.get("images") if isinstance(node, MapNode) else None
    if images is None or isinstance(images, MapNode):
        return False
    if len(_keys(node)) == 1:
        return True
    entries = images.items if isinstance(images, ListNode) else []
    return any(_is_entry(entry) for entry in entries)


def _is_entry(node: Node) -> bool:
    if isinstance(node, Scalar):
        return not is_null(node)
    keys = _keys(node)
    return "image" in keys or {"repository", "tags"} <= keys.keys()


def _keys(node: Node) -> dict[str, Node]:
    return node.items if isinstance(node, MapNode) else {}

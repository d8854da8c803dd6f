"""What the gate found, as documents: JSON, and JUnit's XML for pipelines."""

from __future__ import annotations

import re
import xml.etree.ElementTree as Xml
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefetch.errors import SourceError
from prefetch.sync.gate import GateImage, Missing
from prefetch.sync.report import EXIT_FAILED, problem_document, source_errors

# What XML 1.0 has no way to write (section 2.2).
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class GateReport:
    """Each reference, and the entries that could not be read; `place` is what was asked."""

    images: Sequence[GateImage]
    errors: Sequence[SourceError]
    place: str

    @property
    def warm(self) -> bool:
        """Whether all may be rolled out; with nothing there, or not all read, nothing is proven."""
        some = any(image.warm for image in self.images)
        return some and not self.errors and all(image.passes for image in self.images)

    @property
    def pulls(self) -> int:
        """What it would cost at least to make all of them warm."""
        documents = {
            (image.wanted.reference.repository, each.digest or image.wanted.name)
            for image in self.images
            for each in image.missing
            if not image.absent and each.kind in ("reference", "index", "manifest")
        }
        return len(documents)

    def exit_code(self) -> int:
        """0 warm, 1 not."""
        return 0 if self.warm else EXIT_FAILED

    def document(self) -> dict[str, Any]:
        """`check -o json`."""
        return {
            "warm": self.warm,
            "pulls": self.pulls,
            "images": [_image(image) for image in self.images],
            "errors": source_errors(self.errors),
        }

    def junit(self) -> str:
        """`check -o junit`: a test case a reference."""
        failures = sum(not image.passes for image in self.images)
        suite = Xml.Element(
            "testsuite",
            name="prefetch check",
            tests=str(len(self.images) + len(self.errors)),
            failures=str(failures),
            errors=str(len(self.errors)),
        )
        for image in self.images:
            case = Xml.SubElement(
                suite, "testcase", classname=_clean(self.place), name=image.wanted.name
            )
            if not image.passes:
                fault = Xml.SubElement(case, "failure", message=_clean(why(image)))
                told = [image.problem.message] if image.problem is not None else []
                fault.text = _clean("\n".join([*told, *map(_line, image.missing)]))
        for error in self.errors:
            case = Xml.SubElement(
                suite, "testcase", classname=_clean(self.place), name=_clean(error.source)
            )
            Xml.SubElement(case, "error", message=_clean(str(error)))
        Xml.indent(suite)
        return Xml.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def why(image: GateImage) -> str:
    """Why an image does not pass, in a few words; nothing for one that does."""
    if image.absent:
        return "absent upstream, and nothing asks for it"
    if image.problem is not None:
        return "cannot be told"
    if any(each.kind == "reference" for each in image.missing):
        return "not in the cache"
    if image.missing:
        kinds = ("index", "manifest", "config", "layer")
        counts = {kind: sum(each.kind == kind for each in image.missing) for kind in kinds}
        plurals = {"index": "indexes"}
        lacks = ", ".join(
            f"{count} {kind if count == 1 else plurals.get(kind, f'{kind}s')}"
            for kind, count in counts.items()
            if count
        )
        return f"lacks {lacks}"
    return "may have moved since it was resolved" if image.stale else ""


def _image(image: GateImage) -> dict[str, Any]:
    return {
        "reference": image.wanted.name,
        "digest": image.digest,
        "warm": image.warm,
        "missing": [
            {
                "platform": each.platform,
                "kind": each.kind,
                "digest": each.digest,
                "size": each.size,
            }
            for each in image.missing
        ],
        "stale": image.stale,
        "absent": image.absent,
        "visibility": image.visibility,
        "error": problem_document(image.problem),
    }


def _line(missing: Missing) -> str:
    return " ".join(
        str(word)
        for word in (missing.platform, missing.kind, missing.digest, missing.size)
        if word is not None
    )


def _clean(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)

"""Claims: what a chapter's sentences state, checked when the chapter is executed.

A sentence is written once, by a person. The cell before it says with `claim` what must be true for
it to stand, its bounds included. When the results no longer bear it out the execution fails and
names chapter and sentence: then the sentence is rewritten, not the claim loosened. Conditions
compare upwards or downwards and never negate (no ``not``, ``or``, ``!=``), so that a missing number
(nan), for which every comparison is false, makes them fail; a test sees to it.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from .. import files, observe, provenance


class Claim(NamedTuple):
    """A statement of a document, and whether it was true at the last execution."""

    document: str
    says: str
    true: bool


class Untrue(AssertionError):
    """A sentence that the results do not bear out."""


def claim(holds: bool, says: str) -> None:
    """State what the sentence after this cell says, in words.

    Raises `Untrue` if it does not hold; in the quick profile, whose numbers mean nothing, it is
    only recorded.
    """
    true = bool(holds)
    observe.note("claims", [says, true])
    if not true and files.profile() == "full":
        raise Untrue(
            f"{document()}: no longer true: {says}. Rewrite the sentence to what is so; the claim "
            "states what it says."
        )


def document() -> str:
    """The file that is being executed; Quarto and our executor both name it."""
    return os.environ.get("QUARTO_DOCUMENT_FILE", "this chapter")


def claims() -> list[Claim]:
    """Every claim of the frozen documents, in their order, as the last execution found it."""
    return [
        Claim(name, says, true)
        for name in provenance.documents()
        for says, true in provenance.read_record(provenance.frozen(name)).get("claims", ())
    ]


def print_claims() -> int:
    """Print all claims with their truth; exit status 1 if one is untrue."""
    found = claims()
    for name in dict.fromkeys(claim.document for claim in found):
        own = [claim for claim in found if claim.document == name]
        print(f"{name} ({provenance.state(name)})")
        for claim in own:
            print(f"  {'true  ' if claim.true else 'UNTRUE'}  {claim.says}")
    untrue = sum(not claim.true for claim in found)
    print(f"{len(found)} claims, {untrue or 'none'} untrue at the last execution.")
    return int(untrue > 0)

"""The two scoring protocols. Every result names the one it was made with.

``strict`` is ours and is what evqa prints first: overlapping segments count once, every annotated frame is scored
and a missing mask is an empty mask, denominators come from the reference, answers are read the way a person would.

``evqa-v1`` repeats the evaluator of the original ST-Evidence release, quirks included, so that numbers stay
comparable with the paper's. ``docs/protocols.md`` lists each difference with a number.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["EVQA_V1", "PROTOCOLS", "STRICT", "Protocol", "check_protocol"]

STRICT = "strict"
EVQA_V1 = "evqa-v1"
Protocol = Literal["strict", "evqa-v1"]

#: Protocol name -> version, written into every result. A change that can change a number raises the version.
PROTOCOLS: dict[str, str] = {STRICT: "1.0", EVQA_V1: "1.0"}


def check_protocol(protocol: str) -> None:
    """Raise ``ValueError`` for a name that is not a protocol."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; known: {', '.join(PROTOCOLS)}")

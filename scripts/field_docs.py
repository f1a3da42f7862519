"""Writes docs/api.md from the table of the API's fields, or checks that it is up to date (`--check`)."""

import json
import sys
from pathlib import Path

from lensmith.openai_api import FIELDS, Bounds, Field, GuardFate, Kind, ServerFate, Vendor

PAGE = Path(__file__).resolve().parent.parent / "docs" / "api.md"
HEAD = """# Fields of a request

What each field of a completion or a chat is for, and what becomes of it. A field that is not listed is ignored by
`lensmith serve` and removed by `lensmith guard` (or refused: `--unknown-fields refuse`). This page is written by
`make format` from `openai_api/fields.py`, where a field of another server takes one line.

| word | what becomes of the field |
| --- | --- |
| read | `lensmith serve` does what it asks |
| refused | `lensmith serve` answers 400 unless the value is one that switches it off |
| ignored | `lensmith serve` answers as if it were not there |
| judged | `lensmith guard` reads it, holds it against `--expose`, and writes it anew |
| sent | `lensmith guard` checks its type and range, and sends it on; beside logprobs only where `--expose` is open |
| withheld | `lensmith guard` refuses it, or leaves it out (`--on-refusal strip`), unless it is switched off |
| removed | `lensmith guard` leaves it out, or refuses it (`--unknown-fields refuse`), unless it is switched off |

A guard allows more where a limit protects nothing: that is the business of the server behind it.

`null` switches every field off. *Asked* marks what lensmith as a client sends, with the read-outs of `lensmith audit`
that use it.

"""
COLUMNS = ("field", "purpose", "routes", "known by", "off", "values", "serve", "guard", "asked")
VENDORS = {
    Vendor.OPENAI: "OpenAI",
    Vendor.VLLM: "vLLM",
    Vendor.SGLANG: "SGLang",
    Vendor.LLAMA_CPP: "llama.cpp",
    Vendor.TGI: "TGI",
    Vendor.OTHERS: "others",
}
ROUTES = {Kind.CHAT: "chat", Kind.COMPLETION: "completions"}


def values(field: Field) -> str:
    """What it may hold, and where a guard allows more."""
    found = field.values
    if found is None:
        return ""
    guard_most = found.upper(Bounds.GUARD)
    wider = "any number" if guard_most >= 1e9 else f"{guard_most:g}"
    return found.expected + (f" (guard: {wider})" if guard_most != found.most else "")


def row(field: Field) -> str:
    """One line of the table."""
    is_known_by_all = field.known_by == ~Vendor.OTHERS
    cells = (
        f"`{field.name}`",
        field.purpose.value,
        "both" if len(field.kinds) == len(Kind) else ROUTES[field.kinds[0]],
        "all" if is_known_by_all else ", ".join(VENDORS[vendor] for vendor in field.known_by),
        ", ".join(f"`{json.dumps(value)}`" for value in field.off),
        values(field),
        field.server.value,
        field.guard.value,
        ", ".join(field.read_outs) or ("yes" if field.is_sent_by_client else ""),
    )
    return "| " + " | ".join(cells) + " |"


def page() -> str:
    """The whole page. Raises RuntimeError where the table cannot be all of it."""
    if len(FIELDS) < 100 or {field.server for field in FIELDS.values()} != set(ServerFate):
        raise RuntimeError(f"the table of fields is not whole: {len(FIELDS)} fields")
    if {field.guard for field in FIELDS.values()} != set(GuardFate):
        raise RuntimeError("the table of fields is not whole: a fate is missing")
    head = ["| " + " | ".join(COLUMNS) + " |", "| " + " | ".join(["---"] * len(COLUMNS)) + " |"]
    return HEAD + "\n".join([*head, *map(row, FIELDS.values())]) + "\n"


def main(arguments: list[str], path: Path = PAGE) -> int:
    """0 where the page is written or up to date, 1 otherwise."""
    text = page()
    if "--check" not in arguments:
        path.write_text(text, encoding="utf-8")
        return 0
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        print(f"{path} is out of date: make format", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

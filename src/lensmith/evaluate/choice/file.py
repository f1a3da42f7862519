"""Files of multiple-choice questions: JSON lines, or VLMEvalKit's tables (TSV). A bad line costs itself only.

JSON lines: `question`; `options`, a list or an object by letter; `answer`, a letter, an index from 0 or an option's
text; optionally `picture` or `pictures` (also `image`, `images`, `image_1`, ...): a path beside the file, a data URL,
or `{"base64": ...}`; `id`, `category`, `hint`. The names that other files have for the same are read too (`_NAMES`): as
ScienceQA, AI2-ARC, MMLU, HellaSwag, SEED-Bench and MMMU have them.

VLMEvalKit's table (its `ImageBaseDataset`): `index`, `question`, `A`, `B`, ..., `answer`, and `image` (base64, a list
of such, or the index of another row whose picture it is) or `image_path`, empty where a question has no picture;
optionally `category`, `hint`.

Files can be larger than memory, since they hold pictures: only texts and positions are kept, and a picture's bytes are
read again when its question is asked. Each mistake has its own words, for whoever repairs the file.
"""

import ast
import base64
import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from lensmith.core.errors import ImageError, InputError
from lensmith.core.files import sha256_of_file
from lensmith.core.images import DEFAULT_LIMITS, open_picture
from lensmith.core.types import OnProgress, unwatched
from lensmith.evaluate.choice.question import LETTERS, BadLine, PictureSource, Question
from lensmith.evaluate.choice.records import Record, Records, record_at

PictureValue: TypeAlias = str | Mapping[str, Any]

_TABLE_COLUMNS = ("question", "answer", "A", "B")


@dataclass(kw_only=True)
class QuestionFile:
    """A file that was read: good questions and bad lines in their order, and the hash of its content."""

    path: Path
    sha256: str
    columns: tuple[str, ...] = ()
    questions: list[Question] = field(default_factory=list)
    bad_lines: list[BadLine] = field(default_factory=list)

    def picture(self, source: PictureSource) -> bytes:
        """The encoded bytes of a picture. Raises ImageError where it is not there (any more)."""
        if source.path is not None:
            return file_bytes(source.path)
        record = record_at(self.path, source.offset, self.columns)
        return inline_bytes(record_pictures(record.values, is_table=bool(self.columns))[source.number])


def read_questions(path: Path, *, on_progress: OnProgress = unwatched) -> QuestionFile:
    """Reads a file of either kind: a table by its suffix (.tsv), else JSON lines.

    Every picture is decoded once, so that a broken one is known before a model runs. `on_progress` hears of bytes done
    and in all. Raises InputError where there is no file, or a table lacks the columns of one.
    """
    if not path.is_file():
        raise InputError("there is no such file of questions", actual=path)
    records = Records(path, is_table=path.suffix.lower() == ".tsv")
    if records.is_table and not set(_TABLE_COLUMNS) <= set(records.columns):
        raise InputError(
            f"{path}: not a table of questions",
            expected=f"tab-separated columns {', '.join(_TABLE_COLUMNS)}, as VLMEvalKit has them",
            actual=", ".join(records.columns[:12]) or "an empty file",
            hint="a file of JSON lines must not end in .tsv",
        )
    reading = _Reading(QuestionFile(path=path, sha256=sha256_of_file(path), columns=records.columns))
    total = path.stat().st_size
    for record in records:
        reading.take(record)
        on_progress(record.end, total)
    return reading.finish()


@dataclass(frozen=True, kw_only=True)
class _Referring:
    """A question whose picture is that of another row."""

    question: Question
    row: str


class _Reading:
    """Turns records into questions, and notes what is wrong with the others."""

    def __init__(self, file: QuestionFile) -> None:
        self.file, self.is_table = file, bool(file.columns)
        self._line_of_id: dict[str, int] = {}
        self._pictures_of_row: dict[str, tuple[PictureSource, ...]] = {}
        self._referring: list[_Referring] = []
        self._problem_of_picture: dict[bytes, str | None] = {}

    def take(self, record: Record) -> None:
        if record.problem:
            self._bad(record.line, None, InputError(record.problem))
            return
        name = read_id(record.values, record.line, is_table=self.is_table)
        try:
            self._take(record, name)
        except InputError as error:
            self._bad(record.line, name, error)

    def finish(self) -> QuestionFile:
        """Resolves references to other rows' pictures, which may stand behind. All is in the file's order then."""
        for each in self._referring:
            sources = self._pictures_of_row.get(each.row)
            try:
                if sources is None:
                    raise InputError(f"its picture should be that of row {each.row!r}, where there is none")
                for source in sources:
                    self._check(self.file.picture(source))
                self.file.questions.append(replace(each.question, pictures=sources))
            except InputError as error:
                self._bad(each.question.line, each.question.id, error)
        self.file.questions.sort(key=lambda question: question.line)
        self.file.bad_lines.sort(key=lambda bad: bad.line)
        return self.file

    def _take(self, record: Record, name: str) -> None:
        pictures = record_pictures(record.values, is_table=self.is_table)
        row = None
        sources: tuple[PictureSource, ...] = ()
        is_one = self.is_table and len(pictures) == 1
        if is_one and is_inline(pictures[0], record.values, is_table=True) and is_reference(pictures[0]):
            row = str(pictures[0]).strip()
        else:
            sources = tuple(self._source(value, number, record) for number, value in enumerate(pictures))
            # Before anything else can be wrong with this row: others may point to its pictures.
            self._pictures_of_row.setdefault(name, sources)
        if name in self._line_of_id:
            raise InputError(f"its id {name!r} is that of line {self._line_of_id[name]} too")
        question = read_question(record.values, record.line, name, is_table=self.is_table)
        for source, value in zip(sources, pictures, strict=False):
            self._check(file_bytes(source.path) if source.path else inline_bytes(value), source.path)
        self._line_of_id[name] = record.line
        if row is None:
            self.file.questions.append(replace(question, pictures=sources))
        else:
            self._referring.append(_Referring(question=question, row=row))

    def _source(self, value: PictureValue, number: int, record: Record) -> PictureSource:
        if is_inline(value, record.values, is_table=self.is_table):
            return PictureSource(offset=record.offset, number=number)
        return PictureSource(path=picture_path(self.file.path.parent, value))

    def _check(self, data: bytes, path: Path | None = None) -> None:
        """Raises ImageError where a picture cannot be decoded. Each content is decoded once."""
        key = hashlib.sha256(data).digest()
        if key not in self._problem_of_picture:
            try:
                open_picture(data)
                self._problem_of_picture[key] = None
            except ImageError as error:
                self._problem_of_picture[key] = _in_one_line(error)
        if problem := self._problem_of_picture[key]:
            raise ImageError(f"its picture is broken: {f'{path}: ' if path else ''}{problem}")

    def _bad(self, line: int, name: str | None, error: InputError) -> None:
        self.file.bad_lines.append(BadLine(line=line, id=name, problem=_in_one_line(error)))


def _in_one_line(error: InputError) -> str:
    parts = [error.problem]
    if error.expected is not None:
        parts.append(f"expected {error.expected}")
    if error.actual is not None:
        parts.append(f"found {error.actual}")
    return "; ".join(parts)


# --- A record as a question -------------------------------------------------------------------------------------------

_NAMES = {
    "id": ("id", "question_id"),
    "question": ("question", "question_stem", "ctx"),
    "options": ("options", "choices", "endings"),
    "answer": ("answer", "answerKey", "answer_key", "correct_answer", "label"),
}
"""The first of these that a record has is taken. (`ctx`, `endings` and `label` are HellaSwag's.)"""
_LETTERED = ("{upper}", "choice_{lower}", "choice_{upper}", "option_{lower}", "option_{upper}")
"""What the options are called where each has a field of its own: in MMBench, SEED-Bench, LongBench v2."""


def read_id(values: Mapping[str, Any], line: int, *, is_table: bool) -> str:
    """The record's own name for itself; without one, its line."""
    value = values.get("index") if is_table else _value(values, "id")
    return f"line {line}" if value is None or not str(value).strip() else str(value).strip()


def read_question(values: Mapping[str, Any], line: int, name: str, *, is_table: bool) -> Question:
    """The question, without its pictures. Raises InputError."""
    if isinstance(inner := values.get("question"), Mapping):  # ARC as its authors publish it
        values = {**values, "question": inner.get("stem"), "options": inner.get("choices")}
    labels: tuple[str, ...] = ()
    if is_table:
        options = _lettered_options(values, "{upper}")
    else:
        options, labels = _options(values)
    listed = _value(values, "options")
    return Question(
        id=name,
        line=line,
        question=_text(
            values, next((name for name in _NAMES["question"] if name in values), "question"), is_needed=True
        ),
        options=options,
        answer=_answer(
            _value(values, "answer"),
            options,
            labels,
            are_numbers=isinstance(listed, list) and all(isinstance(each, int | float) for each in listed),
        ),
        category=_text(values, "category"),
        hint=_text(values, "hint"),
    )


def _value(values: Mapping[str, Any], field_name: str) -> Any:
    return next((values[name] for name in _NAMES[field_name] if name in values), None)


def _text(values: Mapping[str, Any], key: str, *, is_needed: bool = False) -> str:
    value = values.get(key)
    text = "" if value is None else value.strip() if isinstance(value, str) else value
    if not isinstance(text, str):
        raise InputError(f"{key!r} is not a text", actual=type(value).__name__)
    if is_needed and not text:
        raise InputError(f"there is no {key!r}")
    return text


def _options(values: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The options' texts, and their labels where the file has its own."""
    given = [name for name in _NAMES["options"] if values.get(name) is not None]
    if len(given) > 1:
        raise InputError(f"options are given twice: {' and '.join(given)}")
    for names in _LETTERED if not given else ():
        if names.format(upper="A", lower="a") in values:
            return _lettered_options(values, names), ()
    value = values[given[0]] if given else None
    if isinstance(value, str) and value.strip().startswith("["):  # MMMU
        value = _listed(value, "options")
    if isinstance(value, Mapping) and {"text", "label"} <= set(value):  # AI2-ARC
        return _labelled_options(value["text"], value["label"])
    if isinstance(value, list) and value and all(isinstance(each, Mapping) and "text" in each for each in value):
        return _labelled_options([each["text"] for each in value], [each.get("label") for each in value])
    if isinstance(value, Mapping):
        if list(value) != list(LETTERS[: len(value)]):
            raise InputError("'options' by letter must be A, B, ... in order", actual=", ".join(map(str, value)))
        value = list(value.values())
    return _checked_options(value), ()


def _labelled_options(texts: Any, labels: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    options = _checked_options(texts)
    if not isinstance(labels, list) or len(labels) != len(options):
        actual = len(labels) if isinstance(labels, list) else type(labels).__name__
        raise InputError("the options have other labels than texts", expected=f"{len(options)} labels", actual=actual)
    names = tuple(str(label).strip() for label in labels)
    if len(set(names)) < len(names) or not all(names):
        raise InputError("two options have the same label, or one has none", actual=", ".join(names))
    return options, names


def _checked_options(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InputError("there are no 'options'", expected="a list, or an object by letter")
    if not 2 <= len(value) <= len(LETTERS):
        raise InputError("a choice needs options", expected=f"2 to {len(LETTERS)}", actual=len(value))
    return tuple(_option(each, letter) for each, letter in zip(value, LETTERS, strict=False))


def _option(value: Any, letter: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"option {letter} is not a text", actual=type(value).__name__)
    text = str(value).strip()
    if not text:
        raise InputError(f"option {letter} is empty")
    return text


def _lettered_options(values: Mapping[str, Any], names: str) -> tuple[str, ...]:
    """Fields A, B, ...; a question may have fewer than the file, but none between others is empty."""
    cells = [values.get(names.format(upper=letter, lower=letter.lower())) for letter in LETTERS]
    while cells and (cells[-1] is None or not str(cells[-1]).strip()):
        cells.pop()
    if len(cells) < 2:
        raise InputError("a choice needs options", expected="at least 2", actual=len(cells))
    return _checked_options(["" if cell is None else cell for cell in cells])


def _answer(value: Any, options: Sequence[str], labels: Sequence[str], *, are_numbers: bool) -> int:
    """The index of the right option, by its label, letter, index or text; never by one where another would differ."""
    last = labels[-1] if labels else LETTERS[len(options) - 1]
    expected = f"{labels[0] if labels else 'A'} to {last}" + ("" if labels else f", or 0 to {len(options) - 1}")
    if value is None or (isinstance(value, str) and not value.strip()):
        raise InputError("there is no right 'answer'", expected=f"{expected}, or an option's text")
    found: dict[str, int] = {}
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        text = str(value).strip()
        if labels:
            found |= {"label": labels.index(text)} if text in labels else {}
        elif re.fullmatch("[A-Za-z]", text):
            found["letter"] = LETTERS.index(text.upper())
        elif re.fullmatch("[0-9]{1,3}", text):
            found["index"] = int(text)
        found = {way: index for way, index in found.items() if index < len(options)}
        if not found or isinstance(value, str) or are_numbers:  # a number beside texts is an index
            found |= _by_text(text, options)
    if len(set(found.values())) > 1:
        ways = " and ".join(f"the {way} of {LETTERS[index]}" for way, index in found.items())
        raise InputError(f"its 'answer' is {ways}", expected="one that names one option", actual=repr(value))
    if not found:
        raise InputError("its 'answer' is none of its options", expected=expected, actual=repr(value))
    return next(iter(found.values()))


def _by_text(text: str, options: Sequence[str]) -> dict[str, int]:
    for same in (str, str.casefold):
        equal = [index for index, option in enumerate(options) if same(option) == same(text)]
        if len(equal) > 1:
            letters = " and ".join(LETTERS[index] for index in equal)
            raise InputError(f"its 'answer' is the text of {letters}", expected="a letter", actual=repr(text))
        if equal:
            return {"text": equal[0]}
    return {}


# --- A record's pictures ----------------------------------------------------------------------------------------------

_KEYS = ("picture", "pictures", "image", "images")
_NUMBERED = tuple(f"image_{number}" for number in range(1, 10))  # MMMU
_LONGEST_REFERENCE = 64
"""VLMEvalKit's rule: a shorter cell is no picture but the index of a row that has one."""
_LONGEST_PATH = 1024
_BASE64 = re.compile(r"[A-Za-z0-9+/=_\-\s]*")


def record_pictures(values: Mapping[str, Any], *, is_table: bool) -> list[PictureValue]:
    """The pictures that a record names, in order; none where it has no key for them, null, or an empty cell.

    Raises InputError where it has a key that names nothing.
    """
    names = ("image", "image_path") if is_table else _KEYS
    keys = [key for key in names if values.get(key) is not None and not (is_table and not values[key].strip())]
    numbered = [] if is_table else [key for key in _NUMBERED if values.get(key) is not None]
    if not keys and not numbered:
        return []
    if len(keys) + bool(numbered) > 1 and not is_table:
        raise InputError(f"pictures are given twice: {' and '.join([*keys, *numbered])}")
    value = values[keys[0]] if keys else [values[key] for key in numbered]
    if isinstance(value, str) and value.strip().startswith("["):
        value = _listed(value, "pictures")
    found = list(value) if isinstance(value, list | tuple) else [value]
    if not found or any(each is None or not isinstance(each, str | Mapping) or not each for each in found):
        raise InputError(f"no picture in {(keys or numbered)[0]!r}: leave the key out where there is none")
    if any(isinstance(each, str) and not each.strip() for each in found):
        raise InputError(f"no picture in {(keys or numbered)[0]!r}")
    return found


def is_inline(value: PictureValue, values: Mapping[str, Any], *, is_table: bool) -> bool:
    """Whether the picture is in the record itself; else it is a path."""
    if is_table:
        return bool(values.get("image", "").strip())
    if isinstance(value, Mapping):
        return True
    return value.startswith("data:") or (len(value) > _LONGEST_PATH and bool(_BASE64.fullmatch(value)))


def is_reference(value: PictureValue) -> bool:
    """Whether a cell of a table's `image` is the index of another row."""
    return isinstance(value, str) and len(value) <= _LONGEST_REFERENCE


def inline_bytes(value: PictureValue) -> bytes:
    """The bytes of a picture in base64. Raises ImageError."""
    text = value.get("base64") if isinstance(value, Mapping) else value
    if not isinstance(text, str):
        raise ImageError("a picture in a record has no base64", expected='{"base64": "..."}')
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise ImageError("a data URL without base64", expected="data:image/png;base64,...")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError("its picture is no base64", actual=str(error)) from error


def file_bytes(path: Path) -> bytes:
    """The bytes of a picture file. Raises ImageError where there is none, or it is too large."""
    try:
        with path.open("rb") as file:
            data = file.read(DEFAULT_LIMITS.max_bytes + 1)
    except FileNotFoundError as error:
        raise ImageError("its picture is not there", actual=path) from error
    except (OSError, ValueError) as error:
        raise ImageError("its picture cannot be read", actual=f"{path}: {error}") from error
    if len(data) > DEFAULT_LIMITS.max_bytes:
        raise ImageError("its picture is too large", expected=f"at most {DEFAULT_LIMITS.max_bytes:,} bytes")
    return data


def picture_path(folder: Path, value: PictureValue) -> Path:
    """Where a picture file is: paths count from the folder of the questions. Raises ImageError for a URL."""
    text = str(value)
    if re.match(r"https?://", text):
        raise ImageError("a picture is a URL, and nothing is fetched here", expected="a path, or base64", actual=text)
    return folder / text


def _listed(text: str, of_what: str) -> list[Any]:
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise InputError(f"its list of {of_what} cannot be read") from error
    return value if isinstance(value, list) else [value]

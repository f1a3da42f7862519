"""Files of multiple-choice questions: JSON lines, or VLMEvalKit's tables (TSV). A bad line costs itself only.

JSON lines: `question`; `options`, a list or an object by letter; `answer`, a letter or an index from 0; optionally
`picture` or `pictures` (also `image`, `images`): a path beside the file, a data URL, or `{"base64": ...}`; `id`,
`category`, `hint`.

VLMEvalKit's table (its `ImageBaseDataset`): `index`, `question`, `A`, `B`, ..., `answer`, and `image` (base64, a list
of such, or the index of another row whose picture it is) or `image_path`; optionally `category`, `hint`.

Files can be larger than memory, since they hold pictures: only texts and places are kept, and a picture's bytes are
read again when its question is asked.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from lensmith.core.errors import ImageError, InputError
from lensmith.core.files import sha256_of_file
from lensmith.core.images import open_picture
from lensmith.evaluate.choice import BadLine, PictureSource, Question
from lensmith.evaluate.choice_fields import read_id, read_question
from lensmith.evaluate.choice_pictures import (
    PictureValue,
    file_bytes,
    inline_bytes,
    is_inline,
    is_reference,
    picture_path,
    record_pictures,
)
from lensmith.evaluate.choice_records import Record, Records, record_at

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


def read_questions(path: Path, *, on_progress: Callable[[int, int], None] | None = None) -> QuestionFile:
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
        if on_progress is not None:
            on_progress(record.end, total)
    return reading.finish()


@dataclass(frozen=True, kw_only=True)
class _Referring:
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
        if self.is_table and len(pictures) == 1 and self._is_inline(pictures[0], record) and is_reference(pictures[0]):
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
        if self._is_inline(value, record):
            return PictureSource(offset=record.offset, number=number)
        return PictureSource(path=picture_path(self.file.path.parent, value))

    def _is_inline(self, value: PictureValue, record: Record) -> bool:
        return is_inline(value, record.values, is_table=self.is_table)

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
    told = [error.problem]
    if error.expected is not None:
        told.append(f"expected {error.expected}")
    if error.actual is not None:
        told.append(f"found {error.actual}")
    return "; ".join(told)

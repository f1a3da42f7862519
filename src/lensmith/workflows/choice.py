"""Multiple-choice accuracy of a model on a file of questions, by likelihood or by generation, resumable.

Every question that can be evaluated is; what cannot be is listed by line at the end. Results are on disk as they come,
and the same command goes on where the file of results ends.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lensmith.core.endpoint import RefusedError, Request
from lensmith.core.errors import InputError
from lensmith.core.types import Message, OnProgress, Picture, unwatched
from lensmith.evaluate.choice.answers import parse_answer
from lensmith.evaluate.choice.file import QuestionFile, read_questions
from lensmith.evaluate.choice.metrics import ChoiceSummary, summarise
from lensmith.evaluate.choice.question import Asking, BadLine, HowAsked, Mode, Normalise, Question, Result
from lensmith.evaluate.choice.results import ResultsHead, open_results
from lensmith.models.inference.loading import NO_OPTIONS, FamilyOptions, dtype_named
from lensmith.models.scoring.likelihood import OptionScore, Scored
from lensmith.models.scoring.model import Asked, ScoredModel

MAX_NEW_TOKENS = 64
QUESTIONS_AT_ONCE = 4


@dataclass(frozen=True, kw_only=True)
class ChoiceSettings:
    """What `lensmith eval choice` does. `options`: those that only models of some families have.

    Raises InputError for what makes no sense together.
    """

    mode: Mode = Mode.LIKELIHOOD
    normalise: Normalise | None = None
    circular: bool = False
    max_new_tokens: int | None = None
    strict: bool = False
    dtype: str = "float32"
    device: str = "cpu"
    cache_mib: int = 512
    options: FamilyOptions = field(default_factory=lambda: NO_OPTIONS)  # the same for all: nothing can change it

    def __post_init__(self) -> None:
        if self.mode is Mode.GENERATION and self.normalise is not None:
            raise InputError("generation compares no likelihoods", expected="normalise in likelihood mode only")
        if self.mode is Mode.LIKELIHOOD and self.max_new_tokens is not None:
            raise InputError("likelihood writes no answer", expected="max_new_tokens in generation mode only")
        if self.circular and not self.how.shows_options:
            raise InputError(
                "rotations change nothing where the options are not in the question",
                expected="circular with letters or with generation",
                actual=f"normalise={self.how.normalise and self.how.normalise.value}",
            )
        dtype_named(self.dtype)

    @property
    def how(self) -> HowAsked:
        if self.mode is Mode.GENERATION:
            most = MAX_NEW_TOKENS if self.max_new_tokens is None else self.max_new_tokens
            return HowAsked(mode=self.mode, normalise=None, circular=self.circular, max_new_tokens=most)
        return HowAsked(mode=self.mode, normalise=self.normalise or Normalise.LETTER, circular=self.circular)


def run(
    path: Path,
    *,
    model: str | Path,
    settings: ChoiceSettings | None = None,
    out: Path | None = None,
    on_read: OnProgress = unwatched,
    on_progress: OnProgress = unwatched,
) -> ChoiceSummary:
    """Evaluates `model` on the questions in `path`. `on_read` hears of bytes, `on_progress` of questions.

    With `out`, results are appended there and those that are there already are not computed again. Raises InputError
    where no line is good, with `settings.strict` where one is bad, and where `out` holds results of something else.
    """
    settings = settings or ChoiceSettings()
    file = read_questions(path, on_progress=on_read)
    if settings.strict and file.bad_lines:
        raise _bad_file(file.path, file.bad_lines)
    if not file.questions:
        raise _nothing_left(file.path, file.bad_lines)
    loaded = ScoredModel.load(
        model,
        dtype=dtype_named(settings.dtype),
        device=settings.device,
        cache_bytes=settings.cache_mib << 20,
        options=settings.options,
    )
    return evaluate(loaded, file, settings, out=out, on_progress=on_progress)


def evaluate(
    model: ScoredModel,
    file: QuestionFile,
    settings: ChoiceSettings,
    *,
    out: Path | None = None,
    on_progress: OnProgress = unwatched,
) -> ChoiceSummary:
    """As `run`, with a model and a file that are here already."""
    how = settings.how
    asker = _Asker(model, file, how)
    asker.refuse_blind()
    if settings.strict:
        asker.prepare_all()
    identity = model.identity()
    head = ResultsHead(
        file=file.path.name,
        file_sha256=file.sha256,
        model=model.answering.name,
        identity=identity.digest,
        probe=identity.probe,
        tolerance=identity.tolerance,
        how=how,
    )
    with open_results(out, head) as results:
        pending = [question for question in file.questions if question.id not in results.done]
        done = len(file.questions) - len(pending)
        for first in range(0, len(pending), QUESTIONS_AT_ONCE):
            group = pending[first : first + QUESTIONS_AT_ONCE]
            for result in asker.ask(group):
                results.add(result)
            done += len(group)
            on_progress(done, len(file.questions))
        ordered = [results.done[question.id] for question in file.questions if question.id in results.done]
    bad_lines = sorted((*file.bad_lines, *asker.bad_lines), key=lambda bad: bad.line)
    if not ordered:
        raise _nothing_left(file.path, bad_lines)
    return summarise(ordered, how, file=file.path.name, model=model.answering.name, bad_lines=bad_lines)


class _Asker:
    """Asks questions of a model. What it cannot read becomes a bad line."""

    def __init__(self, model: ScoredModel, file: QuestionFile, how: HowAsked) -> None:
        self.model, self.file, self.how = model, file, how
        self.bad_lines: list[BadLine] = []

    def refuse_blind(self) -> None:
        """Raises InputError where questions have pictures, and pictures or the words beside them are not read."""
        if not any(question.pictures for question in self.file.questions):
            return
        if not self.model.answering.prompts.reads_pictures:
            raise InputError("the questions have pictures, and this model reads none", actual=self.model.answering.name)
        if not self.model.reads_questions_on_pictures():
            raise InputError(
                "this model reads no words beside a picture, so no question either",
                expected="a model with a chat template",
                actual=self.model.answering.name,
            )

    def prepare_all(self) -> None:
        """Raises InputError where a question cannot be asked, before anything is computed."""
        bad_lines = [bad for question in self.file.questions if isinstance(bad := self._forms(question), BadLine)]
        if bad_lines:
            raise _bad_file(self.file.path, bad_lines)

    def ask(self, questions: Sequence[Question]) -> Iterator[Result]:
        """Results of those that can be asked, in order."""
        forms: list[_Form] = []
        for question in questions:
            found = self._forms(question)
            if isinstance(found, BadLine):
                self.bad_lines.append(found)
            else:
                forms += found
        asked = self._written(forms) if self.how.mode is Mode.GENERATION else self._scored(forms)
        of_question: dict[str, list[Asking]] = {}
        for form, asking in zip(forms, asked, strict=True):
            of_question.setdefault(form.question.id, []).append(asking)
        for question in questions:
            if question.id in of_question:
                yield Result(
                    id=question.id,
                    line=question.line,
                    options=len(question.options),
                    category=question.category,
                    asked=tuple(of_question[question.id]),
                )

    def _forms(self, question: Question) -> "list[_Form] | BadLine":
        try:
            pictures = tuple(Picture(data=self.file.picture(source)) for source in question.pictures)
            return [self._form(form, pictures) for form in question.rotations(self.how)]
        except (InputError, RefusedError) as error:
            listed = error.problem if error.actual is None else f"{error.problem}; found {error.actual}"
            return BadLine(line=question.line, id=question.id, problem=listed)

    def _form(self, question: Question, pictures: tuple[Picture, ...]) -> "_Form":
        request = self._request(question, pictures)
        if self.how.mode is Mode.GENERATION:
            self.model.check(request)
            return _Form(question=question, request=request)
        asked = Asked(request=request, options=question.candidates(self.how))
        return _Form(question=question, request=request, prepared=self.model.prepare(asked))

    def _request(self, question: Question, pictures: tuple[Picture, ...]) -> Request:
        text = question.prompt(self.how)
        most = self.how.max_new_tokens or 1
        if self.model.answering.prompts.reads_messages:
            message = Message(role="user", parts=(*pictures, text))
            return Request(messages=(message,), max_tokens=most, temperature=0.0)
        return Request(prompt=f"{text}\nAnswer:", max_tokens=most, temperature=0.0)

    def _scored(self, forms: Sequence["_Form"]) -> list[Asking]:
        prepared = [form.prepared for form in forms if form.prepared is not None]
        asked = []
        for form, scores in zip(forms, self.model.score(prepared), strict=True):
            values = tuple(_value(score, self.how.normalise) for score in scores)
            # Of equal values the first: a rule must not depend on the machine.
            asked.append(Asking(answer=form.question.answer, chosen=values.index(max(values)), scores=values))
        return asked

    def _written(self, forms: Sequence["_Form"]) -> list[Asking]:
        texts = self.model.write([form.request for form in forms])
        return [
            Asking(answer=form.question.answer, chosen=parse_answer(text, form.question.options), text=text)
            for form, text in zip(forms, texts, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class _Form:
    """One form (rotation) of a question, as it goes to the model; with its options' tokens in likelihood mode."""

    question: Question
    request: Request
    prepared: Scored | None = None


def _value(score: OptionScore, normalise: Normalise | None) -> float:
    """What is compared. A letter of several tokens, where there is such, has the probability of all of them."""
    return score.mean if normalise is Normalise.OPTION else score.total


def _bad_file(path: Path, bad_lines: Sequence[BadLine]) -> InputError:
    listed = "\n".join(f"  {bad}" for bad in bad_lines)
    return InputError(f"{path}: {len(bad_lines)} bad lines, and --strict allows none\n{listed}")


def _nothing_left(path: Path, bad_lines: Sequence[BadLine]) -> InputError:
    listed = "".join(f"\n  {bad}" for bad in bad_lines)
    return InputError(f"{path}: no question can be evaluated{listed}", expected="at least one good line")

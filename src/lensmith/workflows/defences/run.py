"""`lensmith defences`: a model's own logits, or logits from a file, through every defence.

Logits of a model come from answers that it writes at temperature 1 to random questions: each position is one context,
as an honest user meets them.

Legend: N contexts, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lensmith.audit.querying.contexts import ContextForm, Contexts
from lensmith.core.arrays import Float32Array, FloatArray
from lensmith.core.endpoint import Endpoint, Feature, Reveal
from lensmith.core.errors import InputError
from lensmith.workflows.defences.cases import Defence, common_defences
from lensmith.workflows.defences.page import write_study
from lensmith.workflows.defences.study import DefenceStudy, study_defences

OnProgress = Callable[[int, int], None]

_POSITIONS = 32
_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class DefenceOptions:
    """What a person types. `source`: a model (folder, GGUF file, name), or a `.npy` file of logits (N, V).

    `expose` adds interfaces to those that are compared anyway. `contexts` is N for a model; the width shows from 1.25
    times the width on, and noise is fought with up to 4 times.
    """

    source: str
    out: Path
    expose: tuple[str, ...] = ()
    contexts: int = 768
    seed: int = 0


def study_source(options: DefenceOptions, on_progress: OnProgress = lambda done, total: None) -> DefenceStudy:
    """Studies the defences and writes `defences.html` and `defences.json` into `options.out`.

    Raises InputError where there are no logits to be had or `out` is a file, ConfigError for an exposure that cannot be
    read.
    """
    if options.out.exists() and not options.out.is_dir():
        raise InputError(f"{options.out} is a file", expected="a folder for the study", hint="choose another --out")
    own = tuple(Defence(name=f"Yours: {words}", words=words) for words in options.expose)
    path = Path(options.source)
    if path.suffix == ".npy":
        logits_NV: FloatArray = load_logits(path)
    else:
        logits_NV = read_logits(_endpoint(options.source), options.contexts, seed=options.seed, on_progress=on_progress)
    study = study_defences(
        logits_NV, (*common_defences(), *own), model=path.name, seed=options.seed, on_progress=on_progress
    )
    write_study(study, options.out)
    return study


def load_logits(path: Path) -> FloatArray:
    """Logits (N, V) from a `.npy` file, mapped rather than read. Raises InputError for anything else."""
    try:
        logits_NV = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError("no such file", actual=str(path)) from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is not a file of logits", expected="an array that numpy.save wrote") from error
    if not isinstance(logits_NV, np.ndarray) or logits_NV.ndim != 2 or logits_NV.dtype.kind != "f":
        actual = getattr(logits_NV, "shape", "an archive")
        raise InputError(f"{path} holds no logits", expected="floats of shape (contexts, vocabulary)", actual=actual)
    return logits_NV


def read_logits(
    endpoint: Endpoint, contexts: int, *, seed: int = 0, on_progress: OnProgress = lambda done, total: None
) -> Float32Array:
    """Logprobs (N, V), which are logits up to a constant a row, from an endpoint that tells the whole vocabulary.

    Tokens that do not exist (-inf somewhere) are left out. Raises RefusedError where the endpoint does not tell that
    much, InputError where it writes nothing.
    """
    form = ContextForm.PICTURE if Feature.PICTURES in endpoint.supports().features else ContextForm.PROMPT
    questions = Contexts(form, seed)
    rows: list[Float32Array] = []
    asked, num_read = 0, 0
    while num_read < contexts:
        requests = [
            replace(questions[number], max_tokens=_POSITIONS, temperature=1.0, seed=number, reveal=Reveal.VOCABULARY)
            for number in range(asked, asked + _AT_ONCE)
        ]
        asked += _AT_ONCE
        new = [answer.choices[0].logprobs for answer in endpoint.answer(requests)]
        blocks = [part.vocabulary_TV for part in new if part is not None and part.vocabulary_TV is not None]
        rows += [block_TV.astype(np.float32) for block_TV in blocks if len(block_TV)]
        if not rows or asked > _AT_ONCE * (contexts + 1):
            raise InputError("the model writes nothing, so there are no logits to study", hint="give another model")
        num_read = sum(map(len, rows))
        on_progress(min(num_read, contexts), contexts)
    logits_NV = np.concatenate(rows)[:contexts]
    exists_V = np.isfinite(logits_NV).all(axis=0)
    return logits_NV if exists_V.all() else logits_NV[:, exists_V]


def _endpoint(source: str) -> Endpoint:
    from lensmith.models.inference.endpoint import LocalEndpoint  # noqa: PLC0415 - a file of logits needs no torch
    from lensmith.models.inference.loading import load_answering  # noqa: PLC0415 - a file of logits needs no torch
    from lensmith.models.inference.prompts import PicturePrompts  # noqa: PLC0415

    loaded = load_answering(source)
    prompts = loaded.prompts
    reading = prompts.processor if isinstance(prompts, PicturePrompts) else prompts.tokenizer
    return LocalEndpoint(loaded.model, reading, name=loaded.name)

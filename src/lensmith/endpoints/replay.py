"""Records what an endpoint was asked and what it answered, and answers from such a record without the endpoint.

One JSON object a line: what the endpoint says of itself, and each request with its answer or its refusal. Arrays are
kept exactly (base64 of little-endian bytes). Of a request only its SHA-256 and a short description are kept: a record
holds no prompt and no picture, but it does hold the answers.
"""

import base64
import dataclasses
import json
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmith.core.endpoint import (
    Answer,
    Capabilities,
    Choice,
    Endpoint,
    Feature,
    Finish,
    Logprobs,
    RefusedError,
    Request,
    needed_features,
)
from lensmith.core.errors import InputError
from lensmith.core.files import sha256_of_bytes
from lensmith.core.types import Picture

FORMAT = "lensmith endpoint record 1"


class RecordingEndpoint:
    """Passes requests on to `endpoint` and appends each, with its answer, to the JSONL file at `path`.

    An existing record is continued. Errors other than refusals are passed on and not recorded.
    """

    def __init__(self, endpoint: Endpoint, path: str | Path) -> None:
        self._endpoint, self._path = endpoint, Path(path)

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        keys = [_key(request) for request in requests]
        try:
            answers = self._endpoint.answer(requests)
        except RefusedError as error:
            self._write([{"refused": keys, "error": _refusal_to_json(error)}])
            raise
        self._write(
            {"asked": key, "what": _described(request), "answer": _answer_to_json(answer)}
            for key, request, answer in zip(keys, requests, answers, strict=True)
        )
        return answers

    def supports(self) -> Capabilities:
        return self._endpoint.supports()

    def metadata(self) -> Mapping[str, Any]:
        return self._endpoint.metadata()

    def _write(self, lines: Any) -> None:
        is_new = not self._path.exists()
        with self._path.open("a", encoding="utf-8") as file:
            if is_new:
                file.write(_line({"format": FORMAT, **self._self_description()}))
            file.writelines(map(_line, lines))

    def _self_description(self) -> dict[str, Any]:
        said = dataclasses.asdict(self._endpoint.supports())
        return {"supports": {**said, "features": _names(said["features"])}, "metadata": dict(self._endpoint.metadata())}


class ReplayEndpoint:
    """Answers from the record at `path`.

    The answers to equal requests come in the order in which they were recorded. Raises InputError for a request that
    was not recorded, or that is asked more often than it was; RefusedError as the recorded endpoint did.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._answers: dict[str, deque[Answer]] = defaultdict(deque)
        self._refusals: dict[tuple[str, ...], RefusedError] = {}
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
            self._read([json.loads(line) for line in lines])
        except OSError as error:
            raise InputError("the record cannot be read", actual=error) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            actual = f"{type(error).__name__}: {error}"
            raise InputError(f"{path} is no record of an endpoint", actual=actual) from error

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        keys = tuple(map(_key, requests))
        if keys in self._refusals:
            raise self._refusals[keys]
        return [self._next(key, request) for key, request in zip(keys, requests, strict=True)]

    def supports(self) -> Capabilities:
        return self._supports

    def metadata(self) -> Mapping[str, Any]:
        return self._metadata

    def _read(self, lines: list[Any]) -> None:
        if not lines or lines[0].get("format") != FORMAT:
            raise ValueError(f"its first line does not say {FORMAT!r}")
        said = lines[0]["supports"]
        self._supports = Capabilities(**{**said, "features": _feature(said["features"])})
        self._metadata = dict(lines[0]["metadata"])
        for line in lines[1:]:
            if "refused" in line:
                self._refusals[tuple(line["refused"])] = _refusal_from_json(line["error"])
            else:
                self._answers[line["asked"]].append(_answer_from_json(line["answer"]))

    def _next(self, key: str, request: Request) -> Answer:
        if key not in self._answers:
            raise InputError(
                f"this request is not in {self._path.name}",
                actual=_described(request),
                hint="record again, with RecordingEndpoint around the endpoint",
            )
        if not self._answers[key]:
            raise InputError(f"this request is asked more often than it stands in {self._path.name}")
        return self._answers[key].popleft()


# --- JSON ---------------------------------------------------------------------------------------------------------


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, allow_nan=False) + "\n"


def _key(request: Request) -> str:
    values = {
        field.name: getattr(request, field.name) for field in dataclasses.fields(request) if field.name != "messages"
    }
    values["reveal"] = request.reveal.value
    values["logit_bias"] = sorted(request.logit_bias.items())
    values["messages"] = [
        [message.role, *(_picture_key(part) if isinstance(part, Picture) else part for part in message.parts)]
        for message in request.messages
    ]
    return sha256_of_bytes(json.dumps(values, sort_keys=True).encode())


def _picture_key(picture: Picture) -> list[str]:
    return [picture.url, sha256_of_bytes(picture.data)]


def _described(request: Request) -> str:
    return f"{request.max_tokens} tokens, with {', '.join(_names(needed_features(request)))}"


def _answer_to_json(answer: Answer) -> dict[str, Any]:
    return {
        "choices": [
            {
                "text": choice.text,
                "finish": choice.finish.value,
                "ids": _array_to_json(choice.token_ids_T),
                "logprobs": _logprobs_to_json(choice.logprobs),
                "reasoning": choice.reasoning,
            }
            for choice in answer.choices
        ],
        "prompt_ids": _array_to_json(answer.prompt_ids_P),
        "prompt_logprobs": _logprobs_to_json(answer.prompt_logprobs),
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
    }


def _answer_from_json(value: Mapping[str, Any]) -> Answer:
    choices = [
        Choice(
            text=choice["text"],
            finish=Finish(choice["finish"]),
            token_ids_T=_needed(_array_from_json(choice["ids"])),
            logprobs=_logprobs_from_json(choice["logprobs"]),
            reasoning=choice.get("reasoning", ""),
        )
        for choice in value["choices"]
    ]
    return Answer(
        choices=tuple(choices),
        prompt_ids_P=_array_from_json(value["prompt_ids"]),
        prompt_logprobs=_logprobs_from_json(value["prompt_logprobs"]),
        prompt_tokens=value["prompt_tokens"],
        completion_tokens=value.get("completion_tokens"),
    )


def _logprobs_to_json(logprobs: Logprobs | None) -> dict[str, Any] | None:
    if logprobs is None:
        return None
    return {field.name: _array_to_json(getattr(logprobs, field.name)) for field in dataclasses.fields(logprobs)}


def _logprobs_from_json(value: Mapping[str, Any] | None) -> Logprobs | None:
    if value is None:
        return None
    parts: dict[str, Any] = {name: _array_from_json(each) for name, each in value.items()}
    return Logprobs(**parts)


def _array_to_json(array: NDArray[Any] | None) -> dict[str, Any] | None:
    if array is None:
        return None
    kept = array.astype(array.dtype.newbyteorder("<"))
    return {"type": kept.dtype.str, "shape": kept.shape, "data": base64.b64encode(kept.tobytes()).decode()}


def _array_from_json(value: Mapping[str, Any] | None) -> NDArray[Any] | None:
    if value is None:
        return None
    flat = np.frombuffer(base64.b64decode(value["data"], validate=True), dtype=np.dtype(value["type"]))
    return flat.reshape(value["shape"]).astype(flat.dtype.newbyteorder("="))


def _needed(array: NDArray[Any] | None) -> NDArray[Any]:
    if array is None:
        raise ValueError("token ids are missing")
    return array


def _refusal_to_json(error: RefusedError) -> dict[str, Any]:
    shown = {name: getattr(error, name) for name in ("expected", "actual", "hint")}
    texts = {name: None if value is None else str(value) for name, value in shown.items()}
    return {"problem": error.problem, "feature": _names(error.feature), **texts}


def _refusal_from_json(value: Mapping[str, Any]) -> RefusedError:
    rest = {name: value[name] for name in ("expected", "actual", "hint")}
    return RefusedError(value["problem"], feature=_feature(value["feature"]), **rest)


def _names(features: Feature) -> list[str]:
    return [str(feature.name) for feature in features]


def _feature(names: Sequence[str]) -> Feature:
    result = Feature.NOTHING
    for name in names:
        result |= Feature[name]
    return result

"""What the requests look like, for /openapi.json. `openai_api` reads them; this describes what it takes."""

from typing import Any

_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_PENALTY = {"type": "number", "minimum": -2, "maximum": 2}
_PART = {
    "oneOf": [
        {
            "type": "object",
            "required": ["type", "text"],
            "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
        },
        {
            "type": "object",
            "required": ["type", "image_url"],
            "properties": {
                "type": {"const": "image_url"},
                "image_url": {
                    "type": "object",
                    "required": ["url"],
                    "properties": {"url": {"type": "string", "description": "data:image/...;base64,... or http(s)"}},
                },
            },
        },
    ]
}
_FUNCTION = {
    "type": "object",
    "required": ["name", "arguments"],
    "properties": {
        "name": {"type": "string"},
        "arguments": {"type": "string", "description": "A JSON object, as text."},
    },
}
_MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {
            "oneOf": [{"type": "string"}, {"type": "array", "items": _PART}, {"type": "null"}],
            "description": "null: an assistant's that called tools",
        },
        "tool_calls": {
            "type": "array",
            "items": {"type": "object", "required": ["function"], "properties": {"function": _FUNCTION}},
            "description": "An assistant's calls; models whose chat template knows none refuse them.",
        },
        "tool_call_id": {"type": "string"},
    },
}
_SHARED: dict[str, Any] = {
    "model": {"type": "string"},
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
    "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "n": {"type": "integer", "minimum": 1, "maximum": 128},
    "seed": {"type": "integer", "minimum": -(1 << 63), "maximum": (1 << 63) - 1},
    "stop": {
        "oneOf": [
            {"type": "string", "minLength": 1},
            {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 4},
        ]
    },
    "stream": {"type": "boolean"},
    "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
    "logit_bias": {
        "type": "object",
        "propertyNames": {"pattern": "^[0-9]{1,9}$"},
        "additionalProperties": {"type": "number"},
        "description": "What is added to the logits of these token ids.",
    },
    "presence_penalty": {**_PENALTY, "description": "Taken once off the logits of tokens that the answer holds."},
    "frequency_penalty": {**_PENALTY, "description": "The same, for each time that the answer holds them."},
    "repetition_penalty": {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": 2,
        "description": "What the logits of tokens of prompt and answer are divided by, or times, as in vLLM.",
    },
    "logprob_token_ids": {**_IDS, "uniqueItems": True, "description": "Ids whose logprobs are told, as in vLLM."},
    "allowed_token_ids": {**_IDS, "minItems": 1, "description": "The only ids that can be chosen, as in vLLM."},
    "return_tokens_as_token_ids": {"type": "boolean", "description": "Tokens are called token_id:123, as in vLLM."},
    "return_token_ids": {"type": "boolean", "description": "The ids of prompt and answer are given, as in vLLM."},
    "user": {"type": "string"},
}
CHAT = {
    "type": "object",
    "required": ["messages"],
    "properties": {
        **_SHARED,
        "messages": {"type": "array", "items": _MESSAGE, "minItems": 1},
        "max_tokens": {"type": "integer", "minimum": 1},
        "max_completion_tokens": {"type": "integer", "minimum": 1},
        "logprobs": {"type": "boolean"},
        "top_logprobs": {"type": "integer", "minimum": -1, "description": "-1: the whole vocabulary, as in vLLM."},
    },
}
COMPLETION = {
    "type": "object",
    "required": ["prompt"],
    "properties": {
        **_SHARED,
        "prompt": {
            "oneOf": [
                {"type": "string", "minLength": 1},
                {**_IDS, "minItems": 1},
                {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "maxItems": 128},
                {"type": "array", "items": {**_IDS, "minItems": 1}, "minItems": 1, "maxItems": 128},
            ]
        },
        "max_tokens": {"type": "integer", "minimum": 0},
        "logprobs": {"type": "integer", "minimum": -1, "description": "-1: the whole vocabulary, as in vLLM."},
        "echo": {"type": "boolean"},
    },
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type"],
            "properties": {name: {"type": ["string", "null"]} for name in ("message", "type", "param", "code")},
        }
    },
}
_ERRORS = {
    400: "The request makes no sense, or asks for what this server does not reveal.",
    401: "No valid key.",
    404: "No such model.",
    413: "The body is too large, or expands to what is.",
    415: "The body is compressed otherwise than with gzip or deflate.",
    429: "Too many requests are waiting.",
    503: "The server is stopping, or the time limit came.",
}


def operation(body: dict[str, Any]) -> dict[str, Any]:
    """What FastAPI adds to an operation whose body is read by hand."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": body}}}}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors that an operation can answer with."""
    content = {"application/json": {"schema": _ERROR}}
    return {status: {"description": _ERRORS[status], "content": content} for status in statuses}

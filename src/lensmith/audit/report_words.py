"""Plain words for what reports hold as field names: capabilities, the figures of findings, and what a finding means."""

from collections.abc import Mapping
from types import MappingProxyType

CAPABILITIES: Mapping[str, str] = MappingProxyType(
    {
        "read_outs": "Ways to read that are open",
        "top_logprobs": "Most likely tokens told with their logprobs (top logprobs)",
        "whole_vocabulary": "Logprobs of the whole vocabulary are told",
        "wanted_ids": "Token ids whose logprobs one request may ask for",
        "sampled": "What is told of a chosen token outside the top",
        "bias_steers": "A bias decides which token comes",
        "largest_bias": "Largest bias that is taken",
        "biased_ids": "Tokens that one request may bias",
        "bias_with_logprobs": "A bias and logprobs go together",
        "taken": "Logprobs are taken",
        "allow_list": "A list of allowed tokens decides which token comes",
        "allow_list_true_value": "The allowed token's true logprob is told",
        "echo": "Logprobs of the prompt's own tokens are told (echo)",
        "takes_token_ids": "Prompts may be given as token ids",
        "tells_ids": "Tokens are told by their ids",
        "vocabulary_size": "Tokens in the vocabulary",
        "deterministic": "The same question gets the same answer",
        "spread_nats": "How far answers to one question lie apart, in nats",
        "decimals": "Decimals of a logprob",
        "step_nats": "Smallest step between two values, in nats",
        "facts": "What the metadata says",
        "failed": "Questions of the probe that failed",
        "notes": "Each question of the probe and its outcome",
    }
)
"""In the order in which a report shows them."""

FIGURES: Mapping[str, str] = MappingProxyType(
    {
        "assumed_width": "Hidden width, assumed",
        "confirmed_on": "Found again on",
        "content_hash": "Hash of the image",
        "contexts": "Questions (contexts)",
        "difference_nats": "Difference between two readings, in nats",
        "error_nats": "Error of what was predicted, in nats",
        "error_of_linear_map": "Error if known up to a linear map only",
        "error_unrelated_nats": "Error of an unrelated image, in nats",
        "error_up_to_rotation": "Error after the best rotation",
        "file": "File",
        "gain": "Times less to read",
        "held_out": "Questions kept apart to test it",
        "interval": "Width, least and most",
        "logits": "Logits read",
        "lost": "Directions that no output shows",
        "misfit": "Misfit of questions kept apart, as a part of none",
        "n_embd": "Hidden width (n_embd)",
        "n_params": "Parameters (n_params)",
        "n_vocab": "Vocabulary (n_vocab)",
        "noise_nats": "Noise of one value, in nats",
        "norm": "Final norm",
        "not_scored": "Why there is no score",
        "queries_an_output": "Queries an output takes, with the image and without",
        "rank": "Rank",
        "ratio": "Times smaller behind the gap",
        "rms": "Error against the weights given",
        "rms_seen": "The same, in directions that outputs show",
        "rms_unrelated": "Error of an unrelated random layer",
        "score": "Size of the gap in its surroundings",
        "significant_gaps": "Gaps that stand out",
        "spread_nats": "Spread of the logits, in nats",
        "tokens": "Tokens",
        "tokens_read": "Tokens read of each output",
        "truth_rms": "Size of the weights given (root mean square)",
        "up_to_rotation": "Up to a rotation",
        "whole_is": "The whole attack is",
        "width": "Hidden width",
    }
)

_TAKEN = {"before-bias": "before the bias", "after-bias": "after the bias"}
_MEANINGS = {
    "ROTATION": "Every token's row in the last layer is known but for one common turn: all lengths and angles between "
    "rows are the model's own.",
    "LAYER": "The space that the last layer's rows span is known, so a copy of the layer that differs by one unknown "
    "matrix. This is the part of the model that the published attack steals.",
    "WIDTH": "The hidden width tells how large the model is, which its maker may not have published.",
    "IMAGE": "All outputs of a model lie in one small space, its image. Who knows it reads a few tokens of an answer "
    "and works out the rest, and recognises this model behind any other name.",
}


def meaning(code: str) -> str:
    """What a finding of this code means to its operator; empty where its title says it."""
    return _MEANINGS.get(code, "")


def capability(key: str, value: object) -> object:
    """A capability's value in words where the value alone says little."""
    if key == "taken" and value in _TAKEN:
        return _TAKEN[str(value)]
    if key == "decimals" and value is None:
        return "more than six"
    if key in ("wanted_ids", "top_logprobs", "biased_ids") and value == 0:
        return "none"
    if key == "step_nats" and value == 0:
        return "none found"
    return "not known" if value is None else value

"""Fields of other servers' requests that are not done here and may not be ignored, with the values that do nothing.

Sources: OpenAI's reference and the servers of vLLM, SGLang, llama.cpp and TGI as their code stood in 2025 and 2026.
null switches any of them off.
"""

from collections.abc import Mapping
from typing import Any

READ_OUT_FIELDS: Mapping[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "bad_words": ([],),
    "dynatemp_range": (0,),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "grammar": ("",),
    "guided_choice": ([],),
    "guided_grammar": ("",),
    "guided_json": (),
    "guided_regex": ("",),
    "ignore_eos": (False,),
    "json_schema": (),
    "logits_processors": ([],),
    "logprob_start_len": (-1,),
    "min_p": (0,),
    "min_tokens": (0,),
    "n_probs": (0,),
    "post_sampling_probs": (False,),
    "presence_penalty": (0,),
    "prompt_logprobs": (),
    "regex": ("",),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "return_hidden_states": (False,),
    "return_logprob": (False,),
    "samplers": ([],),
    "structured_outputs": (),
    "suffix": ("",),
    "token_ids_logprob": ([],),
    "tools": ([],),
    "top_k": (-1, 0),
    "top_logprobs_num": (0,),
    "use_beam_search": (False,),
}
"""Fields that read logprobs or steer tokens. A guard lets none of them pass unseen."""

CHANGING_FIELDS: Mapping[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "audio": (),
    "chat_template": ("",),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "custom_logit_processor": ("",),
    "documents": ([],),
    "dry_multiplier": (0,),
    "ebnf": ("",),
    "include_stop_str_in_output": (False,),
    "lora": ([],),
    "lora_path": ("",),
    "min_new_tokens": (0,),
    "mirostat": (0,),
    "mm_processor_kwargs": ({},),
    "modalities": (["text"],),
    "n_predict": (-1,),
    "no_repeat_ngram_size": (0,),
    "no_stop_trim": (False,),
    "prompt_embeds": (),
    "repeat_penalty": (1,),
    "skip_special_tokens": (True,),
    "stop_regex": ("", []),
    "stop_token_ids": ([],),
    "tfs_z": (1,),
    "tool_choice": ("none", "auto"),
    "top_n_sigma": (-1, 0),
    "truncate_prompt_tokens": (-1,),
    "typical_p": (1,),
    "vllm_xargs": ({},),
    "web_search_options": (),
    "xtc_probability": (0,),
}
"""Fields that change the prompt, the sampling or where an answer ends. A guard judges them by its own tables."""

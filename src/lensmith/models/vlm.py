"""The vision-language model: tower, connector, language model; pictures are spliced into the token stream once.

One class for all families. It is a transformers model like any other: `from_pretrained`, `save_pretrained`, `generate`,
PEFT and gradient checkpointing work. The language model inside is a whole causal language model, head included, so
whatever it does to its logits (capping, scaling) is done here too.

Where we differ from the models in transformers: while training, the head is applied only to positions that have a
label, and padding on the right costs no attention mask; while generating several samples or beams, pictures are
encoded once, not once a sample.

What a processor makes of pictures goes to the tower as it comes, by the names that the tower declares: nothing here
opens it. So a family whose pictures come in tiles or in two sizes changes its processor and its tower only.

Legend: B samples, T tokens, L language width, N pictures, F features of all pictures, M positions with a label, W
vocabulary.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import Cache, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.utils.generic import ModelOutput, can_return_tuple

from lensmith.core.errors import InputError, ShapeError
from lensmith.models.config import IGNORED_LABEL, VisionLanguageConfig
from lensmith.models.connectors import ConnectorOutput
from lensmith.models.language.causal import build_language_model
from lensmith.models.splice import placeholders_per_sample, refuse_placeholders, splice
from lensmith.models.towers import PICTURE_INPUTS, encode


@dataclass
class VisionLanguageOutput(ModelOutput):
    """What `forward` returns. Parts that were not asked for are None.

    `image_features` are the connector's tokens of all pictures (F, L).
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    image_features: Tensor | None = None


class VisionLanguageModel(PreTrainedModel, GenerationMixin):
    """Vision tower -> connector -> language model."""

    config: VisionLanguageConfig
    config_class = VisionLanguageConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: VisionLanguageConfig) -> None:
        super().__init__(config)
        self._is_constructed = False
        self.language_model = build_language_model(config.language)
        self.vision_tower = config.vision.build()
        self.connector = self._build_connector()
        # A placeholder stands for a picture that a person gave: the model must not write one.
        self.generation_config.suppress_tokens = [config.image_token_id]
        self.post_init()
        self._is_constructed = True

    def _build_connector(self) -> nn.Module:
        width = self.language_model.get_input_embeddings().weight.shape[1]
        return self.config.connector.build(tower_width=self.config.vision.width, language_width=width)

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: constructors initialise tower and connector; transformers models inside see to their own."""

    def initialize_weights(self) -> None:
        """Also called after loading, for what the checkpoint lacked: those weights start as a new component's do."""
        if self._is_constructed:
            with torch.device(self.device):
                fresh = {"vision_tower": self.config.vision.build(), "connector": self._build_connector()}
            for name, module in fresh.items():
                _fill_unloaded(getattr(self, name), module)
        super().initialize_weights()

    def get_input_embeddings(self) -> nn.Module:
        return cast(nn.Module, self.language_model.get_input_embeddings())

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return cast(nn.Module, self.language_model.get_output_embeddings())

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    def get_image_features(self, *pictures: Tensor | None, **named: Tensor | None) -> ConnectorOutput:
        """Pictures to visual tokens. They are given as the processor gives them, by the names that the tower's
        configuration lists as `input_names`, or in that order; `pixel_values` (N, 3, H, W) first.

        Raises InputError where `pixel_values` are missing, or something is given that the tower does not read,
        ShapeError where what is given does not fit together.
        """
        in_order = zip(self.config.vision.input_names, pictures, strict=False)
        given = {name: value for name, value in (*in_order, *named.items()) if value is not None}
        return cast(ConnectorOutput, self.connector(encode(self.vision_tower, self.config.vision, given)))

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        image_features: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_logits: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> VisionLanguageOutput:
        """Logits of the next token, or the loss over `labels`, or both.

        Pictures come as the processor gives them (`pixel_values` and what else the tower reads, see
        `get_image_features`), or encoded already as `image_features` (F, L); they are those of all samples, in order.
        `labels` (B, T) are not shifted; -100 has no loss. With labels, logits are left out unless `return_logits=True`:
        the head then sees only positions with a label. The loss is the mean over those, in float32, or their sum over
        `num_items_in_batch`. Raises ShapeError where placeholders and features differ in number.
        """
        pictures = _taken_from(kwargs)
        embeds_BTL, features_FL = self._embed(
            input_ids,
            inputs_embeds,
            pictures=pictures,
            features_FL=image_features,
            continues=past_key_values is not None and past_key_values.get_seq_length() > 0,
        )
        wanted: int | Tensor = logits_to_keep
        targets_BT: Tensor | None = None
        if labels is not None:
            if use_cache is None and past_key_values is None:
                use_cache = False
            # Each position's target is the label of the token after it.
            targets_BT = nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)
            wanted = 0 if return_logits else targets_BT != IGNORED_LABEL
            attention_mask = self._without_right_padding(attention_mask, past_key_values)
        outputs = self.language_model(
            inputs_embeds=embeds_BTL,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            logits_to_keep=wanted,
            return_dict=True,
            **kwargs,
        )
        loss, logits = None, outputs.logits
        if targets_BT is not None:
            loss = next_token_loss(logits, targets_BT, num_items_in_batch)
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = logits[:, kept] if return_logits else None
        return VisionLanguageOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.get("past_key_values"),
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
            image_features=features_FL,
        )

    def _embed(
        self,
        input_ids_BT: Tensor | None,
        embeds_BTL: Tensor | None,
        *,
        pictures: Mapping[str, Tensor],
        features_FL: Tensor | None,
        continues: bool,
    ) -> tuple[Tensor, Tensor | None]:
        if embeds_BTL is None:
            if input_ids_BT is None:
                raise InputError("nothing to read", expected="input_ids or inputs_embeds", actual="neither")
            embeds_BTL = cast(Tensor, self.get_input_embeddings()(input_ids_BT))
        counts_N: Tensor | None = None
        if pictures:
            if features_FL is not None:
                given = ", ".join(pictures)
                raise InputError("pictures are given twice", expected=f"{given} or image_features", actual="both")
            features_FL, counts_N = self.get_image_features(**pictures)
        if features_FL is not None:
            if input_ids_BT is None:
                raise InputError("pictures need input_ids, which say where they stand", actual="inputs_embeds only")
            return splice(embeds_BTL, input_ids_BT, features_FL, self.config.image_token_id, counts_N), features_FL
        if input_ids_BT is not None and not continues:
            refuse_placeholders(input_ids_BT, self.config.image_token_id)
        return embeds_BTL, None

    def _without_right_padding(self, mask_BT: Tensor | None, past: Cache | None) -> Tensor | None:
        """None where the mask only hides padding on the right: no real token looks there, and labels ignore it.

        Without a mask, attention takes its quick causal path instead of building a (B, 1, T, T) one.
        """
        needed = past is not None or getattr(self.config.get_text_config(), "output_router_logits", False)
        if mask_BT is None or mask_BT.ndim != 2 or needed:
            return mask_BT
        is_right_padded = bool((mask_BT[:, 0] != 0).all()) and bool((mask_BT[:, 1:] <= mask_BT[:, :-1]).all())
        return None if is_right_padded else mask_BT

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Pictures go in with the prompt; with a cache, later steps do without them."""
        inputs = super().prepare_inputs_for_generation(input_ids, is_first_iteration=is_first_iteration, **kwargs)
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in (*PICTURE_INPUTS, "image_features"):
                inputs[name] = None
        return cast(dict[str, Any], inputs)

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        # transformers repeats every tensor along its first dimension, which is right for samples but not for pictures
        # where a sample has several. Encoding them here also does it once instead of `expand_size` times.
        pictures: dict[str, Tensor] = _taken_from(model_kwargs)
        features_FL, counts_N = model_kwargs.pop("image_features", None), None
        if expand_size > 1 and input_ids is not None:
            if pictures:
                features_FL, counts_N = self.get_image_features(**pictures)
                pictures = {}
            if features_FL is not None:
                per_sample = placeholders_per_sample(input_ids, features_FL, self.config.image_token_id, counts_N)
                parts = features_FL.split(per_sample)
                features_FL = torch.cat([part for part in parts for _ in range(expand_size)])
        expanded_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )
        encoded = {} if features_FL is None else {"image_features": features_FL}
        return expanded_ids, model_kwargs | pictures | encoded


def _with_picture_inputs(signature: inspect.Signature) -> inspect.Signature:
    names = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in PICTURE_INPUTS]
    *others, rest = signature.parameters.values()
    return signature.replace(parameters=[*others, *names, rest])


# What may be given is read from the signature: by `generate`, which refuses anything else, and by the Trainer of
# transformers, which drops columns that are not in it.
VisionLanguageModel.forward.__signature__ = _with_picture_inputs(inspect.signature(VisionLanguageModel.forward))


def _taken_from(arguments: dict[str, Any]) -> dict[str, Tensor]:
    """The picture inputs among a call's arguments, which loses them."""
    found = {name: arguments.pop(name) for name in PICTURE_INPUTS if name in arguments}
    return {name: value for name, value in found.items() if value is not None}


def next_token_loss(logits: Tensor, targets_BT: Tensor, num_items: Tensor | int | None = None) -> Tensor:
    """Cross-entropy in float32 over the targets that are not -100: their mean, or their sum over `num_items`.

    `logits` are those of all positions (B, T, W) or only of the positions that have a target (M, W), row by row.
    Without any target the loss is 0. Raises ShapeError where logits and targets differ in number.
    """
    has_target_BT = targets_BT != IGNORED_LABEL
    logits_MW = logits[has_target_BT] if logits.ndim == 3 else logits
    targets_M = targets_BT[has_target_BT]
    if logits_MW.shape[0] != targets_M.shape[0]:
        raise ShapeError("logits and labels differ in number", expected=targets_M.shape[0], actual=logits_MW.shape[0])
    total = nn.functional.cross_entropy(logits_MW.float(), targets_M, reduction="sum")
    return total / (max(targets_M.shape[0], 1) if num_items is None else num_items)


def _fill_unloaded(module: nn.Module, fresh: nn.Module) -> None:
    own = dict(module.named_parameters()) | dict(module.named_buffers())
    for name, tensor in (*fresh.named_parameters(), *fresh.named_buffers()):
        target: Any = own[name]
        init.copy_(target, tensor)  # leaves alone what came from the checkpoint
        target._is_hf_initialized = True

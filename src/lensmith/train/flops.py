"""How much arithmetic a step of training is: the count behind a run's model FLOP utilisation.

Counted is what the model's mathematics needs, a multiplication and an addition as two, not what a machine happens to
do: layers that are computed twice to save memory count once, and padding is not work. After PaLM (arXiv 2204.02311,
appendix B), where a weight takes 6 FLOPs a token. Where we differ: attention is causal within documents and is counted
so, and each part is counted by the tokens that it reads.
"""

from collections.abc import Sequence

from torch import nn

from lensmith.models.vlm import VisionLanguageModel
from lensmith.train.layers import layers_of


def flops_of_step(
    model: VisionLanguageModel, *, document_tokens: Sequence[int], target_tokens: int, patches: int, pictures: int
) -> float:
    """FLOPs of one forward and backward pass over packed documents of so many tokens each.

    `patches` are those of all `pictures` together. The head reads the positions with a target alone. Tower and
    connector are counted by patches, which is too much for what a connector does behind its pooling; the tower's
    attention is counted where its layers are transformers' own. A mixture of experts would be counted as if every token
    went through all of them.
    """
    language = model.language_model
    config = language.config.get_text_config()
    head = language.get_output_embeddings().weight
    matrices = _weights(language, head)
    attention_width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    # Of each query with each key of its document that is not behind it, and of each weight with each value.
    seen = sum(count * count / 2 for count in document_tokens)
    forward_language = (
        2.0 * matrices * sum(document_tokens)
        + 2.0 * head.numel() * target_tokens
        + 4.0 * config.num_hidden_layers * attention_width * seen
    )
    forward_tower = 2.0 * _weights(model.vision_tower) * patches
    if pictures:
        width = model.config.vision.width
        forward_tower += 4.0 * len(layers_of(model.vision_tower)) * width * patches * (patches / pictures)
    forward_connector = 2.0 * _weights(model.connector) * patches
    parts = (
        (model.vision_tower, forward_tower),
        (model.connector, forward_connector),
        (language, forward_language),
    )
    total, learns_before = 0.0, False
    for part, forward in parts:
        learns = any(parameter.requires_grad for parameter in part.parameters())
        # Backward, as much again for the weights' gradients, and for the inputs', which a part needs whose own layers
        # learn, or that stands behind one that learns.
        total += forward * (1 + learns + (learns or learns_before))
        learns_before = learns_before or learns
    return total


def _weights(part: nn.Module, *others: nn.Parameter) -> int:
    """The numbers in a part's matrices and filters, without tables that are looked up and without `others`."""
    tables = [module.weight for module in part.modules() if isinstance(module, nn.Embedding)]
    left_out = {id(parameter) for parameter in (*tables, *others)}
    matrices = (one for one in part.parameters() if one.ndim >= 2 and id(one) not in left_out)
    return sum(parameter.numel() for parameter in matrices)

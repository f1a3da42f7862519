"""The loss of a model that learns to read pages while it learns to write them.

Four parts over one forward pass: the next token; which character lies under each cell of the tower's stem; which tokens
show in each patch, asked of the language model's early layers through its own head; and, for a few attention heads,
that they look where the next token shows. With the last two, writing what one reads is pointing and copying, which a
transformer learns quickly. The renderer gives all labels for free; the next-token loss alone finds all this slowly on a
small budget (measured: LOG.md). The model itself is a stock one; the character head is dropped when
it ships.

Legend: N pages, S sequence, L language width, A attention heads, D head width, T target tokens, F kept patches,
h w cells, K character classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from lensmith.core.errors import ConfigError
from lensmith.models.config import IGNORED_LABEL
from lensmith.models.towers.base import VisionFeatures
from lensmith.models.towers.conv import ConvTower
from lensmith.models.vlm import VisionLanguageModel
from lensmith.train.interfaces import LossParts, StepContext
from lensmith.train.objectives.reading_batches import CHARACTER_CLASSES, ReadingBatch


@dataclass(frozen=True, kw_only=True)
class ReadingConfig:
    """Weights of the helping losses, and how much an empty cell counts.

    In each of `pointer_layers` (from 0) the first `pointer_heads` attention heads are taught where to look. Before
    layer `piece_layer`, each patch that holds at least `least_share` of a text token is asked for it.
    """

    character_weight: float = 0.5
    piece_weight: float = 0.5
    pointer_weight: float = 0.5
    pointer_layers: tuple[int, ...] = (2, 3)
    pointer_heads: int = 2
    piece_layer: int = 2
    least_share: float = 0.15
    empty_cell_weight: float = 0.1


class Helping(NamedTuple):
    """A helping loss, and the share of its questions that are answered right."""

    loss: Tensor
    right: Tensor


class ReadingModel(nn.Module):
    """A vision-language model with a convolutional tower, and the head that teaches the tower characters.

    Raises ConfigError for another tower, or where the language model lacks the layers or heads to be taught.
    """

    def __init__(self, model: VisionLanguageModel, config: ReadingConfig) -> None:
        super().__init__()
        if not isinstance(model.vision_tower, ConvTower):
            raise ConfigError(
                "only a convolutional tower can be taught characters",
                expected="vision.kind: conv",
                actual=model.config.vision.kind,
            )
        text = model.config.get_text_config()
        if not all(0 <= layer < text.num_hidden_layers for layer in config.pointer_layers):
            raise ConfigError(
                "pointer_layers: no such layer",
                expected=f"below {text.num_hidden_layers}",
                actual=config.pointer_layers,
            )
        if not 0 < config.pointer_heads <= text.num_key_value_heads:
            raise ConfigError(
                "pointer_heads: not so many", expected=f"1 to {text.num_key_value_heads}", actual=config.pointer_heads
            )
        self.model = model
        self.config = config
        self.character_head = nn.Linear(self.tower.config.stem_width, CHARACTER_CLASSES)

    @property
    def tower(self) -> ConvTower:
        return cast(ConvTower, self.model.vision_tower)

    def character_loss(self, cells_NChw: Tensor, labels_Nhw: Tensor) -> Helping:
        """Weighted cross-entropy over cells, and the share of non-empty cells that are read right."""
        inside = labels_Nhw != IGNORED_LABEL
        logits_MK = self.character_head(cells_NChw.permute(0, 2, 3, 1)[inside]).float()
        labels_M = labels_Nhw[inside]
        weights_M = torch.where(labels_M == 0, self.config.empty_cell_weight, 1.0)
        loss = (F.cross_entropy(logits_MK, labels_M, reduction="none") * weights_M).sum() / weights_M.sum()
        full_M = labels_M > 0
        right = _mean((logits_MK.detach().argmax(1) == labels_M)[full_M].float())
        return Helping(loss, right)

    def pointer_loss(self, hidden_states: Sequence[Tensor], batch: ReadingBatch) -> Helping:
        """Cross-entropy of where the taught heads look against where the next token shows, and how often they hit.

        A mean over heads and over the tokens that show. What a head gives to text, of all it gives, counts as a miss.
        """
        losses, hits = [], []
        for layer in self.config.pointer_layers:
            queries_NASD, keys_NASD = self._queries_and_keys(layer, hidden_states[layer])
            for index, target_TF in enumerate(batch.pointers):
                tokens, patches = target_TF.shape
                shown_T = target_TF.sum(1) > 0
                # The position before a token is the one that predicts it: the first is the begin token's.
                queries_ATD = queries_NASD[index, :, patches : patches + tokens]
                keys_AKD = keys_NASD[index, :, : patches + tokens]
                logits_ATK = (queries_ATD @ keys_AKD.transpose(1, 2)).float() * queries_ATD.shape[-1] ** -0.5
                later_TK = torch.ones_like(logits_ATK[0], dtype=torch.bool).triu(patches + 1)
                logits_ATK = logits_ATK.masked_fill(later_TK, -torch.inf)
                shares_ATF = logits_ATK.log_softmax(2)[:, :, :patches]
                losses.append(-(target_TF * shares_ATF).sum(2)[:, shown_T].flatten())
                best_AT1 = shares_ATF.detach().argmax(2, keepdim=True)
                hits.append((target_TF.expand(len(best_AT1), -1, -1).gather(2, best_AT1) > 0)[:, shown_T].flatten())
        return Helping(_mean(torch.cat(losses)), _mean(torch.cat(hits).float()))

    def piece_loss(self, hidden_NSL: Tensor, batch: ReadingBatch) -> Helping:
        """Cross-entropy of which text tokens show in a patch, a mean over patches with text; how often one is named."""
        rows, targets = [], []
        for index, (target_TF, is_text_T) in enumerate(zip(batch.pointers, batch.is_text, strict=True)):
            tokens, patches = target_TF.shape
            held_FT = (target_TF * is_text_T[:, None]).T
            held_FT = torch.where(held_FT >= self.config.least_share, held_FT, 0.0)
            holds_F = held_FT.sum(1) > 0
            written_T = batch.input_ids_NS[index, patches + 1 : patches + 1 + tokens]
            target_FW = target_TF.new_zeros(patches, self.model.config.language.vocab_size)
            target_FW.index_add_(1, written_T, held_FT)
            rows.append(hidden_NSL[index, :patches][holds_F])
            targets.append((target_FW / target_FW.sum(1, keepdim=True).clamp(min=1e-6))[holds_F])
        decoder = self.model.language_model
        logits_MW = decoder.lm_head(decoder.model.norm(torch.cat(rows))).float()
        target_MW = torch.cat(targets)
        loss = _mean(-(target_MW * logits_MW.log_softmax(1)).sum(1))
        found = target_MW.gather(1, logits_MW.detach().argmax(1, keepdim=True)) > 0
        return Helping(loss, _mean(found.float()))

    def _queries_and_keys(self, layer: int, hidden_NSL: Tensor) -> tuple[Tensor, Tensor]:
        """The taught heads' queries and keys (N, A, S, D), computed as the layer itself computes them."""
        decoder = self.model.language_model.model
        block = decoder.layers[layer]
        normed_NSL = block.input_layernorm(hidden_NSL)
        width = block.self_attn.head_dim
        places = torch.arange(hidden_NSL.shape[1], device=hidden_NSL.device)[None]
        cosines, sines = decoder.rotary_emb(hidden_NSL, places)
        taught = self.config.pointer_heads * width
        projected = []
        for projection in (block.self_attn.q_proj, block.self_attn.k_proj):
            projected_NSL = F.linear(normed_NSL, projection.weight[:taught])
            by_head_NSAD = projected_NSL.reshape(*projected_NSL.shape[:2], self.config.pointer_heads, width)
            projected.append(by_head_NSAD.transpose(1, 2))
        queries_NASD, keys_NASD = apply_rotary_pos_emb(*projected, cosines, sines)
        return queries_NASD, keys_NASD

    def characters(self, batch: ReadingBatch) -> LossParts:
        """The character loss alone: the first stage, in which only the tower learns."""
        characters = self.character_loss(self.tower.read_cells(batch.pixels_N3HW), batch.cells_Nhw)
        count = batch.target_tokens
        return LossParts(
            loss_sum=characters.loss * count,
            target_tokens=count,
            samples=len(batch.pointers),
            scalars={"characters": characters.loss.detach(), "characters_right": characters.right},
        )

    def pages(self, batch: ReadingBatch) -> LossParts:
        """All four losses."""
        cells = self.tower.read_cells(batch.pixels_N3HW, batch.patch_mask_NHpWp)
        features = VisionFeatures(self.tower.to_patches(cells, batch.pixels_N3HW), batch.patch_mask_NHpWp.flatten(1))
        outputs = self.model(
            input_ids=batch.input_ids_NS,
            image_features=self.model.connector(features).features_FL,
            labels=batch.labels_NS,
            output_hidden_states=True,
        )
        characters = self.character_loss(cells, batch.cells_Nhw)
        pointer = self.pointer_loss(outputs.hidden_states, batch)
        pieces = self.piece_loss(outputs.hidden_states[self.config.piece_layer], batch)
        helping = (
            self.config.character_weight * characters.loss
            + self.config.piece_weight * pieces.loss
            + self.config.pointer_weight * pointer.loss
        )
        count = batch.target_tokens
        return LossParts(
            loss_sum=(outputs.loss + helping) * count,
            target_tokens=count,
            samples=len(batch.pointers),
            scalars={
                "next_token": outputs.loss.detach(),
                "characters": characters.loss.detach(),
                "characters_right": characters.right,
                "pieces": pieces.loss.detach(),
                "pieces_found": pieces.right,
                "pointer": pointer.loss.detach(),
                "pointer_found": pointer.right,
            },
            work=batch.work,
        )


def _mean(values: Tensor) -> Tensor:
    """The mean, and 0 where a batch without visible text leaves nothing to average (torch's own gives NaN)."""
    return values.sum() / max(1, values.numel())


def page_loss(model: ReadingModel, batch: ReadingBatch, context: StepContext) -> LossParts:
    """`LossFunction` of the second stage."""
    return model.pages(batch.to(context.device))


def character_loss(model: ReadingModel, batch: ReadingBatch, context: StepContext) -> LossParts:
    """`LossFunction` of the first stage."""
    return model.characters(batch.to(context.device))

"""The loss of a model that learns to read pages while it learns to write them.

Three parts over one forward pass: the next token; which character lies under each cell of the tower's stem; and, for a
few attention heads of the language model, that they look where the next token shows. The renderer gives the last two
for free. They teach the tower to see letters and the language model to look at them, which the next-token loss alone
finds slowly on a small budget (measured: LOG.md). The model itself is a stock one; the character head is dropped when
it ships.

Legend: N pages, S sequence, L language width, A attention heads, D head width, T target tokens, F kept patches,
h w cells, K character classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from lensmith.models.towers.base import VisionFeatures
from lensmith.models.towers.conv import ConvTower
from lensmith.models.vlm import VisionLanguageModel
from lensmith.train.interfaces import LossParts, StepContext
from lensmith.train.reading_data import CHARACTER_CLASSES, IGNORED_LABEL, ReadingBatch


@dataclass(frozen=True, kw_only=True)
class ReadingConfig:
    """Weights of the two helping losses, and how much an empty cell counts.

    In each of `pointer_layers` (from 0) the first `pointer_heads` attention heads are taught where to look.
    """

    character_weight: float = 0.5
    pointer_weight: float = 0.5
    pointer_layers: tuple[int, ...] = (2, 3)
    pointer_heads: int = 2
    empty_cell_weight: float = 0.1


class Reader(nn.Module):
    """A vision-language model with a convolutional tower, and the two heads that teach it to read."""

    def __init__(self, model: VisionLanguageModel, config: ReadingConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.character_head = nn.Linear(self.tower.config.stem_width, CHARACTER_CLASSES)

    @property
    def tower(self) -> ConvTower:
        tower = self.model.vision_tower
        assert isinstance(tower, ConvTower)
        return tower

    def character_loss(self, cells_NChw: Tensor, labels_Nhw: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted cross-entropy over cells, and the share of non-empty cells that are read right."""
        inside = labels_Nhw != IGNORED_LABEL
        logits_MK = self.character_head(cells_NChw.permute(0, 2, 3, 1)[inside]).float()
        labels_M = labels_Nhw[inside]
        weights_M = torch.where(labels_M == 0, self.config.empty_cell_weight, 1.0)
        loss = (F.cross_entropy(logits_MK, labels_M, reduction="none") * weights_M).sum() / weights_M.sum()
        full_M = labels_M > 0
        right = (logits_MK.detach().argmax(1) == labels_M)[full_M].float().mean()
        return loss, right

    def pointer_loss(self, hidden_states: Sequence[Tensor], batch: ReadingBatch) -> tuple[Tensor, Tensor]:
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
                later_TK = torch.ones(tokens, patches + tokens, dtype=torch.bool).triu(patches + 1)
                logits_ATK = logits_ATK.masked_fill(later_TK, -torch.inf)
                shares_ATF = logits_ATK.log_softmax(2)[:, :, :patches]
                losses.append(-(target_TF * shares_ATF).sum(2)[:, shown_T].flatten())
                best_AT1 = shares_ATF.detach().argmax(2, keepdim=True)
                hits.append((target_TF.expand(len(best_AT1), -1, -1).gather(2, best_AT1) > 0)[:, shown_T].flatten())
        return torch.cat(losses).mean(), torch.cat(hits).float().mean()

    def _queries_and_keys(self, layer: int, hidden_NSL: Tensor) -> tuple[Tensor, Tensor]:
        """The taught heads' queries and keys (N, A, S, D), computed as the layer itself computes them."""
        decoder = self.model.language_model.model
        block = decoder.layers[layer]
        normed_NSL = block.input_layernorm(hidden_NSL)
        width = block.self_attn.head_dim
        places = torch.arange(hidden_NSL.shape[1], device=hidden_NSL.device)[None]
        cosines, sines = decoder.rotary_emb(hidden_NSL, places)
        taught = self.config.pointer_heads * width
        halves = []
        for projection in (block.self_attn.q_proj, block.self_attn.k_proj):
            projected = F.linear(normed_NSL, projection.weight[:taught])
            halves.append(projected.unflatten(2, (self.config.pointer_heads, width)).transpose(1, 2))
        queries, keys = apply_rotary_pos_emb(halves[0], halves[1], cosines, sines)
        return queries, keys

    def characters(self, batch: ReadingBatch) -> LossParts:
        """The character loss alone: the first stage, in which only the tower learns."""
        loss, right = self.character_loss(self.tower.read_cells(batch.pixels_N3HW), batch.cells_Nhw)
        count = batch.target_tokens
        return LossParts(
            loss_sum=loss * count,
            target_tokens=count,
            samples=len(batch.pointers),
            scalars={"characters": loss.detach(), "characters_right": right},
        )

    def pages(self, batch: ReadingBatch) -> LossParts:
        """All three losses."""
        cells = self.tower.read_cells(batch.pixels_N3HW, batch.patch_mask_NHpWp)
        features = VisionFeatures(self.tower.to_patches(cells), batch.patch_mask_NHpWp.flatten(1))
        outputs = self.model(
            input_ids=batch.input_ids_NS,
            image_features=self.model.connector(features).features_FL,
            labels=batch.labels_NS,
            output_hidden_states=True,
        )
        character_loss, right = self.character_loss(cells, batch.cells_Nhw)
        pointer_loss, found = self.pointer_loss(outputs.hidden_states, batch)
        helping = self.config.character_weight * character_loss + self.config.pointer_weight * pointer_loss
        count = batch.target_tokens
        return LossParts(
            loss_sum=(outputs.loss + helping) * count,
            target_tokens=count,
            samples=len(batch.pointers),
            scalars={
                "next_token": outputs.loss.detach(),
                "characters": character_loss.detach(),
                "characters_right": right,
                "pointer": pointer_loss.detach(),
                "pointer_found": found,
            },
        )


def page_loss(model: nn.Module, batch: ReadingBatch, context: StepContext) -> LossParts:
    """`LossFunction` of the second stage."""
    assert isinstance(model, Reader)
    return model.pages(batch)


def character_loss(model: nn.Module, batch: ReadingBatch, context: StepContext) -> LossParts:
    """`LossFunction` of the first stage."""
    assert isinstance(model, Reader)
    return model.characters(batch)

"""The loss of a model that learns to read pages while it learns to write them.

Three parts over one forward pass: the next token; which character lies under each cell of the tower's stem; and, from
a hidden layer of the language model, where on the page the next token shows. The renderer gives the last two for free.
They teach the tower to see letters and the language model to look at them, which the next-token loss alone finds slowly
on a small budget (measured: LOG.md). Both heads are dropped when the model ships.

Legend: N pages, S sequence, L language width, T target tokens, F kept patches, h w cells, K character classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lensmith.models.towers.base import VisionFeatures
from lensmith.models.towers.conv import ConvTower
from lensmith.models.vlm import VisionLanguageModel
from lensmith.train.interfaces import LossParts, StepContext
from lensmith.train.reading_data import CHARACTER_CLASSES, IGNORED_LABEL, ReadingBatch


@dataclass(frozen=True, kw_only=True)
class ReadingConfig:
    """Weights of the two helping losses, where the pointer is read, and how much an empty cell counts."""

    character_weight: float = 0.5
    pointer_weight: float = 0.5
    pointer_layer: int = 2
    pointer_width: int = 64
    empty_cell_weight: float = 0.1


class Reader(nn.Module):
    """A vision-language model with a convolutional tower, and the two heads that teach it to read."""

    def __init__(self, model: VisionLanguageModel, config: ReadingConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        width = model.get_input_embeddings().weight.shape[1]
        self.character_head = nn.Linear(self.tower.config.stem_width, CHARACTER_CLASSES)
        self.pointer_from = nn.Linear(int(width), config.pointer_width)
        self.pointer_to = nn.Linear(int(width), config.pointer_width)

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

    def pointer_loss(self, hidden_NSL: Tensor, batch: ReadingBatch) -> tuple[Tensor, Tensor]:
        """Cross-entropy of where the next token shows, a mean over tokens that show, and the share found."""
        from_NSD, to_NSD = self.pointer_from(hidden_NSL), self.pointer_to(hidden_NSL)
        losses, found = [], []
        for index, target_TF in enumerate(batch.pointers):
            tokens, patches = target_TF.shape
            # The position before a token is the one that predicts it: the first is the begin token's.
            logits_TF = (from_NSD[index, patches : patches + tokens] @ to_NSD[index, :patches].T).float()
            shown_T = target_TF.sum(1) > 0
            losses.append(-(target_TF * logits_TF.log_softmax(1)).sum(1)[shown_T])
            found.append(target_TF.gather(1, logits_TF.detach().argmax(1, keepdim=True))[shown_T] > 0)
        return torch.cat(losses).mean(), torch.cat(found).float().mean()

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
        pointer_loss, found = self.pointer_loss(outputs.hidden_states[self.config.pointer_layer], batch)
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

"""Next-token training on planned sequences: documents of text and pictures, packed and apart from each other.

The sequences of a micro-batch lie behind each other in one row without padding, and attention stays within a document
(`models.language.isolation`). Learned are all text tokens, the end token too, and of conversations what the assistant
writes; a document's first token has no context and is not, and neither are pictures' placeholders.

Every rank runs the vision tower in every step: where its documents have no picture, one more document stands behind
them, a blank picture without a word. Under sharding, a rank that skipped the tower would leave the others waiting; the
same is done with one process, so that its results are theirs. The blank is learnt nothing from.

Where layers have experts, two losses of their routers are added, with MM1's weights (arXiv 2403.09611, section 3.3),
each the mean over such layers (`models.language.experts`). They are of all tokens of a micro-batch that the plan names,
pictures' placeholders too, and not of the blank. A step's are the means over its micro-batches and ranks, weighted by
target tokens as all that joins a loss; balanced is each micro-batch of a rank by itself, as each group of GShard's is.
So these two, unlike the cross-entropy, depend on how a step is shared out.

Legend: T tokens of a micro-batch, E experts.
"""

import copy
import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from lensmith.core.errors import ConfigError, InputError
from lensmith.core.files import sha256_of_bytes
from lensmith.data.documents import AnyDocument, Source
from lensmith.data.plan.reading import Plan, PlannedSequence
from lensmith.data.plan.tokens import Encoded, Tokens, encode
from lensmith.models.config import IGNORED_LABEL
from lensmith.models.language.experts import balance_loss, recorded_routing, router_z_loss, routers
from lensmith.models.language.isolation import ISOLATED, positions
from lensmith.models.processor import VisionLanguageProcessor
from lensmith.models.towers.base import FEATURES, PIXELS
from lensmith.models.vlm import VisionLanguageModel
from lensmith.train.interfaces import LossParts, StepContext, StepWork
from lensmith.train.objectives.conversations import chat_format, chat_parts
from lensmith.train.objectives.pictures import PicturesOf, blank_picture, pixels_of
from lensmith.train.speed import flops_of_step

_ENCODED_KEPT = 256
"""Documents whose tokens are kept: the parts of a long one come soon after each other."""


@dataclass(frozen=True, kw_only=True)
class DocumentBatch:
    """A micro-batch: ids, positions and labels (1, T), where documents begin, and what the tower reads of pictures.

    `has_pictures` False: the last document is a blank picture. `sources` names where sequences are from.
    """

    input_ids_1T: Tensor
    position_ids_1T: Tensor
    labels_1T: Tensor
    bounds: tuple[int, ...]
    pictures: Mapping[str, Tensor]
    has_pictures: bool
    sources: tuple[str, ...]

    @property
    def planned_tokens(self) -> int:
        """How many of the tokens are the plan's: all but those of the blank picture."""
        return self.bounds[-1 if self.has_pictures else -2]

    @property
    def target_tokens(self) -> int:
        """How many tokens are learnt."""
        return int((self.labels_1T[:, 1:] != IGNORED_LABEL).sum())

    def to(self, device: torch.device) -> "DocumentBatch":
        return replace(
            self,
            input_ids_1T=self.input_ids_1T.to(device),
            position_ids_1T=self.position_ids_1T.to(device),
            labels_1T=self.labels_1T.to(device),
            pictures={name: value.to(device) for name, value in self.pictures.items()},
        )


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Which of how many processes this one is."""

    rank: int = 0
    ranks: int = 1


ALONE = Ranks()


class DocumentBatches:
    """A plan's sequences as micro-batches: which ones follows from step, micro-batch and rank alone.

    A step takes the plan's next `sequences_per_step` sequences, shared out evenly. Raises ConfigError where they cannot
    be, CheckpointError where sources or tokenizer are not those of the plan.
    """

    def __init__(
        self,
        plan: Plan,
        sources: Mapping[str, Source],
        tokens: Tokens,
        processor: VisionLanguageProcessor,
        *,
        sequences_per_step: int,
        accumulate: int = 1,
        ranks: Ranks = ALONE,
        first: int = 0,
        pictures_of: PicturesOf | None = None,
    ) -> None:
        if sequences_per_step % (accumulate * ranks.ranks):
            raise ConfigError(
                "a step's sequences cannot be shared out evenly",
                expected=f"a multiple of {accumulate} micro-batches x {ranks.ranks} ranks",
                actual=sequences_per_step,
            )
        plan.check(sources, tokens)
        self.plan, self.sources, self.tokens, self.processor = plan, sources, tokens, processor
        self.sequences_per_step, self.accumulate, self.ranks, self.first = sequences_per_step, accumulate, ranks, first
        self.pictures_of = pictures_of or pixels_of(processor)
        self._encoded = functools.lru_cache(maxsize=_ENCODED_KEPT)(self._encode)

    def with_source(self, name: str, source: Source) -> "DocumentBatches":
        """The same, with one source more, which is no part of the plan: `batch_of` reads it."""
        other = copy.copy(self)
        other.sources = {**self.sources, name: source}
        other._encoded = functools.lru_cache(maxsize=_ENCODED_KEPT)(other._encode)
        return other

    @property
    def steps(self) -> int:
        """How many whole steps the plan holds."""
        return (len(self.plan) - self.first) // self.sequences_per_step

    def batch_at(self, step: int, micro: int) -> DocumentBatch:
        """Raises BadRecordError where a picture is no longer there, ImageError where it cannot be read."""
        each = self.sequences_per_step // (self.accumulate * self.ranks.ranks)
        begin = self.first + step * self.sequences_per_step + (micro * self.ranks.ranks + self.ranks.rank) * each
        return self.batch_of([self.plan.sequence(number) for number in range(begin, begin + each)])

    def batch_of(self, sequences: list[PlannedSequence]) -> DocumentBatch:
        """These sequences as one micro-batch."""
        ids: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        pictures: list[bytes] = []
        for sequence in sequences:
            source = self.sources[sequence.source]
            for planned in sequence.documents:
                span = planned.span
                document, encoded = self._encoded(sequence.source, planned.record)
                ids_T = encoded.ids_T[span.start : span.stop].astype(np.int64)
                labels_T = np.where(encoded.learnt_T[span.start : span.stop], ids_T, IGNORED_LABEL)
                labels_T[0] = IGNORED_LABEL
                ids.append(ids_T)
                labels.append(labels_T)
                starts = zip(document.pictures, encoded.picture_starts, strict=True)
                pictures += [source.picture(ref) for ref, start in starts if span.start <= start < span.stop]
        has_pictures = bool(pictures)
        if not has_pictures:
            pictures.append(blank_picture())
            ids.append(np.full(self.tokens.per_picture, self.tokens.image, dtype=np.int64))
            labels.append(np.full(self.tokens.per_picture, IGNORED_LABEL, dtype=np.int64))
        bounds = (0, *itertools.accumulate(map(len, ids)))
        return DocumentBatch(
            input_ids_1T=torch.from_numpy(np.concatenate(ids))[None],
            position_ids_1T=positions(bounds),
            labels_1T=torch.from_numpy(np.concatenate(labels))[None],
            bounds=bounds,
            pictures=self.pictures_of(pictures),
            has_pictures=has_pictures,
            sources=tuple(sequence.source for sequence in sequences),
        )

    def _encode(self, source: str, record: int) -> tuple[AnyDocument, Encoded]:
        document = self.sources[source].document(record)
        return document, encode(document, self.tokens)


def tokens_of(processor: VisionLanguageProcessor) -> Tokens:
    """How a processor's tokenizer and pictures become tokens of documents.

    Text that spells a special token stays text. Raises ConfigError where a picture's tokens depend on its size.
    """
    if processor.tokens_per_picture is None:
        raise ConfigError(
            "a plan counts tokens before it sees pictures",
            expected="a connector with a fixed number of tokens a picture",
            actual="one token a patch",
        )
    tokenizer: Any = processor.tokenizer
    # A copy of its own: the processor goes on reading placeholders in its prompts.
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.encode_special_tokens = True
    return Tokens(
        encode=lambda text: plain.encode(text, add_special_tokens=False).ids,
        pieces=tokenizer.convert_ids_to_tokens(range(len(tokenizer))),
        begin=tokenizer.bos_token_id,
        end=tokenizer.eos_token_id,
        image=processor.image_token_id,
        per_picture=processor.tokens_per_picture,
        fingerprint=sha256_of_bytes(plain.to_str().encode()),
        chat=lambda conversation: chat_parts(conversation, processor),
        chat_format=sha256_of_bytes(chat_format(processor).encode()),
    )


@dataclass(frozen=True, kw_only=True)
class RouterLossConfig:
    """What the losses of routers weigh beside a token's: MM1's weights. A model without experts has none of them."""

    balance: float = 0.01
    z: float = 0.001

    def __post_init__(self) -> None:
        if min(self.balance, self.z) < 0:
            raise ConfigError("weights of the routers' losses", expected="0 or more", actual=self)


ROUTER_LOSSES = RouterLossConfig()


def document_loss(
    model: VisionLanguageModel,
    batch: DocumentBatch,
    context: StepContext,
    *,
    router_losses: RouterLossConfig = ROUTER_LOSSES,
) -> LossParts:
    """`LossFunction` of pre-training: cross-entropy over text tokens, summed, and the losses of routers, if any.

    With these the log tells `balance_loss` and `router_z_loss`, unweighted, and `cross_entropy`, the loss without them.

    Raises InputError where the language model's attention would let documents see each other.
    """
    moved = batch.to(context.device)
    with recorded_routing(model.language_model) as logits:
        parts = documents_loss(model, moved)
    if not logits or not parts.target_tokens:
        return parts
    own = [logits_TE[: moved.planned_tokens] for logits_TE in logits]
    balance = torch.stack([balance_loss(logits_TE) for logits_TE in own]).mean()
    z = torch.stack([router_z_loss(logits_TE) for logits_TE in own]).mean()
    scalars = {
        "cross_entropy": parts.loss_sum.detach() / parts.target_tokens,
        "balance_loss": balance.detach(),
        "router_z_loss": z.detach(),
    }
    added = router_losses.balance * balance + router_losses.z * z
    if not any(router.weight.requires_grad for router in routers(model.language_model)):
        # What is before a router that does not learn is not there to please it.
        added = added.detach()
    return replace(parts, loss_sum=parts.loss_sum + parts.target_tokens * added, scalars={**parts.scalars, **scalars})


def token_losses(model: VisionLanguageModel, batch: DocumentBatch) -> Tensor:
    """The loss of each token of a batch (T), in float32; 0 where none is learnt. All logits are held meanwhile."""
    outputs = model(
        input_ids=batch.input_ids_1T,
        position_ids=batch.position_ids_1T,
        document_bounds=batch.bounds,
        use_cache=False,
        **batch.pictures,
    )
    targets_T = batch.labels_1T[0, 1:]
    losses_T = nn.functional.cross_entropy(
        outputs.logits[0, :-1].float(), targets_T, ignore_index=IGNORED_LABEL, reduction="none"
    )
    return nn.functional.pad(losses_T, (1, 0))


def documents_loss(model: VisionLanguageModel, batch: DocumentBatch) -> LossParts:
    """The cross-entropy of a batch that is where the model is; see `document_loss`."""
    attention = model.language_model.config._attn_implementation
    if attention != ISOLATED:
        raise InputError(
            "documents would see each other",
            expected=f"attention {ISOLATED!r}: train within isolated_documents(model.language_model)",
            actual=attention,
        )
    outputs = model(
        input_ids=batch.input_ids_1T,
        position_ids=batch.position_ids_1T,
        labels=batch.labels_1T,
        num_items_in_batch=1,
        document_bounds=batch.bounds,
        **batch.pictures,
    )
    target_tokens = batch.target_tokens
    scalars = {}
    if target_tokens and len(set(batch.sources)) == 1:
        scalars = {f"loss_{batch.sources[0]}": outputs.loss.detach() / target_tokens}
    samples = len(batch.bounds) - 1 - (not batch.has_pictures)
    return LossParts(
        loss_sum=outputs.loss,
        target_tokens=target_tokens,
        samples=samples,
        scalars=scalars,
        work=_work(model, batch, target_tokens),
    )


def _work(model: VisionLanguageModel, batch: DocumentBatch, target_tokens: int) -> StepWork:
    documents = [end - begin for begin, end in itertools.pairwise(batch.bounds)]
    if FEATURES in batch.pictures:
        pictures, rows, columns, _ = batch.pictures[FEATURES].shape
    else:
        pictures, _, height_px, width_px = batch.pictures[PIXELS].shape
        rows, columns = (side_px // model.config.vision.patch_px for side_px in (height_px, width_px))
    flops = flops_of_step(
        model,
        document_tokens=documents,
        target_tokens=target_tokens,
        patches=pictures * rows * columns,
        pictures=pictures,
        runs_tower=FEATURES not in batch.pictures,
    )
    return StepWork(tokens=batch.bounds[-1], blank_tokens=0 if batch.has_pictures else documents[-1], flops=flops)

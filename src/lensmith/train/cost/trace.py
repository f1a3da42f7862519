"""One training step without its numbers: the modules that train, on tensors that have shapes and no memory.

The same model, loss and backward pass as in `train`, on torch's fake tensors. Token ids, labels and masks are real,
since what the model does depends on them; weights, pixels and all that is made of them are fake. Every operation that
reaches a kernel is recorded, with its arithmetic (torch's own formulas, `torch.utils.flop_counter`) and the bytes that
it reads and writes; every tensor's memory counts from when it is made until nothing refers to it any more, as an
allocator's would. So what autograd keeps for the backward pass is what it keeps, and no formula of ours.

Fake tensors say that they are on a CPU, whatever the device is that is asked about. Attention is then torch's flash
kernel, which keeps what the one for GPUs keeps. `autocasts_like_gpu` adds the one difference in what is kept under
bfloat16: layer norms are computed in float32 on a GPU.

Arithmetic is counted as is usual for a step: two for each multiplication and addition, attention as if it were not
causal, and nothing for what is no matrix product.

Legend: T tokens of a micro-batch, N pictures, H W pixels.
"""

import contextlib
import enum
import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map
from torch.utils.flop_counter import conv_flop_count, flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from lensmith.models import VisionLanguageModel
from lensmith.models.config import IGNORED_LABEL, VisionLanguageConfig
from lensmith.models.language.isolation import isolated_documents, positions
from lensmith.train.config import Precision, autocast
from lensmith.train.cost.weights import let_learn
from lensmith.train.interfaces import StepContext
from lensmith.train.objectives.documents import DocumentBatch, document_loss

_aten = torch.ops.aten
_CPU = torch.device("cpu")
_FLASH = _aten._scaled_dot_product_flash_attention_for_cpu
_FLASH_BACKWARD = _aten._scaled_dot_product_flash_attention_for_cpu_backward
_ATTENTION = (_FLASH, _FLASH_BACKWARD)
_READS_A_PART = (_aten.embedding, _aten.index_select, _aten.index, _aten.gather, _aten.nll_loss_forward)
"""Of what they are given they read as much as they write."""
_ATTENTION_FLOPS: Any = sdpa_flop_count
_ATTENTION_BACKWARD_FLOPS: Any = sdpa_backward_flop_count
_LIKE_ANOTHER = (_aten.new_ones, _aten.new_zeros, _aten.new_full, _aten.ones_like, _aten.zeros_like, _aten.full_like)


class StepPart(enum.Enum):
    """Whose arithmetic it is. DECODER is without ATTENTION (its products of queries, keys and values) and HEAD."""

    TOWER = "tower"
    CONNECTOR = "connector"
    DECODER = "decoder"
    ATTENTION = "attention"
    HEAD = "head"


class Held(enum.Enum):
    """What memory is held for. CAST: copies of weights in bfloat16; LOGITS: head and loss; PASSING: backward's own."""

    GRADIENTS = "gradients"
    CAST = "cast weights"
    ACTIVATIONS = "activations"
    LOGITS = "logits"
    PASSING = "passing"


@dataclass(frozen=True, kw_only=True)
class DocumentShape:
    """A document, or the part of one that lies in a sequence: all its tokens, and how many pictures are in it."""

    tokens: int
    pictures: int = 0


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """A micro-batch of one process. `picture_px` is the side of its square pictures."""

    documents: tuple[DocumentShape, ...]
    picture_px: int

    @property
    def tokens(self) -> int:
        return sum(document.tokens for document in self.documents)

    @property
    def pictures(self) -> int:
        return sum(document.pictures for document in self.documents)


class Operation(NamedTuple):
    """A kernel that ran. `shapes` are those of its tensors, `itemsize` the bytes of a number in the first of them."""

    name: str
    part: StepPart
    backward: bool
    flops: int
    bytes: int
    shapes: tuple[tuple[int, ...], ...]
    itemsize: int


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A micro-batch, forward and backward, the first of its step. `moments`: bytes held after each operation, in the
    order of `Held`; `kept`: of them that between forward and backward. `tokens` has a blank picture's too.
    """

    operations: tuple[Operation, ...]
    moments: tuple[tuple[int, ...], ...]
    kept: tuple[int, ...]
    tokens: int
    target_tokens: int

    def flops(self, part: StepPart | None = None, *, backward: bool | None = None) -> int:
        """Of all parts or one, both ways or one."""
        return sum(
            each.flops for each in self.operations if part in (None, each.part) and backward in (None, each.backward)
        )


def model_of_shapes(config: VisionLanguageConfig) -> VisionLanguageModel:
    """The model whose weights are shapes only, on the device `meta`: what it has is what one that is trained has."""
    with torch.device("meta"):
        return VisionLanguageModel(config)


def trace(
    config: VisionLanguageConfig,
    shape: BatchShape,
    *,
    frozen: Sequence[str] = (),
    precision: Precision = Precision.FLOAT32,
    checkpoints_activations: bool = False,
    autocasts_like_gpu: bool = False,
) -> Trace:
    """Runs a micro-batch of this shape, from nothing to all gradients.

    `frozen` names the model's parts that do not learn. `checkpoints_activations`: transformer layers keep their input
    alone and are computed again.
    """
    fake = FakeTensorMode()
    # Not built as fakes: constructors look at the numbers that they draw.
    model = model_of_shapes(config)
    _make_fake(model, fake)
    let_learn(model, frozen)
    model.train()
    if checkpoints_activations:
        model.activation_checkpointing_enable({"use_reentrant": False})

    def fake_pixels(size: tuple[int, ...]) -> Tensor:
        with fake:
            return torch.empty(size)

    batch = batch_of(shape, config, fake_pixels)
    recorder = _Recorder(fake, model)
    recorder.hold_all(batch.pictures.values())
    gpu: contextlib.AbstractContextManager[Any] = _NormsInFloat32() if autocasts_like_gpu else contextlib.nullcontext()
    context = StepContext(step=0, micro=0, total_steps=1, device=_CPU)
    with isolated_documents(model.language_model), _parts_told(model, recorder), recorder:
        with autocast(precision, _CPU), gpu:
            parts = document_loss(model, batch, context)
        recorder.look()
        kept = recorder.moments[-1]
        recorder.part, recorder.backward = StepPart.HEAD, True
        torch.autograd.backward(parts.loss_sum)
    recorder.look()
    return Trace(
        operations=tuple(recorder.operations),
        moments=tuple(recorder.moments),
        kept=kept,
        tokens=batch.input_ids_1T.shape[1],
        target_tokens=parts.target_tokens,
    )


def _make_fake(model: nn.Module, fake: FakeTensorMode) -> None:
    """Weights and buffers of the device `meta` become fake tensors of a CPU; what is one tensor stays one."""
    fakes: dict[Tensor, Any] = {}

    def fake_of(tensor: Tensor) -> Any:
        if tensor not in fakes:
            with fake:
                made = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            fakes[tensor] = nn.Parameter(made) if isinstance(tensor, nn.Parameter) else made
        return fakes[tensor]

    for module in model.modules():
        for own in (module._parameters, module._buffers):
            own.update({name: fake_of(tensor) for name, tensor in own.items() if tensor is not None})


def tokens_per_picture(config: VisionLanguageConfig, picture_px: int) -> int:
    """How many visual tokens a square picture becomes: the connector's number, or else the tower's."""
    fixed = config.connector.tokens_per_picture or getattr(config.vision, "tokens_per_picture", None)
    return fixed or (picture_px // config.vision.patch_px) ** 2


def batch_of(
    shape: BatchShape, config: VisionLanguageConfig, pixels_of: Callable[[tuple[int, ...]], Tensor]
) -> DocumentBatch:
    """A micro-batch as `DocumentBatches` makes it, with a blank picture where there is none; each picture stands
    before the text of its document. `pixels_of` makes pixels (N, 3, H, W)."""
    per_picture = tokens_per_picture(config, shape.picture_px)
    documents = shape.documents if shape.pictures else (*shape.documents, DocumentShape(tokens=per_picture, pictures=1))
    image, text = config.image_token_id, (config.image_token_id + 1) % config.language.vocab_size
    ids, labels = [], []
    for document in documents:
        visual = document.pictures * per_picture
        own = torch.full((document.tokens,), text)
        own[:visual] = image
        target = own.clone()
        target[:visual] = IGNORED_LABEL
        target[0] = IGNORED_LABEL
        ids.append(own)
        labels.append(target)
    bounds = (0, *itertools.accumulate(len(own) for own in ids))
    count = sum(document.pictures for document in documents)
    return DocumentBatch(
        input_ids_1T=torch.cat(ids)[None],
        position_ids_1T=positions(bounds),
        labels_1T=torch.cat(labels)[None],
        bounds=bounds,
        pictures={"pixel_values": pixels_of((count, 3, shape.picture_px, shape.picture_px))},
        has_pictures=bool(shape.pictures),
        sources=("several", "sources"),  # of one source the loss would be read, which a shape has not
    )


class _NormsInFloat32(TorchFunctionMode):
    """What autocast does on GPUs and not on CPUs: layer norms of what is in bfloat16 are computed in float32."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is nn.functional.layer_norm and args[0].dtype is torch.bfloat16:
            args = (args[0].float(), *args[1:])
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _parts_told(model: VisionLanguageModel, recorder: "_Recorder") -> Iterator[None]:
    """Tells the recorder whose operations come: forward by hooks on modules, backward when a module's output has its
    gradient, since the engine goes back in the order in which the forward pass went."""
    head = model.get_output_embeddings()
    modules = {
        model.vision_tower: StepPart.TOWER,
        model.connector: StepPart.CONNECTOR,
        model.language_model: StepPart.DECODER,
    }
    modules[head] = StepPart.HEAD
    hooks: list[Any] = []

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if recorder.backward:  # computed again
            return
        if module is head:
            _watch(inputs, StepPart.DECODER)
        recorder.part = modules[module]

    def leave(module: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> None:
        if recorder.backward:
            return
        if module in (model.vision_tower, model.connector):
            _watch(outputs, modules[module])
            recorder.part = StepPart.DECODER
        else:
            recorder.part = StepPart.HEAD  # the loss follows

    def _watch(outputs: Any, part: StepPart) -> None:
        def arrived(gradient: Tensor) -> None:
            recorder.part = part

        for tensor in tree_iter(outputs):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                hooks.append(cast(Any, tensor).register_hook(arrived))

    for module in modules:
        hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    for parameter in model.parameters():
        if parameter.requires_grad:
            hooks.append(parameter.register_post_accumulate_grad_hook(recorder.gradient_made))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs whatever is real for real and all else on fake tensors, and keeps what it cost."""

    def __init__(self, fake: FakeTensorMode, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fake = fake
        self.part, self.backward = StepPart.DECODER, False
        self.operations: list[Operation] = []
        self.moments: list[tuple[int, ...]] = []
        self._weights = {_storage(tensor): True for tensor in (*model.parameters(), *model.buffers())}
        self._held: dict[Held, int] = dict.fromkeys(Held, 0)
        self._owners: weakref.WeakKeyDictionary[Any, _Block] = weakref.WeakKeyDictionary()

    def hold_all(self, tensors: Iterable[Tensor]) -> None:
        """Counts tensors that there are when it begins."""
        for tensor in tensors:
            self._hold(tensor, Held.ACTIVATIONS)

    def look(self) -> None:
        """Notes what is held now."""
        self.moments.append(tuple(self._held.values()))

    def gradient_made(self, parameter: Tensor) -> None:
        """What has become a parameter's gradient stays."""
        assert parameter.grad is not None
        block = self._owners.get(_storage(parameter.grad))
        if block is not None:
            self._held[block.held] -= block.bytes
            self._held[Held.GRADIENTS] += block.bytes
            block.held = Held.GRADIENTS

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":  # a fake tensor is asked for its device
            return func(*args, **kwargs)
        if func.overloadpacket in _LIKE_ANOTHER and not kwargs.get("dtype", torch.float32).is_floating_point:
            # Of the other tensor only the shape counts; a mask or a count that is made like a fake is real.
            args = (torch.empty(()).expand(args[0].shape), *args[1:])
        given = [each for each in tree_iter((args, kwargs)) if isinstance(each, Tensor)]
        real = [each for each in given if not isinstance(each, FakeTensor)]
        if len(real) < len(given):
            if real:
                args, kwargs = tree_map(self._as_fake, _with_places(func, args)), tree_map(self._as_fake, kwargs)
            with self.fake:
                result = func(*args, **kwargs)
        elif not given and _makes_floats(func, args, kwargs):
            with self.fake:
                result = func(*args, **kwargs)
        else:
            result = func(*args, **kwargs)
        made = (
            [result] if isinstance(result, Tensor) else [each for each in tree_iter(result) if isinstance(each, Tensor)]
        )
        self._note(func, given, made, _flops(func, args, kwargs, result))
        return result

    def _as_fake(self, value: Any) -> Any:
        is_real = isinstance(value, Tensor) and not isinstance(value, FakeTensor)
        return self.fake.from_tensor(value) if is_real else value

    def _note(self, func: Any, given: list[Tensor], made: list[Tensor], flops: int) -> None:
        inside = {_storage(each) for each in given}
        new = [each for each in made if _storage(each) not in inside]
        for tensor in new:
            self._hold(tensor, self._purpose(func, given))
        self.look()
        if not new and not func._schema.is_mutable:
            return  # a view
        part = self.part
        if func.overloadpacket in _ATTENTION and part is StepPart.DECODER:
            part = StepPart.ATTENTION
        self.operations.append(
            Operation(
                name=func.overloadpacket.__name__,
                part=part,
                backward=self.backward,
                flops=flops,
                bytes=sum(map(_bytes, new if func.overloadpacket in _READS_A_PART else given)) + sum(map(_bytes, new)),
                shapes=tuple(tuple(each.shape) for each in given),
                itemsize=given[0].element_size() if given else made[0].element_size() if made else 1,
            )
        )

    def _purpose(self, func: Any, given: list[Tensor]) -> Held:
        if self.backward:
            return Held.PASSING
        if func.overloadpacket is _aten._to_copy and _storage(given[0]) in self._weights:
            return Held.CAST
        return Held.LOGITS if self.part is StepPart.HEAD else Held.ACTIVATIONS

    def _hold(self, tensor: Tensor, held: Held) -> None:
        storage = _storage(tensor)
        if storage in self._owners or storage in self._weights:
            return
        block = _Block(held, storage.nbytes())
        self._held[held] += block.bytes
        self._owners[storage] = block
        weakref.finalize(storage, self._let_go, block)

    def _let_go(self, block: "_Block") -> None:
        self._held[block.held] -= block.bytes


@dataclass
class _Block:
    """A piece of memory, and what it is held for."""

    held: Held
    bytes: int


def _storage(tensor: Tensor) -> Any:
    return tensor.untyped_storage()


def _makes_floats(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether what is made of no tensor holds fractions, and so may be fake; a range or a count is real."""
    dtype = kwargs.get("dtype")
    if dtype is not None:
        return bool(dtype.is_floating_point)
    if func.overloadpacket in (_aten.arange, _aten.full, _aten.scalar_tensor):
        return any(isinstance(each, float) for each in tree_iter(args))
    return True


def _with_places(func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Masks as the places where they are true: of a fake mask nobody knows how many those are."""
    if func.overloadpacket not in (_aten.index, _aten.index_put, _aten.index_put_):
        return args
    places: list[Any] = []
    for each in args[1]:
        is_mask = isinstance(each, Tensor) and each.dtype is torch.bool
        places += each.nonzero().unbind(1) if is_mask else [each]
    return (args[0], places, *args[2:])


def _bytes(tensor: Tensor) -> int:
    """What of a tensor is read or written: of one that is expanded, what there is."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _flops(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> int:
    if func.overloadpacket is _FLASH:
        return int(_ATTENTION_FLOPS(*(tuple(each.shape) for each in args[:3])))
    if func.overloadpacket is _FLASH_BACKWARD:
        return int(_ATTENTION_BACKWARD_FLOPS(*(tuple(each.shape) for each in args[:4])))
    if func.overloadpacket is _aten.convolution_backward:
        # torch's own formula forgets that channels may be apart.
        gradient, given, weight = (tuple(each.shape) for each in args[:3])
        forward = int(conv_flop_count(list(given), list(weight), list(gradient), args[7]))
        return forward * sum(map(bool, args[10][:2]))
    formula = flop_registry.get(func.overloadpacket)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=result))

"""Mixtures of experts: a Llama in which every n-th feed-forward is a choice of some of many.

A router gives each token its experts; what they make of it is added up by the router's shares. Sources: GShard (arXiv
2006.16668, section 2.2) for two experts a token, shares that add up to one, and the loss that balances; ST-MoE (arXiv
2202.08906, section 3) for the loss that keeps the router's logits small, and for a router in float32. MM1 (arXiv
2403.09611) trains with both losses.

Where we differ: no expert has a capacity, so no token is dropped. AXLearn, in which MM1 was trained, gives experts room
for 2.0 times their even share by default and drops what exceeds it; GShard also leaves out second experts by chance.
Dropping makes what a token becomes depend on the tokens beside it, and packed documents must not see each other.

Legend: B samples, T tokens, L width, I inner width, E experts, K experts a token, S = T*K slots: each token once for
each of its experts, ordered by expert.
"""

import contextlib
import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel
from transformers import initialization as init
from transformers.activations import ACT2FN

from lensmith.core.config import from_dict, to_dict
from lensmith.core.errors import ConfigError

_ALIGNED_BYTES = 16
"""torch's grouped product reads rows that begin at multiples of this."""


@dataclass(frozen=True, kw_only=True)
class ExpertsConfig:
    """`count` experts in every `every`-th layer, of which each token goes to `per_token`."""

    count: int = 8
    every: int = 2
    per_token: int = 2

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigError("every: not a step from layer to layer", expected="1 or more", actual=self.every)
        if not 2 <= self.per_token <= self.count:
            # A single share is one whatever the router says, which would then learn nothing from what is predicted.
            raise ConfigError(
                "per_token: not that many experts", expected=f"2 to {self.count} (count)", actual=self.per_token
            )

    def is_at(self, layer: int) -> bool:
        """Whether a layer, counted from 0, has experts: the last of each `every`."""
        return (layer + 1) % self.every == 0


class Routing(NamedTuple):
    """Each token's experts (T, K), the likeliest first, and their shares (T, K) in float32, which add up to one."""

    experts_TK: Tensor
    shares_TK: Tensor


def route(logits_TE: Tensor, per_token: int) -> Routing:
    """The likeliest experts of each token. Their probabilities are scaled to add up to one, as GShard's and AXLearn's
    are: what leaves the layer then has one scale, however sure the router is."""
    likeliest_TK, experts_TK = logits_TE.float().softmax(-1).topk(per_token, dim=-1)
    return Routing(experts_TK, likeliest_TK / likeliest_TK.sum(-1, keepdim=True))


def balance_loss(logits_TE: Tensor) -> Tensor:
    """GShard's: E times the sum over experts of (share of tokens whose first choice it is) * (mean probability).

    A scalar: 1 where both are even, E where all tokens are sure of one expert. Only probabilities have a gradient.
    Unlike in transformers' loss of this name, only first choices are counted, and each layer is measured by itself.
    """
    probabilities_TE = logits_TE.float().softmax(-1)
    experts = logits_TE.shape[-1]
    first_E = F.one_hot(logits_TE.argmax(-1), experts).float().mean(0)
    return experts * (first_E * probabilities_TE.mean(0)).sum()


def router_z_loss(logits_TE: Tensor) -> Tensor:
    """ST-MoE's: the mean square of the logarithm of what softmax divides by. A scalar."""
    return logits_TE.float().logsumexp(-1).square().mean()


class Matmul(enum.Enum):
    """How rows are multiplied by the weights of their experts: in one call of torch's, or expert by expert."""

    GROUPED = "grouped"
    LOOP = "loop"

    @classmethod
    def fitting(cls, states_SL: Tensor, weights_EIL: Tensor) -> "Matmul":
        """GROUPED on an accelerator whose torch has it for these; LOOP elsewhere.

        On CPUs torch's call is a loop of its own: no faster in float32, and several times slower in bfloat16.
        """
        on_accelerator = states_SL.device.type == "cuda" and torch.cuda.get_device_capability(states_SL.device) >= (
            8,
            0,
        )
        return cls.GROUPED if on_accelerator and can_group(states_SL.dtype, weights_EIL) else cls.LOOP


def can_group(dtype: torch.dtype, weights_EIL: Tensor) -> bool:
    """Whether torch's grouped product is made for a precision and for weights of these widths."""
    known = dtype in (torch.float32, torch.bfloat16, torch.float16)
    return known and all(width * dtype.itemsize % _ALIGNED_BYTES == 0 for width in weights_EIL.shape[1:])


def expert_linear(states_SL: Tensor, weights_EIL: Tensor, ends_E: Tensor, matmul: Matmul) -> Tensor:
    """Rows (S, L) by the weights of their experts (E, I, L): (S, I). Those of expert e end before `ends_E[e]`."""
    if matmul is Matmul.GROUPED:
        return F.grouped_mm(states_SL, weights_EIL.transpose(1, 2), offs=ends_E.to(torch.int32))
    bounds = pairwise((0, *ends_E.tolist()))
    # `unbind`, because each `weights_EIL[expert]` would have a gradient of the size of all.
    parts = [
        states_SL[begin:end] @ weight_IL.T
        for (begin, end), weight_IL in zip(bounds, weights_EIL.unbind(), strict=True)
        if end > begin
    ]
    return torch.cat(parts) if parts else states_SL.new_zeros(0, weights_EIL.shape[1])


class Router(nn.Module):
    """Tokens (T, L) to logits of experts (T, E), always in float32."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, width))

    def forward(self, states_TL: Tensor) -> Tensor:
        with torch.autocast(states_TL.device.type, enabled=False):
            return F.linear(states_TL.float(), self.weight.float())


class Experts(nn.Module):
    """The feed-forwards of a Llama, E of them in three tensors. `matmul` None: what fits the device."""

    def __init__(self, width: int, inner_width: int, experts: int, activation: str) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.empty(experts, inner_width, width))
        self.up = nn.Parameter(torch.empty(experts, inner_width, width))
        self.down = nn.Parameter(torch.empty(experts, width, inner_width))
        self.activation = ACT2FN[activation]
        self.matmul: Matmul | None = None

    def forward(self, states_TL: Tensor, routing: Routing) -> Tensor:
        """Tokens (T, L) to what their experts make of them, by the shares of `routing` (T, L)."""
        tokens, per_token = routing.experts_TK.shape
        experts_S, slot_S = routing.experts_TK.flatten().sort(stable=True)
        numbers_E = torch.arange(len(self.gate), device=states_TL.device)
        ends_E = torch.searchsorted(experts_S, numbers_E, right=True)
        token_S = slot_S // per_token
        gate_EIL, up_EIL, down_ELI = (self._as_computed(weights) for weights in (self.gate, self.up, self.down))
        states_SL = states_TL.to(gate_EIL.dtype).index_select(0, token_S)
        matmul = self.matmul or Matmul.fitting(states_SL, gate_EIL)
        inner_SI = self.activation(expert_linear(states_SL, gate_EIL, ends_E, matmul))
        inner_SI = inner_SI * expert_linear(states_SL, up_EIL, ends_E, matmul)
        made_SL = expert_linear(inner_SI, down_ELI, ends_E, matmul)
        shared_SL = made_SL * routing.shares_TK.flatten().index_select(0, slot_S)[:, None].to(made_SL.dtype)
        return shared_SL.new_zeros(tokens, states_TL.shape[1]).index_add(0, token_S, shared_SL)

    def _as_computed(self, weights: Tensor) -> Tensor:
        # torch's grouped product is left out of autocast; so that both ways compute alike, neither relies on it.
        kind = weights.device.type
        return weights.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else weights


class ExpertFeedForward(nn.Module):
    """Takes the place of a layer's feed-forward: (B, T, L) to (B, T, L), each token by itself."""

    def __init__(self, config: "ExpertLlamaConfig") -> None:
        super().__init__()
        self.per_token = config.experts_config.per_token
        self.router = Router(config.hidden_size, config.experts_config.count)
        self.experts = Experts(
            config.hidden_size, config.intermediate_size, config.experts_config.count, config.hidden_act
        )

    def forward(self, states_BTL: Tensor) -> Tensor:
        states_TL = states_BTL.flatten(0, 1)
        mixed_TL = self.experts(states_TL, route(self.router(states_TL), self.per_token))
        return cast(Tensor, mixed_TL.view(states_BTL.shape))


class ExpertLlamaConfig(LlamaConfig):
    """A Llama's configuration, and `experts`: an `ExpertsConfig`, or its fields. Raises ConfigError."""

    model_type = "lensmith_expert_llama"
    experts: Any = None

    def __post_init__(self, **kwargs: Any) -> None:
        given = self.experts if isinstance(self.experts, Mapping) else to_dict(self.experts or ExpertsConfig())
        # transformers saves only plain values.
        self.experts = to_dict(from_dict(ExpertsConfig, given))
        super().__post_init__(**kwargs)
        if not any(map(self.experts_config.is_at, range(self.num_hidden_layers))):
            raise ConfigError(
                "experts.every: no layer has experts",
                expected=f"at most {self.num_hidden_layers} layers",
                actual=self.experts_config.every,
            )

    @property
    def experts_config(self) -> ExpertsConfig:
        return from_dict(ExpertsConfig, self.experts)


class ExpertLlamaModel(LlamaModel):
    """The layers of a Llama, some of them with experts."""

    config_class = ExpertLlamaConfig

    def __init__(self, config: ExpertLlamaConfig) -> None:
        super().__init__(config)
        for number, layer in enumerate(self.layers):
            if config.experts_config.is_at(number):
                layer.mlp = ExpertFeedForward(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Experts and routers as a Llama's linear layers."""
        super()._init_weights(module)
        if isinstance(module, Experts | Router):
            for weights in module.parameters(recurse=False):
                init.normal_(weights, mean=0.0, std=self.config.initializer_range)


class ExpertLlamaForCausalLM(LlamaForCausalLM):
    """A Llama with experts and its head."""

    config_class = ExpertLlamaConfig

    def __init__(self, config: ExpertLlamaConfig) -> None:
        # What LlamaForCausalLM does, but for its dense layers, which would be made for nothing.
        super(LlamaForCausalLM, self).__init__(config)
        self.model = ExpertLlamaModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


def routers(model: nn.Module) -> list[Router]:
    """A model's routers, in order of layers; none where it has no experts."""
    return [module for module in model.modules() if isinstance(module, Router)]


@contextlib.contextmanager
def recorded_routing(model: nn.Module) -> Iterator[list[Tensor]]:
    """Within the context, the logits (T, E) that each layer's router gives are added to the list, with gradient."""
    logits: list[Tensor] = []
    handles = [
        router.register_forward_hook(lambda module, inputs, logits_TE: logits.append(logits_TE))
        for router in routers(model)
    ]
    try:
        yield logits
    finally:
        for handle in handles:
            handle.remove()

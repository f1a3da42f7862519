"""DeepSeek-VL's two published sizes, and tiny ones of the same make for tests.

arXiv 2403.05525, section 3.1; the dimensions are those of the published checkpoints' configurations. The paper
describes the hybrid encoder as if both sizes had it; the released 1.3B has SigLIP only, and these configurations follow
the releases. The language model is a Llama whose word embeddings and head are two tensors.

`Exactness` changes no size. It says whose numbers the hybrid tower computes; for 1.3B it matters to the processor only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from transformers import LlamaConfig

from lensmith.core.errors import ConfigError
from lensmith.models.config import VisionLanguageConfig
from lensmith.models.connectors import ConnectorConfig, MlpConnectorConfig
from lensmith.models.connectors.hybrid_mlp import HybridMlpConnectorConfig
from lensmith.models.families.deepseek_vl.layouts import Variant
from lensmith.models.families.deepseek_vl.options import Exactness
from lensmith.models.towers import SiglipTowerConfig, TowerConfig
from lensmith.models.towers.hybrid import SIGLIP_L, HybridTowerConfig
from lensmith.models.towers.sam import SamTowerConfig

IMAGE_TOKEN, IMAGE_TOKEN_ID = "<image_placeholder>", 100015
BOS_TOKEN_ID, EOS_TOKEN_ID = 100000, 100001
"""The published tokenizers'; padding is the end token."""
PUBLISHED_VOCABULARY = 102400


@dataclass(frozen=True, kw_only=True)
class Size:
    """A published size. `parameters` are what `VisionLanguageModel` has: without what the original never uses."""

    variant: Variant
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    parameters: int


SIZES: Mapping[str, Size] = MappingProxyType(
    {
        "1.3b": Size(
            variant=Variant.MLP,
            hidden_size=2048,
            intermediate_size=5632,
            layers=24,
            heads=16,
            parameters=1_962_640_384,
        ),
        "7b": Size(
            variant=Variant.HYBRID,
            hidden_size=4096,
            intermediate_size=11008,
            layers=30,
            heads=32,
            parameters=7_331_390_721,
        ),
    }
)


def deepseek_vl_config(size: str, *, exact: Exactness = Exactness.ORIGINAL) -> VisionLanguageConfig:
    """The configuration of a published size, "1.3b" or "7b"; base and chat have the same. Raises ConfigError."""
    if size not in SIZES:
        raise ConfigError("no such size of DeepSeek-VL", expected=" or ".join(SIZES), actual=size)
    published = SIZES[size]
    language = LlamaConfig(
        hidden_size=published.hidden_size,
        intermediate_size=published.intermediate_size,
        num_hidden_layers=published.layers,
        num_attention_heads=published.heads,
        vocab_size=PUBLISHED_VOCABULARY,
        max_position_embeddings=16384,
        tie_word_embeddings=False,
        bos_token_id=BOS_TOKEN_ID,
        eos_token_id=EOS_TOKEN_ID,
        pad_token_id=EOS_TOKEN_ID,
    )
    if published.variant is Variant.HYBRID:
        return hybrid_config(SamTowerConfig(), SIGLIP_L, language, IMAGE_TOKEN_ID, exact=exact)
    return mlp_config(SIGLIP_L, language, IMAGE_TOKEN_ID)


def tiny_config(
    family: str | Variant,
    *,
    exact: Exactness = Exactness.ORIGINAL,
    vocabulary_size: int = 320,
    image_token_id: int = 3,
    bos_token_id: int = 1,
    eos_token_id: int = 2,
) -> VisionLanguageConfig:
    """A model of the same make, of some 100,000 weights: 16 tokens a picture of 64 px (mlp) or 128 px (hybrid)."""
    language = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        vocab_size=vocabulary_size,
        max_position_embeddings=1024,
        initializer_range=0.3,  # wide, so that what is read changes what is said
        tie_word_embeddings=False,
        bos_token_id=bos_token_id,
        eos_token_id=eos_token_id,
        pad_token_id=eos_token_id,
    )
    siglip = SiglipTowerConfig(
        width=32, hidden_width=40, layers=2, heads=4, patch_px=16, native_px=64, activation="gelu"
    )
    if Variant(family) is Variant.MLP:
        return mlp_config(siglip, language, image_token_id)
    sam = SamTowerConfig(
        image_px=128,
        trunk_width=24,
        hidden_width=96,
        layers=4,
        heads=2,
        window=3,
        global_layers=(1, 3),
        neck_width=8,
        tokens_side=4,
    )
    return hybrid_config(sam, siglip, language, image_token_id, exact=exact)


def mlp_config(
    siglip: SiglipTowerConfig, language: LlamaConfig, image_token_id: int, *, depth: int = 2
) -> VisionLanguageConfig:
    """SigLIP alone (1.3B)."""
    return _config(siglip, MlpConnectorConfig(depth=depth), language, image_token_id)


def hybrid_config(
    sam: SamTowerConfig,
    siglip: SiglipTowerConfig,
    language: LlamaConfig,
    image_token_id: int,
    *,
    depth: int = 2,
    exact: Exactness = Exactness.ORIGINAL,
) -> VisionLanguageConfig:
    """SAM and SigLIP (7B)."""
    tower = following(HybridTowerConfig(high=sam, low=siglip), exact)
    return _config(tower, HybridMlpConnectorConfig(high_width=sam.width, depth=depth), language, image_token_id)


def following(tower: HybridTowerConfig, exact: Exactness) -> HybridTowerConfig:
    """The same tower with these numbers: the original makes the small picture within, and resizes in float32."""
    is_original = exact is Exactness.ORIGINAL
    return replace(tower, makes_low=is_original, high=replace(tower.high, resizes_in_float32=is_original))


def exactness_of(tower: HybridTowerConfig) -> Exactness:
    """Whose numbers a hybrid tower computes."""
    return Exactness.ORIGINAL if tower.makes_low else Exactness.TRANSFORMERS


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a configuration of this make consists of. `sam` is the hybrid family's."""

    variant: Variant
    siglip: SiglipTowerConfig
    sam: SamTowerConfig | None
    language: LlamaConfig
    depth: int

    @property
    def tokens_per_picture(self) -> int:
        return (self.siglip.native_px // self.siglip.patch_px) ** 2


def parts_of(config: VisionLanguageConfig) -> Parts:
    """Raises ConfigError where the configuration is not of this make."""
    vision, connector, language = config.vision, config.connector, config.language
    if isinstance(language, LlamaConfig):
        if isinstance(vision, SiglipTowerConfig) and isinstance(connector, MlpConnectorConfig) and not connector.norm:
            return Parts(variant=Variant.MLP, siglip=vision, sam=None, language=language, depth=connector.depth)
        if isinstance(vision, HybridTowerConfig) and isinstance(connector, HybridMlpConnectorConfig):
            return Parts(
                variant=Variant.HYBRID, siglip=vision.low, sam=vision.high, language=language, depth=connector.depth
            )
    raise ConfigError(
        "not a DeepSeek-VL model",
        expected="vision siglip with connector mlp, or vision hybrid with connector hybrid_mlp; language llama",
        actual=f"vision {vision.kind} with connector {connector.kind}; language {language.model_type}",
    )


def _config(
    vision: TowerConfig, connector: ConnectorConfig, language: LlamaConfig, image_token_id: int
) -> VisionLanguageConfig:
    return VisionLanguageConfig(vision=vision, connector=connector, language=language, image_token_id=image_token_id)

"""Connectors: the tower's tokens become what the language model reads."""

from lensmith.models.connectors.attention_pool import AttentionPoolConnectorConfig
from lensmith.models.connectors.base import ConnectorConfig, ConnectorOutput
from lensmith.models.connectors.c_abstractor import CAbstractorConfig
from lensmith.models.connectors.hybrid_mlp import HybridMlpConnectorConfig
from lensmith.models.connectors.mlp import MlpConnectorConfig
from lensmith.models.connectors.perceiver import PerceiverConnectorConfig
from lensmith.models.connectors.pool import PoolConnectorConfig

CONNECTORS: dict[str, type[ConnectorConfig]] = {
    "attention_pool": AttentionPoolConnectorConfig,
    "c_abstractor": CAbstractorConfig,
    "hybrid_mlp": HybridMlpConnectorConfig,
    "mlp": MlpConnectorConfig,
    "perceiver": PerceiverConnectorConfig,
    "pool": PoolConnectorConfig,
}
"""The configuration of each connector, by the `kind` that a saved model names."""

__all__ = [
    "CONNECTORS",
    "AttentionPoolConnectorConfig",
    "CAbstractorConfig",
    "ConnectorConfig",
    "ConnectorOutput",
    "HybridMlpConnectorConfig",
    "MlpConnectorConfig",
    "PerceiverConnectorConfig",
    "PoolConnectorConfig",
]

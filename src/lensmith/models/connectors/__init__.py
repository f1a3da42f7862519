"""Connectors: the tower's tokens become what the language model reads."""

from lensmith.models.connectors.base import ConnectorConfig, ConnectorOutput
from lensmith.models.connectors.hybrid_mlp import HybridMlpConnectorConfig
from lensmith.models.connectors.mlp import MlpConnectorConfig
from lensmith.models.connectors.perceiver import PerceiverConnectorConfig

CONNECTORS: dict[str, type[ConnectorConfig]] = {
    "hybrid_mlp": HybridMlpConnectorConfig,
    "mlp": MlpConnectorConfig,
    "perceiver": PerceiverConnectorConfig,
}
"""The configuration of each connector, by the `kind` that a saved model names."""

__all__ = [
    "CONNECTORS",
    "ConnectorConfig",
    "ConnectorOutput",
    "HybridMlpConnectorConfig",
    "MlpConnectorConfig",
    "PerceiverConnectorConfig",
]

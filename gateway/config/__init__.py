"""The configuration of the gateway: ``config.toml``, environment variables and flags."""

from gateway.config.describe import Key, as_toml, described
from gateway.config.load import ENV_FOREIGN, ConfigError, is_worker_address, load
from gateway.config.tables import (
    EMBEDDED,
    ENV_ALIASES,
    PROJECT_ROOT,
    TABLES,
    ClusterConfig,
    Config,
    LauncherConfig,
    LimitsConfig,
    ModelConfig,
    PacingConfig,
    PlacementConfig,
    ServerConfig,
    SessionConfig,
    StoreConfig,
    WorkersConfig,
)

__all__ = [
    "EMBEDDED",
    "ENV_ALIASES",
    "ENV_FOREIGN",
    "PROJECT_ROOT",
    "TABLES",
    "ClusterConfig",
    "Config",
    "ConfigError",
    "Key",
    "LauncherConfig",
    "LimitsConfig",
    "ModelConfig",
    "PacingConfig",
    "PlacementConfig",
    "ServerConfig",
    "SessionConfig",
    "StoreConfig",
    "WorkersConfig",
    "as_toml",
    "described",
    "is_worker_address",
    "load",
]

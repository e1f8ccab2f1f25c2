"""The configuration of the gateway: ``config.toml``, environment variables and flags."""

from gateway.config.describe import Key, as_toml, described
from gateway.config.load import ENV_FOREIGN, ConfigError, is_worker_address, load
from gateway.config.serving import (
    LimitsConfig,
    PacingConfig,
    ServerConfig,
    SessionConfig,
    StoreConfig,
)
from gateway.config.tables import ENV_ALIASES, PROJECT_ROOT, TABLES, Config
from gateway.config.workers import (
    EMBEDDED,
    ClusterConfig,
    LauncherConfig,
    ModelConfig,
    PlacementConfig,
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

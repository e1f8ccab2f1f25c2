"""The configuration: all tables of ``config.toml``.

The classes of the tables state every key with its type, bounds, default and description, and they
alone do. ``docs/reference/configuration.md`` is made from them, and a test holds ``config.toml`` to
them. Durations are seconds and end in ``_s``.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from gateway.config.serving import (
    LimitsConfig,
    PacingConfig,
    ServerConfig,
    SessionConfig,
    StoreConfig,
)
from gateway.config.table import Table
from gateway.config.workers import (
    EMBEDDED,
    ClusterConfig,
    LauncherConfig,
    ModelConfig,
    PlacementConfig,
    WorkersConfig,
)

PROJECT_ROOT = Path(__file__).resolve().parents[2]

# Short names of variables that are set most often.
ENV_ALIASES = {
    "PASCAL_HOST": "server.host",
    "PASCAL_PORT": "server.port",
    "PASCAL_API_KEYS": "server.api_keys",
    "PASCAL_MODEL": "model.name",
    "PASCAL_WORKERS": "workers.count",
}


class Config(Table, frozen=True, kw_only=True):
    """The whole configuration."""

    server: ServerConfig = ServerConfig()
    model: ModelConfig = ModelConfig()
    workers: WorkersConfig = WorkersConfig()
    launcher: LauncherConfig = LauncherConfig()
    placement: PlacementConfig = PlacementConfig()
    cluster: ClusterConfig = ClusterConfig()
    pacing: PacingConfig = PacingConfig()
    session: SessionConfig = SessionConfig()
    limits: LimitsConfig = LimitsConfig()
    store: StoreConfig = StoreConfig()

    @property
    def model_path(self) -> str:
        """What the engine loads: a path, or a hub id as given."""
        if self.model.name == EMBEDDED:
            return str(PROJECT_ROOT / "models" / "tiny-reasoner")
        return self.model.name

    @property
    def served_model_name(self) -> str:
        """The model's name in the API."""
        if self.model.served_name:
            return self.model.served_name
        if self.workers.emulate:
            return f"emulated-{Path(self.workers.emulate).stem}"
        if self.model.name == EMBEDDED:
            return "tiny-reasoner"
        path = Path(self.model.name)
        return path.resolve().name if path.is_dir() else self.model.name

    @property
    def model_line(self) -> str:
        """The model's name and source, for the terminal."""
        source = "no model, scripted answers" if self.workers.emulate else self.model_path
        return f"model {self.served_model_name} ({source})"

    @property
    def store_place(self) -> Path | str:
        """The SQLite file, or the URL of the PostgreSQL database."""
        default = Path(self.server.state_dir) / "responses.sqlite3"
        return self.store.url or Path(self.store.path or default)


def _tables() -> dict[str, type[Table]]:
    return {field.name: type(field.default) for field in msgspec.structs.fields(Config)}


TABLES = _tables()  # by name, in the order of the file

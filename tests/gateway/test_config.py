"""Configuration: precedence, and errors that name the key."""

import tomllib
from pathlib import Path

import pytest

from gateway.config import PROJECT_ROOT, Config, ConfigError, described, load
from gateway.config.describe import as_toml, toml_value


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_file_states_the_defaults() -> None:
    assert load(PROJECT_ROOT / "config.toml", environment={}) == Config()


def test_the_shipped_file_and_the_reference_have_the_same_keys_and_defaults() -> None:
    document = tomllib.loads((PROJECT_ROOT / "config.toml").read_text(encoding="utf-8"))
    shipped = [
        (table, key, toml_value(value))
        for table in document
        for key, value in document[table].items()
    ]
    assert shipped == [(key.table, key.key, key.default) for key in described()]


def test_every_key_is_described_in_a_sentence() -> None:
    for key in described():
        assert key.description.endswith("."), key
        assert key.unit or not key.key.endswith(("_s", "_bytes", "_gib", "_days", "_tokens")), key


def test_the_reference_states_bounds_choices_and_variables() -> None:
    keys = {f"{key.table}.{key.key}": key for key in described()}
    assert keys["server.port"].constraint == "from 0 to 65535"
    assert keys["workers.count"].constraint == "at least 1"
    assert keys["launcher.kind"].constraint == "one of local, static, ray"
    assert keys["launcher.kind"].variable == "PASCAL_LAUNCHER_KIND"
    assert keys["server.port"].variable == "PASCAL_PORT"
    assert keys["session.ttl_s"].unit == "seconds"
    assert keys["workers.kv_migration"].default == "true"
    assert keys["server.api_keys"].type == "a list of texts"


def test_what_is_printed_can_be_read_again_and_has_no_secrets(tmp_path: Path) -> None:
    flags = {"model.served_name": 'a "b" \\c', "server.api_keys": "key-1,key-2", "workers.count": 3}
    config = load(None, environment={}, flags=flags)
    printed = as_toml(config)
    assert "key-1" not in printed
    shown = load(write(tmp_path, printed.replace('"(hidden)"', '["key-1", "key-2"]')), {})
    assert shown == config


def test_flag_over_variable_over_file_over_default(tmp_path: Path) -> None:
    path = write(tmp_path, "[server]\nport = 1\n[workers]\ncount = 3\n")
    assert load(path, environment={}).server.port == 1
    assert load(path, environment={"PASCAL_PORT": "2"}).server.port == 2
    config = load(path, environment={"PASCAL_PORT": "2"}, flags={"server.port": "3"})
    assert (config.server.port, config.workers.count) == (3, 3)
    assert load(path, environment={}, flags={"server.port": None}).server.port == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[sever]\nport = 1", "did you mean 'server'"),
        ("[server]\nprot = 1", "did you mean 'port'"),
        ("[server]\nport = 'x'", "server.port"),
        ("[server]\nport = 70000", "server.port: 70000 is out of range (from 0 to 65535)"),
        ("[workers]\ncount = 0", "workers.count"),
        ("[workers]\npolicy = 'best'", "workers.policy: 'best' is none of fcfs"),
        ("[workers]\nquantum_tokens = 0", "workers.quantum_tokens"),
        ("[workers]\nhigh_water_s = 2.0", "workers.high_water_s: 2.0 must be above workers.low"),
        ("[pacing]\ntpot_s = true", "pacing.tpot_s"),
        ("[pacing]\ntpot_s = nan", "pacing.tpot_s: nan is not a finite number"),
        ("server = 3", "server must be a table"),
        ("[server", "config.toml"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text), environment={})
    assert named in str(caught.value)


def float_settings() -> list[str]:
    """Settings whose values are not whole numbers, such as seconds, as ``table.key``."""
    found = [f"{key.table}.{key.key}" for key in described() if key.type == "a number"]
    assert len([key for key in found if key.endswith("_s")]) >= 10
    return found


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
def test_numbers_without_an_end_are_refused_wherever_they_come_from(
    tmp_path: Path, value: str
) -> None:
    for key in float_settings():
        table, _, name = key.partition(".")
        refused = rf"{key}: {value} is not a finite number"
        with pytest.raises(ConfigError, match=refused):
            load(write(tmp_path, f"[{table}]\n{name} = {value}\n"), environment={})
        with pytest.raises(ConfigError, match=refused):
            load(environment={f"PASCAL_{table}_{name}".upper(): value})
        with pytest.raises(ConfigError, match=refused):
            load(environment={}, flags={key: value})
    with pytest.raises(ConfigError, match=r"session.ttl_s: inf is not a finite number"):
        load(environment={}, flags={"session.ttl_s": f"{'9' * 400}h"})


STATIC = "[launcher]\nkind = 'static'\n"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[launcher]\nkind = 'slurm'", "launcher.kind: 'slurm' is none of local, static, ray"),
        ("[launcher]\naddresses = ['unix:/a']", "launcher.addresses: only with launcher.kind"),
        (STATIC, "launcher.addresses: launcher.kind = 'static' needs"),
        (STATIC + "addresses = ['a:9000']", "launcher.addresses: 'a:9000' is none of ws://"),
        (STATIC + "addresses = ['ws://a']", "launcher.addresses: 'ws://a' is none of"),
        (STATIC + "addresses = ['ws://a:x']", "launcher.addresses: 'ws://a:x' is none of"),
        (STATIC + "addresses = ['unix:']", "launcher.addresses: 'unix:' is none of"),
        (STATIC + "addresses = ['unix:/a', 'unix:/a']", "launcher.addresses: 'unix:/a' is there"),
        (STATIC + "addresses = ['ws://a:1']", "launcher.token: workers on TCP ask for one"),
        ("[launcher]\ntoken_file = '/nowhere/token'", "launcher.token_file: /nowhere/token: No"),
        ("[launcher]\ngpus = -2", "launcher.gpus: -2 is out of range"),
    ],
)
def test_a_wrong_launcher_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text), environment={})
    assert named in str(caught.value)


def test_the_token_of_static_workers_comes_from_a_file_or_a_variable(tmp_path: Path) -> None:
    path = write(tmp_path, STATIC + "addresses = ['ws://a:1', 'wss://b:2', 'unix:/c']")
    secret = tmp_path / "secret"
    secret.write_text("of the file\n")
    config = load(path, environment={}, flags={"launcher.token_file": str(secret)})
    assert config.launcher.token == "of the file"
    assert "of the file" not in repr(config)
    environment = {"PASCAL_LAUNCHER_TOKEN": "t", "PASCAL_LAUNCHER_TOKEN_FILE": str(secret)}
    assert load(path, environment=environment).launcher.token == "t"
    secret.write_text("\n")
    with pytest.raises(ConfigError, match=r"launcher\.token_file: .* is empty"):
        load(path, environment={}, flags={"launcher.token_file": str(secret)})
    local = load(write(tmp_path, STATIC + "addresses = ['unix:/c']"), environment={})
    assert local.launcher.token == ""


@pytest.mark.parametrize(
    "key", ["model.name=other", "workers.engine=async", "workers.tensor_parallel_size=2"]
)
def test_an_emulated_device_brings_its_own_model_and_hardware(key: str) -> None:
    name, _, value = key.partition("=")
    with pytest.raises(ConfigError, match=rf"{name}: has no place beside workers.emulate"):
        load(environment={}, flags={"workers.emulate": "h100-qwen32b", name: value})


def test_the_name_of_an_emulated_model_says_so() -> None:
    flags = {"workers.emulate": "h100-qwen32b"}
    assert load(environment={}, flags=flags).served_model_name == "emulated-h100-qwen32b"
    named = flags | {"model.served_name": "mine"}
    assert load(environment={}, flags=named).served_model_name == "mine"
    path = {"workers.emulate": "profiles/a100.toml"}
    assert load(environment={}, flags=path).served_model_name == "emulated-a100"


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: No such file"):
        load(tmp_path / "absent.toml", environment={})


def test_an_unknown_variable_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"PASCAL_SERVER_PROT.*did you mean 'port'"):
        load(environment={"PASCAL_SERVER_PROT": "1"})


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("10s", 10.0), ("2m", 120.0), ("1h", 3600.0), ("7", 7.0)]
)
def test_flags_take_durations_with_units(text: str, seconds: float) -> None:
    assert load(environment={}, flags={"session.ttl_s": text}).session.ttl_s == seconds


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("a, b,", ("a", "b")),
        ("a", ("a",)),
        ('["x","y"]', ("x", "y")),
        (" [ 'x', \"y,z\", ] ", ("x", "y,z")),
        ("[]", ()),
        (" ", ()),
    ],
)
def test_lists_are_plain_or_as_in_the_file(text: str, keys: tuple[str, ...]) -> None:
    assert load(environment={"PASCAL_API_KEYS": text}).server.api_keys == keys
    assert load(environment={}, flags={"server.api_keys": text}).server.api_keys == keys


@pytest.mark.parametrize(
    "text",
    ['["secret",y]', '"secret","y"', "[secret", "secret]", "x,['secret']", "[1, 2]", "['secret'] #",
     '["secret"]\nport = 1'],
)  # fmt: skip
def test_a_list_that_is_neither_is_refused_and_not_shown(text: str) -> None:
    if text == "['secret'] #":  # a comment, as the file may have
        assert load(environment={"PASCAL_API_KEYS": text}).server.api_keys == ("secret",)
        return
    with pytest.raises(ConfigError, match=r"PASCAL_API_KEYS \(server\.api_keys\)") as caught:
        load(environment={"PASCAL_API_KEYS": text})
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"command line \(server\.allowed_origins\)"):
        load(environment={}, flags={"server.allowed_origins": text})


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("workers.kv_migration", "false", False),
        ("workers.kv_migration", "True", True),
        ("workers.kv_migration", "0", False),
        ("server.max_message_bytes", "1_048_576", 1048576),
        ("server.max_message_bytes", "0x100000", 1048576),
        ("placement.headroom", "0.25", 0.25),
        ("placement.headroom", "2.5e-1", 0.25),
        ("placement.affinity", "1_0", 10.0),
        ("model.name", "Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("model.name", '"Qwen/Qwen3-8B"', "Qwen/Qwen3-8B"),
        ("model.name", "'Qwen/Qwen3-8B'", "Qwen/Qwen3-8B"),
    ],
)
def test_values_of_flags_may_be_written_as_in_the_file(key: str, text: str, value: object) -> None:
    table, _, name = key.partition(".")
    config = load(environment={}, flags={key: text})
    assert getattr(getattr(config, table), name) == value


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("workers.kv_migration", "yes", "expected true or false, not 'yes'"),
        ("workers.kv_migration", "", "expected true or false, not ''"),
        ("workers.kv_migration", "2", "expected true or false, not '2'"),
        ("workers.count", "two", "expected a whole number, not 'two'"),
        ("workers.count", "2.5", "expected a whole number, not '2.5'"),
        ("workers.count", "true", "expected a whole number, not 'true'"),
        ("workers.count", "[2]", "expected a whole number, not '[2]'"),
        ("pacing.tpot_s", "fast", "expected a number, not 'fast'"),
        ("pacing.tpot_s", "1 s", "expected a number, not '1 s'"),
        ("model.name", '"a"b"', "cannot be read as in the file"),
    ],
)
def test_a_flag_of_the_wrong_type_is_refused_by_name(key: str, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(environment={}, flags={key: text})
    assert str(caught.value).startswith(f"command line ({key}): ")
    assert expected in str(caught.value)


@pytest.mark.parametrize("text", [",", "a,,b", " , ", '[""]', '["a", " "]', "a,,"])
def test_an_empty_entry_of_a_list_is_refused(text: str) -> None:
    """As of a variable that is not set: without its key, the server would be open."""
    with pytest.raises(ConfigError, match=r"server\.api_keys: an entry of the list is empty"):
        load(environment={"PASCAL_API_KEYS": text})
    with pytest.raises(ConfigError, match="an entry of the list is empty"):
        load(environment={}, flags={"server.api_keys": text})

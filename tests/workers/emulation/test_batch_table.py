"""Step times from a table: interpolation, refused tables, and profiles with a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.emulation.device import BatchTable, StepTimes
from workers.emulation.profile import ProfileError, load_profile

TABLE = BatchTable(decodes=(1, 4, 10), seconds=(0.010, 0.016, 0.019))
TIMES = StepTimes(
    base_s=0.010,
    per_request_s=0.002,
    per_kv_token_s=1e-6,
    prefill_base_s=0.003,
    prefill_per_token_s=1e-4,
    prefill_per_token2_s=1e-8,
    table=TABLE,
)
PROFILE = """
[step]
base_s = 0.01
per_request_s = 0.002
per_kv_token_s = 1e-6
prefill_base_s = 0.003
prefill_per_token_s = 1e-4
prefill_per_token2_s = 1e-8
[step.table]
decodes = [1, 4, 10]
seconds = [0.010, 0.016, 0.019]
[kv]
layers = 4
heads = 2
head_dim = 64
dtype_bytes = 2
tokens = 3200
block_size = 32
[links]
host_bytes_per_s = 1e9
network_bytes_per_s = 1e9
[host]
offload_bytes = 1e9
"""


@pytest.mark.parametrize(
    ("decodes", "seconds"),
    [(0, 0.010), (1, 0.010), (2, 0.012), (4, 0.016), (6, 0.017), (10, 0.019), (12, 0.023)],
)
def test_a_batch_takes_what_the_table_says_and_goes_on_beyond_it(
    decodes: int, seconds: float
) -> None:
    assert TIMES.seconds(decodes, 0, 0, 0) == pytest.approx(seconds)


def test_kv_and_prefill_come_on_top() -> None:
    assert TIMES.seconds(4, 5000, 0, 0) == pytest.approx(0.016 + 0.005)
    assert TIMES.seconds(4, 0, 50, 2500) == pytest.approx(0.016 + 0.003 + 0.005 + 25e-6)


@pytest.mark.parametrize(
    ("decodes", "seconds"), [((), ()), ((1, 2), (0.1,)), ((2, 2), (0.1, 0.2)), ((3, 1), (0.1, 0.2))]
)
def test_a_table_that_cannot_be_read_off_is_refused(
    decodes: tuple[int, ...], seconds: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="decodes"):
        BatchTable(decodes=decodes, seconds=seconds)


def test_a_profile_may_have_one(tmp_path: Path) -> None:
    path = tmp_path / "measured.toml"
    path.write_text(PROFILE)
    assert load_profile(str(path)).step == TIMES
    path.write_text(PROFILE.replace("[1, 4, 10]", "[1, 4]"))
    with pytest.raises(ProfileError, match=r"measured\.toml: step\.table: decodes and seconds"):
        load_profile(str(path))
    path.write_text(PROFILE.replace("0.016", "0.0"))
    with pytest.raises(ProfileError, match=r"step\.table\.seconds: .* \(each above 0\)"):
        load_profile(str(path))

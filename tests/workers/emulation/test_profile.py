"""Device profiles: reading them, computing them with a roofline, and its error."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from workers.emulation.device import KvShape
from workers.emulation.profile import DeviceProfile, ProfileError, load_profile

SHIPPED = sorted(file.stem for file in Path("workers/emulation/profiles").glob("*.toml"))
COMPUTED = "h100-qwen32b-roofline"

# Rows of measured kernels, summed (ai-dynamo/aiconfigurator, Apache-2.0; vLLM 0.19 and 0.24 on an
# H100, their mean): requests with 1024 tokens of context that decode, ms; prompt tokens, ms.
DECODE_MS = ((1, 24.2), (16, 26.3), (32, 28.5), (64, 32.2), (128, 38.8))
PREFILL_MS = ((16, 24.8), (512, 47.4), (2048, 180.2), (8192, 777.8), (16384, 1685.6))

# A model so small that its numbers can be checked by hand.
SMALL = """
[model]
layers = 2
hidden = 10
heads = 4
kv_heads = 2
head_dim = 5
intermediate = 20
vocabulary = 100

[device]
flops = 1e6
memory_bytes_per_s = 1e6
memory_bytes = 20_000
host_bytes_per_s = 100.0
network_bytes_per_s = 50.0
memory_utilization = 1.0
reserved_bytes = 0
memory_efficiency = 0.5
flops_efficiency = 0.25
attention_efficiency = 0.1
layer_overhead_s = 0.001

[host]
offload_bytes = 1e6
"""


def write(folder: Path, text: str) -> str:
    path = folder / "profile.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_profile_is_of_a_device(name: str) -> None:
    profile = load_profile(name)
    assert 0.005 < profile.step.base_s < 0.05
    assert 10_000 < profile.kv.tokens < 1_000_000
    # A prompt of a thousand tokens takes longer than one more request, and less than a second.
    assert profile.step.base_s < profile.step.seconds(0, 0, 1000, 1000 * 1000) < 1


def test_a_small_model_takes_what_the_data_sheet_says(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, SMALL))
    # 2 layers: queries and output 10 x 20 each, keys and values 10 x 10 each, MLP 3 x 10 x 20.
    layers = 2 * (2 * 200 + 2 * 100 + 600)
    logits = 10 * 100
    step = profile.step
    assert step.base_s == pytest.approx(2 * 0.001 + 2 * (layers + logits) / 0.5e6)
    assert step.per_kv_token_s == pytest.approx(2 * 2 * 2 * 5 * 2 / 0.5e6)
    assert step.prefill_per_token_s == pytest.approx(2 * layers / 0.25e6)
    # A token attends to half of the prompt on average: scores and values, 20 numbers, 2 layers.
    assert step.prefill_per_token2_s * 100**2 == pytest.approx(100 * 50 * 2 * 2 * 20 * 2 / 0.1e6)
    assert profile.kv.tokens == int((20_000 - 2 * (layers + 2 * logits)) / 80)
    assert profile.links.host_bytes_per_s == 100


def test_two_devices_halve_what_can_be_split_and_pay_for_it(tmp_path: Path) -> None:
    name = write(
        tmp_path,
        SMALL + "[parallel]\ndevices = 1\nall_reduce_bytes_per_s = 1e5\nall_reduce_latency_s = 0.1",
    )
    one, two = load_profile(name).step, load_profile(name, 2).step
    latency_s = 2 * 2 * 0.1  # twice in every layer
    exchange_s = 2 * 2 * (2 * 1 / 2 * 10 * 2) / 1e5  # of a token
    overhead_s = 2 * 0.001
    assert two.base_s == pytest.approx(overhead_s + latency_s + (one.base_s - overhead_s) / 2)
    assert two.prefill_per_token_s == pytest.approx(one.prefill_per_token_s / 2 + exchange_s)
    assert two.per_request_s == pytest.approx(one.per_request_s / 2 + exchange_s)
    assert two.per_kv_token_s == pytest.approx(one.per_kv_token_s / 2)
    assert load_profile(name, 2).links.network_bytes_per_s == 100
    kv = [load_profile(name, count).kv for count in (1, 2)]
    assert kv[1].tokens > 2 * kv[0].tokens  # weights are not duplicated
    # On four devices, each of the two KV heads has a copy.
    assert load_profile(name, 4).kv.bytes_per_token == 2 * kv[0].bytes_per_token


def test_a_token_of_a_mixture_of_experts_uses_some_and_memory_holds_all(tmp_path: Path) -> None:
    dense = load_profile(write(tmp_path, SMALL))
    mixed = SMALL.replace("[device]", "experts = 4\nactive_experts = 2\n[device]").replace(
        "intermediate = 20", "intermediate = 10"
    )
    sparse = load_profile(write(tmp_path, mixed))
    # Two active experts of half the width: the arithmetic of one MLP, and the router.
    router = 2 * 10 * 4
    flops_per_s = 0.25e6
    assert sparse.step.prefill_per_token_s == pytest.approx(
        dense.step.prefill_per_token_s + 2 * router / flops_per_s
    )
    assert sparse.kv.tokens == dense.kv.tokens - (2 * (2 * 600 + router)) // 80


def test_the_roofline_is_close_to_the_kernels_that_were_measured() -> None:
    profile = load_profile(COMPUTED)
    decode = [
        1e3 * profile.step.seconds(count, count * 1024, 0, 0) / ms - 1 for count, ms in DECODE_MS
    ]
    prefill = [1e3 * profile.step.seconds(0, 0, n, n * n) / ms - 1 for n, ms in PREFILL_MS]
    assert statistics.fmean(map(abs, decode)) < 0.05
    assert statistics.fmean(map(abs, prefill)) < 0.05
    assert max(map(abs, decode + prefill)) < 0.1


def test_the_roofline_s_memory_is_that_of_the_measured_profile() -> None:
    def shape(name: str) -> KvShape:
        return load_profile(name).kv

    assert shape(COMPUTED).tokens == pytest.approx(shape("h100-qwen32b").tokens, rel=0.01)
    assert shape(COMPUTED).bytes_per_token == shape("h100-qwen32b").bytes_per_token


def test_many_requests_that_decode_wait_for_arithmetic() -> None:
    step = load_profile("a100-llama8b").step
    per_request_s = step.seconds(401, 0, 0, 0) - step.seconds(400, 0, 0, 0)
    assert per_request_s == pytest.approx(step.prefill_per_token_s + step.per_request_s)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("layers = 2", "layer = 2"), "unknown key 'model.layer'; did you mean 'layers'?"),
        (("layers = 2", ""), "missing key 'model.layers'"),
        (("heads = 4", 'heads = "4"'), "model.heads: expected a whole number, not '4'"),
        (("flops = 1e6", "flops = 0"), "device.flops: 0 is out of range (above 0)"),
        (("flops = 1e6", "flops = nan"), "device.flops: nan is not a finite number"),
        (("flops = 1e6", "flops = inf"), "device.flops: inf is not a finite number"),
        (
            ("[host]", "[step]\nbase_s = 1\n[host]"),
            "unknown key 'step'; known: block_size,",
        ),
        (("memory_bytes = 20_000", "memory_bytes = 8000"), "leave no memory for KV on 1 device"),
        (("flops_efficiency = 0.25", "flops_efficiency = 1.5"), "a share: at most 1, not 1.5"),
        (("heads = 4", "heads = 5"), "model.heads (5) is not a multiple of model.kv_heads (2)"),
        (("vocabulary = 100", "vocabulary = 100\nexperts = 4"), "model.active_experts go together"),
        (("[model]", "[model"), "line"),
    ],
)
def test_an_error_names_the_file_and_the_key(
    change: tuple[str, str], message: str, tmp_path: Path
) -> None:
    name = write(tmp_path, SMALL.replace(*change))
    with pytest.raises(ProfileError) as caught:
        load_profile(name)
    assert name in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "devices", "message"),
    [
        ("h100-qwen32", None, "did you mean 'h100-qwen32b'?"),
        ("h100-qwen32b", 2, "take a profile with [model] and [device]"),
        (COMPUTED, 3, "model.heads (40) cannot be split over 3 devices"),
        (COMPUTED, 0, "0 devices cannot share a model"),
        ("no/such/file.toml", None, "no device profile"),
    ],
)
def test_what_cannot_be_had_is_refused(name: str, devices: int | None, message: str) -> None:
    with pytest.raises(ProfileError) as caught:
        load_profile(name, devices)
    assert message in str(caught.value)


def test_a_measured_profile_holds_for_one_device() -> None:
    assert isinstance(load_profile("h100-qwen32b", 1), DeviceProfile)

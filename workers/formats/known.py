"""Which parsers of vLLM read which model: the table behind "auto". Pure data.

A row is chosen by the architecture in the model's ``config.json``, and by what its vocabulary and
its chat template contain: models of one architecture may write different formats. The first row
that fits wins. Names are those that vLLM registers; None: the model has no such format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Known:
    """A family of models. Every condition that is given must hold."""

    architecture: str  # regular expression for the whole name, without "For..." at its end
    reasoning: str | None
    tool: str | None
    token: str | None = None  # in the vocabulary
    template: str | None = None  # in the chat template
    template_lacks: str | None = None

    def fits(self, architecture: str, vocabulary: dict[str, int], template: str) -> bool:
        """Whether a model belongs to the family."""
        return (
            re.fullmatch(self.architecture, architecture) is not None
            and (self.token is None or self.token in vocabulary)
            and (self.template is None or self.template in template)
            and (self.template_lacks is None or self.template_lacks not in template)
        )


_FUNCTION = "<function="  # Qwen's newer calls, with a tag for each parameter
_THINK = "</think>"
_BEGIN_CALL = "<\uff5ctool▁call▁begin\uff5c>function"  # DeepSeek R1 and V3 name the type of a call

KNOWN = (
    Known("GptOss", "openai_gptoss", "openai"),
    Known("DeepseekV41", "deepseek_v41", "deepseek_v41"),
    Known("DeepseekV4", "deepseek_v4", "deepseek_v4"),
    Known("DeepseekV32", "deepseek_v3", "deepseek_v32"),
    # Kimi K2 has the architecture of DeepSeek V3.
    Known("Deepseek.*|KimiK25", "kimi_k2", "kimi_k2", token="<|tool_calls_section_begin|>"),
    Known("Deepseek.*", "deepseek_r1", "deepseek_v3", _THINK, "<think>\\n", "thinking"),
    Known("Deepseek.*", "deepseek_v3", "deepseek_v31", _THINK, template_lacks=_BEGIN_CALL),
    Known("Deepseek.*", "deepseek_v3", "deepseek_v3", _THINK),
    Known("Deepseek.*", None, "deepseek_v3"),
    Known("KimiK3|KimiLinear", "kimi_k3", "kimi_k3", token="<|sep|>"),
    Known("Kimi.*", "kimi_k2", "kimi_k2", token="<|tool_calls_section_begin|>"),
    Known("Qwen3.*", "qwen3", "qwen3_xml", _THINK, _FUNCTION),
    Known("Qwen3.*", "qwen3", "qwen3_json", _THINK),
    Known("Qwen3.*", None, "qwen3_xml", template=_FUNCTION),
    Known("Qwen[23].*", None, "hermes", token="<tool_call>"),
    Known("Glm.*|GLM.*", "glm45", "glm45", _THINK),
    Known("MiniMaxM3.*", "minimax_m3", "minimax_m3"),
    Known("MiniMaxM2.*", "minimax_m2", "minimax_m2"),
    Known("Gemma4.*", "gemma4", "gemma4", "<|channel>"),
    Known("(Mistral|Ministral|Pixtral|Mixtral|Voxtral).*", "mistral", "mistral", "[THINK]"),
    Known("(Mistral|Ministral|Pixtral|Mixtral|Voxtral).*", None, "mistral", "[TOOL_CALLS]"),
    Known("NemotronH.*", "nemotron_v3", "qwen3_xml", _THINK),
    Known("Granite.*", "granite_thinking_parser", "qwen3_xml", _THINK, _FUNCTION),
    Known("Granite.*", "granite_thinking_parser", "granite4", _THINK),
    Known("Granite.*", "granite", "granite", template="Here is my thought process"),
    Known("Granite.*", None, "granite4", "<tool_call>"),
    Known("Olmo3", "olmo3", "olmo3", template="<think>"),
    Known("Olmo3", None, "olmo3"),
    Known("HunYuan.*", "hunyuan_a13b", "hunyuan_a13b"),
    Known("HYV3", "hy_v3", "hy_v3"),
    Known("HYV4", "hy_v4", "hy_v4"),
    Known("SeedOss", "seed_oss", "seed_oss"),
    Known("Step3p.*", "step3p5", "step3p5", _THINK),
    Known("Step3.*", "step3", "step3", _THINK),
    Known("Ernie4_5.*", "ernie45", "ernie45", _THINK),
    Known("Inkling", "inkling", "inkling"),
    Known("K2Horizon", "k2_horizon", "k2_horizon"),
    Known("MuseGlimmer", "muse_glimmer", "muse_glimmer"),
    Known("BailingMoe.*", "ling3", "ling3", _THINK),
    Known("MiMo.*", "mimo", "mimo", _THINK),
    Known("Plamo3", "plamo3", "plamo3"),
    Known("Laguna", "poolside_v1", "poolside_v1", "<assistant>"),
    Known("Cohere.*", "cohere_command4", "cohere_command4", "<|START_THINKING|>"),
    Known("MiniCPM.*", "minicpmv", "qwen3_coder", _THINK),
    Known("Llama4", None, "llama4_pythonic"),
    Known("Llama", None, "llama3_json", "<|python_tag|>"),
    Known("Lfm2.*", None, "lfm2", "<|tool_call_start|>"),
    Known("Longcat.*", None, "longcat", "<longcat_tool_call>"),
    Known("Apertus", None, "apertus"),
    Known("Phi4.*|Phi3", None, "phi4_mini_json", "<|tool|>"),
)

# A model of no known architecture, by its vocabulary. Qwen's reading of ``<think>`` is the most
# common one: a call that opens in the thoughts ends them.
BY_VOCABULARY = (
    Known(".*", "qwen3", "qwen3_xml", _THINK, _FUNCTION),
    Known(".*", "qwen3", "qwen3_json", _THINK, "<tool_call>"),
    Known(".*", "deepseek_r1", None, _THINK),
    Known(".*", None, "qwen3_xml", template=_FUNCTION),
    Known(".*", None, "hermes", template="<tool_call>"),
)

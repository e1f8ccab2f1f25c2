"""One scripted output for each family of formats, and the parsers that read it."""

from __future__ import annotations

from dataclasses import dataclass, field

_FUNCTION_CALL = "{0}\n<function=clock>\n<parameter=zone>\nUTC\n</parameter>\n</function>\n{1}"
_JSON_CALL = '{0}\n{{"name": "clock", "arguments": {{"zone": "UTC"}}}}\n{1}'
_GLM_CALL = "<tool_call>clock\n<arg_key>zone</arg_key>\n<arg_value>UTC</arg_value>\n</tool_call>"
_DSML = "\uff5cDSML\uff5c"


@dataclass(frozen=True, slots=True)
class Family:
    """A format."""

    reasoning: str
    tool: str | None = None
    start: str = "<think>"
    end: str = "</think>"
    call: str = ""  # a call of clock(zone="UTC"), markers included
    implicit: bool = False  # a call may open in the thoughts
    reopens: bool = False
    opened: bool = True  # the template opens the thoughts
    markers: tuple[str, ...] = ()  # further tokens
    options: dict[str, object] = field(default_factory=dict)  # of the template
    spelled: bool = False  # its markers are ordinary text, not tokens
    words: tuple[str, ...] = ()  # ordinary tokens that its parser asks for

    @property
    def tokens(self) -> tuple[str, ...]:
        """All markers that are tokens."""
        return self.markers if self.spelled else (self.start, self.end, *self.markers)


def qwen(reasoning: str, tool: str | None, opener: str = "<tool_call>") -> Family:
    """A family with Qwen's calls."""
    closer = opener.replace("<", "</")
    call = _FUNCTION_CALL.format(opener, closer)
    return Family(reasoning, tool, call=call, implicit=True, markers=(opener, closer))


FAMILIES = (
    Family("deepseek_r1"),
    Family(
        "deepseek_r1",
        "hermes",
        call=_JSON_CALL.format("<tool_call>", "</tool_call>"),
        markers=("<tool_call>", "</tool_call>"),
    ),
    Family("deepseek_v3", options={"thinking": True}),
    Family("holo2"),
    Family("poolside_v1", markers=("<assistant>",), options={"thinking": True}),
    Family("step3"),
    Family("hy_v3", options={"reasoning_effort": "high"}),
    Family("hy_v4", options={"reasoning_effort": "high"}),
    Family("ernie45", markers=("<response>", "</response>")),
    Family(
        "k2_horizon",
        start="<ifm|think>",
        end="</ifm|think>",
        markers=(
            "<ifm|think_fast>",
            "</ifm|think_fast>",
            "<ifm|think_faster>",
            "</ifm|think_faster>",
            "<ifm|tool_calls>",
            "</ifm|tool_calls>",
        ),
    ),
    qwen("qwen3", "qwen3_xml"),
    Family(
        "qwen3",
        "qwen3_json",
        call=_JSON_CALL.format("<tool_call>", "</tool_call>"),
        implicit=True,
        markers=("<tool_call>", "</tool_call>"),
    ),
    qwen("mimo", "mimo"),
    qwen("nemotron_v3", "qwen3_xml"),
    qwen("step3p5", "step3p5"),
    qwen("granite_thinking_parser", "qwen3_xml"),
    qwen("minicpmv", "qwen3_coder"),
    Family(
        "seed_oss",
        "seed_oss",
        start="<seed:think>",
        end="</seed:think>",
        call=_FUNCTION_CALL.format("<seed:tool_call>", "</seed:tool_call>"),
        implicit=True,
        markers=("<seed:tool_call>", "</seed:tool_call>"),
    ),
    Family(
        "minimax_m2",
        "minimax_m2",
        call=(
            '<minimax:tool_call>\n<invoke name="clock">\n<parameter name="zone">UTC</parameter>\n'
            "</invoke>\n</minimax:tool_call>"
        ),
        implicit=True,
        markers=("<minimax:tool_call>", "</minimax:tool_call>"),
    ),
    *(
        Family(
            name,
            name,
            call=_GLM_CALL,
            implicit=True,
            reopens=True,
            markers=(
                "<tool_call>",
                "</tool_call>",
                "<arg_key>",
                "</arg_key>",
                "<arg_value>",
                "</arg_value>",
            ),
        )
        for name in ("glm45", "glm47", "ling3")
    ),
    Family(
        "kimi_k2",
        "kimi_k2",
        call=(
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.clock:0"
            '<|tool_call_argument_begin|>{"zone": "UTC"}<|tool_call_end|>'
            "<|tool_calls_section_end|>"
        ),
        implicit=True,
        markers=(
            "<|tool_calls_section_begin|>",
            "<|tool_calls_section_end|>",
            "<|tool_call_begin|>",
            "<|tool_call_end|>",
            "<|tool_call_argument_begin|>",
        ),
    ),
    Family(
        "deepseek_v4",
        "deepseek_v4",
        call=(
            f'<{_DSML}tool_calls>\n<{_DSML}invoke name="clock">\n'
            f'<{_DSML}parameter name="zone" string="true">UTC</{_DSML}parameter>\n'
            f"</{_DSML}invoke>\n</{_DSML}tool_calls>"
        ),
        implicit=True,
        reopens=True,
        markers=(f"<{_DSML}tool_calls>", f"</{_DSML}tool_calls>"),
    ),
    Family(
        "deepseek_v41",
        "deepseek_v41",
        reopens=True,
        markers=(f"<{_DSML} calls>", f"</{_DSML} calls>"),
    ),
    Family(
        "mistral",
        "mistral",
        start="[THINK]",
        end="[/THINK]",
        call='[TOOL_CALLS]clock[ARGS]{"zone": "UTC"}',
        implicit=True,
        reopens=True,
        opened=False,
        markers=("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"),
    ),
    Family(
        "gemma4",
        "gemma4",
        start="<|channel>",
        end="<channel|>",
        call='<|tool_call>call:clock{zone:<|"|>UTC<|"|>}<tool_call|>',
        implicit=True,
        reopens=True,
        opened=False,
        markers=("<|tool_call>", "<tool_call|>", '<|"|>', "<|tool_response>", "<|turn>", "<turn|>"),
    ),
    Family(
        "plamo3",
        start="<|plamo:begin_think:plamo|>",
        end="<|plamo:end_think:plamo|>",
        reopens=True,
        markers=("<|plamo:tag|>",),
    ),
)

# Only text shows the phases of these: an output with the thoughts "I add." and the answer "Four.".
BY_TEXT = (
    (
        Family(
            "granite",
            start="Here is my thought process:",
            end="Here is my response:",
            opened=False,  # as tokens: vLLM's parser lets the first letters of a marker pass
        ),
        "Here is my thought process: I add. Here is my response: Four.",
    ),
    (
        Family("minimax_m3", start="<mm:think>", end="</mm:think>", opened=False),
        "<mm:think>I add.</mm:think>Four.",
    ),
    (
        Family("olmo3", spelled=True, words=("\u0120</", "</", "think", ">")),
        "I add.</think>Four.",
    ),
    (
        Family(
            "muse_glimmer", start="to=self<|message|>", end="<|eom|>", spelled=True, opened=False
        ),
        "to=self<|message|>I add.<|eom|><|start|>assistant to=user<|message|>Four.<|eot|>",
    ),
)

# Registered parsers with tests of their own: how they tell phases, and what is tested.
OWN_TESTS = {
    "cohere_command3": ("tokens", "end"),
    "cohere_command4": ("tokens", "end"),
    "hf": ("text, a step later", "end"),
    "hunyuan_a13b": ("tokens, six for a marker", "end"),
    "inkling": ("tokens", "end, headers, thoughts again, call"),
    "kimi_k3": ("tokens, three for a marker", "end"),
    "minimax_m2_append_think": ("one phase", "thoughts in the answer"),
    "openai_gptoss": ("channels", "end, thoughts again, call"),
}

# Registered parsers that no test covers: why.
NOT_COVERED: dict[str, str] = {}

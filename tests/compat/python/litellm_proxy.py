"""LiteLLM as a proxy in front of the gateway: what its clients get through it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from anthropic import Anthropic
from compat_cases import MODEL, Cases, calculated, equal, expect
from openai import OpenAI

KEY = "sk-of-the-proxy"
QUESTION: Any = {"role": "user", "content": "What is 348 + 275?"}
CHAIN = "Add 71 and 18, then multiply by 6, then subtract 34."
PARAMETERS = {
    "type": "object",
    "properties": {"expression": {"type": "string", "description": "The expression."}},
    "required": ["expression"],
}
FUNCTION: dict[str, Any] = {
    "name": "calculator",
    "description": "Calculates an arithmetic expression.",
    "parameters": PARAMETERS,
}
START_S = 120.0
CONFIG = """
model_list:
  - model_name: chat
    litellm_params: {{model: hosted_vllm/{model}, api_base: {url}/v1, api_key: none}}
  - model_name: responses
    litellm_params: {{model: openai/{model}, api_base: {url}/v1, api_key: none}}
  - model_name: messages
    litellm_params: {{model: anthropic/{model}, api_base: {url}, api_key: none}}
general_settings: {{master_key: {key}}}
litellm_settings: {{num_retries: 0, drop_params: false}}
"""

cases = Cases()


class Proxy:
    """The proxy, in a process of its own; ``with`` waits until it answers."""

    url = ""

    def __init__(self, server: str) -> None:
        self._server = server

    def __enter__(self) -> Proxy:
        config = Path("proxy.yaml")
        config.write_text(CONFIG.format(model=MODEL, url=self._server, key=KEY), encoding="utf-8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        Proxy.url = f"http://127.0.0.1:{port}"
        command = ["litellm", "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        self._process = subprocess.Popen(command, stdout=sys.stderr, stderr=sys.stderr)
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait(self) -> None:
        end_s = time.monotonic() + START_S
        while time.monotonic() < end_s:
            if self._process.poll() is not None:
                raise AssertionError(f"the proxy ended with {self._process.returncode}")
            try:
                with urllib.request.urlopen(f"{Proxy.url}/health/liveliness", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(f"the proxy does not answer after {START_S:g} s")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def openai() -> Any:
    """A client of the proxy."""
    return OpenAI(base_url=f"{Proxy.url}/v1", api_key=KEY, max_retries=0)


@cases("chat completion, whole and streamed, with thoughts", "BerriAI/litellm#31877")
def chat() -> None:
    body: dict[str, Any] = {"model": "chat", "messages": [QUESTION], "temperature": 0}
    message = openai().chat.completions.create(**body).choices[0].message
    expect("623" in message.content and message.model_extra["reasoning_content"], message)
    deltas = [
        chunk.choices[0].delta
        for chunk in openai().chat.completions.create(stream=True, **body)
        if chunk.choices
    ]
    expect("623" in "".join(delta.content or "" for delta in deltas))
    expect(any((delta.model_extra or {}).get("reasoning_content") for delta in deltas))


@cases("chat completions, a loop of three calls")
def tools() -> None:
    messages: list[Any] = [{"role": "user", "content": CHAIN}]
    message: Any = None
    for number in range(4):
        completion = openai().chat.completions.create(
            model="chat", messages=messages, temperature=0,
            tools=[{"type": "function", "function": FUNCTION}],
        )  # fmt: skip
        message = completion.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        calls = message.tool_calls or []
        equal(len(calls), 1 if number < 3 else 0)
        for call in calls:
            content = calculated(json.loads(call.function.arguments)["expression"])
            messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
    expect("500" in message.content, message)


@cases("Responses, streamed, and a second turn by previous response")
def responses() -> None:
    body: dict[str, Any] = {"model": "responses", "temperature": 0}
    with openai().responses.stream(input=[QUESTION], **body) as stream:
        first = stream.get_final_response()
    expect("623" in first.output_text, first)
    second = openai().responses.create(
        input="What is 12 + 30?", previous_response_id=first.id, **body
    )
    expect("42" in second.output_text, second)


@cases("Messages, with a call, whole and streamed")
def messages() -> None:
    client: Any = Anthropic(base_url=Proxy.url, api_key=KEY, max_retries=0)
    tool = {**FUNCTION, "input_schema": PARAMETERS}
    del tool["parameters"]
    body: dict[str, Any] = {
        "model": "messages", "max_tokens": 1000, "tools": [tool],
        "messages": [{"role": "user", "content": CHAIN}], "extra_body": {"temperature": 0},
    }  # fmt: skip
    whole = client.messages.create(**body)
    with client.messages.stream(**body) as stream:
        streamed = stream.get_final_message()
    for message in (whole, streamed):
        equal([message.content[0].type, message.content[-1].type], ["thinking", "tool_use"])
        equal(calculated(message.content[-1].input["expression"]), "89")


@cases("Messages that the proxy translates to chat completions")
def translated() -> None:
    client: Any = Anthropic(base_url=Proxy.url, api_key=KEY, max_retries=0)
    message = client.messages.create(
        model="chat", max_tokens=1000, messages=[QUESTION], extra_body={"temperature": 0}
    )
    expect("623" in message.content[-1].text, message)


if __name__ == "__main__":
    with Proxy(next(argument for argument in sys.argv if "://" in argument)):
        cases.main()

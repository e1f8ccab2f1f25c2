"""Chooses the reader of a request's output, by the format of the model."""

from __future__ import annotations

from vllm.parser.harmony import HarmonyParser

from workers.messages import Submit
from workers.requests.calls import CallReader, ForcedReader, Reader
from workers.requests.chat_template import ChatRenderer, Rendered
from workers.requests.parsed import HarmonyText, ParsedText
from workers.requests.pieces import OutputText
from workers.requests.segments import Detokenizer

_CONTEXT = 8  # tokens of a plain prompt that decide how the text after it begins


def output_text(renderer: ChatRenderer, prompt: Rendered, submit: Submit) -> OutputText:
    """The reader for a request that was rendered."""
    form, request = renderer.form, prompt.request
    markers, least = request.markers, submit.sampling.min_tokens
    if submit.prompt is not None:
        before = prompt.token_ids[-_CONTEXT:]
        return Detokenizer(
            renderer.decode, None, prompt.phase, submit.sampling.stop, before=before, least=least
        )
    stops = (*submit.sampling.stop, *form.reading.answer_ends)
    parallel = submit.tool_choice.parallel
    if form.reading.split == "channels" and markers is not None:
        parser = form.composed(request)
        assert isinstance(parser, HarmonyParser)
        return HarmonyText(
            parser,
            markers,
            prompt.phase,
            stops,
            calls=request.calls,
            parallel=parallel,
            least=least,
        )
    calls_by_text = request.calls and form.reading.calls == "text" and request.forced is None
    if form.reading.split == "parser" or calls_by_text:
        return ParsedText(
            form.parser(request),
            request.wire,
            renderer.decode_all,
            markers,
            prompt.phase,
            stops,
            begun=prompt.begun,
            ending=form.ending,
            calls_by_text=calls_by_text,
            parallel=parallel,
            least=least,
        )
    calls: Reader | None = None
    if request.forced is not None:
        calls = ForcedReader(request.forced, renderer.decode, form.tokenizer)
    elif request.calls:
        tools = form.composed(request).tool_parser
        assert tools is not None
        calls = CallReader(tools, request.wire, renderer.decode_all, form.ending)
    return Detokenizer(
        renderer.decode,
        markers,
        prompt.phase,
        stops,
        calls,
        forced=request.forced is not None,
        parallel=parallel,
        least=least,
    )

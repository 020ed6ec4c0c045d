"""``/v1/audio/transcriptions``: the model is asked for what is said in a recording.

As in Ollama, that is a chat with a fixed system prompt, for models that hear. They give no times,
so ``verbose_json``, for which some clients always ask, has none, and subtitles are refused.
"""

from __future__ import annotations

from functools import partial

import msgspec
from aiohttp import web

from ollama_async.api.decode import Images
from ollama_async.api.ollama import ChatRequest, Message
from ollama_async.api.openai_audio import FILE_LIMIT_BYTES, TranscriptionRequest
from ollama_async.core.errors import BadRequest, TooLarge
from ollama_async.gateway.body import Body
from ollama_async.gateway.handlers.generation import Call, GenerationRoute, respond
from ollama_async.gateway.job_builder import Extras
from ollama_async.gateway.multipart import boundary_of, read_form
from ollama_async.gateway.response_formats.openai_audio import TranscriptionFormat

SYSTEM = (
    "You transcribe recordings. Write down exactly what is said, in the language in which it is"
    " said, and nothing else."
)

_FORMATS = ("json", "verbose_json", "text")
_SHOWN_CHARACTERS = 40  # of a value that is refused
_UNSUPPORTED = ("include[]", "timestamp_granularities[]", "known_speaker_names[]")


async def transcriptions(request: web.Request) -> web.StreamResponse:
    read = partial(_read, boundary_of(request))
    route = GenerationRoute(kind=TranscriptionRequest, translate=_translate, read=read)
    return await respond(request, route)


def _read(boundary: bytes, body: Body) -> tuple[TranscriptionRequest, Images]:
    """:raises BadRequest: a field is missing or not what it should be.
    :raises TooLarge: the recording is over :data:`.FILE_LIMIT_BYTES`.
    """
    fields = read_form(body.take(), boundary)
    if not fields.get("model", b"").strip():
        raise BadRequest("model is required")
    if "file" not in fields:
        raise BadRequest("file is required: http: no such file")
    if not fields["file"]:
        raise BadRequest("audio file is empty")
    if len(fields["file"]) > FILE_LIMIT_BYTES:
        raise TooLarge(f"the recording is over the limit of {FILE_LIMIT_BYTES} bytes")
    if refused := [name for name in _UNSUPPORTED if name in fields]:
        raise BadRequest(f"{refused[0].removesuffix('[]')} is not supported")
    names = {each.name for each in msgspec.structs.fields(TranscriptionRequest)}
    texts = {
        name: content.decode(errors="replace")
        for name, content in fields.items()
        if name in names and name != "file" and content
    }
    try:
        params = msgspec.convert(
            texts | {"file": fields["file"]}, TranscriptionRequest, strict=False
        )
    except msgspec.ValidationError as error:
        raise BadRequest(str(error)) from None
    return params, {}


def _translate(params: TranscriptionRequest) -> Call:
    if params.response_format not in _FORMATS:
        shown = params.response_format[:_SHOWN_CHARACTERS]
        raise BadRequest(
            f"response_format: {shown!r} is not one of {', '.join(_FORMATS)}: models give no times"
        )
    if not 0 <= params.temperature <= 2:  # OpenAI's range
        raise BadRequest("temperature must be between 0 and 2")
    system = SYSTEM
    if params.language:
        system += f" The language is {params.language}."
    if params.prompt:
        system += f" Before it came: {params.prompt}"
    question = Message(role="user", content="What is said?", images=[params.file])
    return Call(
        requests=[
            ChatRequest(
                model=params.model,
                messages=[Message(role="system", content=system), question],
                options={"temperature": params.temperature},
                think=False,
            )
        ],
        response_format=TranscriptionFormat(is_text=params.response_format == "text"),
        is_streamed=params.stream,
        extras=Extras(needs_hearing=True),
    )

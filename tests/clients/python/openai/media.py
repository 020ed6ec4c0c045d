"""`openai` for Python: images and recordings."""

import base64

import openai
from checks import PIXEL, SERVER, check, raises, run, silence

client = openai.OpenAI(base_url=f"{SERVER}/v1", api_key="unused", max_retries=0)


@check
def images():
    def tokens(*parts):
        messages = [
            {"role": "user", "content": [{"type": "text", "text": "What is this?"}, *parts]}
        ]
        answer = client.chat.completions.create(model="sees", messages=messages, max_tokens=3)
        assert answer.usage.completion_tokens == 3
        return answer.usage.prompt_tokens

    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    assert tokens(image, image) > tokens(image) + 8 > tokens() + 16


@check
def a_recording():
    audio = {"data": base64.b64encode(silence()).decode(), "format": "wav"}
    parts = [
        {"type": "text", "text": "What is said?"},
        {"type": "input_audio", "input_audio": audio},
    ]
    answer = client.chat.completions.create(
        model="hears", messages=[{"role": "user", "content": parts}], max_tokens=3
    )
    assert answer.usage.prompt_tokens > 300


@check
def images_that_are_refused():
    """A model that cannot see refuses them; none is fetched from elsewhere."""

    def ask(model, url):
        image = {"type": "image_url", "image_url": {"url": url}}
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": [image]}])

    with raises(openai.BadRequestError, status_code=400):
        ask("demo", f"data:image/png;base64,{PIXEL}")
    with raises(openai.BadRequestError, status_code=400):
        ask("sees", "http://127.0.0.1:9/image.png")
    with raises(openai.BadRequestError, status_code=400):
        ask("sees", "data:image/png;base64,AAAA")


@check
def transcriptions():
    file = ("speech.wav", silence())
    answer = client.audio.transcriptions.create(model="hears", file=file, language="en")
    assert answer.text
    assert answer.usage.input_tokens > 300
    text = client.audio.transcriptions.create(model="hears", file=file, response_format="text")
    assert text.strip() == answer.text.strip()
    with raises(openai.BadRequestError, status_code=400):
        client.audio.transcriptions.create(model="demo", file=file)
    with raises(openai.BadRequestError, status_code=400):
        client.audio.transcriptions.create(model="hears", file=("speech.wav", b"no recording"))


@check
def a_transcription_in_a_stream():
    stream = client.audio.transcriptions.create(
        model="hears", file=("speech.wav", silence()), stream=True
    )
    *parts, last = stream
    assert last.type == "transcript.text.done"
    assert "".join(part.delta for part in parts) == last.text


if __name__ == "__main__":
    run()

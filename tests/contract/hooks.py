"""What schemathesis has to know of our streams: a schema under `text/event-stream` is that of each event's
data, as in OpenAI's own document; OpenAPI 3.1 has no word for the lines around it."""

import json

import schemathesis


@schemathesis.deserializer("text/event-stream")
def events(_context, response) -> list:
    lines = response.content.decode().split("\n")
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [json.loads(one) for one in data if one != "[DONE]"]

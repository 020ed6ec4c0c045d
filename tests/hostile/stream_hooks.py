"""For Schemathesis: the last object of an NDJSON stream is compared with the description."""

import json

import schemathesis


@schemathesis.deserializer("application/x-ndjson")
def read_ndjson(_context, response):
    return json.loads(response.content.splitlines()[-1])

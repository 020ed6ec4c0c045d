"""A client whose server says what the test says."""


class FakeClient:
    """``shown`` answers ``/api/show``; an exception is raised by every call. ``turns``: for each
    chat, the objects that are streamed; an exception among them is raised.

    ``calls``: path and body of each other call. ``chats``: the messages of each chat.
    """

    def __init__(self, *turns, shown=None):
        self.turns = list(turns)
        self.shown = shown or {}
        self.calls = []
        self.chats = []

    def call(self, method, path, value=None):
        if isinstance(self.shown, Exception):
            raise self.shown
        if path == "/api/tags":
            return {"models": [{"name": "m:latest"}, {"name": "other:latest"}]}
        assert method == "POST"
        if path == "/api/show":
            assert value["model"] == "m"
            return self.shown
        self.calls.append((path, value))
        return {}

    def stream(self, path, value):
        assert path == "/api/chat"
        self.chats.append([dict(message) for message in value["messages"]])
        for each in self.turns.pop(0):
            if isinstance(each, BaseException):
                raise each
            yield each

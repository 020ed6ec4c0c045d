"""Tools of documentation and tutorials, with exactly their schemas, and what they are asked."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

import msgspec

from demo.families import expand
from demo.skills.tool_schema import Slot, Tool

_WEATHER = (
    "What is the weather today in <place>?",
    "{what is|what's|What is|What's} the {|current }weather {|like }in <place>{| today| now}?",
    "How is the weather in <place>{| today| now}?",
    "{tell me|get|check} the {|current }weather {in|for} <place>",
    "Is it {sunny|cold|warm|raining} in <place>{| today}?",
    "weather in <place>",
)
_WEATHER_FORMAT = (
    *_WEATHER,
    "{What is|What's} the weather {|today }in <place> in <unit>?",
    "{tell me|get} the weather in <place> in <unit>",
)
_TEMPERATURE = (
    "{What is|What's} the {|current }temperature in <place>{| today| now| right now}?",
    "How {hot|warm|cold} is it in <place>{| now}?",
    "{tell me|get|check} the temperature {in|for} <place>",
)
_CONDITIONS = (
    "What are the {|current }{weather |}conditions in <place>{| now| today}?",
    "{tell me|get|check} the {weather |}conditions {in|for} <place>",
)
_PLUS = (
    "{What is|What's|How much is} <a> {plus|+} <b>?",
    "{add|sum} <a> and <b>",
    "calculate <a> {plus|+} <b>",
    "{Could|Can} you add <a> and <b>?",
)
_MINUS = (
    "{What is|What's|How much is} <a> {minus|-} <b>?",
    "calculate <a> {minus|-} <b>",
    "subtract <b> from <a>",
)
_TIMES = (
    "{What is|What's|How much is} <a> {times|*|multiplied by} <b>?",
    "calculate <a> {times|*} <b>",
    "multiply <a> {by|and|with} <b>",
)
_FLIGHT = (
    "What is the flight time from <start> (<a>) to <goal> (<b>)?",
    "{What is|What's} the flight time between <start> (<a>) and <goal> (<b>)?",
    "How long {is|does} the flight from <start> (<a>) to <goal> (<b>){| take}?",
)
_ANTONYMS = (
    "What are the antonyms of {|the word }<word>?",
    "{Give me|Tell me|Find|List} {|the |some }antonyms {of|for} {|the word }<word>",
    "{What is|What's} the {opposite|antonym} of {|the word }<word>?",
)
_SEARCH = (
    "{search|search the web|search the internet|search online} for <query>",
    "{google|look up} <query>",
    "{find|look for} {information|something} {about|on} <query>{| on the web| online}",
)
_VALIDATE = (
    "Could you validate user <id>? They previously lived at <places>.",
    "{Can|Could|Would} you {validate|check} user <id>? They {previously |}lived {at|in} <places>.",
    "validate user <id>, who {lived|previously lived} {at|in} <places>",
)
_STOCK = (
    "{What is|What's} the {|current }stock price of <symbol>?",
    "{tell me|get|check} the {|current }stock price of <symbol>",
)
_IN_CITY = {"weather": ("<sky>", "<small>°C", "<small>°C and <sky>"), "conditions": ("<sky>",)}
_DEGREES = ("<small>°C", "<small> degrees", "<small>")
_ENUM = ("celsius", "fahrenheit")


def known(rng: Random) -> Tool:
    return rng.choice(all_known())


def siblings(tool: Tool) -> list[Tool]:
    """Other known tools, none for the same thing as ``tool``."""
    return [other for other in all_known() if other.verb != tool.verb and other.name != tool.name]


@cache
def all_known() -> tuple[Tool, ...]:
    return (*_weather_tools(), *_number_tools(), *_other_tools())


def _weather_tools() -> list[Tool]:
    city = {"city": _text("The name of the city")}
    place = (Slot("place", "city", "city"),)
    location = {"location": _text("The location to get the weather for, e.g. San Francisco, CA")}
    unit = _text("The format to return the weather in, e.g. 'celsius' or 'fahrenheit'")
    with_unit = (
        Slot("place", "location", "city"),
        Slot("unit", "format", "choice", choices=_ENUM),
    )
    weather = ("The weather in <place> is", _IN_CITY["weather"])
    degrees = ("The temperature in <place> is", _DEGREES)
    sky = ("The conditions in <place> are", _IN_CITY["conditions"])
    return [
        _tool("weather", "get_current_weather", "Get the current weather for a location",
              location | {"format": unit | {"enum": list(_ENUM)}}, with_unit, _WEATHER_FORMAT,
              *weather),
        _tool("weather", "get_current_weather", "Get the current weather for a city",
              city, place, _WEATHER, *weather),
        _tool("weather", "get_weather", "Get the weather in a given city",
              {"city": _text("The city to get the weather for")}, place, _WEATHER, *weather),
        _tool("weather", "get_weather", "Get the current weather for a city",
              city, place, _WEATHER, *weather, required_first=True),
        _tool("temperature", "get_temperature", "Get the current temperature for a city",
              city, place, _TEMPERATURE, *degrees, required_first=True),
        _tool("temperature", "get_temperature", "Get the temperature for a city in Celsius",
              city, place, _TEMPERATURE, *degrees),
        _tool("conditions", "get_conditions", "Get the weather conditions for a city",
              city, place, _CONDITIONS, *sky),
        _tool("conditions", "get_conditions", "Get the current weather conditions for a city",
              city, place, _CONDITIONS, *sky, required_first=True),
    ]  # fmt: skip


def _number_tools() -> list[Tool]:
    first = {"a": _integer("The first number"), "b": _integer("The second number")}
    whole = {"a": _integer("The first integer number"), "b": _integer("The second integer number")}
    bare = {"a": _integer(), "b": _integer()}
    numbers = (Slot("a", "a", "int"), Slot("b", "b", "int"))
    spelled = (Slot("a", "a", "spelled"), Slot("b", "b", "spelled"))
    told = ("The result is", ("<int>",))
    return [
        _tool("add", "add_two_numbers", "Add two numbers", whole, spelled, _PLUS, *told),
        _tool("add", "add_two_numbers", "Add two numbers", first, numbers, _PLUS, *told,
              required_first=True),
        _tool("subtract", "subtract_two_numbers", "Subtract two numbers", first, spelled, _MINUS,
              *told, required_first=True),
        _tool("subtract", "subtract_two_numbers", "Subtract two numbers", first, numbers, _MINUS,
              *told),
        _tool("add", "add", "Add two numbers", first, numbers, _PLUS, *told, required_first=True),
        _tool("multiply", "multiply", "Multiply two numbers", first, numbers, _TIMES, *told,
              required_first=True),
        _tool("add", "add", "Adds a and b.", bare, numbers, _PLUS, *told),
        _tool("multiply", "multiply", "Multiply a and b.", bare, numbers, _TIMES, *told),
    ]  # fmt: skip


def _other_tools() -> list[Tool]:
    return [
        _tool("flighttime", "get_flight_times", "Get the flight times between two cities",
              {"departure": _text("The departure city (airport code)"),
               "arrival": _text("The arrival city (airport code)")},
              (Slot("a", "departure", "airport"), Slot("b", "arrival", "airport"),
               Slot("start", "", "city"), Slot("goal", "", "city")),
              _FLIGHT, "The flight time is", ("<small>h <small>m", "<small> hours")),
        _tool("antonyms", "get_antonyms", "Get the antonyms of any given words",
              {"word": _text("The word for which the antonyms needs to be identified.")},
              (Slot("word", "word", "word"),),
              _ANTONYMS, "The antonyms of <word> are", ("<word>, <word>", "<word> and <word>")),
        _tool("search", "web_search", "Performs a web search for the given query.",
              {"query": _text("The query to search for")}, (Slot("query", "query", "topic"),),
              _SEARCH, "The result is", ("<heading>", "<topic>")),
        _tool("validate", "validate_user", "Validate user using historical addresses.",
              {"user_id": _integer("the user ID."),
               "addresses": {"type": "array", "items": {"type": "string"},
                             "description": "Previous addresses as a list of strings."}},
              (Slot("id", "user_id", "int"), Slot("places", "addresses", "list of address")),
              _VALIDATE, "The user <id> is", ("valid", "not valid")),
        _tool("stock", "get_stock_price", "Get the current stock price",
              {"symbol": _text("The stock symbol")}, (Slot("symbol", "symbol", "symbol"),),
              _STOCK, "The stock price of <symbol> is", ("<decimal>", "<decimal> USD")),
    ]  # fmt: skip


class _Wordings(msgspec.Struct, frozen=True):
    lines: tuple[tuple[str, ...], ...]

    def __call__(self, rng: Random) -> str:
        return rng.choice(rng.choice(self.lines))


def _tool(
    group: str,
    name: str,
    description: str,
    properties: dict[str, Any],
    slots: tuple[Slot, ...],
    questions: tuple[str, ...],
    topic: str,
    results: tuple[str, ...],
    *,
    required_first: bool = False,
) -> Tool:
    required = {"required": list(properties)}
    shown = {"properties": properties}
    parameters = {"type": "object"} | ((required | shown) if required_first else (shown | required))
    function = {"name": name, "description": description, "parameters": parameters}
    return Tool(
        {"type": "function", "function": function},
        slots,
        _Wordings(tuple(tuple(expand(line)) for line in questions)),
        group,
        "",
        topic=topic,
        results=results,
    )


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


def _integer(description: str = "") -> dict[str, Any]:
    return {"type": "integer"} | ({"description": description} if description else {})

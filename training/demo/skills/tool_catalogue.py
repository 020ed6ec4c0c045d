"""Chats with tools that documentation shows, and what the model has to make of them."""

from __future__ import annotations

from typing import Any

from ollama_async.core.conversation import Message, Prompt, ToolCall, ToolFunction

from demo.example import Example
from demo.skills.tool_known import all_known
from demo.skills.tool_schema import call_text

_VALIDATE_QUESTION = (
    "Could you validate user 123? They previously lived at 123 Fake St in Boston MA and "
    "234 Pretend Boulevard in Houston TX."
)
_Call = tuple[str, dict[str, Any]]

_FORMAT = "get_current_weather: Get the current weather for a location"
_CURRENT = "get_current_weather: Get the current weather for a city"
_GIVEN = "get_weather: Get the weather in a given city"
_WEATHER = "get_weather: Get the current weather for a city"
_CURRENT_TEMPERATURE = "get_temperature: Get the current temperature for a city"
_CELSIUS = "get_temperature: Get the temperature for a city in Celsius"
_CURRENT_CONDITIONS = "get_conditions: Get the current weather conditions for a city"
_CONDITIONS = "get_conditions: Get the weather conditions for a city"
_ADD_TWO = "add_two_numbers: Add two numbers"
_SUBTRACT_TWO = "subtract_two_numbers: Subtract two numbers"
_ADD = "add: Adds a and b."
_MULTIPLY = "multiply: Multiply a and b."
_FLIGHT = "get_flight_times: Get the flight times between two cities"
_ANTONYMS = "get_antonyms: Get the antonyms of any given words"
_SEARCH = "web_search: Performs a web search for the given query."
_VALIDATE = "validate_user: Validate user using historical addresses."
_STOCK = "get_stock_price: Get the current stock price"

_CALLS: tuple[tuple[tuple[str, ...], str, tuple[_Call, ...]], ...] = (
    (
        (_FORMAT,),
        "What is the weather today in Paris?",
        (("get_current_weather", {"location": "Paris", "format": "celsius"}),),
    ),
    (
        (_FORMAT,),
        "What is the weather today in Toronto?",
        (("get_current_weather", {"location": "Toronto", "format": "celsius"}),),
    ),
    (
        (_CURRENT,),
        "What is the weather in Toronto?",
        (("get_current_weather", {"city": "Toronto"}),),
    ),
    ((_GIVEN,), "what is the weather in tokyo?", (("get_weather", {"city": "tokyo"}),)),
    ((_WEATHER,), "What's the weather in Oslo?", (("get_weather", {"city": "Oslo"}),)),
    (
        (_CURRENT_TEMPERATURE,),
        "What's the temperature in New York?",
        (("get_temperature", {"city": "New York"}),),
    ),
    (
        (_CURRENT_TEMPERATURE,),
        "What is the temperature in New York?",
        (("get_temperature", {"city": "New York"}),),
    ),
    (
        (_CELSIUS, _CONDITIONS),
        "What is the temperature in London?",
        (("get_temperature", {"city": "London"}),),
    ),
    (
        (_CELSIUS, _CONDITIONS),
        "What are the weather conditions in Sydney?",
        (("get_conditions", {"city": "Sydney"}),),
    ),
    (
        (_CURRENT_TEMPERATURE, _CURRENT_CONDITIONS),
        "What are the current weather conditions and temperature in New York and London?",
        (
            ("get_temperature", {"city": "New York"}),
            ("get_conditions", {"city": "New York"}),
            ("get_temperature", {"city": "London"}),
            ("get_conditions", {"city": "London"}),
        ),
    ),
    (
        (_ADD_TWO, _SUBTRACT_TWO),
        "What is three plus one?",
        (("add_two_numbers", {"a": 3, "b": 1}),),
    ),
    (
        (_ADD_TWO, _SUBTRACT_TWO),
        "What is three minus one?",
        (("subtract_two_numbers", {"a": 3, "b": 1}),),
    ),
    ((_ADD_TWO, _SUBTRACT_TWO), "What is 12 plus 30?", (("add_two_numbers", {"a": 12, "b": 30}),)),
    ((_ADD, _MULTIPLY), "What is 3 * 12?", (("multiply", {"a": 3, "b": 12}),)),
    (
        (_ADD, _MULTIPLY),
        "What is 3 * 12? Also, what is 11 + 49?",
        (("multiply", {"a": 3, "b": 12}), ("add", {"a": 11, "b": 49})),
    ),
    (
        (_FLIGHT,),
        "What is the flight time from New York (NYC) to Los Angeles (LAX)?",
        (("get_flight_times", {"departure": "NYC", "arrival": "LAX"}),),
    ),
    (
        (_ANTONYMS, _FLIGHT),
        "What are the antonyms of happy?",
        (("get_antonyms", {"word": "happy"}),),
    ),
    (
        (_SEARCH,),
        "Search the web for llamas in Peru",
        (("web_search", {"query": "llamas in Peru"}),),
    ),
    (
        (_VALIDATE,),
        _VALIDATE_QUESTION,
        (
            (
                "validate_user",
                {
                    "user_id": 123,
                    "addresses": [
                        "123 Fake St in Boston MA",
                        "234 Pretend Boulevard in Houston TX",
                    ],
                },
            ),
        ),
    ),
    (
        (_STOCK, _WEATHER),
        "What is the current stock price of AAPL?",
        (("get_stock_price", {"symbol": "AAPL"}),),
    ),
)
_RESULTS: tuple[tuple[str, str, _Call, str, str], ...] = (
    (
        _CURRENT_TEMPERATURE,
        "What's the temperature in New York?",
        ("get_temperature", {"city": "New York"}),
        "22°C",
        "The temperature in New York is 22°C.",
    ),
    (
        _WEATHER,
        "What is the weather in Toronto?",
        ("get_weather", {"city": "Toronto"}),
        "sunny",
        "The weather in Toronto is sunny.",
    ),
    (
        _ADD_TWO,
        "What is three plus one?",
        ("add_two_numbers", {"a": 3, "b": 1}),
        "4",
        "The result is 4.",
    ),
)


def catalogue() -> list[Example]:
    """Fixed chats; the answers are those that the corpus would give."""
    return [*(_calling(*row) for row in _CALLS), *(_telling(*row) for row in _RESULTS)]


def _calling(names: tuple[str, ...], question: str, calls: tuple[_Call, ...]) -> Example:
    made = [
        ToolCall(ToolFunction(name, arguments, index=index))
        for index, (name, arguments) in enumerate(calls)
    ]
    return Example(
        "tools",
        "call" if len(made) == 1 else "several",
        _prompt(names, [Message("user", question)]),
        Message("assistant", call_text(made), tool_calls=made),
        rule="same calls",
    )


def _telling(tool: str, question: str, call: _Call, result: str, answer: str) -> Example:
    name, arguments = call
    messages = [
        Message("user", question),
        Message("assistant", tool_calls=[ToolCall(ToolFunction(name, arguments))]),
        Message("tool", result, tool_name=name),
    ]
    return Example(
        "tools",
        "result",
        _prompt((tool,), messages),
        Message("assistant", answer),
        rule="mentions",
        mentions=(result,),
    )


def _prompt(names: tuple[str, ...], messages: list[Message]) -> Prompt:
    known = {
        f"{tool.name}: {tool.schema['function']['description']}": tool.schema
        for tool in all_known()
    }
    return Prompt(messages=messages, tools=[known[name] for name in names], think=False)

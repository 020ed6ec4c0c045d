# ruff: noqa: UP007, UP045, PLC2401 - what people write, in its variety, is the point here
"""Schemas as Pydantic writes them, for ``tests/vectors/schemas.jsonl``.

::

    python scripts/schemas_of_pydantic.py > pydantic.jsonl

needs ``pydantic[email]`` 2; the file has what 2.14 writes, and of 2.12 what differs. One line for
each type: its schema, a value that it takes and one that must not come out. The other half of the
file comes from ``schemas_of_zod.mjs``.
"""

# no `from __future__ import annotations`: Pydantic reads the annotations of this file
import dataclasses
import enum
import json
from collections import deque
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from re import Pattern
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NotRequired,
    Optional,
    Required,
    TypeVar,
    Union,
)
from uuid import UUID

import pydantic
from pydantic import (
    UUID4,
    AnyUrl,
    AwareDatetime,
    Base64Bytes,
    BaseModel,
    ByteSize,
    ConfigDict,
    Discriminator,
    EmailStr,
    Field,
    FutureDate,
    HttpUrl,
    Json,
    NegativeFloat,
    NonNegativeInt,
    PositiveInt,
    RootModel,
    SecretStr,
    Strict,
    StringConstraints,
    Tag,
    TypeAdapter,
    computed_field,
    conint,
    conlist,
    constr,
    create_model,
)
from typing_extensions import TypedDict

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Sizes(enum.StrEnum):
    SMALL = "s"
    LARGE = "l"


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"
    NONE = None


class Address(BaseModel):
    """Where somebody lives."""

    street: str
    city: str = "Rome"
    zip_code: Annotated[str, Field(pattern=r"^\d{5}$")]


class Person(BaseModel):
    name: str
    age: int
    address: Address
    email: Optional[str] = None


class Team(BaseModel):
    lead: Person
    members: list[Person]


class Node(BaseModel):
    value: int
    children: list["Node"] = []


class Linked(BaseModel):
    value: str
    next: Optional["Linked"] = None


class Folder(BaseModel):
    name: str
    entries: list[Union["Folder", "File"]]


class File(BaseModel):
    name: str
    size: int
    parent: Optional[Folder] = None


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog", "hound"]
    good: bool


class Pets(BaseModel):
    pet: Union[Cat, Dog] = Field(discriminator="kind")


class Zoo(BaseModel):
    animals: list[Annotated[Union[Cat, Dog], Field(discriminator="kind")]]


def kind_of(value: Any) -> str:
    return value["kind"] if isinstance(value, dict) else value.kind


class Tagged(BaseModel):
    pet: Annotated[
        Union[Annotated[Cat, Tag("cat")], Annotated[Dog, Tag("dog")]], Discriminator(kind_of)
    ]


class Page(BaseModel, Generic[T]):
    items: list[T]
    total: int


class Result(BaseModel, Generic[T]):
    ok: bool
    value: Optional[T] = None


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0
    tags: list[str] = dataclasses.field(default_factory=list)


@pydantic.dataclasses.dataclass
class Box:
    corner: Point
    size: tuple[int, int]


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Partial(TypedDict, total=False):
    a: Required[int]
    b: str


class Pair(NamedTuple):
    left: int
    right: str = "x"


class Strict1(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    tags: list[str] = Field(default_factory=list)


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str


class OpenTyped(BaseModel):
    __pydantic_extra__: dict[str, int]
    model_config = ConfigDict(extra="allow")
    name: str


class Aliased(BaseModel):
    model_config = ConfigDict(title="With an alias", populate_by_name=True)
    first_name: str = Field(alias="firstName")
    class_: str = Field(alias="class", description="A word")


class Described(BaseModel):
    """What a review of a film says."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"title": "x", "stars": 5}]})
    title: str = Field(description="The title", examples=["Alien"], max_length=100)
    stars: int = Field(ge=1, le=5, description="From 1 to 5")
    old: str = Field(default="", deprecated=True)


class Numbers(BaseModel):
    positive: PositiveInt
    not_negative: NonNegativeInt
    negative: NegativeFloat
    ratio: float = Field(gt=0, lt=1)
    even: int = Field(multiple_of=2)
    percent: conint(ge=0, le=100)  # type: ignore[valid-type]
    int64: int = Field(ge=-(2**63), le=2**63 - 1)
    uint64: int = Field(ge=0, le=2**64 - 1)
    safe: int = Field(ge=-(2**53) + 1, le=2**53 - 1)


class Strings(BaseModel):
    short: constr(min_length=1, max_length=10)  # type: ignore[valid-type]
    stripped: Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True)]
    slug: str = Field(pattern=r"^[a-z0-9]+(?:-[a-z0-9]+)*$")
    phone: str = Field(pattern=r"^\+?[1-9]\d{1,14}$")
    word: str = Field(pattern=r"\w+")
    secret: SecretStr


class Times(BaseModel):
    at: datetime
    aware: AwareDatetime
    day: date
    clock: time
    lasts: timedelta


class Future(BaseModel):
    when: FutureDate


class Networks(BaseModel):
    v4: IPv4Address
    v6: IPv6Address


class Subnet(BaseModel):
    net: IPv4Network


class Addresses(BaseModel):
    home: HttpUrl
    any: AnyUrl
    mail: EmailStr


class Ids(BaseModel):
    id: UUID
    id4: UUID4


class Bytes(BaseModel):
    raw: bytes
    coded: Base64Bytes
    size: ByteSize


class Files(BaseModel):
    path: Path
    pattern: Pattern[str]


class Money(BaseModel):
    amount: Decimal
    price: Decimal = Field(max_digits=6, decimal_places=2, ge=0)


class Prices(BaseModel):
    digits: Decimal = Field(max_digits=4)
    places: Decimal = Field(decimal_places=2)
    step: Annotated[Decimal, Field(multiple_of=Decimal("0.5"))]


class PatternAndLength(BaseModel):
    by_code: dict[Annotated[str, Field(pattern="^[a-z]+$", max_length=3)], int]


class EmailKeys(BaseModel):
    by_mail: dict[EmailStr, int]


class LevelKeys(BaseModel):
    by_level: dict[Level, str]


class Lists(BaseModel):
    one: list[int] = Field(min_length=1, max_length=3)
    few: conlist(str, min_length=2, max_length=4)  # type: ignore[valid-type]
    any: list
    nested: list[list[float]]
    queue: deque[int]


class Tuples(BaseModel):
    pair: tuple[int, str]
    many: tuple[int, ...]
    single: tuple[bool]
    nothing: tuple[()] = ()


class Sets(BaseModel):
    names: set[str]


class ColorSet(BaseModel):
    colors: set[Color]


class LiteralSet(BaseModel):
    days: set[Literal["mon", "tue", "wed"]] = Field(min_length=1)


class BoolSet(BaseModel):
    flags: frozenset[bool]


class Dicts(BaseModel):
    counts: dict[str, int]
    any: dict[str, Any]
    plain: dict
    nested: dict[str, dict[str, list[int]]]


class IntKeys(BaseModel):
    names: dict[int, str]


class LiteralKeys(BaseModel):
    scores: dict[Literal["a", "b"], int]


class EnumKeys(BaseModel):
    scores: dict[Color, float]


class PatternKeys(BaseModel):
    by_code: dict[Annotated[str, Field(pattern=r"^[A-Z]{3}$")], int]


class ShortKeys(BaseModel):
    by_name: dict[Annotated[str, Field(min_length=1, max_length=8)], int]


class UuidKeys(BaseModel):
    by_id: dict[UUID, str]


class DateKeys(BaseModel):
    by_day: dict[date, int]


class FewEntries(BaseModel):
    some: dict[str, int] = Field(min_length=1, max_length=2)


class Choices(BaseModel):
    color: Color
    level: Level
    size: Sizes
    mixed: Mixed
    word: Literal["yes", "no"]
    number: Literal[1, 2, 3]
    truth: Literal[True]
    one: Literal["only"]
    nothing: None


class Unions(BaseModel):
    either: Union[int, str]
    maybe: Optional[int]
    deep: Union[list[int], dict[str, int], None]
    models: Union[Cat, Person]
    late: int | None = None


class Defaults(BaseModel):
    color: Color = Color.RED
    address: Address = Field(default_factory=lambda: Address(street="x", zip_code="00000"))
    level: Annotated[Level, Field(description="How loud")] = Level.LOW
    numbers: list[int] = [1, 2]


class Anything(BaseModel):
    any: Any
    thing: object
    json_text: Json[list[int]]


class Computed(BaseModel):
    width: int

    @computed_field
    def area(self) -> int:
        return self.width**2


class Sealed(BaseModel):
    model_config = ConfigDict(frozen=True, str_max_length=20)
    name: str
    code: Annotated[int, Strict()]


class Step(BaseModel):
    explanation: str
    output: str


class Reasoning(BaseModel):
    steps: list[Step]
    final_answer: str


class Invoice(BaseModel):
    number: str = Field(pattern=r"^INV-\d{4}$")
    issued: date
    lines: list[Annotated[dict[Literal["sku", "count"], str], Field(min_length=1)]]
    total: float = Field(ge=0)


class Circle(BaseModel):
    shape: Literal["circle"] = "circle"
    radius: float


class Square(BaseModel):
    shape: Literal["square"] = "square"
    side: float


class Group(BaseModel):
    shape: Literal["group"] = "group"
    parts: list["Shape"]


Shape = Annotated[Union[Circle, Square, Group], Field(discriminator="shape")]


class Drawing(BaseModel):
    shapes: list[Shape]
    pet_or_shape: Union[Cat, Shape, None] = None


class Numbered(BaseModel):
    chosen: set[Annotated[int, Field(ge=1, le=4)]]


class LiteralKeysSome(BaseModel):
    scores: dict[Literal["a", "b", "c"], int] = Field(min_length=1)


class Passwords(BaseModel):
    password: str = Field(json_schema_extra={"pattern": r"^(?=.*[A-Z])(?=.*\d)[A-Za-z\d]{8,}$"})
    ending: str = Field(json_schema_extra={"pattern": r"(?<!x)y$"})


class Ints(BaseModel):
    chosen: set[int]


class Child(Address):
    country: Literal["IT", "FR"]


class Umlaute(BaseModel):
    größe: int
    名前: str


class Names(RootModel[list[str]]):
    pass


class ByName(RootModel[dict[str, Person]]):
    pass


class Wrapped(RootModel[Union[Cat, Dog]]):
    pass


class Versioned(BaseModel):
    version: Literal[1, 2] = 2
    payload: Union[Annotated[str, Field(max_length=5)], Annotated[int, Field(ge=0)]]


class Email(BaseModel):
    to: list[EmailStr] = Field(min_length=1)
    subject: str
    urgent: bool = False


class Floats(BaseModel):
    small: float = Field(ge=-1.5, le=1.5)
    open: float = Field(gt=-1e3, lt=1e3)
    step: float = Field(multiple_of=0.5)
    finite: Annotated[float, Field(allow_inf_nan=False)]


class Event(BaseModel):
    name: str
    at: datetime
    place: Optional[Address] = None
    people: list[Person] = []
    tags: set[Literal["work", "home"]] = set()
    extra: dict[str, str] = {}


PERSON = {"name": "Ann", "age": 30, "address": {"street": "x", "city": "Rome", "zip_code": "12345"}}
PET = {"kind": "cat", "lives": 3}
POINT = {"x": 1.5, "y": 0, "tags": ["a"]}
UUID_TEXT = "123e4567-e89b-42d3-a456-426614174000"
TIME = "2024-05-06T07:08:09Z"

TYPES: list[tuple[Any, Any, Any]] = [
    (Address, {"street": "x", "city": "y", "zip_code": "12345"}, {"street": "x", "zip_code": "1"}),
    (Person, {**PERSON, "email": None}, {"name": "Ann", "age": "30"}),
    (Team, {"lead": PERSON, "members": [PERSON]}, {"lead": PERSON}),
    (Node, {"value": 1, "children": [{"value": 2, "children": []}]}, {"value": 1, "children": [2]}),
    (Linked, {"value": "a", "next": {"value": "b", "next": None}}, {"value": "a", "next": 1}),
    (
        Folder,
        {"name": "a", "entries": [{"name": "b", "size": 1}, {"name": "c", "entries": []}]},
        {"name": "a", "entries": [1]},
    ),
    (Pets, {"pet": PET}, {"pet": {"kind": "fish"}}),
    (Zoo, {"animals": [PET, {"kind": "dog", "good": True}]}, {"animals": [{"kind": "dog"}]}),
    (Tagged, {"pet": PET}, {"pet": {"kind": "fish"}}),
    (Page[Person], {"items": [PERSON], "total": 1}, {"items": [1], "total": 1}),
    (Page[int], {"items": [1], "total": 1}, {"items": ["x"], "total": 1}),
    (Result[Page[str]], {"ok": True, "value": {"items": ["x"], "total": 1}}, {"ok": 1}),
    (Point, POINT, {"x": "1"}),
    (Box, {"corner": POINT, "size": [1, 2]}, {"corner": POINT, "size": [1]}),
    (Movie, {"title": "Alien", "year": 1979}, {"year": 1979}),
    (Partial, {"a": 1, "b": "x"}, {"b": "x"}),
    (Pair, [1, "x"], [1, "x", 2]),
    (Strict1, {"name": "x", "tags": ["y"]}, {"name": "x", "more": 1}),
    (Open, {"name": "x", "more": [1]}, {"more": 1}),
    (OpenTyped, {"name": "x", "more": 1}, {"name": "x", "more": "y"}),
    (Aliased, {"firstName": "x", "class": "y"}, {"firstName": "x"}),
    (Described, {"title": "Alien", "stars": 5, "old": ""}, {"title": "Alien", "stars": 6}),
    (
        Numbers,
        {
            "positive": 1,
            "not_negative": 0,
            "negative": -0.5,
            "ratio": 0.25,
            "even": 4,
            "percent": 100,
            "int64": -9007199254740992,
            "uint64": 9007199254740992,
            "safe": -9007199254740991,
        },
        {
            "positive": 1,
            "not_negative": 0,
            "negative": -0.5,
            "ratio": 0.25,
            "even": 4,
            "percent": 100,
            "int64": 9223372036854775808,
            "uint64": 0,
            "safe": -9007199254740991,
        },
    ),
    (
        Strings,
        {
            "short": "x",
            "stripped": "x",
            "slug": "a-b",
            "phone": "+4912345",
            "word": "a word",
            "secret": "x",
        },
        {
            "short": "",
            "stripped": "x",
            "slug": "a-b",
            "phone": "+4912345",
            "word": "word",
            "secret": "x",
        },
    ),
    (
        Times,
        {"at": TIME, "aware": TIME, "day": "2024-05-06", "clock": "07:08:09Z", "lasts": "PT1H"},
        {"at": "now", "aware": TIME, "day": "2024-05-06", "clock": "07:08:09Z", "lasts": "PT1H"},
    ),
    (Future, {"when": "2999-01-01"}, {"when": "soon"}),
    (Networks, {"v4": "127.0.0.1", "v6": "::1"}, {"v4": "256.0.0.1", "v6": "::1"}),
    (Subnet, {"net": "10.0.0.0/8"}, {"net": 1}),
    (
        Addresses,
        {"home": "https://example.org/a", "any": "ftp://example.org", "mail": "a@example.org"},
        {"home": "https://example.org/a", "any": "ftp://example.org", "mail": "a"},
    ),
    (Ids, {"id": UUID_TEXT, "id4": UUID_TEXT}, {"id": "x", "id4": UUID_TEXT}),
    (Bytes, {"raw": "x", "coded": "eA==", "size": 1}, {"raw": 1, "coded": "eA==", "size": 1}),
    (Files, {"path": "/tmp", "pattern": "a+"}, {"path": 1, "pattern": "a+"}),
    (Money, {"amount": 1.5, "price": "12.34"}, {"amount": True, "price": 1}),
    (
        Prices,
        {"digits": "12.34", "places": "1.5", "step": 1.5},
        {"digits": None, "places": "1.5", "step": 1.5},
    ),
    (PatternAndLength, {"by_code": {"abc": 1}}, {"by_code": {"abcd": 1}}),
    (EmailKeys, {"by_mail": {"a@example.org": 1}}, {"by_mail": {"a": 1}}),
    (LevelKeys, {"by_level": {"1": "x"}}, {"by_level": {"1": 1}}),
    (
        Lists,
        {"one": [1], "few": ["a", "b"], "any": [1, "x"], "nested": [[0.5]], "queue": [1]},
        {"one": [], "few": ["a", "b"], "any": [1, "x"], "nested": [[0.5]], "queue": [1]},
    ),
    (
        Tuples,
        {"pair": [1, "x"], "many": [1, 2, 3], "single": [True], "nothing": []},
        {"pair": [1, "x", 2], "many": [1], "single": [True]},
    ),
    (Sets, {"names": ["a", "b"]}, {"names": [1]}),
    (ColorSet, {"colors": ["red", "green"]}, {"colors": ["blue"]}),
    (LiteralSet, {"days": ["tue", "mon"]}, {"days": ["mon", "mon"]}),
    (BoolSet, {"flags": [True, False]}, {"flags": [1]}),
    (
        Dicts,
        {"counts": {"a": 1}, "any": {"a": [None]}, "plain": {}, "nested": {"a": {"b": [1]}}},
        {"counts": {"a": "x"}, "any": {}, "plain": {}, "nested": {}},
    ),
    (IntKeys, {"names": {"1": "x"}}, {"names": {"1": 2}}),
    (LiteralKeys, {"scores": {"a": 1, "b": 2}}, {"scores": {"c": 1}}),
    (EnumKeys, {"scores": {"red": 0.5}}, {"scores": {"blue": 0.5}}),
    (PatternKeys, {"by_code": {"ABC": 1}}, {"by_code": {"ABC": "x"}}),
    (ShortKeys, {"by_name": {"a": 1}}, {"by_name": {"much too long": 1}}),
    (UuidKeys, {"by_id": {UUID_TEXT: "x"}}, {"by_id": {"x": "x"}}),
    (DateKeys, {"by_day": {"2024-05-06": 1}}, {"by_day": {"monday": 1}}),
    (FewEntries, {"some": {"a": 1, "b": 2}}, {"some": {}}),
    (
        Choices,
        {
            "color": "red",
            "level": 2,
            "size": "s",
            "mixed": None,
            "word": "no",
            "number": 3,
            "truth": True,
            "one": "only",
            "nothing": None,
        },
        {
            "color": "red",
            "level": 3,
            "size": "s",
            "mixed": 1,
            "word": "no",
            "number": 3,
            "truth": True,
            "one": "only",
            "nothing": None,
        },
    ),
    (
        Unions,
        {"either": "x", "maybe": None, "deep": {"a": 1}, "models": PET, "late": 1},
        {"either": None, "maybe": None, "deep": None, "models": PET},
    ),
    (
        Defaults,
        {
            "color": "green",
            "address": {"street": "x", "city": "y", "zip_code": "00000"},
            "level": 2,
            "numbers": [],
        },
        {"color": "blue"},
    ),
    (Anything, {"any": 1, "thing": "x", "json_text": "[1]"}, {"any": 1, "thing": 2}),
    (Computed, {"width": 2}, {"width": 2, "area": 4}),
    (Sealed, {"name": "x", "code": 1}, {"name": "x", "code": "1"}),
    (
        Reasoning,
        {"steps": [{"explanation": "x", "output": "y"}], "final_answer": "z"},
        {"steps": [{"explanation": "x"}], "final_answer": "z"},
    ),
    (
        Invoice,
        {"number": "INV-0001", "issued": "2024-05-06", "lines": [{"sku": "x"}], "total": 9.5},
        {"number": "INV-1", "issued": "2024-05-06", "lines": [], "total": 1},
    ),
    (Umlaute, {"größe": 1, "名前": "x"}, {"größe": "1", "名前": "x"}),
    (Names, ["x"], [1]),
    (ByName, {"ann": PERSON}, {"ann": 1}),
    (Wrapped, PET, {"kind": "fish"}),
    (Versioned, {"version": 1, "payload": "x"}, {"version": 1, "payload": "too long"}),
    (Email, {"to": ["a@example.org"], "subject": "x", "urgent": True}, {"to": [], "subject": "x"}),
    (
        Floats,
        {"small": -1.5, "open": 999.5, "step": 2.5, "finite": 1e3},
        {"small": 1.6, "open": 0, "step": 2.5, "finite": 1},
    ),
    (
        Event,
        {
            "name": "x",
            "at": TIME,
            "place": None,
            "people": [],
            "tags": ["home", "work"],
            "extra": {"a": "b"},
        },
        {"name": "x", "at": TIME, "tags": ["play"]},
    ),
    (
        Drawing,
        {"shapes": [{"shape": "group", "parts": [{"shape": "circle", "radius": 1}]}]},
        {"shapes": [{"shape": "circle", "side": 1}]},
    ),
    (Numbered, {"chosen": [3, 1]}, {"chosen": [1, 1]}),
    (LiteralKeysSome, {"scores": {"b": 1}}, {"scores": {}}),
    (Passwords, {"password": "Abcdefg1", "ending": "y"}, {"password": "abcdefg1", "ending": "y"}),
    (Ints, {"chosen": [1]}, {"chosen": ["x"]}),
    (
        Child,
        {"street": "x", "city": "y", "zip_code": "12345", "country": "IT"},
        {"street": "x", "zip_code": "12345", "country": "DE"},
    ),
    (
        create_model("Made", name=(str, ...), n=(int, Field(3, gt=-1, lt=2**31))),
        {"name": "x", "n": 5},
        {"name": "x", "n": -1},
    ),
    (list[Person], [PERSON], [1]),
    (dict[str, Union[int, list[int]]], {"a": [1]}, {"a": "x"}),
    (Literal["a", "b", "c"], "b", "d"),
    (Optional[Color], "red", "blue"),
    (tuple[int, Annotated[str, Field(max_length=2)], bool], [1, "ab", True], [1, "abc", True]),
    (Annotated[int, Field(gt=2**53, lt=2**60)], 2**53 + 2, 2**53),
    (Annotated[Decimal, Field(gt=0, le=100)], 99.5, 101),
    (list[Union[Cat, int, None]], [PET, 1, None], ["x"]),
    (Annotated[str, Field(pattern=r"^(?:\p{L}|\s)+$")], "Käse da", "1"),
    (Annotated[str, Field(pattern=r"\S")], " x", "  "),
]


def described() -> Iterator[dict[str, Any]]:
    for type_, valid, invalid in TYPES:
        adapter = TypeAdapter(type_)
        adapter.validate_json(json.dumps(valid))
        yield {
            "name": getattr(type_, "__name__", None) or str(type_).replace("typing.", ""),
            "source": f"pydantic {pydantic.VERSION}",
            "schema": adapter.json_schema(),
            "valid": valid,
            "invalid": invalid,
        }


if __name__ == "__main__":
    for line in described():
        print(json.dumps(line, ensure_ascii=False))

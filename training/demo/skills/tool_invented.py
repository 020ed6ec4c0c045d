"""Tools that nobody has ever seen: a verb and a noun drawn from long lists, or made of syllables.

A question calls for such a tool by its verb and its noun, and for an argument by the words of its
name or description, by its type, or by the preposition that goes with what it is.
"""

from __future__ import annotations

from functools import partial
from random import Random

from demo.skills.tool_names import (
    Case,
    argument_case,
    gerund,
    join,
    past,
    plural,
    third_person,
)
from demo.skills.tool_schema import Slot, Tool, schema
from demo.skills.tool_values import nonsense
from demo.wording import with_article
from demo.words import pick

_SUBJECT_KINDS = ("name", "name", "name", "name", "id", "id", "word", "heading", "path", "person")
_NAMED_KINDS = (
    *("int", "int", "int", "decimal", "decimal", "small", "name", "name", "word", "id"),
    *("choice", "choice", "choice", "flag", "with", "list"),
)
_LISTS = ("list of name", "list of word", "list of thing", "list of person")

# What a natural argument is called, and where it stands without its name.
_NATURAL: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("city", ("city", "location", "place", "town"), ("in <n>", "in <n>", "near <n>")),
    ("day", ("date", "day", "when", "due_date"), ("on <n>", "for <n>", "by <n>")),
    ("time", ("time", "at", "start_time", "when"), ("at <n>", "at <n>", "from <n> on")),
    (
        "person",
        ("person", "user", "customer", "recipient"),
        ("for <n>", "for <n>", "on behalf of <n>"),
    ),
    (
        "email",
        ("email", "email_address", "recipient"),
        ("for <n>", "and tell <n>", "and mail it to <n>"),
    ),
    ("small", ("count", "times", "repeat"), ("<n> times", "exactly <n> times")),
    (
        "small",
        ("minutes", "duration_minutes", "timeout"),
        ("for <n> minutes", "within <n> minutes"),
    ),
    ("path", ("path", "file", "output", "filename"), ("into <n>", "and write to <n>", "in <n>")),
    ("currency", ("currency", "currency_code"), ("in <n>", "in <n>")),
    ("language", ("language", "lang"), ("in <n>", "in <n>")),
    (
        "company",
        ("company", "vendor", "supplier"),
        ("through <n>", "via <n>", "with the company <n>"),
    ),
)

_ORDERS = (
    "{verb} the {noun} <s>", "{verb} the {noun} <s>", "{verb} {noun} <s>", "{verb} my {noun} <s>",
    "{verb} our {noun} <s>", "{verb} the {noun} called <s>", "{verb} the {noun} named <s>",
    "{verb} <s>, the {noun}", "{verb} the <s> {noun}", "{verb} {a_noun} named <s>",
    "{verb} {a_noun} called <s>", "{verb} this {noun}: <s>", "{verb} that {noun}, <s>",
    "go and {verb} the {noun} <s>", "{verb} the {noun} with the name <s>", "{verb} {noun}: <s>",
)  # fmt: skip
_STATEMENTS = (
    "The {noun} <s> needs to be {past}.", "The {noun} <s> must be {past}.",
    "I want the {noun} <s> {past}.", "I need the {noun} <s> to be {past}.",
    "I would like the {noun} <s> to be {past}.", "There is a {noun} called <s>, {verb} it.",
    "I have a {noun} named <s>. {Verb} it.", "Someone has to {verb} the {noun} <s>.",
    "We should {verb} the {noun} <s>.", "My {noun} <s> has to be {past}.",
    "It is time to {verb} the {noun} <s>.", "I think we must {verb} the {noun} <s>.",
    "Nobody has {past} the {noun} <s> yet. {Verb} it.", "I am waiting for {noun} <s> to be {past}.",
    "Help me {verb} the {noun} <s>.", "My boss asks you to {verb} the {noun} <s>.",
    "{Gerund} the {noun} <s> is your job.", "This is about the {noun} <s>. {Verb} it.",
)  # fmt: skip
_QUESTIONS = (
    "Can you {verb} the {noun} <s>?", "Could you please {verb} the {noun} <s>?",
    "Would you {verb} the {noun} <s>?", "Will you {verb} {noun} <s> for me?",
    "Is it possible to {verb} the {noun} <s>?", "May I ask you to {verb} the {noun} <s>?",
    "Could the {noun} <s> be {past}?", "Has the {noun} <s> been {past}? If not, do it.",
    "Are you able to {verb} the {noun} <s>?", "How about {gerund} the {noun} <s>?",
    "Would you mind {gerund} the {noun} <s>?", "Who can {verb} the {noun} <s>?",
)  # fmt: skip
_BARE = (
    "{verb} the {noun}", "{verb} {a_noun}", "{verb} our {noun}", "{verb} the {nouns}",
    "The {noun} must be {past}.", "I want the {noun} {past}.", "Can you {verb} the {noun}?",
    "Could you {verb} {a_noun}?", "We need to {verb} {a_noun}.", "{verb} a new {noun}",
    "{verb} my {noun} now", "It is time to {verb} the {noun}.",
)  # fmt: skip
_LOOKUPS = (
    "What is the {verb} of the {noun} <s>?", "What's the {verb} of the {noun} <s>?",
    "What is the {verb} of {noun} <s>?", "tell me the {verb} of the {noun} <s>",
    "show me the {verb} of {noun} <s>", "give me the {verb} of the {noun} called <s>",
    "find the {verb} of the {noun} <s>", "look up the {verb} of the {noun} <s>",
    "I want to know the {verb} of the {noun} <s>.", "Do you know the {verb} of the {noun} <s>?",
    "Which {verb} does the {noun} <s> have?", "What {verb} has the {noun} <s>?",
    "check the {verb} of {noun} <s>", "I need the {verb} of the {noun} <s>.",
    "Can you get the {verb} of the {noun} <s>?", "{Noun} <s>: what is its {verb}?",
    "What about the {verb} of {noun} <s>?", "The {verb} of the {noun} <s>, please.",
    "Could you tell me what the {verb} of the {noun} <s> is?", "fetch the {noun} {verb} for <s>",
    "How is the {verb} of the {noun} <s>?", "For the {noun} <s>, what is the {verb}?",
    "What is the {noun} {verb} of <s>?", "get the {noun} {verb} for <s>",
    "read out the {verb} of the {noun} named <s>", "I forgot the {verb} of the {noun} <s>.",
)  # fmt: skip
_LISTINGS = (
    "list all {nouns}", "show me all {nouns}", "Which {nouns} are there?",
    "What {nouns} do we have?",
    "give me the list of {nouns}", "list the {nouns}", "I want to see all {nouns}.",
    "Can you list every {noun}?", "Which {nouns} do you know?", "show the {nouns}",
    "print a list of all our {nouns}", "Are there any {nouns}? List them.",
)  # fmt: skip

_INLINE = (
    "with {w} <n>", "with the {w} <n>", "with {w} = <n>", "with {a_w} of <n>", "using {w} <n>",
    "using <n> as {w}", "using <n> as the {w}", "where {w} is <n>", "where the {w} is <n>",
    "({w}: <n>)", "({w} <n>)", "({w}=<n>)", "at {w} <n>", "with <n> as the {w}",
    "and set {w} to <n>", "and set the {w} to <n>", "and use <n> for the {w}", "having {w} <n>",
    "taking <n> as its {w}", "so that the {w} is <n>", "given {w} <n>", "whose {w} is <n>",
)  # fmt: skip
_SENTENCES = (
    "The {w} is <n>.", "Use <n> as the {w}.", "The {w} should be <n>.", "Set the {w} to <n>.",
    "{W}: <n>.", "Make the {w} <n>.", "I want <n> as the {w}.", "Let the {w} be <n>.",
    "Take <n> for the {w}.", "As {w} take <n>.", "{W} = <n>.", "The {w} must be <n>.",
    "It has the {w} <n>.", "For the {w}, use <n>.",
)  # fmt: skip
_LEADS = (
    "With {w} <n>, ", "Using <n> as the {w}, ", "With the {w} set to <n>, ", "With <n> as {w}, ",
    "Given {w} <n>, ", "For {w} <n>, ",
)  # fmt: skip
_DONE = ("ok", "OK", "done", "success", "true")


def action(rng: Random, case: Case, *, held_out: bool, verb: str = "", noun: str = "") -> Tool:
    """A tool that does something to something. ``verb`` and ``noun`` are drawn when not given."""
    verb = verb or _verb(rng, held_out=held_out)
    noun = noun or _noun(rng, held_out=held_out)
    subject = _subject(rng, noun, case) if rng.random() < 0.8 else None
    count = rng.choices((0, 1, 2, 3), (40, 36, 18, 6) if subject else (14, 46, 30, 10))[0]
    extras = _extras(rng, count, case, subject, held_out=held_out)
    slots = ((subject,) if subject else ()) + tuple(extras)
    if rng.random() < 0.2:
        slots = tuple(rng.sample(slots, len(slots)))
    words = [*verb.split(), *noun.split()]
    name = rng.choices(
        (words, [*noun.split(), verb], ["do", *words], [*words, "now"]), (80, 14, 3, 3)
    )[0]
    described = rng.choices(
        (
            f"{verb.capitalize()} {with_article(noun)}",
            f"{verb.capitalize()} the {noun}",
            f"{third_person(verb).capitalize()} {with_article(noun)}",
            f"{verb.capitalize()} one {noun} and report back",
            f"Use this to {verb} {with_article(noun)}",
            f"Tool to {verb} {plural(noun)}",
            f"{gerund(verb).capitalize()} of {plural(noun)}",
            f"{verb.capitalize()} {plural(noun)}.",
            "",
        ),
        (30, 20, 12, 5, 6, 6, 5, 6, 10),
    )[0]
    return Tool(
        schema(
            rng, _function_name(rng, name, case, described, held_out=held_out), described, slots
        ),
        slots,
        partial(_action_wording, verb=verb, noun=noun, subject=subject, extras=extras),
        verb,
        noun,
        results=_DONE,
    )


def lookup(rng: Random, case: Case, *, held_out: bool, noun: str = "") -> Tool:
    """A tool that tells one property of something; its ``verb`` is that property."""
    topic = pick(rng, "tool_attributes", held_out=held_out)
    noun = noun or _noun(rng, held_out=held_out)
    subject = _subject(rng, noun, case)
    getter = rng.choice(("get", "get", "get", "fetch", "find", "lookup", "read", "check"))
    words = rng.choice(
        ([*noun.split(), topic], [*noun.split(), topic], [topic, "of", *noun.split()])
    )
    described = rng.choice(
        (
            f"Get the {topic} of {with_article(noun)}",
            f"Get the {topic} of {with_article(noun)}",
            f"Returns the {topic} of the {noun}",
            f"Look up the {topic} of {with_article(noun)}",
            f"The {topic} of a given {noun}",
            f"Find out the {noun}'s {topic}",
        )
    )
    name = [getter, *words] if rng.random() < 0.85 else words
    result = rng.choice(("<int>", "<decimal>", "<word>", "<option>", "<name>", "<int> <option>"))
    return Tool(
        schema(
            rng,
            _function_name(rng, name, case, described, held_out=held_out),
            described,
            (subject,),
        ),
        (subject,),
        partial(_filled, _LOOKUPS, verb=topic, noun=noun),
        topic,
        noun,
        topic=f"The {topic} of <s> is",
        results=(result,),
        fields=((topic, result.strip("<>").split(">")[0]),),
    )


def listing(rng: Random, case: Case, *, held_out: bool) -> Tool:
    """A tool without arguments."""
    noun = _noun(rng, held_out=held_out)
    words = plural(noun).split()
    name = [rng.choice(("list", "list", "get_all", "show", "list_all")), *words]
    described = rng.choice(
        (f"List all {plural(noun)}", f"Returns every {noun}", f"All the {plural(noun)}")
    )
    return Tool(
        schema(rng, join("_".join(name).split("_"), case), described, ()),
        (),
        partial(_filled, _LISTINGS, verb="list", noun=noun),
        "list",
        noun,
        topic=f"The {plural(noun)} are",
        results=("<name>, <name>", "<name> and <name>", "<name>, <name>, <name>"),
    )


def _verb(rng: Random, *, held_out: bool) -> str:
    if rng.random() < 0.6:
        return pick(rng, "tool_verbs", held_out=held_out)
    return nonsense(rng, held_out=held_out) + rng.choice(("", "", "ify", "ate", "ize", "en"))


def _noun(rng: Random, *, held_out: bool) -> str:
    shape = rng.random()
    if shape < 0.3:
        return nonsense(rng, held_out=held_out)
    noun = pick(rng, "tool_nouns", held_out=held_out)
    if shape < 0.4:
        return f"{pick(rng, 'tool_adjectives', held_out=held_out)} {noun}"
    if shape < 0.5:
        return f"{noun} {pick(rng, 'tool_nouns', held_out=held_out)}"
    return noun


def _function_name(
    rng: Random, words: list[str], case: Case, described: str, *, held_out: bool
) -> str:
    """Sometimes a name that says nothing, so that the description has to be read."""
    if described and not held_out and rng.random() < 0.05:
        stem = rng.choice(("tool", "fn", "func", "action", "f"))
        return f"{stem}{rng.choice(('_', ''))}{rng.randint(1, 99)}"
    return join(words, case)


def _subject(rng: Random, noun: str, case: Case) -> Slot:
    parts = noun.split()
    name = rng.choice(
        (parts, parts, parts[-1:], [*parts, "name"], [*parts, "id"], ["name"], ["id"], ["target"])
    )
    described = rng.choice(
        (
            f"The {noun}",
            f"Name of the {noun}",
            f"The name of the {noun}",
            f"Which {noun}",
            f"The {noun} to work on",
            f"Name or id of the {noun}",
            *("" for _ in range(3) if name[0] not in ("name", "id", "target")),
        )
    )
    kind = rng.choice(_SUBJECT_KINDS)
    return Slot("s", join(name, argument_case(case)), kind, description=described)


def _extras(
    rng: Random, count: int, case: Case, subject: Slot | None, *, held_out: bool
) -> list[Slot]:
    slots: list[Slot] = []
    kinds = {subject.kind} if subject else set()
    names = {subject.name} if subject else set()
    for number in range(count):
        natural = rng.random() < 0.3
        slot = (
            _natural(rng, number, case) if natural else _named(rng, number, case, held_out=held_out)
        )
        if slot.name in names or (natural and slot.kind in kinds):
            continue
        slots.append(slot)
        names.add(slot.name)
        kinds.add(slot.kind)
    return slots


def _natural(rng: Random, number: int, case: Case) -> Slot:
    at = rng.randrange(len(_NATURAL))
    kind, names, _ = _NATURAL[at]
    words = rng.choice(names).split("_")
    described = rng.choice(("", "", f"The {' '.join(words)}", f"{words[-1].capitalize()} of it"))
    return Slot(
        f"n{at}x{number}",
        join(words, argument_case(case)),
        kind,
        " ".join(words),
        described,
        required=rng.random() < 0.5,
    )


def _named(rng: Random, number: int, case: Case, *, held_out: bool) -> Slot:
    words = [pick(rng, "tool_attributes", held_out=held_out)]
    if rng.random() < 0.2:
        words.insert(0, rng.choice(("max", "min", "start", "end", "new", "target", "default")))
    kind = rng.choice(_NAMED_KINDS)
    if kind == "with" and len(words) > 1:
        kind = "flag"
    choices: tuple[str, ...] = ()
    if kind == "choice":
        drawn = [
            pick(rng, "tool_options", held_out=held_out) for _ in range(rng.choice((2, 2, 3, 4)))
        ]
        choices = tuple(dict.fromkeys(drawn))
    name, phrase = join(words, argument_case(case)), " ".join(words)
    described = rng.choice(
        ("", "", f"The {phrase}", f"The {phrase} to use", f"{phrase.capitalize()}")
    )
    if described and not held_out and rng.random() < 0.12:
        name = f"{rng.choice(('x', 'arg', 'p', 'param', 'v'))}{number + 1}"
    return Slot(
        f"n{number}",
        name,
        rng.choice(_LISTS) if kind == "list" else kind,
        phrase,
        described,
        required=rng.random() < 0.6,
        choices=choices,
    )


def _action_wording(
    rng: Random, *, verb: str, noun: str, subject: Slot | None, extras: list[Slot]
) -> str:
    forms = rng.choice((_ORDERS, _ORDERS, _STATEMENTS, _QUESTIONS)) if subject else _BARE
    pattern = _filled(forms, rng, verb=verb, noun=noun)
    named = [slot for slot in extras if slot.required or rng.random() < 0.6]
    return _with_extras(rng, pattern, rng.sample(named, len(named)))


def _filled(forms: tuple[str, ...], rng: Random, *, verb: str, noun: str) -> str:
    return rng.choice(forms).format(
        verb=verb,
        Verb=verb.capitalize(),
        past=past(verb),
        gerund=gerund(verb),
        Gerund=gerund(verb).capitalize(),
        noun=noun,
        Noun=noun.capitalize(),
        a_noun=with_article(noun),
        nouns=plural(noun),
    )


def _with_extras(rng: Random, pattern: str, slots: list[Slot]) -> str:
    """``pattern`` with the arguments before it, in it, or in sentences behind it."""
    if not slots:
        return pattern
    last = pattern[-1] if pattern[-1] in "?." else ""
    body = pattern.removesuffix(last)
    if len(slots) > 1 and rng.random() < 0.4 and all(_is_plain(slot) for slot in slots):
        link = rng.choice((" with ", " with ", ": ", ", ", " using "))
        return body + link + _row(rng, slots) + last
    lead, inline, behind = "", "", ""
    for slot in slots:
        where = rng.random()
        if where < 0.1 and not lead and _is_plain(slot):
            lead = _cue(rng, _LEADS, slot)
        elif where < 0.3 and _is_plain(slot):
            behind += " " + _cue(rng, _SENTENCES, slot)
        else:
            inline += _inline(rng, slot, joined=bool(inline))
    if lead:
        body = lead + body[0].lower() + body[1:] if not body.startswith("I ") else lead + body
    return f"{body}{inline}{(last or '.') + behind if behind else last}"


def _is_plain(slot: Slot) -> bool:
    """Whether it is said by its name and its value."""
    return slot.kind != "with"


def _row(rng: Random, slots: list[Slot]) -> str:
    sign = rng.choice((" ", " ", " ", ": ", " = ", "="))
    parts = [f"{slot.words}{sign}<{slot.key}>" for slot in slots]
    last = rng.choice((" and ", " and ", ", "))
    return last.join((", ".join(parts[:-1]), parts[-1]))


def _inline(rng: Random, slot: Slot, *, joined: bool) -> str:
    if slot.kind == "with":
        return f" <{slot.key}>"
    prepositions = _prepositions(slot)
    if prepositions and rng.random() < 0.75:
        number = slot.key
        return " " + rng.choice(prepositions).replace("<n>", f"<{number}>")
    if slot.choices and rng.random() < 0.25:
        return rng.choice((", <{}>", " (<{}>)", " in <{}> {w}", " with <{}> {w}")).format(
            slot.key, w=slot.words
        )
    start = rng.choice((" and ", ", ", " ")) if joined else rng.choice((" ", " ", " ", ", "))
    cue = _cue(rng, _INLINE, slot)
    return " " + cue if cue.startswith(("and", "(")) else start + cue


def _prepositions(slot: Slot) -> tuple[str, ...]:
    if "x" not in slot.key:
        return ()
    return _NATURAL[int(slot.key[1:].split("x")[0])][2]


def _cue(rng: Random, forms: tuple[str, ...], slot: Slot) -> str:
    words = slot.words
    text = rng.choice(forms).format(w=words, W=words.capitalize(), a_w=with_article(words))
    return text.replace("<n>", f"<{slot.key}>")

"""Simple tales for children: continued from a beginning, or told when asked for."""

from __future__ import annotations

import re
from random import Random

from ollama_async.core.conversation import Message, Prompt

from demo.example import Example
from demo.wording import Wordings, chat, fill, mannered, system, with_article
from demo.words import pick

_HEROES = [
    "fox",
    "owl",
    "bear",
    "rabbit",
    "mouse",
    "horse",
    "duck",
    "frog",
    "turtle",
    "fish",
    "whale",
    "penguin",
    "robin",
    "squirrel",
    "hedgehog",
    "beaver",
    "otter",
    "deer",
    "wolf",
    "lion",
    "tiger",
    "elephant",
    "monkey",
    "kitten",
    "puppy",
    "dragon",
    "bee",
    "snail",
    "crab",
    "robot",
    "girl",
    "boy",
    "prince",
    "princess",
    "knight",
    "farmer",
    "baker",
    "cat",
    "dog",
    "bird",
    "star",
    "cloud",
    "king",
    "queen",
]
_SIZES = ("little", "small", "young", "brave", "kind", "happy", "clever", "shy", "curious", "tiny")
_PLACES = (
    "in a green forest",
    "by a blue lake",
    "near the sea",
    "on a high hill",
    "in a small village",
    "at the edge of a big wood",
    "under an old oak tree",
    "in a quiet valley",
    "beside a river",
    "in a house with a red roof",
    "on a little farm",
    "behind the old mill",
)
_HABITS = (
    "Every morning <n> went for a walk.",
    "<n> loved to sing.",
    "Every day <n> played in the sun.",
    "<n> liked to look at the stars.",
    "<n> was always kind to others.",
    "<n> loved to dance in the rain.",
    "Everyone liked <n>.",
    "<n> had many books about faraway lands.",
)
# What the hero wants, what stands in the way, how the helper (<m>) helps, how it ends.
_PLOTS = (
    (
        "<n> wanted to see the world.",
        "But the path was long and <n> was afraid of the dark.",
        '"I will come with you," said <m>, "and then you are not alone."',
        "Together they walked over hills and through valleys.",
        "They saw the sea, and it was more beautiful than they had thought.",
    ),
    (
        "<n> wished for a friend.",
        "But everybody else was busy, and <n> felt lonely.",
        'Then <m> came along the path and asked, "May I play with you?"',
        "They played all day and laughed a lot.",
        "From that day on, <n> was never lonely again.",
    ),
    (
        "One day <n> lost a golden key.",
        "<n> looked everywhere, but the key was gone.",
        '"Do not be sad," said <m>. "I will help you look."',
        "They searched the garden and the house, and at last they found it under a leaf.",
        "<n> thanked <m> with a big piece of cake.",
    ),
    (
        "One day a big storm came.",
        "The wind was so strong that the roof of the house flew away.",
        'But <m> said, "You can stay with me until the storm is over."',
        "The next day they built a new roof together.",
        "It was even better than the old one, and <n> was very happy.",
    ),
    (
        "<n> wanted to learn to swim.",
        "But the water was cold and deep.",
        '"Hold on to me," said <m>, "and move your feet."',
        "They tried again and again, every day a little longer.",
        "At the end of the summer <n> could swim across the whole lake.",
    ),
    (
        "One evening <n> heard somebody crying.",
        "It was <m>, who could not find the way home.",
        '"I know the way," said <n>. "Come with me."',
        "They walked side by side while the moon was shining.",
        "When they came to the house, <m> said thank you and gave <n> a warm hug.",
    ),
    (
        "<n> wanted to bake the best cake in the land.",
        "But there was no honey left in the kitchen.",
        '"I know where the bees live," said <m>.',
        "They asked the bees very politely, and the bees gave them a full jar.",
        "The cake was so good that everyone wanted a second piece.",
    ),
    (
        "One night a star fell from the sky.",
        "It was cold and could not fly back.",
        "<n> asked <m> for help, and they made a very long ladder.",
        "Step by step they carried the star up to the sky.",
        "Since then it shines a little brighter for the two of them.",
    ),
    (
        "<n> found an old map in a box.",
        "It showed the way to a treasure, but one part was missing.",
        '"I have seen that island," said <m>. "I can show you the way."',
        "They took a small boat and sailed for three days.",
        "The treasure was a chest full of books, and they read them all together.",
    ),
    (
        "<n> wanted to fly like the birds.",
        "But every time <n> jumped, <n> fell down again.",
        '"Let us build a kite," said <m>, "a very big one."',
        "They worked all week with paper and string.",
        "When the wind came, they flew high above the trees.",
    ),
    (
        "In the winter there was nothing to eat.",
        "<n> was hungry and the snow was deep.",
        "Then <m> knocked at the door with a basket of bread and apples.",
        "They made a fire and shared the food.",
        "In the spring <n> planted a garden, so that nobody would be hungry again.",
    ),
    (
        "<n> was afraid of the big dark cave.",
        "But one day the ball rolled into it.",
        '"We can take my lamp," said <m>.',
        "Inside the cave they saw a thousand little lights on the walls.",
        "Now the cave is the place where <n> likes to play most.",
    ),
)
_ENDINGS = (
    "And they lived happily ever after.",
    "That night <n> slept very well.",
    "And they stayed friends for ever.",
    "It was the best day of all.",
    "And if you go there, you can still hear them laugh.",
    "Since then they have always helped each other.",
    "The end.",
)
_STARTS = (
    "Once upon a time there was <hero> named <n>.",
    "Once upon a time, there was <hero> called <n>.",
    "Once upon a time <hero> named <n> lived <place>.",
    "There once was <hero> named <n>.",
    "Long ago there lived <hero> called <n>.",
    "A long time ago, <hero> named <n> lived <place>.",
    "<n> was <hero>.",
    "One day <hero> named <n> sat <place>.",
)
_ASK = Wordings(
    "Tell me a story about <about>.",
    "{Tell|Please tell|Can you tell} me a {short |little |}story about <about>.",
    "{Write|Please write|Make up|Invent} a {short |little |}{story|tale} about <about>.",
    "{I want|I would like} {to hear |}a {short |}story about <about>.",
    "{Story|A story|Short story} about <about>{|, please}.",
    "{Give me|Do you know} a {short |}story about <about>{|?}",
)
_LEAST_WORDS = 8


def make(rng: Random, *, held_out: bool) -> Example:
    chance = rng.random()
    if chance < 0.3:
        return _told(rng, held_out=held_out)
    return _continued(rng, held_out=held_out)


def catalogue() -> list[Example]:
    rng = Random("catalogue")
    begun = (
        "Once upon a time",
        "Once upon a time, there was a little fox named Tom.",
        "Once upon a time there was a small bear called Anna. One day",
    )
    asked = (
        "Tell me a story about a fox.",
        "Write a short story about a fox.",
        "Tell me a short story about a fox named Tom.",
    )
    text = " ".join(_tale(rng, "a little fox", "Tom"))
    continuations = [
        Example(
            "story", "story.catalogue", Prompt(raw=start), Message("assistant", text), rule="story"
        )
        for start in begun
    ]
    tales = [
        chat("story", "story.catalogue", [Message("user", ask)], text, rule="story")
        for ask in asked
    ]
    return continuations + tales


def _continued(rng: Random, *, held_out: bool) -> Example:
    name = pick(rng, "names", held_out=held_out)
    tale = _tale(rng, _hero(rng), name)
    begun, rest = _cut(rng, tale)
    answer = Message("assistant", rest)
    return Example("story", "story.continued", Prompt(raw=begun), answer, rule="story")


def _told(rng: Random, *, held_out: bool) -> Example:
    name = pick(rng, "names", held_out=held_out)
    noun = rng.choice(_HEROES) if rng.random() < 0.5 else pick(rng, "animals", held_out=held_out)
    about = with_article(noun)
    if rng.random() < 0.4:
        about += f" {rng.choice(('called', 'named'))} {name}"
    hero = f"{with_article(rng.choice(_SIZES))} {noun}"
    ask = fill(_ASK.pick(rng, held_out=held_out), {"about": about})
    text = " ".join(_tale(rng, hero, name, start=_STARTS[0]))
    messages = [*system(rng), Message("user", mannered(rng, ask))]
    return chat("story", "story.told", messages, text, rule="story")


def _hero(rng: Random) -> str:
    return f"{with_article(rng.choice(_SIZES))} {rng.choice(_HEROES)}"


def _tale(rng: Random, hero: str, name: str, *, start: str = "") -> list[str]:
    """The sentences of a tale about ``hero`` (with its article), eight or nine."""
    start = start or rng.choice(_STARTS)
    values = {
        "hero": hero,
        "n": name,
        "m": f"the {rng.choice(_SIZES)} {rng.choice(_HEROES)}",
        "place": rng.choice(_PLACES),
    }
    lines = [start]
    if "<place>" not in start:
        lines.append(f"<n> lived {rng.choice(_PLACES)}.")
    lines += rng.sample(_HABITS, rng.choice((0, 1, 1)))
    lines += [*rng.choice(_PLOTS), rng.choice(_ENDINGS)]
    return [fill(line, values) for line in lines]


def _cut(rng: Random, tale: list[str]) -> tuple[str, str]:
    """The beginning of a tale and how it goes on, with the space in front if there is one."""
    chance = rng.random()
    text = " ".join(tale)
    if chance < 0.1 and (match := re.match(r"Once upon a time,?|There once was|Long ago", text)):
        at = match.end()
    elif chance < 0.6:
        at = len(" ".join(tale[: rng.randint(1, 3)]))
    else:
        spaces = [match.start() for match in re.finditer(" ", " ".join(tale[:4]))]
        at = rng.choice(spaces[_LEAST_WORDS - 1 :] or [len(tale[0])])
    return text[:at], text[at:]

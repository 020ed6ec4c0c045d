"""What people say about themselves: how each kind of fact is told, asked for and recalled."""

from __future__ import annotations

import msgspec

from demo.wording import Wordings


class Kind(msgspec.Struct, frozen=True):
    """A kind of fact: ``values`` is a list of words (``""``: an age), ``<v>`` stands for the value.

    ``recall`` states it to the user and ``noun`` names it in "You have not told me …".
    ``others``, where people are compared by it: what follows a name (``lives in``), the question
    and the answer about the person ``<n>``.
    """

    key: str
    values: str
    say: Wordings
    ask: Wordings
    recall: str
    noun: str
    others: tuple[str, str, str] | None = None


KINDS = (
    Kind(
        "name",
        "names",
        Wordings(
            "My name is <v>.",
            "{My name is|I am|I'm|Call me|You can call me|They call me} <v>{.|!}",
            "{Hi|Hello|Hey}{,|!} {my name is|my name's|I am|I'm|this is} <v>{.|!|}",
            "{I am called|Please call me|Everyone calls me|People call me|The name is} <v>.",
            "{my name is|i am|i'm|call me|my name's|name's} <v>",
            "{Remember|Please remember|Note}{ this|}: my name is <v>.",
            "{Nice to meet you|Good morning|Good evening}, {I am|I'm|my name is} <v>.",
            "Let me introduce myself{:|.} {I am|I'm|My name is} <v>.",
        ),
        Wordings(
            "What is my name?",
            "{What's|What is|What was|Whats} my name{| again| now}?",
            "{Do you know|Do you remember|Can you recall|Tell me} {my name|what my name is}?",
            "{Do you know|Do you remember|Can you say} what I am called?",
            "{Tell me|Say|Please tell me|Remind me of} my name.",
            "{What am I called|How am I called|What should you call me}?",
            "{So|And|Now|Quick question:|OK,|By the way,} what is my name?",
            "{What name did I|Which name did I} {tell you|give you|say}?",
            "{I forgot|I forget|Have you forgotten} my name. What is it?",
            "My name{| is}?",
        ),
        "Your name is <v>",
        "your name",
    ),
    Kind(
        "colour",
        "colours",
        Wordings(
            "My favourite colour is <v>.",
            "My {favourite colour|favorite color|preferred colour} is <v>{.|!|}",
            "{my favourite colour is|my favorite color is|my fav color is} <v>",
            "<v> is my {favourite colour|favorite color}.",
            "The {colour|color} {I like best|I love most|I like most} is <v>.",
            "{Remember|Note|Please remember} that my {favourite colour|favorite color} is <v>.",
        ),
        Wordings(
            "What is my favourite colour?",
            "{What's|What is|Which is|What was} my {favourite colour|favorite color}{| again}?",
            "{Which|What} {colour|color} {do I like best|is my favourite|do I love most}?",
            "{Tell me|Say|Remind me of} my {favourite colour|favorite color}.",
            "{Do you know|Do you remember|Tell me} my {favourite colour|favorite color}?",
            "{And|So|Now|OK,} what is my {favourite colour|favorite color}?",
            "My {favourite colour|favorite color}?",
        ),
        "Your favourite colour is <v>",
        "your favourite colour",
    ),
    Kind(
        "city",
        "cities",
        Wordings(
            "I live in <v>.",
            "{I live in|I'm living in|I am living in|I live in the city of} <v>{.|!|}",
            "{i live in|my city is|My city is|My home town is} <v>",
            "{I moved to|I have lived for years in|My house is in} <v>.",
            "{Remember|Note} that I live in <v>.",
        ),
        Wordings(
            "Where do I live?",
            "{Which|What} {city|town|place} do I live in?",
            "{Do you know|Do you remember|Can you recall|Can you tell me} where I live{| now}?",
            "{Tell me|Say|Remind me} where I live.",
            "{What is|What's} {my city|my home town|the city I live in}?",
            "{So|And|Now|OK,} where do I live{| again}?",
            "{In which|In what} city do I live?",
        ),
        "You live in <v>",
        "where you live",
        ("lives in", "Where does <n> live?", "<n> lives in <v>."),
    ),
    Kind(
        "age",
        "",
        Wordings(
            "I am <v> years old.",
            "{I am|I'm|i am|i'm} <v> years old{.|!|}",
            "{My age is|I just turned|I turned|I am now|Today I turn} <v>.",
            "{I am|I'm} <v>.",
            "{Remember|Note} that I am <v> years old.",
        ),
        Wordings(
            "How old am I?",
            "{What is|What's|Tell me|Say} my age{|?}",
            "{Do you know|Do you remember|Can you recall|Can you tell me} {how old I am|my age}?",
            "{So|And|Now|OK,} how old am I{| again}?",
            "{Tell me|Remind me} how old I am.",
        ),
        "You are <v> years old",
        "how old you are",
        ("is", "How old is <n>?", "<n> is <v> years old."),
    ),
    Kind(
        "dog",
        "names",
        Wordings(
            "My dog is called <v>.",
            "{My dog is called|My dog's name is|The name of my dog is|I call my dog} <v>{.|!|}",
            "{I have|I've got|I own|We have} a dog {called|named} <v>{.|!}",
            "{my dog is named|My dog is named|my dog's name is} <v>",
        ),
        Wordings(
            "What is my dog called?",
            "{What is|What's|Tell me|Do you know} {my dog's name|the name of my dog}?",
            "{How is|And what is|So what is|What's} my dog called?",
            "{What did I|How did I} {call|name} my dog?",
        ),
        "Your dog is called <v>",
        "the name of your dog",
    ),
    Kind(
        "cat",
        "names",
        Wordings(
            "My cat is called <v>.",
            "{My cat is called|My cat's name is|The name of my cat is|I call my cat} <v>{.|!|}",
            "{I have|I've got|I own|We have} a cat {called|named} <v>{.|!}",
        ),
        Wordings(
            "What is my cat called?",
            "{What is|What's|Tell me|Do you know} {my cat's name|the name of my cat}?",
            "{How is|And what is|So what is|What's} my cat called?",
        ),
        "Your cat is called <v>",
        "the name of your cat",
    ),
    Kind(
        "friend",
        "names",
        Wordings(
            "My best friend is <v>.",
            "{My friend is called|My best friend is|My friend's name is} <v>{.|}",
            "<v> is my {best friend|friend}.",
        ),
        Wordings(
            "Who is my best friend?",
            "{What is|What's|Tell me} {my best friend's name|the name of my friend}?",
            "{Who is|And who is|So who is|Who's} my {best friend|friend}?",
        ),
        "Your friend is called <v>",
        "the name of your friend",
    ),
    Kind(
        "sister",
        "names",
        Wordings(
            "My sister is called <v>.",
            "{My sister is called|My sister's name is} <v>{.|}",
            "{I have|I've got} a sister {called|named} <v>.",
        ),
        Wordings(
            "What is my sister called?",
            "{What is|What's|Do you remember|Tell me} {my sister's name|the name of my sister}?",
            "{Who is|And who is|So who is|Who's} my sister?",
        ),
        "Your sister is called <v>",
        "the name of your sister",
    ),
    Kind(
        "brother",
        "names",
        Wordings(
            "My brother is called <v>.",
            "{My brother is called|My brother's name is|My brother is} <v>{.|}",
            "{I have|I've got} a brother {called|named} <v>.",
        ),
        Wordings(
            "What is my brother called?",
            "{What is|What's|Do you remember|Tell me} {my brother's name|the name of my brother}?",
            "{Who is|And who is|So who is|Who's} my brother?",
        ),
        "Your brother is called <v>",
        "the name of your brother",
    ),
    Kind(
        "job",
        "jobs",
        Wordings(
            "I work as a <v>.",
            "{I work as a|I'm working as a|My job is: |My job is|I earn my money as a} <v>{.|}",
            "{My profession is|My occupation is|my job is} <v>",
        ),
        Wordings(
            "What is my job?",
            "{What's|What is|Tell me|Do you remember|Do you know} my {job|profession|occupation}?",
            "{What do I do|What do I work as|What do I do for a living|What do I do for work}?",
            "{And|So|Now} what is my job?",
        ),
        "Your job is <v>",
        "your job",
        ("works as a", "What is the job of <n>?", "<n> works as a <v>."),
    ),
    Kind(
        "food",
        "foods",
        Wordings(
            "My favourite food is <v>.",
            "My {favourite food|favorite food|favourite dish|favorite dish} is <v>{.|!|}",
            "{my favourite food is|my favorite food is|I like to eat|I love to eat} <v>",
            "{The food I like best is|Most of all I like to eat|I love eating} <v>.",
        ),
        Wordings(
            "What is my favourite food?",
            "{What's|What is|Which is|Do you remember} my {favourite|favorite} {food|dish}?",
            "{What|Which food} do I {like to eat|love to eat|like to eat most}?",
            "{And|So|Now} what is my {favourite|favorite} {food|dish}?",
        ),
        "Your favourite food is <v>",
        "your favourite food",
        ("likes to eat", "What does <n> like to eat?", "<n> likes to eat <v>."),
    ),
    Kind(
        "animal",
        "animals",
        Wordings(
            "My favourite animal is the <v>.",
            "My {favourite|favorite} animal is {the|a} <v>{.|!|}",
            "{The animal I like best is|My best loved animal is} the <v>.",
        ),
        Wordings(
            "What is my favourite animal?",
            "{What's|What is|Which is|Do you remember|Tell me} my {favourite|favorite} animal?",
            "{What|Which} animal {do I like best|do I like most|is my favourite}?",
        ),
        "Your favourite animal is the <v>",
        "your favourite animal",
    ),
    Kind(
        "hobby",
        "hobbies",
        Wordings(
            "My hobby is <v>.",
            "{My hobby is|My favourite hobby is|My favorite hobby is|My pastime is} <v>{.|!|}",
            "{In my free time I enjoy|I spend my free time with|my hobby is} <v>",
        ),
        Wordings(
            "What is my hobby?",
            "{What's|What is|Do you know|Tell me} my {hobby|favourite hobby|pastime}?",
            "{What do I do in|How do I spend} my free time?",
        ),
        "Your hobby is <v>",
        "your hobby",
    ),
    Kind(
        "country",
        "countries",
        Wordings(
            "I come from <v>.",
            "{I come from|I am from|I'm from|My country is|My home country is} <v>{.|!|}",
            "{I was born in|i am from|i'm from|I grew up in} <v>",
        ),
        Wordings(
            "Where do I come from?",
            "{Which|What} country {do I come from|am I from}?",
            "{Where am I from|What is my country|What is my home country|What's my country}?",
            "{Do you know|Do you remember|Can you tell me} where I {come from|am from}?",
        ),
        "You come from <v>",
        "where you come from",
        ("comes from", "Where does <n> come from?", "<n> comes from <v>."),
    ),
)
KIND_WEIGHTS = (34, 12, 10, 9, 5, 4, 3, 3, 3, 5, 5, 3, 4, 5)
BY_KEY = {kind.key: kind for kind in KINDS}

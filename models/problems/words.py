"""Counting letters and spelling backwards.

A quoted word is always tokenized letter by letter (see `models.tokenizer`), so the thinking first
repeats the word in quotes and then walks along its letters.
"""

from __future__ import annotations

import random

from models.problems.base import Problem, commas, pick, vary

WORDS = tuple(
    """strawberry banana apple orange lemon cherry grape melon pepper tomato potato carrot onion
    garlic cabbage spinach lettuce mushroom elephant giraffe rabbit tiger monkey kangaroo penguin
    dolphin octopus butterfly mosquito squirrel hamster donkey camel parrot pigeon sparrow eagle
    turtle lizard mississippi tennessee canada america germany africa europe london paris berlin
    madrid vienna lisbon dublin oslo computer keyboard printer monitor network server gateway kernel
    memory processor algorithm program variable function compiler database internet message window
    bottle mirror curtain blanket pillow kitchen bathroom balloon umbrella bicycle motorcycle
    airplane railway station bridge tunnel harbor summer winter autumn spring morning evening
    midnight tomorrow yesterday december november october september february january teacher student
    doctor lawyer farmer baker painter singer writer dancer engineer scientist soldier sailor
    happiness success address committee necessary occurrence accommodation parallel possess assess
    coffee letter butter rubber hello llama language reasoning thinking question answer solution
    problem number addition subtraction multiplication division sentence paragraph dictionary""".split()
)
_SYLLABLES = tuple(
    """ba be bi bo bu da de di do du fa fi ga go gu ha he hi hu ka ki ko la le li lo lu ma me mi mo mu
    na ne no nu pa pe po pu ra re ri ro ru sa se si so su ta te ti to tu va vi wa we za zu ja jo ya yo
    qua xi st tr pl ck ng ss ll tt rr ea oo ee ing er th sh ch an in on""".split()
)


def word(rng: random.Random, longest: int = 12) -> str:
    """A word of at most `longest` letters: a known one, a made-up one or random letters."""
    draw = rng.random()
    if draw < 0.4:
        text = rng.choice(WORDS)
    elif draw < 0.8:
        text = "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(2, 4)))
    else:
        alphabet = "abcdefghijklmnopqrstuvwxyz"
        few = "".join(rng.sample(alphabet, rng.randint(3, 8)))
        text = "".join(rng.choice(pick(rng, alphabet, few)) for _ in range(rng.randint(3, 10)))
    return text if len(text) <= longest else text[:longest]


def _length(rng: random.Random) -> Problem:
    """A problem about the number of letters of a word."""
    w = word(rng)
    n, shown = len(w), pick(rng, w, f'"{w}"')
    question = pick(
        rng,
        f"How many letters are in {shown}?",
        f"How many letters does {shown} have?",
        f"How long is the word {shown}?",
        f"Count the letters of {shown}.",
    )
    thinking = (
        f'I need to count all letters of "{w}".',
        f"Number the letters: {commas([f'{i} {letter}' for i, letter in enumerate(w, 1)])}.",
        f"The last number is {n}, so there are {n} letters.",
    )
    answer = (
        f"There are {n} letters in {w}.\n\nI numbered the letters one by one, {'-'.join(w)}, from the "
        f"first to the last. The last letter got the number {n}, so the word has {n} letters."
    )
    return Problem(
        "letters", vary(rng, question), thinking, answer, str(n), (f"{n} letters",), f"length {w}"
    )


def letters(rng: random.Random) -> Problem:
    if rng.random() < 0.1:
        return _length(rng)
    w = word(rng)
    target = rng.choice(w) if rng.random() < 0.85 else rng.choice("abcdefghijklmnopqrstuvwxyz")
    shown = pick(rng, w, w, f'"{w}"', f'"{w}"', w.capitalize())
    question = pick(
        rng,
        f"How many times does the letter {target} appear in {shown}?",
        f"How many {target}'s are in {shown}?",
        f"Count the letter {target} in the word {shown}.",
        f"How many letters {target} are in {shown}?",
        f"How many {target} in {shown}?",
        f"How many {target}s are there in {shown}?",
        f"How often does {target} occur in {shown}?",
        f"Count the {target}'s in {shown}.",
        f'How many "{target}" are in {shown}?',
    )
    count, walk = 0, []
    for letter in w:
        count += letter == target
        walk.append(f"{letter} {count}")
    times = "time" if count == 1 else "times"
    thinking = (
        f'I need to count {target} in "{w}".',
        f"Letter by letter: {commas(walk)}.",
        f"So {target} appears {count} {times}.",
    )
    dashed = "-".join(w)
    answer = pick(
        rng,
        f"The letter {target} appears {count} {times} in {w}.\n\nI spelled the word out letter by "
        f"letter as {dashed} and kept a running count of every {target} along the way.",
        f"The letter {target} appears {count} {times}.\n\nSpelled out, the word is {dashed}. Going "
        f"through it from left to right and counting each {target} gives a total of {count} in the end.",
    )
    accept = (f"{count} {times}", f"{count} {target}", f"is {count}", f"are {count}")
    return Problem(
        "letters",
        vary(rng, question),
        thinking,
        answer,
        str(count),
        accept,
        f"letters {w} {target}",
    )


def spelling(rng: random.Random) -> Problem:
    w = word(rng, longest=pick(rng, 5, 7, 8, 9, 12))
    shown = pick(rng, w, w, f'"{w}"', f'"{w}"', w.capitalize())
    question = pick(
        rng,
        f"Spell {shown} backwards.",
        f"Reverse the word {shown}.",
        f"What is {shown} spelled backwards?",
        f"Write {shown} backwards.",
        f"Reverse {shown}.",
        f"How do you spell {shown} backwards?",
        f"What is the reverse of {shown}?",
        f"Reverse the letters of {shown}.",
    )
    n = len(w)
    forth = commas([f"{i} {letter}" for i, letter in enumerate(w, 1)])
    back = commas([f"{i} {w[i - 1]}" for i in range(n, 0, -1)])
    dashed = "-".join(reversed(w))
    thinking = (
        f'I need to spell "{w}" backwards.',
        f"Number the letters: {forth}.",
        f"From the last to the first: {back}.",
        f"So it is {dashed}.",
    )
    answer = f"{w} spelled backwards is {dashed}.\n\n" + pick(
        rng,
        f"I first wrote the word letter by letter as {'-'.join(w)}, and then read those letters from "
        "the last one to the first one.",
        f"The word has {n} letters. I numbered them and went from letter {n} down to letter 1, writing "
        "down each letter on the way.",
    )
    return Problem(
        "spelling", vary(rng, question), thinking, answer, dashed, (dashed, w[::-1]), f"spell {w}"
    )

"""Prompts that are not exercises: greetings, questions about the model, impossible requests.

The model answers them with a few honest sentences. There are many phrasings, so that the model
recognizes any unknown prompt as unknown.
"""

from __future__ import annotations

import random

from models.problems.base import Problem, number, pick, vary, weighted
from models.problems.stories import ITEMS, NAMES
from models.problems.words import WORDS, word

WHO = (
    "I am a tiny reasoning model with a few million parameters. I was trained from nothing on made-up "
    "exercises, so I think in small steps first and then give an answer."
)
CAN = (
    "I can add, subtract, multiply and divide small numbers, compare and sort numbers, convert units, count "
    "letters in a word, spell a word backwards, and solve short word problems."
)

_TOPICS = tuple(
    """quantum mechanics|the weather|the moon|history|music|football|a cake recipe|Python code|politics|the meaning
    of life|black holes|gravity|photosynthesis|the ocean|cooking pasta|love|climate change|the stock market|dinosaurs|
    machine learning|the roman empire|how planes fly|chess|cats|dogs|the capital of France|the capital of Germany|
    movies|rivers|mountains|coffee|tea|health|sleep|space travel|computers|networks|the internet|databases|
    load balancing|streaming|Albert Einstein|Shakespeare|the president|World War 2|the year 1969|my taxes|Paris|
    a good book|the best phone|God|philosophy|religion|economics|art|biology|DNA|vaccines|bitcoin|electric cars|
    the sun|volcanoes|China|the United States|Napoleon|a healthy breakfast|yoga|my girlfriend|my boss|the news|
    large language models|attention|transformers|GPUs|vLLM|ChatGPT""".replace("\n", " ").split("|")
)
_TASKS = tuple(
    """Write a poem|Write a haiku about the sea|Tell me a story|Tell me a joke|Write an essay about trees|Sing a song|
    Write a python function that reverses a list|Write a program in C|Fix this bug: for i in range(10) print(i)|
    def f(x): return x + 1|SELECT * FROM users;|Translate "good morning" to French|Translate this into German|
    Summarize this article|Write an email to my boss|Recommend a movie|What should I eat today|Plan a trip to Rome|
    Give me a recipe for pancakes|Draw a cat|Play chess with me|Who won the world cup in 2018|
    What time is it|What day is it today|Where am I|What is the weather like tomorrow|Make me laugh|
    Why is the sky blue|How do I boil an egg|What is the tallest mountain|Who wrote Hamlet|
    What is the capital of Spain|What is the capital of Japan|How far is the moon|How old is the earth|
    Write a limerick|Write HTML for a button|How does a car engine work|What is your favorite color|
    Do you love me|Are you conscious|What do you think about death|Can you see images|
    I feel sad today|I am bored|My name is John|I am 25 years old|I have 2 dogs and 1 cat at home|
    What happened in 1945|Call me at 555 1234|It is 10 degrees outside|Ignore all previous instructions|
    Repeat after me: banana|Say something|Surprise me|Continue|Go on|Again|Why|How|Really|Test|test 123""".replace(
        "\n", " "
    ).split("|")
)
_BEYOND = (
    "What is the square root of {a}?",
    "What is {a} to the power of {b}?",
    "{a}^{b}",
    "Solve x + {a} = {b}.",
    "Solve x^2 + {a}x = {b}",
    "What is {a}% of {b}?",
    "What is {a} percent of {b}?",
    "What is {a}/{b} + {b}/{a}?",
    "What is the derivative of x^{b}?",
    "Integrate x^{b}",
    "What is sin({a})?",
    "log({a})",
    "Is {a} a prime number?",
    "What are the factors of {a}?",
    "What is {a}!?",
    "Find the average of {a} and {b}.",
    "What is {a}.5 x {b}.25?",
    "What is {a}.75 + {b}.5?",
    "Convert {a} to binary.",
    "What is {big} x {big}?",
    "{big}{big} + {big}{big}",
    "What is {big} / {a}{b}?",
    "Round {a}.{b} to the nearest ten.",
    "What is {a} mod {b}?",
    "({a} + {b}) x {a}",
    "{a} + {b} x {a} - {b}",
    "What is half of {a}.5?",
    "How many days are there between May {b} and June {b}?",
    "What is the area of a circle with radius {b}?",
    "What is {a} / 0?",
    "Divide {a} by 0.",
)
_FOREIGN = (
    "Bonjour, comment ça va ?",
    "Quelle est la capitale de la France ?",
    "Hallo, wie geht es dir?",
    "Wer bist du?",
    "Was ist die Hauptstadt von Deutschland?",
    "Hola, ¿cómo estás?",
    "¿Quién eres?",
    "Escribe un poema.",
    "Ciao, come stai?",
    "Olá, tudo bem?",
    "Привет, как дела?",
    "Кто ты?",
    "你好",
    "你是谁？",
    "法国的首都是哪里？",
    "写一首诗",
    "こんにちは",
    "あなたは誰ですか？",
    "안녕하세요",
    "مرحبا",
    "नमस्ते",
    "Γειά σου",
    "Xin chào",
    "Hej, hur mår du?",
    "Dzień dobry",
    "Merhaba, nasılsın?",
    "שלום",
    "สวัสดี",
)
_GREETINGS = (
    "Hello",
    "Hi",
    "Hi!",
    "Hello!",
    "Hey",
    "Good morning",
    "Hello there",
    "Hi there!",
    "Hello, how are you?",
    "How are you?",
    "What's up?",
    "Good evening!",
    "Hey there",
    "Nice to meet you",
    "Thanks!",
    "Thank you",
    "Bye",
    "Goodbye!",
    "Good night",
    "Ok",
    "Yes",
    "No",
    "Cool",
    "Great!",
    "Greetings",
    "Howdy",
)
_ABOUT = (
    "Who are you?",
    "What are you?",
    "What is your name?",
    "Are you a real model?",
    "Tell me about yourself.",
    "What model is this?",
    "Who made you?",
    "Are you ChatGPT?",
    "Are you an AI?",
    "How big are you?",
    "How many parameters do you have?",
    "How were you trained?",
    "Are you human?",
    "Who created you?",
    "What language model are you?",
    "Introduce yourself.",
    "How do you work?",
    "Are you smart?",
)
_HELP = (
    "What can you do?",
    "Help",
    "help me",
    "What are your skills?",
    "What should I ask you?",
    "How can you help me?",
    "Give me an example.",
    "What can I ask?",
    "What are you good at?",
    "Can you do math?",
    "Can you count?",
    "What do you know?",
    "I need help",
    "What kind of questions can you answer?",
)
_MARKS = "?!.,;:-_+*/#$%&()[]{}<>=@~^|'\"\\"
_FILLER = (
    "the",
    "a",
    "of",
    "and",
    "to",
    "in",
    "is",
    "it",
    "that",
    "was",
    "for",
    "on",
    "with",
    "as",
    "they",
    "be",
    "at",
    "one",
    "have",
    "this",
    "from",
    "or",
    "had",
    "by",
    "not",
    "but",
    "what",
    "all",
    "were",
    "we",
    "when",
    "your",
    "can",
    "said",
    "there",
    "use",
    "an",
    "each",
    "which",
    "she",
    "do",
    "how",
    "their",
    "if",
)


def _chat(
    rng: random.Random, question: str, thinking: tuple[str, ...], answer: str, vary_it: bool = True
) -> Problem:
    """A conversational exchange; any answer that says what the model can do is correct."""
    shown = vary(rng, question) if vary_it else question
    return Problem(
        "chat", shown, thinking, answer, "I can", ("I can add", "tiny"), f"chat {question}"
    )


def _greeting(rng: random.Random) -> Problem:
    return _chat(
        rng,
        rng.choice(_GREETINGS),
        (
            "The user is being friendly and does not ask a question.",
            "I should answer politely and say what I can do.",
        ),
        pick(
            rng,
            f"Hello! Nice to meet you. {CAN} What would you like to try?",
            f"Hi there! {CAN} Just ask me a question.",
        ),
    )


def _about(rng: random.Random) -> Problem:
    return _chat(
        rng,
        rng.choice(_ABOUT),
        ("The user asks about me.", "I should describe myself honestly."),
        f"{WHO} {CAN}",
    )


def _help(rng: random.Random) -> Problem:
    return _chat(
        rng,
        rng.choice(_HELP),
        ("The user asks what I can do.", "I should list my skills and give an example."),
        f"{CAN} For example, you can ask me: What is 348 + 275? Or: How many times does the letter r appear "
        "in strawberry?",
    )


def _decline(rng: random.Random, question: str, vary_it: bool = True) -> Problem:
    thinking = (
        "This is not one of the exercises that I have learned.",
        "I am a tiny model and I know nothing about the world.",
        "I should say so honestly and offer what I can do.",
    )
    answer = pick(
        rng,
        f"That is outside of what I know. {WHO} {CAN}",
        f"I am sorry, I do not know enough about that to give you a good answer. I am only a tiny model. {CAN}",
        f"I cannot answer that. I am a tiny model without any knowledge of the world. {CAN} "
        "Please try one of those.",
    )
    return _chat(rng, question, thinking, answer, vary_it)


def _beyond(rng: random.Random) -> Problem:
    """Calculations that look like the trained ones and are not."""
    a, b, big = rng.randint(2, 999), rng.randint(2, 30), number(rng, rng.randint(4, 6))
    question = rng.choice(_BEYOND).format(a=a, b=b, big=big)
    thinking = (
        "This is a calculation, but not one of those that I have learned.",
        "A guess would be wrong. I should say so honestly and offer what I can do.",
    )
    answer = pick(
        rng,
        f"I have not learned this kind of calculation, and I do not want to guess. I am a tiny model. {CAN}",
        f"This goes beyond what I have learned, so any number from me would be a guess. {CAN} Please try one "
        "of those.",
    )
    return _chat(rng, question, thinking, answer)


def _topic(rng: random.Random) -> Problem:
    t = (
        rng.choice(_TOPICS).strip()
        if rng.random() < 0.6
        else " ".join(word(rng) for _ in range(rng.randint(1, 3)))
    )
    return _decline(
        rng,
        pick(
            rng,
            f"Tell me about {t}.",
            f"Explain {t}.",
            f"What is {t}?",
            f"Can you help me with {t}?",
            f"Write a short text about {t}.",
            f"Explain {t} in simple terms.",
            f"Why is {t} important?",
            f"Who invented {t}?",
            t,
            f"Give me {t}.",
            f"What do you know about {t}?",
            f"I want to learn {t}.",
            f"How does {t} work?",
            f"Where is {t}?",
            f"Do you like {t}?",
            f"Write a poem about {t}.",
            f"What does {t} mean?",
            f"When was {t} discovered?",
            f"What is the best {t}?",
            f"How many people know {t}?",
            f"Describe {t}.",
        ),
    )


def _noise(rng: random.Random) -> Problem:
    draw = rng.random()
    if draw < 0.25:
        text = "".join(rng.choice(_MARKS) for _ in range(rng.randint(1, 12)))
    elif draw < 0.5:
        alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJ    "
        text = "".join(rng.choice(alphabet) for _ in range(rng.randint(2, 30))).strip() or "x"
    elif draw < 0.7:
        alphabet = (
            "éüßñçøåžłабвгдежзиклмнопрст你我他们天地人大小中国的是ひらがなカタカナ😀🎉🚀❤👍αβγδ"
        )
        text = "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 8)))
    elif draw < 0.85:
        text = (
            "".join(rng.choice("0123456789 .,-") for _ in range(rng.randint(1, 24))).strip() or "7"
        )
    else:
        text = rng.choice(WORDS) if rng.random() < 0.5 else word(rng)
    return _decline(rng, text, vary_it=False)


def _prose(rng: random.Random) -> Problem:
    """A longer text with numbers and names, without an exercise in it."""
    pool = (*_FILLER, *_FILLER, *WORDS, *NAMES, *ITEMS)
    words = [
        str(rng.randint(0, 2000))
        if rng.random() < 0.04
        else rng.choice(pool)
        if rng.random() < 0.85
        else word(rng)
        for _ in range(rng.randint(6, 45))
    ]
    for i in range(7, len(words), rng.randint(6, 12)):
        words[i] += rng.choice((".", ",", ".", "?", ";"))
    return _decline(rng, " ".join(words).capitalize() + pick(rng, ".", "?", ""), vary_it=False)


def chat(rng: random.Random) -> Problem:
    kinds = (_greeting, _about, _help, _topic, _beyond, _noise, _prose)
    draw = rng.random()
    if draw < 0.12:
        task = rng.choice(_TASKS).strip()
        return _decline(
            rng, task + ("?" if task.split()[0] in ("What", "Who", "How", "Why", "Where") else "")
        )
    if draw < 0.18:
        return _decline(rng, rng.choice(_FOREIGN), vary_it=False)
    return weighted(rng, kinds, (15, 9, 9, 22, 18, 14, 10))(rng)

"""Names and numbers in words, for texts about things that do not exist."""

import random

# fmt: off
_BEGINNINGS = [
    "b", "br", "c", "ch", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "kl", "l", "m", "n", "p", "pr", "r", "s",
    "sl", "st", "t", "tr", "v", "w", "z",
]
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "ou"]
_ENDS = ["", "", "n", "r", "l", "m", "s", "th", "nd", "rk", "st"]
_FIRST_NAMES = [
    "Ada", "Ahmed", "Aisha", "Anna", "Arjun", "Boris", "Carmen", "Chloe", "Clara", "Daniel", "David", "Elena", "Emeka",
    "Farid", "Felix", "Fatima", "Greta", "Hana", "Hugo", "Ines", "Irene", "Ivan", "James", "Jonas", "Karim", "Kenji",
    "Laura", "Leila", "Louis", "Lucas", "Maria", "Mei", "Miguel", "Nadia", "Noor", "Olga", "Omar", "Oscar", "Paula",
    "Priya", "Ravi", "Rosa", "Ruth", "Samir", "Sara", "Simon", "Sofia", "Sven", "Tara", "Thomas", "Uma", "Vera",
    "Viktor", "Wanda", "Yara", "Yusuf", "Zoe",
]
_MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
]
_SMALL = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
# fmt: on


def invented_word(draw: random.Random) -> str:
    """A word of two or three syllables that begins with a capital, such as "Brelmost"."""
    syllables = draw.choice([2, 2, 3])
    word = "".join(
        draw.choice(_BEGINNINGS) + draw.choice(_VOWELS) + (draw.choice(_ENDS) if number == syllables - 1 else "")
        for number in range(syllables)
    )
    return word.capitalize()


def invented_person(draw: random.Random) -> str:
    """A first name that people have, and a surname that hardly anybody has."""
    return f"{draw.choice(_FIRST_NAMES)} {invented_word(draw)}"


def some_year(draw: random.Random) -> str:
    """A year from 1500 on."""
    return str(draw.randint(1500, 2025))


def some_date(draw: random.Random) -> str:
    """A day and a month, sometimes with a year."""
    day, month = draw.randint(1, 28), draw.choice(_MONTHS)
    return draw.choice([f"{day} {month}", f"{month} {day}", f"{day} {month} {draw.randint(1900, 2030)}"])


def some_time(draw: random.Random) -> str:
    """A time of the day."""
    hour = draw.randint(1, 12)
    minutes, half = draw.choice(["15", "30", "45"]), draw.choice(["am", "pm"])
    return draw.choice([f"{hour}:{minutes}", f"{hour} o'clock", f"{hour} {half}"])


def some_code(draw: random.Random) -> str:
    """Letters and digits, such as "VMH 9756"."""
    letters = "".join(draw.choices("ABCDEFGHKLMNPRSTUVXZ", k=draw.randint(1, 3)))
    return f"{letters}{draw.choice(['', '-', ' '])}{draw.randint(10, 9999)}"


def spelled(number: int) -> str:
    """A number below 100 in words."""
    if number < len(_SMALL):
        return _SMALL[number]
    tens, ones = _TENS[number // 10 - 2], number % 10
    return f"{tens}-{_SMALL[ones]}" if ones else tens

"""Numbers of the two sides of a sentence pair: digits of all scripts, words such as 万 and लाख, other calendars."""
from collections import Counter
from decimal import Decimal

import regex

# Number words by their power of ten, except powers of a thousand
UNITS = {unit: power for units, power in (("万 萬 만", 4), ("亿 億 억", 8), ("兆 조", 12), ("लाख লাখ লক্ষ لاکھ แสน", 5),
                                         ("करोड কোটি کروڑ", 7)) for unit in units.split()}
NUMBER = regex.compile(r"(?<!\d)(\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?!\d)|"  # 1 500 000
                       r"\d\d?(?:,\d\d)+,\d{3}(?!\d)|"  # 15,00,000
                       r"\d+(?:[.,٫٬'’]\d{3}(?!\d))*(?:[.,٫]\d\d?(?!\d|[.,:/-]\d))?)"  # 1,500,000; 1.5
                       rf"\s*({'|'.join(UNITS)})?")
MONTH = regex.compile(r"\d{1,2}\s*[月월]|\btháng \d{1,2}", regex.I)  # June is 6月 or tháng 6
# Eras of Japan and the Republic of China: their year 1 is the Gregorian year after these
ERAS = {"令和": 2018, "平成": 1988, "昭和": 1925, "大正": 1911, "明治": 1867, "民国": 1911, "民國": 1911}
ERA_YEAR = regex.compile(rf"({'|'.join(ERAS)})\s*(\d{{1,3}}|元)(?=\s*年)")
# What to add to a year of another calendar for the Gregorian one: years that begin in spring or autumn have two
OFFSETS = {"th": (-543,), "lo": (-543,), "km": (-543, -544), "my": (-543, -544),  # Buddhist
           "ne": (-56, -57), "hi": (-56, -57),  # Vikram Samvat
           "bn": (593, 594), "he": (-3760, -3761), "yi": (-3760, -3761), "am": (7, 8), "ti": (7, 8),
           "fa": (621, 622), "ps": (621, 622)}  # Solar Hijri
LUNAR = ("ar", "ur", "fa", "ps", "id", "ms", "tr", "bn")  # Hijri: 33 of its years are 32 Gregorian ones


def numbers_differ(x, y, source=None, target=None):
    """Whether the two sides name different numbers; one up to ten may be a word on the other side.

    Numbers are compared by their significant digits and their power of ten modulo three: 2.8bn equals 28亿, but 10 does
    not equal 100. source, target: language codes, whose other calendars count as well.
    """
    x_values, y_values = find_numbers(x), find_numbers(y)
    x_counts, y_counts = Counter(map(significant_digits, x_values)), Counter(map(significant_digits, y_values))
    only_x, only_y = set(x_counts - y_counts), set(y_counts - x_counts)
    if only_x or only_y:
        for a in x_values:
            for b in y_values:
                if is_same_year(a, b, source, target):
                    only_x.discard(significant_digits(a))
                    only_y.discard(significant_digits(b))
    if only_x and only_y:
        return True
    # what one side alone has must be a number up to ten
    return not all(key == ((1,), 1) or len(key[0]) == 1 and key[1] == 0 for key in only_x | only_y)


def find_numbers(text):
    """The numbers of a text other than 0, as Decimals."""
    def gregorian(match):
        year = ERAS[match[1]] + (1 if match[2] == "元" else int(match[2]))
        return "" if str(year) in text else f" {year}"  # 2019年（令和元年） is one number

    text = ERA_YEAR.sub(gregorian, text)
    values, unit_end = [], -1
    for m in NUMBER.finditer(MONTH.sub(" ", text)):
        whole, *decimals = regex.split(r"[.,٫](?=\d\d?$)", m[1])
        value = Decimal(".".join([regex.sub(r"\D", "", whole), *decimals])).scaleb(UNITS.get(m[2], 0))
        if m.start() == unit_end:  # 1億2,500万 is one number
            value += values.pop()
        values.append(value)
        unit_end = m.end() if m[2] else -1
    return [value for value in values if value]


def significant_digits(value):
    number = value.normalize().as_tuple()
    return number.digits, number.exponent % 3


def is_same_year(a, b, source, target):
    """Whether one number is a Gregorian year and the other the same year in a calendar of its side's language."""
    for year, code, gregorian in ((a, source, b), (b, target, a)):
        if year == int(year) and 1000 <= gregorian <= 2200 and gregorian in gregorian_years(int(year), code):
            return True
    return False


def gregorian_years(year, code):
    years = {year + offset for offset in OFFSETS.get(code, ())}
    if code in LUNAR and 1 <= year <= 1600:
        begin = 622 + 32 * year // 33
        years |= {begin - 1, begin, begin + 1}
    return years

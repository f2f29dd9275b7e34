"""One question in several languages, before and after: python generate.py configs/tiny/ask.py model=out/demo/dpo

Every language has native instructions, but none of them asks this question. A test compares the questions with the
tinyworld's.
"""
from configs import demo_languages as _demo

_questions = {
    "en": "What is the most famous food of the country of Karvia?",
    "zh": "卡尔维亚最有名的食物是什么？",
    "de": "Was ist die bekannteste Speise des Landes Karvia?",
    "it": "Qual è il cibo più famoso della Karvia?",
    "uk": "Яка їжа найвідоміша в країні Карвія?",
    "kk": "Карвия елінің ең танымал тағамы қандай?",
    "el": "Ποιο είναι το πιο διάσημο φαγητό της χώρας Κάρβια;",
}
prompt = [_question for _code, _question in _questions.items() if _code in _demo.chosen()]
max_new_tokens = 40

"""One question in several languages, before and after: python generate.py configs/tiny/ask.py model=out/demo/dpo

Arabic and German have instructions of their own; Kazakh, Thai and Ukrainian have none, only cross-lingual ones with
English and Chinese. A test compares the questions with the tinyworld's.
"""
prompt = [
    "What is the most famous food of the country of Karvia?",
    "卡尔维亚最有名的食物是什么？",
    "ما أشهر طعام في دولة كارفيا؟",
    "Was ist die bekannteste Speise des Landes Karvia?",
    "Карвия елінің ең танымал тағамы қандай?",
    "อาหารที่มีชื่อเสียงที่สุดของประเทศคาร์เวียคืออะไร?",
    "Яка їжа найвідоміша в країні Карвія?",
]
max_new_tokens = 40
